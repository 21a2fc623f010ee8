"""The messages of a walk: compact, strict, and never anything but the protocol's error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import DocumentId
from crdt_state.merkle.comparing import node_of
from crdt_state.merkle.messages import (
    CompareBuckets,
    CompareNodes,
    Differences,
    Message,
    Node,
    Nodes,
    Part,
    SendNodes,
    decode,
    encode,
    part_bytes,
)

BITMAPS = st.integers(0, 2**64 - 1) | st.integers(0, 63).map(lambda child: 1 << child)
IDS = st.text("abcé/", min_size=1, max_size=9).filter(
    lambda text: all(part for part in text.split("/"))
)


ANY_NODE = st.integers(0, 4_160)
EITHER = st.booleans()


def by_number(items):
    return tuple(sorted(items, key=lambda item: item.number))


@st.composite
def nodes(draw, numbers=ANY_NODE, full=EITHER) -> Node:
    bitmap, is_full = draw(BITMAPS), draw(full)
    size = bitmap.bit_count() * (16 if is_full else 8)
    return Node(draw(numbers), is_full, bitmap, draw(st.randoms()).randbytes(size))


@st.composite
def parts(draw, hash_bytes: int) -> Part:
    ids = sorted(draw(st.sets(IDS, max_size=4)))
    after = draw(st.just("") | st.sampled_from(ids)) if ids else draw(st.just("") | IDS)
    ids = [name for name in ids if name > after]
    entries = tuple((DocumentId(name), draw(st.randoms()).randbytes(hash_bytes)) for name in ids)
    return Part(draw(st.integers(0, 262_143)), entries, after, draw(st.booleans()) or not ids)


def unique(strategy, **sizes):
    return st.lists(strategy, unique_by=lambda item: item.number, **sizes).map(by_number)


NUMBERS = st.sets(st.integers(0, 4_160), max_size=9).map(lambda found: tuple(sorted(found)))
LEVEL_1_NODES = nodes(numbers=st.integers(1, 64), full=st.just(False))
MESSAGES = st.one_of(
    st.builds(CompareNodes, unique(LEVEL_1_NODES, min_size=1, max_size=3)),
    st.builds(SendNodes, NUMBERS.filter(bool), st.booleans()),
    st.builds(CompareBuckets, unique(parts(8), min_size=1, max_size=4), st.just(False)),
    st.builds(CompareBuckets, unique(parts(16), min_size=1, max_size=4), st.just(True)),
    st.builds(Nodes, unique(nodes(), max_size=3)),
    st.builds(
        Differences,
        NUMBERS,
        NUMBERS,
        st.lists(IDS, max_size=4).map(tuple),
        NUMBERS,
        st.integers(0, 99),
        st.booleans(),
    ),
)

# By hand, so that encoder and decoder cannot err together.
KNOWN = {
    "0001 04 0100000000000000 1111111111111111": CompareNodes((Node(1, False, 1, b"\x11" * 8),)),
    "0101 02 01 8120": SendNodes((0, 4_097), is_full=True),
    "0200 02 02 01 01 61 2222222222222222 05 0161 01 00": CompareBuckets(
        (
            Part(0, ((DocumentId("a"), b"\x22" * 8),)),
            Part(2, (), after="a"),
        ),
        is_full=False,
    ),
    "0301 03 0000000000000080 33333333333333333333333333333333": Nodes(
        (Node(0, True, 1 << 63, b"\x33" * 16),)
    ),
    "04 01 03 00 01 01 01 0162 05": Differences((2,), (), (DocumentId("b"),), (0,), 2, True),
}


@given(MESSAGES)
@settings(deadline=None)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("frame", KNOWN)
def test_known_frames_are_met_bit_for_bit(frame: str) -> None:
    assert encode(KNOWN[frame]) == bytes.fromhex(frame)
    assert decode(bytes.fromhex(frame)) == KNOWN[frame]


@given(MESSAGES, st.data())
@settings(deadline=None)
def test_a_shortened_frame_is_refused(message: Message, data: st.DataObject) -> None:
    frame = encode(message)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(RemoteProtocolError):
        decode(frame[:cut])


@given(MESSAGES, st.binary(min_size=1, max_size=8))
@settings(deadline=None)
def test_a_lengthened_frame_is_refused(message: Message, more: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(encode(message) + more)


@given(st.binary(max_size=80) | MESSAGES.map(encode), st.data())
@settings(deadline=None)
def test_any_bytes_are_a_message_or_a_remote_protocol_error(
    frame: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(frame)
    if damaged:
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        message = decode(bytes(damaged))
    except RemoteProtocolError:
        return
    assert encode(message) == bytes(damaged)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ("", "ends"),
        ("05", "unknown"),
        ("0102 01 01", "flag"),
        ("0000", "holds none"),
        ("0100 00", "names none"),
        ("0200 00", "holds none"),
        ("0100 02 01 00", "twice"),
        ("0100 01 c220", "4161 or more"),
        ("0001 02 0000000000000000", "level 1"),
        ("0001 05 0000000000000000", "level 1"),
        ("0001 04 0100000000000000 11", "short"),
        ("0001 04 01000000", "short"),
        ("0200 01 8280808001 00", "262144 or more"),
        ("0200 01 02 02 0162 2222222222222222 0161 2222222222222222", "not sorted"),
        ("0200 01 02 01 00 2222222222222222", "not sorted"),
        ("0200 01 03 00 01 00", "written as a part"),
        ("0200 01 03 0161 00 00", "where it ends"),
        ("0200 01 02 01 01ff 2222222222222222", "UTF-8"),
        ("04 00 00 00 01 022e2e 00", "cannot be"),
        ("04 00 00 00 01 0365cc81 00", "NFC"),
    ],
)
def test_what_is_wrong_is_said(frame: str, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        decode(bytes.fromhex(frame))


def test_an_id_that_is_too_long_is_refused() -> None:
    for length in (512, 513):
        request = CompareBuckets((Part(0, ((DocumentId("x" * length), bytes(8)),)),), is_full=False)
        if length == 512:
            assert decode(encode(request)) == request
        else:
            with pytest.raises(RemoteProtocolError, match="too long"):
                decode(encode(request))


def test_a_node_with_few_children_takes_few_bytes() -> None:
    blob = bytearray(1_024)
    blob[16 * 5 : 16 * 6] = b"\x01" * 16
    node = node_of(65, {65: bytes(blob)}, hash_bytes=8)
    assert node.bitmap == 1 << 5
    assert len(encode(Nodes((node,)))) <= 2 + 2 + 8 + 8
    assert len(encode(Nodes((node_of(65, {}, hash_bytes=8),)))) <= 2 + 2 + 8


@given(parts(8) | parts(16))
def test_a_part_takes_no_more_than_is_reckoned(part: Part) -> None:
    hash_bytes = len(part.entries[0][1]) if part.entries else 8
    size = len(encode(CompareBuckets((part,), is_full=False))) - 3
    assert size <= part_bytes(part.entries, part.after, hash_bytes)
