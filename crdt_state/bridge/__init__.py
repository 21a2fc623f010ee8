"""Operational transform on a document's text: its revisions, in one order.

`revisions` decides what may enter that order and where clients stand in it, `decisions` has what it
answers, `revision` one revision and the floor as bytes, `sources` who has submitted what.  Nothing
here applies anything to a CRDT, writes to a store, or sends.  Whoever does has to keep this:

1. What was `Accepted` is applied and observed before anything else happens to the text.
2. Revisions are written by the commit that changes the text, and published when it is durable; each
   goes to every subscriber, its own submitter included, for whom it is the acknowledgement.
3. `Repeated` is said when its number is published, and never before the revisions up to it.
4. A client that resumes ends every other connection of its name first.
5. After a failed commit, whoever submitted something that is lost is cut off, and sends it again.
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
