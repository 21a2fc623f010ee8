"""Operational transform on a document's text: its revisions, in one order.

`revisions` decides what may enter that order and where clients stand in it, `decisions` has what it
answers, `revision` one revision and the floor as bytes, `sources` who has submitted what.  Nothing
here applies anything to a CRDT, writes to a store, or sends.
"""

from crdt_state.bridge.decisions import (
    Accepted,
    Decision,
    Malformed,
    Moved,
    OutOfOrder,
    Reason,
    Repeated,
    Snapshot,
    Stale,
)
from crdt_state.bridge.revision import Floor, Revision, decode, encode, epoch_of
from crdt_state.bridge.revisions import Revisions
from crdt_state.bridge.sources import Last

__all__ = [
    "Revisions",
    "Revision",
    "Floor",
    "Last",
    "epoch_of",
    "encode",
    "decode",
    "Decision",
    "Accepted",
    "Repeated",
    "OutOfOrder",
    "Stale",
    "Reason",
    "Malformed",
    "Moved",
    "Snapshot",
]
