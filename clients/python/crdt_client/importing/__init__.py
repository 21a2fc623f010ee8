"""Documents from elsewhere: files other programs wrote, and the way they take into a store.

`source` finds out what a path holds and yields `ForeignDocument`s; `importer` takes one after the
other through the guard into a replica; `folder` writes and reads our own portable form.
"""

from crdt_client.importing.foreign import ForeignDocument
from crdt_client.importing.importer import Importer, Outcome, Result
from crdt_client.importing.source import Format, Source, open_source

__all__ = ["ForeignDocument", "Format", "Importer", "Outcome", "Result", "Source", "open_source"]
