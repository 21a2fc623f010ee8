"""The sockets of a listener: WebSocket and plain HTTP GET on one port, by `websockets`.

Before a token is looked at, a peer can cost us: one socket of those its address may hold, a
request of the library's bounded size, and the handshake's seconds.
"""

from __future__ import annotations

import asyncio
import http
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.http11 import Response

from crdt_state.transport.intake import Intake, MeteredConnection
from crdt_state.transport.listener import Visit
from crdt_state.transport.websocket import WebSocketConnection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request

    from crdt_state.limits import Limits
    from crdt_state.transport.listener import Listener
    from crdt_state.transport.origin import OriginRules

__all__ = ["Answer", "Asked", "WebSocketServer"]

PROTOCOL = "crdt-state"
TOKEN_PROTOCOL = "token."  # noqa: S105 - the prefix of a protocol's name, not a secret

OTHER_METHOD = re.compile(rb"(?!GET )([A-Z]{1,20}) ([!-~]{1,8000}) HTTP/1\.[01]\r\n")
"""The beginning of a request that wants to change something, or only the head."""


class Asked(NamedTuple):
    """A request that wants no WebSocket."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]


class Answer(NamedTuple):
    """What it gets; `Content-Length` and `Connection` are added."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class WebSocketServer:
    """Listens on one address; from `start` to `drain`."""

    def __init__(
        self,
        listener: Listener,
        limits: Limits,
        *,
        host: str,
        port: int,
        rules: OriginRules,
        answer: Callable[[Asked], Awaitable[Answer | None]],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.origins_refused = 0
        self.addresses_refused = 0
        self.intake = Intake(limits)
        self._listener = listener
        self._limits = limits
        self._host = host
        self._port = port
        self._rules = rules
        self._answer = answer
        self._tls = tls
        self._per_address: Counter[str] = Counter()
        self._server: Server | None = None
        self._alive: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Begin to accept; the port, which was chosen by the system where 0 was asked for.

        Raises `OSError` when the address cannot be had.
        """
        self._server = await serve(
            self._converse,
            self._host,
            self._port,
            ssl=self._tls,
            process_request=self._before_handshake,
            select_subprotocol=_chosen,
            create_connection=self._connection_class(),
            compression=None,
            open_timeout=self._limits.handshake_seconds_max,
            close_timeout=self._limits.close_seconds_max,
            max_size=self._limits.message_bytes_max,
            server_header=None,
        )
        self._alive = asyncio.create_task(self._listener.show_life())
        sockets = self._server.sockets
        return int(sockets[0].getsockname()[1])

    async def drain(self) -> None:
        """Stop accepting, let the listener say goodbye, and end within the bound."""
        if self._server is None:
            return
        self._server.close(close_connections=False)
        try:
            async with asyncio.timeout(self._limits.drain_seconds_max):
                await self._listener.drain()
                await self._server.wait_closed()
        except TimeoutError:
            for connection in self._server.connections:
                connection.transport.abort()
        finally:
            if self._alive is not None:
                self._alive.cancel()

    # --- one connection ----------------------------------------------------------------------

    async def _converse(self, wire: ServerConnection) -> None:
        request = wire.request
        if request is None:
            raise AssertionError("the library calls the handler after the handshake")
        path, _, query = request.path.partition("?")
        token = _token(query, request.headers)
        await self._listener.converse(WebSocketConnection(wire, self._limits), Visit(path, token))

    async def _before_handshake(self, wire: ServerConnection, request: Request) -> Response | None:
        refusal = self._rules.refusal(
            host=request.headers.get_all("Host"), origin=request.headers.get_all("Origin")
        )
        if refusal is not None:
            self.origins_refused += 1
            return wire.respond(http.HTTPStatus.FORBIDDEN, f"refused: {refusal}\n")
        asked = Asked("GET", request.path, tuple(request.headers.raw_items()))
        answer = await self._answer(asked)
        return None if answer is None else _response(answer)

    async def _answer_other(self, transport: asyncio.Transport, asked: Asked) -> None:
        """Answer a request with another method than GET: that it may not be."""
        answer = await self._answer(asked)
        if answer is None:
            answer = Answer(http.HTTPStatus.METHOD_NOT_ALLOWED, (("Allow", "GET"),), b"")
        response = _response(answer)
        if asked.method == "HEAD":
            response.body = b""
        transport.write(response.serialize())
        if transport.can_write_eof():
            transport.write_eof()

    def _connection_class(self) -> type[ServerConnection]:
        server = self

        class BoundedConnection(MeteredConnection):
            """Counts itself against its address from the first packet on."""

            intake = server.intake
            counted_for: str | None = None
            has_begun = False
            is_answered = False

            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                peer = transport.get_extra_info("peername")
                address = str(peer[0]) if isinstance(peer, tuple) else "local"
                if not server._enter(address):
                    transport.abort()
                    return
                self.counted_for = address

            def data_received(self, data: bytes) -> None:
                found = None if self.has_begun else OTHER_METHOD.match(data)
                self.has_begun = True
                if found is not None:
                    # The library drops what has another method or a body without a word.
                    self.is_answered = True
                    method, target = found[1].decode(), found[2].decode()
                    server._start(server._answer_other(self.transport, Asked(method, target, ())))
                if not self.is_answered:
                    super().data_received(data)
                # The body of what was answered is not ours to keep; the peer hangs up when it
                # has the answer, or is cut off when the handshake's time is over.

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                if self.counted_for is not None:
                    server._leave(self.counted_for)

        return BoundedConnection

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _enter(self, address: str) -> bool:
        here = self._per_address[address]
        if (
            here >= self._limits.connections_per_address_max
            or self._per_address.total() >= self._limits.connections_max
        ):
            self.addresses_refused += 1
            return False
        self._per_address[address] = here + 1
        return True

    def _leave(self, address: str) -> None:
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]


def _response(answer: Answer) -> Response:
    headers = Headers(answer.headers)
    headers["Connection"] = "close"
    headers["Content-Length"] = str(len(answer.body))
    status = http.HTTPStatus(answer.status)
    return Response(status.value, status.phrase, headers, answer.body)


def _chosen(_: ServerConnection, offered: Sequence[Any]) -> Any:
    """A browser that offers protocols gives up unless one of them is chosen."""
    if PROTOCOL in offered:
        return PROTOCOL
    return offered[0] if offered else None


def _token(query: str, headers: Headers) -> str | None:
    """The token of `?token=`, of a subprotocol `token.…`, or of `Authorization: Bearer`."""
    for value in parse_qs(query).get("token", ()):
        return value
    for header in headers.get_all("Sec-WebSocket-Protocol"):
        for name in header.split(","):
            if name.strip().startswith(TOKEN_PROTOCOL):
                return name.strip().removeprefix(TOKEN_PROTOCOL)
    for header in headers.get_all("Authorization"):
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "bearer":
            return value.strip()
    return None
