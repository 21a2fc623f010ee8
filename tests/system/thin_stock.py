"""Unmodified npm `sharedb` clients in Node, at a running server, moved from Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stock import StockClients

__all__ = ["PROGRAM", "StockThin"]

PROGRAM = "sharedb.mjs"


@dataclass(frozen=True)
class StockThin:
    """One client, at one document of a collection."""

    clients: StockClients
    name: str
    collection: str
    key: str

    async def dial(self, url: str) -> None:
        """Connect to a server, for the first time or again."""
        await self.clients.call(self.name, "dial", url)

    async def do(self, verb: str, *operands: Any) -> Any:
        """A verb of tests/js/sharedb.mjs, about the document."""
        return await self.clients.call(self.name, verb, self.collection, self.key, *operands)

    async def cut(self) -> None:
        """Lose the line."""
        await self.clients.call(self.name, "cut")

    async def show(self) -> dict[str, Any]:
        """What it has of the document: data, version, subscribed, type, pending."""
        found: dict[str, Any] = await self.do("show")
        return found

    async def data(self) -> Any:
        """What it shows, once nothing waits; None as long as something does."""
        shown = await self.show()
        return None if shown["pending"] else shown["data"]

    async def events(self) -> list[list[Any]]:
        """What has happened since this was last asked: [what, code of an error or None]."""
        found: list[list[Any]] = await self.clients.call(self.name, "events")
        return found
