"""The native engine behind one door: the only package that imports pycrdt.

What is above it knows Yjs updates as bytes and never meets a native object.  In here nobody knows
of code points, types or users: text is counted in bytes of UTF-8 as the engine counts it, and
every check of an index or a value has been made before a call arrives here.

1. A panic of the engine becomes `EngineFailed` and ends that `NativeDocument`: whatever it held
   may be half done.  Bytes that do not decode become `UpdateMalformed` and change nothing.
2. Callbacks run after the outermost transaction has been committed, never inside the engine: the
   document's first, then the containers' in the order of their naming.  So they may read and
   write, and what they raise harms neither the transaction nor one another.  What they pass to
   `later` runs behind all of them; that is where an application's own callbacks belong.
3. A transaction that changed something gives exactly one update.
4. `close` gives the memory back at once.  A document that nobody closed is collected as any
   object is, though the engine itself never collects one that is observed.

    guard, ties              panics named; what holds native memory, and lets go of it
    updates, folding         bytes in, bytes out
    document, delivery       one document, its transactions, and what they tell whom
    container, text, places, map, array, undo
    kinds, plain, content    what is in a document, as Python values
"""

from crdt_state.model.engine.array import NativeArray
from crdt_state.model.engine.document import NativeDocument
from crdt_state.model.engine.folding import fold
from crdt_state.model.engine.kinds import RootKind
from crdt_state.model.engine.map import NativeMap
from crdt_state.model.engine.text import NativeText
from crdt_state.model.engine.undo import NativeUndo
from crdt_state.model.engine.updates import diff, merge, state_vector_of
from crdt_state.model.ranges import Place
from crdt_state.model.state import (
    EMPTY_UPDATE,
    EMPTY_VECTOR,
    DeleteSet,
    decode_delete_set,
    decode_state_vector,
    digest_of,
    encode_state_vector,
)

__all__ = [
    "EMPTY_UPDATE",
    "EMPTY_VECTOR",
    "DeleteSet",
    "NativeArray",
    "NativeDocument",
    "NativeMap",
    "NativeText",
    "NativeUndo",
    "Place",
    "RootKind",
    "decode_delete_set",
    "decode_state_vector",
    "diff",
    "digest_of",
    "encode_state_vector",
    "fold",
    "merge",
    "state_vector_of",
]
