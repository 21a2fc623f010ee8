"""A thin client: a document that knows operations and revisions, and no CRDT.

    document = ThinDocument(TEXT_UNICODE, source="7f3a9c")
    document.edit(Operation.of(Insert("hello")))
    saved = document.export()

`document` is the machine, `messages` what it says and is told, `rejoining` how it finds what has
become of a text while it could not be told, `saved` its state as bytes.  No socket and no task is
here: whoever has a connection carries messages, each way in their order.
"""

from crdt_client.thin.document import Phase, ThinDocument
from crdt_client.thin.messages import HandedBack, News, Rejoined, Resume, Submit, Why

__all__ = ["HandedBack", "News", "Phase", "Rejoined", "Resume", "Submit", "ThinDocument", "Why"]
