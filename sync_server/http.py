"""What the server answers to plain HTTP requests, beside its WebSockets.

    GET /                           `okay`, as servers of y-websocket do
    GET /health                     200 while the process answers
    GET /ready                      200 while documents are served, else 503
    GET /metrics                    Prometheus' text form, where it is on
    GET /-/api/documents            a page of the documents the bearer may read, in the order of
                                    ids; `prefix`, `after` (an id) and `limit` narrow it
    GET /-/api/head/<id>            one document in numbers
    GET /-/api/update/<id>          all of it as one Yjs update (V1)
    GET /-/api/json/<id>            its content as JSON
    GET /-/api/peers                the topology that this replica takes part in, and whom it dials;
                                    for bearers who may relay

The kind stands before the id, because an id may hold slashes and end in any word.  Ids are
percent-encoded, and read exactly as in the path of a WebSocket.

`route` decides what a request asks for, without doing anything; `Endpoints` fetches it from a
`Library` and answers.  Origin and Host are checked before, for every request (`transport.origin`).

1. Nothing of a document, not even that it exists, is told to somebody who may not read it.
2. A token is taken from the `Authorization` header only: the path of a request stands in logs.
3. Every error is a JSON object (RFC 9457) whose `detail` says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import parse_qsl, quote

import orjson

from crdt_state.errors import CrdtStateError, InvalidDocumentId, StoreError, TokenRejected
from crdt_state.identifiers import DOCUMENT_ID_BYTES_MAX, document_id_from_path
from crdt_state.limits import DEFAULT_LIMITS
from sync_server import metrics as prometheus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crdt_state.clocks import Clock
    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.security.grant import Grant
    from crdt_state.security.tokens import Authentication
    from crdt_state.storage.contract import Summary
    from sync_server.metrics import ServerMetrics

__all__ = [
    "Endpoints",
    "Kind",
    "Library",
    "ListDocuments",
    "ListPeers",
    "OpenSocket",
    "Page",
    "Readiness",
    "Request",
    "Response",
    "Route",
    "ShowDocument",
    "problem",
    "route",
]

API = "/-/api/"
LIMIT_DEFAULT = 100
SCAN_DOCUMENTS = 1_000
RETRY_SECONDS = "5"

# A response is data and never a page that runs something, whatever a browser makes of it.
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request line and headers; `path` is the raw request target, with its query."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()

    def values(self, name: str) -> tuple[str, ...]:
        """Return all values of the header `name`."""
        return tuple(value for key, value in self.headers if key.lower() == name.lower())


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer; the shell adds `Content-Length` and `Connection`."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Page(Enum):
    """Answers that need no document."""

    OKAY = "/"
    HEALTH = "/health"
    READY = "/ready"
    METRICS = "/metrics"


class Kind(Enum):
    """What of a document is asked for."""

    HEAD = "head"
    UPDATE = "update"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class ListDocuments:
    """A page of the list: at most `limit` ids with `prefix` behind `after`."""

    prefix: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True)
class ShowDocument:
    """One document, in one form."""

    kind: Kind
    document: DocumentId


@dataclass(frozen=True, slots=True)
class ListPeers:
    """The topology, and whom this replica dials."""


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Not for us: the request asks for a WebSocket."""


Route: TypeAlias = Page | ListDocuments | ShowDocument | ListPeers | OpenSocket


class Readiness(Enum):
    """Whether documents are served."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Library(Protocol):
    """The documents, as these endpoints need them; None means there is no such document."""

    async def list(self, *, prefix: str, after: str, limit: int) -> Sequence[Summary]:
        """Return at most `limit` documents with `prefix` behind `after`, in the order of ids."""

    async def head(self, document: DocumentId) -> Summary | None:
        """Return a document in numbers."""

    async def update(self, document: DocumentId) -> bytes | None:
        """Return all of a document as one Yjs update."""

    async def as_json(self, document: DocumentId) -> bytes | None:
        """Return the content of a document as JSON text."""

    def peers(self) -> dict[str, Any]:
        """Return the name of the topology, or None, and what is seen of each peer."""


class _Refusal(Exception):
    """Carries the response that ends a request."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def problem(
    status: HTTPStatus, detail: str, *, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    """Make an error as JSON (RFC 9457); `detail` says what was wrong and what to do."""
    body = {"title": status.phrase, "status": status.value, "detail": detail}
    return _response(
        status,
        "application/problem+json",
        orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE),
        headers=headers,
    )


def route(request: Request, *, limits: Limits = DEFAULT_LIMITS) -> Route | Response:
    """Decide what `request` asks for; a `Response` is the refusal."""
    try:
        return _decide(request, limits)
    except _Refusal as refusal:
        return refusal.response


class Endpoints:
    """Answers requests.  The server sets `readiness` as it starts and drains."""

    def __init__(
        self,
        library: Library,
        authentication: Authentication,
        clock: Clock,
        *,
        metrics: ServerMetrics,
        shows_metrics: bool = True,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.readiness = Readiness.STARTING
        self._library = library
        self._authentication = authentication
        self._clock = clock
        self._metrics = metrics
        self._shows_metrics = shows_metrics
        self._limits = limits

    async def answer(self, request: Request) -> Response | None:
        """Return the answer, or None when the request asks for a WebSocket."""
        try:
            asked = _decide(request, self._limits)
            if isinstance(asked, OpenSocket):
                return None
            if isinstance(asked, Page):
                return self._page(asked)
            if isinstance(asked, ListPeers):
                return self._peers(self._grant(request))
            return await self._of_documents(asked, self._grant(request))
        except _Refusal as refusal:
            return refusal.response

    async def _of_documents(self, asked: ListDocuments | ShowDocument, grant: Grant) -> Response:
        try:
            if isinstance(asked, ListDocuments):
                return await self._list(asked, grant)
            return await self._show(asked, grant)
        except StoreError:
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the store cannot be read now; the server's log says why",
                headers=(("Retry-After", RETRY_SECONDS),),
            )
        except CrdtStateError as error:
            return problem(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                f"the document cannot be shown ({type(error).__name__}); "
                "`crdt-state list` names documents that were set aside",
            )

    def _page(self, page: Page) -> Response:
        match page:
            case Page.OKAY:
                return _response(HTTPStatus.OK, "text/plain", b"okay")
            case Page.HEALTH:
                return _json(HTTPStatus.OK, {"status": "ok"})
            case Page.READY:
                if self.readiness is Readiness.READY:
                    return _json(HTTPStatus.OK, {"status": self.readiness.value})
                return _json(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    {"status": self.readiness.value},
                    headers=(("Retry-After", RETRY_SECONDS),),
                )
            case Page.METRICS:
                if not self._shows_metrics:
                    return problem(
                        HTTPStatus.NOT_FOUND, "metrics are off; the setting `metrics` is for that"
                    )
                return _response(HTTPStatus.OK, prometheus.CONTENT_TYPE, self._metrics.render())

    def _grant(self, request: Request) -> Grant:
        try:
            token = _bearer(request)
            return self._authentication.grant(token, now=self._clock.wall())
        except TokenRejected as error:
            self._metrics.authentication_failed(error)
            detail = f"{error.reason}; send a valid one as `Authorization: Bearer <token>`"
            challenge = ("WWW-Authenticate", 'Bearer realm="crdt-state"')
            raise _Refusal(problem(HTTPStatus.UNAUTHORIZED, detail, headers=(challenge,))) from None

    def _peers(self, grant: Grant) -> Response:
        if not grant.may_relay:
            return problem(
                HTTPStatus.FORBIDDEN,
                "this token does not let you see the peers; its claim `relay` has to be true",
            )
        return _json(HTTPStatus.OK, self._library.peers())

    async def _show(self, asked: ShowDocument, grant: Grant) -> Response:
        document = asked.document
        if not grant.may_read(document):
            return problem(
                HTTPStatus.FORBIDDEN,
                "this token does not let you read that document; "
                "its claim `documents` has to cover the id",
            )
        headers = (("Content-Disposition", f"attachment; filename*=UTF-8''{_filename(asked)}"),)
        body: bytes | None
        match asked.kind:
            case Kind.HEAD:
                summary = await self._library.head(document)
                if summary is not None:
                    return _json(HTTPStatus.OK, summary.in_numbers())
            case Kind.UPDATE:
                body = await self._library.update(document)
                if body is not None:
                    kind = "application/octet-stream"
                    return _response(HTTPStatus.OK, kind, body, headers=headers)
            case Kind.JSON:
                body = await self._library.as_json(document)
                if body is not None:
                    return _response(HTTPStatus.OK, "application/json", body)
        return problem(HTTPStatus.NOT_FOUND, "there is no document of this id")

    async def _list(self, asked: ListDocuments, grant: Grant) -> Response:
        found: list[Summary] = []
        scanned = 0
        is_complete = True
        for prefix in grant.prefixes(asked.prefix):
            after = asked.after
            # One more than asked for tells whether there is a next page.
            while len(found) <= asked.limit:
                rows = await self._library.list(prefix=prefix, after=after, limit=SCAN_DOCUMENTS)
                found.extend(row for row in rows if grant.may_read(row.document))
                scanned += len(rows)
                if len(rows) < SCAN_DOCUMENTS:
                    break
                after = rows[-1].document
                if scanned >= self._limits.http_page_scanned_documents_max:
                    is_complete = False
                    break
            if len(found) > asked.limit or not is_complete:
                break
        if not found and not is_complete:
            # Where the reading stopped is the id of a document that the bearer may not know of,
            # so it cannot be where the next page begins.
            return problem(
                HTTPStatus.BAD_REQUEST,
                f"the first {scanned:,} documents with this prefix are not for you; "
                "ask with a longer `prefix`",
            )
        page = found[: asked.limit]
        has_more = len(found) > asked.limit or not is_complete
        return _json(
            HTTPStatus.OK,
            {
                "documents": [summary.in_numbers() for summary in page],
                "next": page[-1].document if has_more else None,
            },
        )


def _decide(request: Request, limits: Limits) -> Route:
    if len(request.path) > limits.http_path_bytes_max:
        detail = f"the path is longer than {limits.http_path_bytes_max} bytes"
        raise _Refusal(problem(HTTPStatus.REQUEST_URI_TOO_LONG, detail))
    if any("websocket" in value.lower() for value in request.values("upgrade")):
        return OpenSocket()
    if request.method != "GET":
        raise _Refusal(
            problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "everything here is read-only; documents are edited over WebSocket",
                headers=(("Allow", "GET"),),
            )
        )
    if not request.path.startswith("/"):
        detail = "the request target has to begin with '/'"
        raise _Refusal(problem(HTTPStatus.BAD_REQUEST, detail))
    path, _, query = request.path.partition("?")
    if path.startswith(API):
        return _api_route(path.removeprefix(API), query, limits)
    return _page_route(path)


def _page_route(path: str) -> Page:
    try:
        return Page(path)
    except ValueError:
        pass
    if path.startswith("/-/"):
        raise _Refusal(
            problem(HTTPStatus.NOT_FOUND, f"there is nothing here; documents are below {API}")
        )
    raise _Refusal(
        problem(
            HTTPStatus.UPGRADE_REQUIRED,
            f"a document is opened here over WebSocket; to read one over HTTP, see {API}documents",
            headers=(("Upgrade", "websocket"),),
        )
    )


def _api_route(path: str, query: str, limits: Limits) -> ListDocuments | ShowDocument | ListPeers:
    word, slash, encoded = path.partition("/")
    if word == "peers" and not slash:
        return ListPeers()
    if word == "documents" and not slash:
        return _list_route(query, limits)
    try:
        kind = Kind(word)
    except ValueError:
        raise _Refusal(
            problem(
                HTTPStatus.NOT_FOUND,
                f"{API} has `documents`, `peers`, `head/<id>`, `update/<id>` and `json/<id>`",
            )
        ) from None
    if query:
        raise _Refusal(problem(HTTPStatus.BAD_REQUEST, "a document takes no parameters"))
    try:
        return ShowDocument(kind, document_id_from_path(encoded))
    except InvalidDocumentId as error:
        raise _Refusal(problem(HTTPStatus.BAD_REQUEST, str(error))) from None


def _list_route(query: str, limits: Limits) -> ListDocuments:
    largest = limits.http_page_documents_max
    given = {"prefix": "", "after": "", "limit": str(min(LIMIT_DEFAULT, largest))}
    names = ", ".join(f"`{name}`" for name in given)
    try:
        parameters = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=len(given),
        )
    except ValueError:
        raise _Refusal(
            problem(HTTPStatus.BAD_REQUEST, f"the parameters are {names}, percent-encoded UTF-8")
        ) from None
    seen = [name for name, _ in parameters]
    if len(seen) > len(set(seen)) or not given.keys() >= set(seen):
        raise _Refusal(problem(HTTPStatus.BAD_REQUEST, f"the parameters are {names}, each once"))
    given |= dict(parameters)
    for name in ("prefix", "after"):
        if len(given[name].encode()) > DOCUMENT_ID_BYTES_MAX:
            detail = f"`{name}` is longer than {DOCUMENT_ID_BYTES_MAX} bytes, so no id has it"
            raise _Refusal(problem(HTTPStatus.BAD_REQUEST, detail))
    limit = given["limit"]
    is_number = limit.isascii() and limit.isdigit() and len(limit) <= len(str(largest))
    if not is_number or not 1 <= int(limit) <= largest:
        detail = f"`limit` has to be a number from 1 to {largest}"
        raise _Refusal(problem(HTTPStatus.BAD_REQUEST, detail))
    return ListDocuments(given["prefix"], given["after"], int(limit))


def _bearer(request: Request) -> str | None:
    values = request.values("authorization")
    if not values:
        return None
    if len(values) > 1:
        raise TokenRejected("more than one Authorization header")
    scheme, _, token = values[0].strip().partition(" ")
    if scheme.lower() != "bearer":
        raise TokenRejected("the Authorization header is not of the scheme Bearer")
    return token.strip()


def _filename(asked: ShowDocument) -> str:
    # Twice: the name itself is percent-encoded, so that `crdt-state import` reads the id back.
    return quote(quote(asked.document, safe="") + ".bin", safe="")


def _json(
    status: HTTPStatus, value: object, *, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    body = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    return _response(status, "application/json", body, headers=headers)


def _response(
    status: HTTPStatus,
    content_type: str,
    body: bytes,
    *,
    headers: tuple[tuple[str, str], ...] = (),
) -> Response:
    return Response(
        status.value, (("Content-Type", content_type), *SECURITY_HEADERS, *headers), body
    )
