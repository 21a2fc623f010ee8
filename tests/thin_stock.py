"""Unmodified npm `sharedb` clients in Node, at a running server, moved from Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from running import eventually

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
    heard: list[list[Any]] = field(default_factory=list)
    """What has happened and was not asked for yet: [what, code of an error or None]."""

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

    async def state(self) -> str:
        """How its connection is: connecting, connected, disconnected."""
        return str(await self.clients.call(self.name, "state"))

    async def closes(self) -> list[tuple[int, str]]:
        """Code and reason of every end of a connection so far."""
        return [(code, reason) for code, reason in await self.clients.call(self.name, "closes")]

    async def events(self) -> list[list[Any]]:
        """What has happened since this was last asked, but for ends of connections."""
        found: list[list[Any]] = await self.clients.call(self.name, "events")
        return [event for event in found if event[0] != "closed"]

    async def outcome(self, what: str) -> Any:
        """Wait until `what` has happened: the code of its error, or None."""

        async def has_happened() -> bool:
            self.heard.extend(await self.clients.call(self.name, "events"))
            return any(event[0] == what for event in self.heard)

        await eventually(has_happened, True, what=f"{what!r} at {self.name}")
        event = next(event for event in self.heard if event[0] == what)
        self.heard.remove(event)
        return event[1]

    async def ask(self, verb: str, *operands: Any) -> Any:
        """A verb about the document that is answered, and its outcome."""
        await self.do(verb, *operands)
        answers = {"create": "created", "submit": "submitted", "del": "deleted"}
        return await self.outcome(f"{self.key} {answers.get(verb, verb)}")
