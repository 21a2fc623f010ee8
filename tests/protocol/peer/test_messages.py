"""`crdt_state.protocol.peer.messages`: what is written is read back; all else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId
from crdt_state.protocol.peer.messages import (
    Acknowledge,
    Authenticate,
    Authenticated,
    Awareness,
    Barrier,
    Close,
    Credit,
    Held,
    Hello,
    Hops,
    Message,
    Open,
    Part,
    Passed,
    State,
    Updates,
    Welcome,
    decode,
    decode_all,
    encode,
)

numbers = st.integers(0, 2**53 - 1)
ids = st.binary(min_size=16, max_size=16)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
many_names = st.lists(texts, max_size=4).map(tuple)
documents = st.sampled_from(["notes", "a/b", "café", "😀/x"]).map(DocumentId)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Hello,
        version_min=numbers,
        version_max=numbers,
        replica=ids.map(ReplicaId),
        incarnation=ids.map(Incarnation),
        capabilities=many_names,
        message_bytes_max=numbers,
        update_bytes_max=numbers,
        credit=numbers,
        token=texts,
    ),
    st.builds(
        Welcome,
        version=numbers,
        replica=ids.map(ReplicaId),
        incarnation=ids.map(Incarnation),
        capabilities=many_names,
        message_bytes_max=numbers,
        update_bytes_max=numbers,
        credit=numbers,
        expires_at=numbers,
    ),
    st.builds(Authenticate, texts),
    st.builds(Authenticated, numbers),
    st.builds(Credit, numbers),
    st.builds(Part, numbers, numbers, st.binary(max_size=40)),
    st.builds(Open, numbers, documents, st.binary(max_size=40)),
    st.builds(State, numbers, st.binary(max_size=40), numbers),
    st.builds(Updates, numbers, numbers, st.lists(st.binary(max_size=200), max_size=5).map(tuple)),
    st.builds(Acknowledge, numbers, numbers, numbers),
    st.builds(Held, numbers, ids.map(ReplicaId), numbers),
    st.builds(Hops, numbers, numbers),
    st.builds(Awareness, numbers, ids.map(ReplicaId), numbers, st.binary(max_size=200)),
    st.builds(Close, numbers, numbers, texts),
    st.builds(Barrier, numbers),
    st.builds(Passed, numbers),
)


@given(st.lists(MESSAGES, min_size=1, max_size=5))
def test_a_frame_is_read_as_it_was_written(messages: list[Message]) -> None:
    assert decode_all(b"".join(map(encode, messages))) == messages


@given(MESSAGES, st.data())
def test_a_message_cut_short_is_refused(message: Message, data: st.DataObject) -> None:
    frame = encode(message)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(RemoteProtocolError):
        decode(frame[:cut])


@given(MESSAGES, MESSAGES)
def test_two_messages_are_not_one(one: Message, other: Message) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(encode(one) + encode(other))


@given(st.binary(max_size=80))
def test_any_bytes_are_messages_or_a_remote_protocol_error(frame: bytes) -> None:
    try:
        messages = decode_all(frame)
    except RemoteProtocolError:
        return
    assert b"".join(map(encode, messages)) == frame


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "ends"),
        (b"\x06", "unknown"),
        (b"\x1a\x00", "unknown"),
        (b"\x14\x00" + b"A" * 15, "inside 16 bytes"),
        (b"\x16\x00\x00\x01\xff", "UTF-8"),
        (b"\x10\x00\x04a//b\x01\x00", "empty"),
        (b"\x10\x00\x06cafe\xcc\x81\x01\x00", "NFC"),
        (b"\x12\x00\x01\x02\x00", "ends"),
    ],
)
def test_what_is_wrong_is_said(frame: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        decode_all(frame)


def test_what_comes_in_parts_brings_one_update_however_many_it_claims() -> None:
    assert decode(encode(Updates(0, 1, (b"\x00\x00",)))) == Updates(0, 1, (b"\x00\x00",))
    with pytest.raises(RemoteProtocolError, match="one update"):
        decode(encode(Updates(0, 1, (b"", b""))))
