from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.clocks import ManualClock, WallTime
from crdt_state.errors import EngineFailed, StoreCorrupt, TokenRejected
from crdt_state.identifiers import DocumentId, document_id, path_of
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.security.grant import EVERYTHING, Access, Grant, Right
from crdt_state.security.tokens import NoAuthentication
from crdt_state.storage.contract import Sequence, Summary
from sync_server.http import (
    Endpoints,
    Kind,
    ListDocuments,
    ListPeers,
    OpenSocket,
    Page,
    Readiness,
    Request,
    Response,
    ShowDocument,
    problem,
    route,
)
from sync_server.metrics import ServerMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable


class Shelf:
    """A library in memory; `fails` is raised by every call once set."""

    def __init__(self, names: Iterable[str]) -> None:
        self.documents = sorted(document_id(name) for name in names)
        self.fails: Exception | None = None
        self.rows_read = 0

    def _holds(self, document: DocumentId) -> bool:
        if self.fails is not None:
            raise self.fails
        return document in self.documents

    async def list(self, *, prefix: str, after: str, limit: int) -> list[Summary]:
        if self.fails is not None:
            raise self.fails
        found = [name for name in self.documents if name.startswith(prefix) and name > after]
        self.rows_read += len(found[:limit])
        return [summary_of(name) for name in found[:limit]]

    async def head(self, document: DocumentId) -> Summary | None:
        return summary_of(document) if self._holds(document) else None

    async def update(self, document: DocumentId) -> bytes | None:
        return b"\x00\x00" if self._holds(document) else None

    async def as_json(self, document: DocumentId) -> bytes | None:
        return b'{"text":"hello"}' if self._holds(document) else None

    def peers(self) -> dict[str, Any]:
        return {"topology": "mesh", "peers": []}


class Tokens:
    """Authentication where a token is the name of a grant."""

    def __init__(self, **grants: Grant) -> None:
        self.grants = grants
        self.asked_at: WallTime | None = None

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        self.asked_at = now
        if token not in self.grants:
            raise TokenRejected("the token is not one of these tests")
        return self.grants[token]


def summary_of(document: DocumentId) -> Summary:
    return Summary(document, Sequence(7), 1, 2, 3, 4, 5)


def reader(*patterns: str) -> Grant:
    return Grant("ana", tuple(Right(pattern, Access.READ) for pattern in patterns))


NAMES = ["notes/ana/a", "notes/ana/b", "notes/bob/a", "café/ü b", "json/json", "update", "50%"]


def endpoints(
    shelf: Shelf | None = None, *, limits: Limits = DEFAULT_LIMITS, **grants: Grant
) -> Endpoints:
    made = Endpoints(
        shelf or Shelf(NAMES),
        Tokens(**grants) if grants else NoAuthentication(),
        ManualClock(),
        metrics=ServerMetrics(),
        limits=limits,
    )
    made.readiness = Readiness.READY
    return made


async def get(made: Endpoints, path: str, *, token: str | None = None) -> Response:
    headers = () if token is None else (("authorization", f"Bearer {token}"),)
    response = await made.answer(Request("GET", path, headers))
    assert response is not None
    return response


def json_of(response: Response) -> Any:
    return json.loads(response.body)


def header_of(response: Response, name: str) -> str | None:
    (value,) = [value for key, value in response.headers if key == name] or [None]
    return value


def assert_problem(response: Response, status: int, word: str = "") -> None:
    assert response.status == status
    assert header_of(response, "Content-Type") == "application/problem+json"
    body = json_of(response)
    assert body["status"] == status
    assert body["title"]
    assert word in body["detail"]


async def test_the_root_answers_as_servers_of_y_websocket_do() -> None:
    response = await get(endpoints(), "/")
    assert (response.status, response.body) == (200, b"okay")
    assert header_of(response, "Content-Type") == "text/plain"


async def test_health_answers_always_and_readiness_follows_the_server() -> None:
    made = endpoints()
    for readiness, status in (
        (Readiness.STARTING, 503),
        (Readiness.READY, 200),
        (Readiness.DRAINING, 503),
    ):
        made.readiness = readiness
        assert (await get(made, "/health")).status == 200
        response = await get(made, "/ready")
        assert response.status == status
        assert json_of(response) == {"status": readiness.value}
        assert (header_of(response, "Retry-After") is None) == (status == 200)


async def test_metrics_are_shown_where_they_are_on() -> None:
    response = await get(endpoints(), "/metrics")
    assert response.status == 200
    assert b"crdt_state_updates_admitted_total 0.0" in response.body
    assert str(header_of(response, "Content-Type")).startswith("text/plain; version=")
    hidden = Endpoints(
        Shelf([]), NoAuthentication(), ManualClock(), metrics=ServerMetrics(), shows_metrics=False
    )
    assert_problem(await get(hidden, "/metrics"), 404, "metrics")


async def test_a_document_is_shown_as_numbers_update_and_json() -> None:
    made = endpoints()
    head = await get(made, "/-/api/head/notes/ana/a")
    assert json_of(head) == {
        "document": "notes/ana/a",
        "last_sequence": 7,
        "log_updates": 1,
        "log_bytes": 2,
        "checkpoint_bytes": 3,
        "pending_updates": 4,
        "quarantined_updates": 5,
    }
    update = await get(made, "/-/api/update/notes/ana/a")
    assert (update.status, update.body) == (200, b"\x00\x00")
    assert header_of(update, "Content-Type") == "application/octet-stream"
    saved_as = header_of(update, "Content-Disposition")
    assert saved_as == "attachment; filename*=UTF-8''notes%252Fana%252Fa.bin"
    content = await get(made, "/-/api/json/notes/ana/a")
    assert json_of(content) == {"text": "hello"}
    assert header_of(content, "Content-Type") == "application/json"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", Kind)
async def test_every_id_is_told_apart_from_what_stands_around_it(kind: Kind, name: str) -> None:
    path = f"/-/api/{kind.value}{path_of(document_id(name))}"
    assert route(Request("GET", path)) == ShowDocument(kind, document_id(name))
    assert (await get(endpoints(), path)).status == 200


@pytest.mark.parametrize("kind", Kind)
async def test_a_document_that_is_not_there_is_not_found(kind: Kind) -> None:
    assert_problem(await get(endpoints(), f"/-/api/{kind.value}/nothing"), 404, "no document")


async def test_the_list_has_pages() -> None:
    made = endpoints(Shelf(f"n/{number:03}" for number in range(250)))
    path, found, pages = "/-/api/documents?prefix=n/", [], 0
    after: str | None = ""
    while after is not None:
        page = json_of(await get(made, f"{path}&after={after}"))
        found += [entry["document"] for entry in page["documents"]]
        after = page["next"]
        pages += 1
    assert (len(found), pages) == (250, 3)
    assert found == sorted(set(found))


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 21])
async def test_the_last_page_says_that_it_is_the_last(count: int) -> None:
    made = endpoints(Shelf(f"n/{number:03}" for number in range(count)))
    page = json_of(await get(made, "/-/api/documents?limit=10"))
    assert len(page["documents"]) == min(count, 10)
    assert (page["next"] is None) == (count <= 10)


async def test_the_list_shows_only_what_may_be_read() -> None:
    made = endpoints(ana=reader("notes/ana/*", "update", "*/json"), nobody=reader())
    page = json_of(await get(made, "/-/api/documents", token="ana"))
    names = [entry["document"] for entry in page["documents"]]
    assert names == ["json/json", "notes/ana/a", "notes/ana/b", "update"]
    narrowed = json_of(await get(made, "/-/api/documents?prefix=notes/", token="ana"))
    assert [entry["document"] for entry in narrowed["documents"]] == ["notes/ana/a", "notes/ana/b"]
    assert json_of(await get(made, "/-/api/documents", token="nobody")) == {
        "documents": [],
        "next": None,
    }


async def test_pages_of_several_rights_lose_nothing_and_repeat_nothing() -> None:
    shelf = Shelf([f"{scope}/{number}" for scope in "abcd" for number in range(10)])
    made = endpoints(shelf, ana=reader("a/*", "c/*", "*/5"))
    found, after = [], ""
    while True:
        path = f"/-/api/documents?limit=3&after={after}"
        page = json_of(await get(made, path, token="ana"))
        found += [entry["document"] for entry in page["documents"]]
        if page["next"] is None:
            break
        after = page["next"]
    expected = [name for name in shelf.documents if name[0] in "ac" or name[2:] == "5"]
    assert found == expected


@pytest.mark.parametrize("limit", range(1, 8))
async def test_a_page_that_ends_with_the_documents_of_one_right_goes_on_with_the_next(
    limit: int,
) -> None:
    made = endpoints(Shelf(["a/1", "a/2", "b/1", "c/1", "c/2", "c/3"]), ana=reader("a/*", "c/*"))
    found, after = [], ""
    while True:
        path = f"/-/api/documents?limit={limit}&after={after}"
        page = json_of(await get(made, path, token="ana"))
        found += [entry["document"] for entry in page["documents"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert found == ["a/1", "a/2", "c/1", "c/2", "c/3"]


async def test_a_list_reads_only_where_something_may_be_readable() -> None:
    shelf = Shelf([*(f"others/{number:05}" for number in range(5_000)), "zoe/a"])
    page = json_of(
        await get(endpoints(shelf, zoe=reader("zoe/**")), "/-/api/documents", token="zoe")
    )
    assert [entry["document"] for entry in page["documents"]] == ["zoe/a"]
    assert shelf.rows_read == 1


async def test_a_list_stops_reading_and_tells_no_id_that_may_not_be_read() -> None:
    limits = Limits(http_page_scanned_documents_max=2_000)
    shelf = Shelf([*(f"secret-{number:05}/x" for number in range(9_000)), "secret-00001/mine"])
    made = endpoints(shelf, limits=limits, ana=reader("*/mine"))
    first = json_of(await get(made, "/-/api/documents", token="ana"))
    assert [entry["document"] for entry in first["documents"]] == ["secret-00001/mine"]
    assert first["next"] == "secret-00001/mine"
    second = await get(made, f"/-/api/documents?after={first['next']}", token="ana")
    assert_problem(second, 400, "longer `prefix`")
    assert b"secret" not in second.body
    assert shelf.rows_read <= 2 * 2_000


async def test_without_a_valid_token_nothing_of_documents_is_told() -> None:
    made = endpoints(ana=reader("notes/ana/*"))
    paths = ["/-/api/documents", "/-/api/head/notes/ana/a", "/-/api/update/x", "/-/api/json/x"]
    for path in paths:
        for token in (None, "wrong", ""):
            response = await get(made, path, token=token)
            assert_problem(response, 401, "Authorization: Bearer")
            assert str(header_of(response, "WWW-Authenticate")).startswith("Bearer ")
    assert b"crdt_state_authentication_failures_total 12.0" in (await get(made, "/metrics")).body


async def test_what_may_not_be_read_looks_the_same_whether_it_exists_or_not() -> None:
    made = endpoints(ana=reader("notes/ana/*"))
    there = await get(made, "/-/api/head/notes/bob/a", token="ana")
    not_there = await get(made, "/-/api/head/notes/bob/z", token="ana")
    assert_problem(there, 403, "`documents`")
    assert there == not_there


@pytest.mark.parametrize(
    "headers",
    [
        (("Authorization", "Basic ana"),),
        (("Authorization", "ana"),),
        (("Authorization", "Bearer ana"), ("authorization", "Bearer ana")),
        (("Authorization", ""),),
        (("Cookie", "token=ana"),),
    ],
)
async def test_a_token_is_taken_from_one_bearer_header_only(
    headers: tuple[tuple[str, str], ...],
) -> None:
    made = endpoints(ana=EVERYTHING)
    right = await made.answer(
        Request("GET", "/-/api/documents", (("AUTHORIZATION", "bearer  ana "),))
    )
    assert right is not None
    assert right.status == 200
    response = await made.answer(Request("GET", "/-/api/documents", headers))
    assert response is not None
    assert_problem(response, 401)


async def test_a_token_is_checked_at_the_time_of_the_clock() -> None:
    tokens, clock = Tokens(ana=EVERYTHING), ManualClock()
    made = Endpoints(Shelf([]), tokens, clock, metrics=ServerMetrics())
    clock.advance(5)
    await get(made, "/-/api/documents", token="ana")
    assert tokens.asked_at == clock.wall()


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/-/api/", 404, "documents"),
        ("/-/api/documents/", 404, "documents"),
        ("/-/api/documents/x", 404, "documents"),
        ("/-/api/other/x", 404, "documents"),
        ("/-/other", 404, "/-/api/"),
        ("/-/api/head", 400, "empty"),
        ("/-/api/head/", 400, "empty"),
        ("/-/api/head/a//b", 400, "empty"),
        ("/-/api/head/../x", 400, "not names"),
        ("/-/api/head/%2e%2e/x", 400, "not names"),
        ("/-/api/head/%ff", 400, "UTF-8"),
        ("/-/api/head/%00", 400, "control"),
        ("/-/api/head/-/x", 400, "engine"),
        ("/-/api/head/x?token=secret", 400, "no parameters"),
        ("/-/api/documents?bogus=1", 400, "`prefix`"),
        ("/-/api/documents?limit", 400, "`limit`"),
        ("/-/api/documents?limit=", 400, "number from 1"),
        ("/-/api/documents?limit=0", 400, "number from 1"),
        ("/-/api/documents?limit=1001", 400, "number from 1"),
        ("/-/api/documents?limit=-1", 400, "number from 1"),
        ("/-/api/documents?limit=%D9%A1", 400, "number from 1"),
        ("/-/api/documents?limit=" + "9" * 5000, 400, "number from 1"),
        ("/-/api/documents?limit=1&limit=2", 400, "once"),
        ("/-/api/documents?prefix=%ff", 400, "UTF-8"),
        ("/-/api/documents?" + "a=1&" * 50, 400, "`prefix`"),
        ("/-/api/documents?prefix=" + "a" * 513, 400, "512"),
        ("/" + "a" * 9000, 414, "7168"),
        ("notes", 400, "begin with"),
        ("http://localhost/", 400, "begin with"),
        ("*", 400, "begin with"),
        ("", 400, "begin with"),
        ("/notes/a", 426, "WebSocket"),
    ],
)
async def test_a_request_for_nothing_gets_a_reason(path: str, status: int, word: str) -> None:
    assert_problem(await get(endpoints(), path), status, word)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "get"])
async def test_other_methods_are_not_allowed(method: str) -> None:
    for path in ("/", "/-/api/documents", "/notes"):
        response = await endpoints().answer(Request(method, path))
        assert response is not None
        assert_problem(response, 405, "read-only")
        assert header_of(response, "Allow") == "GET"


@pytest.mark.parametrize("path", ["/", "/notes/a", "/metrics", "/-/sync", "/-/api/documents"])
async def test_a_request_for_a_web_socket_is_left_to_the_listener(path: str) -> None:
    request = Request("GET", path, (("Upgrade", "WebSocket"), ("Connection", "Upgrade")))
    assert isinstance(route(request), OpenSocket)
    assert await endpoints().answer(request) is None


async def test_an_error_of_the_store_or_the_engine_is_answered() -> None:
    shelf = Shelf(NAMES)
    for error, status in ((StoreCorrupt("page 5 of /srv/x"), 503), (EngineFailed("panic"), 500)):
        shelf.fails = error
        for path in ("/-/api/documents", "/-/api/update/notes/ana/a"):
            response = await get(endpoints(shelf), path)
            assert_problem(response, status)
            assert str(error).encode() not in response.body


async def test_no_answer_can_run_as_a_page_or_stay_in_a_cache() -> None:
    for path in ("/", "/health", "/metrics", "/-/api/documents", "/-/api/json/update", "/nothing"):
        response = await get(endpoints(), path)
        assert header_of(response, "X-Content-Type-Options") == "nosniff"
        assert header_of(response, "Cache-Control") == "no-store"
        assert "default-src 'none'" in str(header_of(response, "Content-Security-Policy"))


async def test_an_id_cannot_break_out_of_a_header() -> None:
    name = "a/quote\"'; x=é"
    response = await get(endpoints(Shelf([name])), "/-/api/update" + path_of(document_id(name)))
    disposition = header_of(response, "Content-Disposition")
    assert (
        disposition
        == "attachment; filename*=UTF-8''a%252Fquote%2522%2527%253B%2520x%253D%25C3%25A9.bin"
    )


TARGETS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="/-?&=%.a2fFe\u00e9", max_size=40).map(lambda text: "/" + text),
    st.builds(
        "/-/api/{}{}{}".format,
        st.sampled_from(["documents", "head/", "update/", "json/", "x"]),
        st.sampled_from(["", "?", "a", "%", "?prefix=", "?limit=", "?after=%"]),
        st.text(alphabet="/-?&=%.a2fF", max_size=20),
    ),
)


@settings(max_examples=500)
@given(st.sampled_from(["GET", "POST", ""]), TARGETS)
def test_any_request_is_routed_or_refused(method: str, path: str) -> None:
    asked = route(Request(method, path))
    assert isinstance(asked, Response | Page | ListDocuments | ShowDocument | ListPeers)
    if isinstance(asked, Response):
        assert asked.status in {400, 404, 405, 414, 426}
        assert json_of(asked)["detail"]
    if isinstance(asked, ShowDocument):
        assert document_id(asked.document) == asked.document


def test_a_problem_is_a_whole_response() -> None:
    assert_problem(problem(HTTPStatus.CONFLICT, "do something else"), 409, "something else")


async def test_only_who_may_relay_sees_the_peers() -> None:
    made = endpoints(ana=reader("**"), server=EVERYTHING)
    refused = await get(made, "/-/api/peers", token="ana")
    assert refused.status == HTTPStatus.FORBIDDEN
    assert "relay" in json.loads(refused.body)["detail"]
    shown = await get(made, "/-/api/peers", token="server")
    assert json.loads(shown.body) == {"topology": "mesh", "peers": []}
