"""A thin client: documents that know operations and revisions, and no CRDT.

    async with ThinClient("ws://localhost:1234") as client:
        text = await client.open("notes/today", format=TEXT_UNICODE)
        text.insert(0, "hello")
        await text.saved()

`client` has the connection and `text` a document in an application's hands.  Beneath them all is
decided without a socket, a task or a clock: `document` is the machine, `messages` what it says and
is told, `rejoining` how it finds what has become of a text while it could not be told, `saved` its
state as bytes; `wire` carries it over ShareDB's protocol, a `conversation` for each document.
"""

from crdt_client.thin.client import ThinClient
from crdt_client.thin.document import Phase, ThinDocument
from crdt_client.thin.messages import HandedBack, News, Rejoined, Resume, Submit, Why
from crdt_client.thin.progress import Progress
from crdt_client.thin.text import ThinText
from crdt_state.ot.formats import RICH_TEXT, TEXT_UNICODE

__all__ = [
    "HandedBack",
    "News",
    "Phase",
    "Progress",
    "RICH_TEXT",
    "Rejoined",
    "Resume",
    "Submit",
    "TEXT_UNICODE",
    "ThinClient",
    "ThinDocument",
    "ThinText",
    "Why",
]
