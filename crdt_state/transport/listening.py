"""A replica of an application that others may dial.

The server of this package listens in the same way and has more around it: settings, HTTP
endpoints, metrics.
"""

from __future__ import annotations

import http
from typing import TYPE_CHECKING, Self

from crdt_state.errors import UsageError
from crdt_state.security.tokens import NoAuthentication
from crdt_state.transport.listener import Listener
from crdt_state.transport.origin import is_loopback, origin_rules
from crdt_state.transport.websocket_server import Answer, Asked, WebSocketServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.security.tokens import Authentication

__all__ = ["Listening"]

NO_PAGE = b"replicas and Yjs clients connect here over WebSocket; there are no pages\n"


class Listening:
    """An address at which a replica is to be had; made by `Replica.listen`."""

    def __init__(
        self,
        url: str,
        listener: Listener,
        server: WebSocketServer,
        closed: Callable[[Listening], None],
    ) -> None:
        self.url = url
        """Where to dial."""
        self.listener = listener
        self._server = server
        self._closed = closed
        self._is_closed = False

    @classmethod
    async def begin(
        cls,
        shell: ReplicaShell,
        host: str,
        port: int,
        *,
        authentication: Authentication | None,
        allowed_hosts: Sequence[str],
        tls: ssl.SSLContext | None,
        closed: Callable[[Listening], None],
    ) -> Self:
        """Listen; see `Replica.listen`, which tells what is raised."""
        if authentication is None and not is_loopback(host):
            raise UsageError(
                f"{host!r} can be reached from other machines, and without authentication "
                "everybody there could read and write every document; give `authentication`, or "
                "listen on localhost"
            )
        listener = Listener(shell, authentication or NoAuthentication())
        server = WebSocketServer(
            listener,
            shell.limits,
            host=host,
            port=port,
            rules=origin_rules(host=host, allowed_hosts=allowed_hosts),
            answer=_answer,
            tls=tls,
        )
        bound = await server.start()
        shown = f"[{host}]" if ":" in host else host
        return cls(f"{'wss' if tls else 'ws'}://{shown}:{bound}", listener, server, closed)

    async def close(self) -> None:
        """Let nobody in any more, make everything durable, say goodbye; once."""
        if not self._is_closed:
            self._is_closed = True
            self._closed(self)
            await self._server.drain()


async def _answer(asked: Asked) -> Answer | None:
    if any(
        "websocket" in value.lower() for key, value in asked.headers if key.lower() == "upgrade"
    ):
        return None
    status = http.HTTPStatus.UPGRADE_REQUIRED
    return Answer(status, (("Content-Type", "text/plain"), ("Upgrade", "websocket")), NO_PAGE)
