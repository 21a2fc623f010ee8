from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crdt_state.errors import InvalidDocumentId, InvalidPattern
from crdt_state.identifiers import DocumentId, document_id
from crdt_state.security.grant import (
    EVERYTHING,
    Access,
    Grant,
    Right,
    pattern_of,
)

NAMES = st.text(alphabet="ab*%?é-.", min_size=1, max_size=4)
PATTERNS = st.lists(st.text(alphabet="ab*", min_size=1, max_size=5), min_size=1, max_size=4).map(
    "/".join
)


@st.composite
def documents(draw: st.DrawFn, names: st.SearchStrategy[str] = NAMES) -> DocumentId:
    try:
        return document_id("/".join(draw(st.lists(names, min_size=1, max_size=4))))
    except InvalidDocumentId:
        assume(False)
        raise


def read(*patterns: str) -> Grant:
    return Grant("ana", tuple(Right(pattern, Access.READ) for pattern in patterns))


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        (
            "notes/today",
            ["notes/today"],
            ["notes", "notes/today/x", "notes/todaY", "x/notes/today"],
        ),
        ("notes/*", ["notes/a", "notes/*", "notes/é"], ["notes", "notes/a/b", "note/a"]),
        ("room-*", ["room-1", "room-"], ["room", "a-room-1", "room-1/x"]),
        ("*-*-z", ["a-b-z", "--z", "a-z-z"], ["a-z", "-z", "a-b-zz"]),
        ("aa*aa", ["aaaa", "aabaa"], ["aa", "aaa"]),
        ("notes/**", ["notes/a", "notes/a/b/c"], ["notes", "notesx/a"]),
        ("*/public/**", ["ana/public/a", "ana/public/a/b"], ["ana/public", "a/b/public/c"]),
        ("**", ["a", "a/b/c"], []),
        ("50%25/%2A", ["50%/*"], ["50%/a"]),
        ("caf%C3%A9", ["café"], ["cafe"]),
        ("cafe\u0301", ["café"], []),
    ],
)
def test_a_pattern_covers_what_its_documentation_says(
    pattern: str, covered: list[str], not_covered: list[str]
) -> None:
    right = Right(pattern, Access.READ)
    assert [name for name in covered if not right.covers(document_id(name))] == []
    assert [name for name in not_covered if right.covers(document_id(name))] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a",
        "a//b",
        "a/",
        "**/a",
        "a**",
        "***",
        "a/**b",
        "a%2Fb",
        "a%",
        "a%zz",
        "%ff",
        "?",
        "..",
        "a/./b",
        "\ud800",
        "a" * 1537,
    ],
)
def test_what_is_no_pattern_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(InvalidPattern) as caught:
        Right(text, Access.READ)
    assert caught.value.reason
    assert len(str(caught.value)) < 250


@given(documents(), documents())
def test_a_document_written_as_a_pattern_covers_only_itself(
    document: DocumentId, other: DocumentId
) -> None:
    right = Right(pattern_of(document), Access.READ)
    assert right.covers(document)
    assert right.covers(other) == (other == document)


@given(PATTERNS, documents(st.text(alphabet="ab", min_size=1, max_size=6)))
def test_matching_agrees_with_a_regular_expression(pattern: str, document: DocumentId) -> None:
    try:
        right = Right(pattern, Access.READ)
    except InvalidPattern:
        assume(False)
        raise
    expression = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^/]*")
    assert right.covers(document) == (re.fullmatch(expression, document) is not None)


@given(PATTERNS, documents(st.text(alphabet="ab", min_size=1, max_size=6)))
def test_every_covered_id_begins_with_the_prefix(pattern: str, document: DocumentId) -> None:
    try:
        right = Right(pattern, Access.READ)
    except InvalidPattern:
        assume(False)
        raise
    assert document.startswith(right.prefix) or not right.covers(document)


@given(
    st.lists(st.sampled_from(["a", "a/*", "a/**", "ab*", "b/a", "*/a", "**"]), max_size=4),
    documents(st.text(alphabet="ab", min_size=1, max_size=3)),
    st.text(alphabet="ab/", max_size=4),
)
def test_prefixes_lose_nothing_that_may_be_read(
    patterns: list[str], document: DocumentId, asked: str
) -> None:
    grant = read(*patterns)
    prefixes = grant.prefixes(asked)
    holding = [prefix for prefix in prefixes if document.startswith(prefix)]
    assert len(holding) <= 1
    assert list(prefixes) == sorted(prefixes)
    assert all(prefix.startswith(asked) for prefix in prefixes)
    if grant.may_read(document) and document.startswith(asked):
        assert holding


def test_the_right_to_write_includes_the_right_to_read_and_not_the_reverse() -> None:
    note = document_id("notes/a")
    writer = Grant("ana", (Right("notes/*", Access.WRITE),))
    assert (writer.may_read(note), writer.may_write(note)) == (True, True)
    assert (read("notes/*").may_read(note), read("notes/*").may_write(note)) == (True, False)


def test_who_has_no_rights_may_nothing_and_everything_may_all() -> None:
    nobody = Grant(None, ())
    for name in ("a", "a/b"):
        document = document_id(name)
        assert not nobody.may_read(document)
        assert not nobody.may_write(document)
        assert EVERYTHING.may_read(document)
        assert EVERYTHING.may_write(document)
    assert EVERYTHING.may_relay
    assert not nobody.may_relay
    assert nobody.prefixes() == ()
    assert EVERYTHING.prefixes("a/") == ("a/",)
