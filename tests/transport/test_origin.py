from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.transport.origin import OriginRules, is_loopback, origin_rules

LOCAL = origin_rules(host="localhost")


def refusal(
    host: str | None = "localhost:1234", origin: str | None = None, rules: OriginRules = LOCAL
) -> str | None:
    return rules.refusal(
        host=[] if host is None else [host], origin=[] if origin is None else [origin]
    )


@pytest.mark.parametrize(
    "host",
    [
        "localhost:1234",
        "localhost",
        "LOCALHOST:1",
        "localhost.:1234",
        "notes.localhost:1234",
        "127.0.0.1:1234",
        "127.9.9.9",
        "[::1]:1234",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]:1234",
    ],
)
def test_a_local_server_answers_to_local_names(host: str) -> None:
    assert refusal(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:1234",
        "localhost.evil.example",
        "127.0.0.1.evil.example:1234",
        "evil-localhost",
        "192.168.1.5:1234",
        "[fe80::1]:1234",
        "0.0.0.0:1234",
        "2130706433",
        "127.1",
        "",
        " ",
        "local host",
        "localhost:99999",
        "localhost:x",
        "localhost:",
        "user@localhost",
        "localhost/",
        "[::1",
        "[localhost]:1",
        "::1",
        "localhost\x00",
        "l\u00f6calhost",
        "a" * 2000,
        None,
    ],
)
def test_another_name_is_refused_whatever_it_points_to(host: str | None) -> None:
    assert refusal(host)


def test_a_page_that_rebinds_its_name_is_refused_by_its_host() -> None:
    reason = refusal("evil.example:1234", "http://evil.example:1234")
    assert reason
    assert "allowed hosts" in reason


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:1234", "http://localhost:1234"),
        ("localhost:1234", "HTTP://LocalHost:1234"),
        ("localhost", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:80", "http://localhost"),
        ("localhost", "https://localhost"),
        ("localhost:443", "https://localhost"),
        ("localhost:1234", "http://localhost:5173"),
        ("localhost:1234", "https://localhost"),
        ("[::1]:1234", "http://[::1]:1234"),
    ],
)
def test_a_page_from_the_same_host_and_port_may_connect(host: str, origin: str) -> None:
    assert refusal(host, origin) is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://evil.example:1234",
        "http://127.0.0.1:1234",
        "http://localhost.evil.example",
        "null",
        "",
        "localhost:1234",
        "//localhost:1234",
        "http://localhost:1234/",
        "http://localhost:1234@evil.example",
        "http://evil.example#localhost:1234",
        "http://localhost:1234 http://evil.example",
        "http://localhost:1234,http://evil.example",
        "file://localhost:1234",
        "chrome-extension://localhost:1234",
        "http://localhost:1234\x00",
        "http://" + "a" * 2000,
    ],
)
def test_a_page_from_elsewhere_is_refused(origin: str) -> None:
    assert refusal("localhost:1234", origin)


def test_a_program_that_is_no_browser_may_connect() -> None:
    assert refusal("localhost:1234", None) is None


def test_a_header_that_comes_twice_is_refused() -> None:
    assert LOCAL.refusal(host=["localhost", "localhost"], origin=[])
    same = "http://localhost:1234"
    assert LOCAL.refusal(host=["localhost:1234"], origin=[same]) is None
    assert LOCAL.refusal(host=["localhost:1234"], origin=[same, same])


def test_a_page_without_an_origin_of_its_own_is_told_what_to_do() -> None:
    reason = refusal("localhost:1234", "null")
    assert reason
    assert "serve the page over HTTP" in reason


def test_the_refusal_names_what_to_allow() -> None:
    reason = refusal("localhost:1234", "http://app.example:5173")
    assert reason
    assert "add http://app.example:5173 to the allowed origins" in reason
    rules = origin_rules(host="localhost", allowed_origins=["http://app.example:5173"])
    assert refusal("localhost:1234", "http://app.example:5173", rules) is None


@pytest.mark.parametrize(
    ("entry", "allowed", "refused"),
    [
        ("https://app.example", "https://app.example:443", "http://app.example"),
        ("https://app.example/", "https://app.example", "https://app.example:8443"),
        ("https://app.example", "https://app.example", "https://x.app.example"),
        ("http://app.example:*", "http://app.example:3000", "https://app.example:3000"),
        ("http://[::1]:5173", "http://[::1]:5173", "http://[::2]:5173"),
        ("app://editor", "app://editor", "app://other"),
        ("*", "https://anything.example", "null"),
    ],
)
def test_allowed_origins_may_connect_and_only_those(entry: str, allowed: str, refused: str) -> None:
    rules = origin_rules(host="localhost", allowed_origins=[entry])
    assert refusal("localhost:1234", allowed, rules) is None
    assert refusal("localhost:1234", refused, rules)
    assert refusal("evil.example:1234", allowed, rules), "Host is checked all the same"


@pytest.mark.parametrize(
    ("entry", "allowed", "refused"),
    [
        ("notes.example", "notes.example:1234", "x.notes.example"),
        ("Notes.Example", "NOTES.example", "notes.example.evil"),
        ("*.notes.example", "a.b.notes.example", "notes.example"),
        ("10.0.0.5", "10.0.0.5:1234", "10.0.0.6"),
        ("fd00::5", "[fd00::5]:1234", "[fd00::6]"),
    ],
)
def test_allowed_hosts_are_served_and_only_those(entry: str, allowed: str, refused: str) -> None:
    rules = origin_rules(host="localhost", allowed_hosts=[entry])
    assert refusal(allowed, None, rules) is None
    assert refusal(refused, None, rules)


def test_a_star_serves_every_host_but_not_every_page() -> None:
    rules = origin_rules(host="localhost", allowed_hosts=["*"])
    assert refusal("anything.example", None, rules) is None
    assert refusal("anything.example", "http://evil.example", rules)


@pytest.mark.parametrize("listens", ["0.0.0.0", "::", ""])
def test_a_server_on_all_addresses_answers_to_addresses_and_not_to_names(listens: str) -> None:
    rules = origin_rules(host=listens)
    assert refusal("192.168.1.5:1234", "http://192.168.1.5:1234", rules) is None
    assert refusal("[fd00::5]:1234", None, rules) is None
    assert refusal("evil.example:1234", "http://evil.example:1234", rules)


def test_a_server_answers_to_the_name_it_listens_on() -> None:
    assert refusal("notes.internal:1234", None, origin_rules(host="Notes.Internal")) is None
    assert refusal("192.168.1.5:1234", None, origin_rules(host="192.168.1.5")) is None
    assert refusal("192.168.1.6:1234", None, origin_rules(host="192.168.1.5"))
    assert refusal("[fd00::5]", None, origin_rules(host="fd00:0::5")) is None


@pytest.mark.parametrize(
    ("hosts", "origins"),
    [
        (["notes.example:80"], []),
        (["https://notes.example"], []),
        (["*.*.example"], []),
        ([""], []),
        ([], ["notes.example"]),
        ([], ["null"]),
        ([], ["https://notes.example/path"]),
        ([], ["https://*.example"]),
        ([], ["https://notes.example:99999"]),
    ],
)
def test_an_entry_that_cannot_match_is_named(hosts: list[str], origins: list[str]) -> None:
    with pytest.raises(ValueError, match=r"is not an? ") as caught:
        origin_rules(host="localhost", allowed_hosts=hosts, allowed_origins=origins)
    assert repr((hosts + origins)[0]) in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.255.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("notes.example", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("127.1", False),
    ],
)
def test_loopback_is_judged_without_asking_anybody(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="localhst:/.[]@#?*0127 ", max_size=40),
    st.from_regex(r"[a-z+.-]{1,8}://[a-z.:\[\]0-9@]{0,30}"),
)


@settings(max_examples=300)
@given(st.lists(HOSTILE, max_size=2), st.lists(HOSTILE, max_size=2))
def test_any_headers_get_an_answer(host: list[str], origin: list[str]) -> None:
    reason = LOCAL.refusal(host=host, origin=origin)
    assert reason is None or reason.isprintable()


@settings(max_examples=300)
@given(HOSTILE)
def test_only_a_page_of_this_very_host_and_port_passes(origin: str) -> None:
    if refusal("localhost:1234", origin) is None:
        assert origin.lower() in {
            "http://localhost:1234",
            "https://localhost:1234",
            "http://localhost.:1234",
        }
