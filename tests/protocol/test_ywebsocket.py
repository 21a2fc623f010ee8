"""The y-websocket codec: bit-exact, strict, and never anything but its own error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.errors import RemoteProtocolError
from crdt_state.protocol.ywebsocket import (
    AwarenessUpdate,
    Message,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    encode,
)

MESSAGES = st.one_of(
    st.builds(SyncStep1, st.binary(max_size=300)),
    st.builds(SyncStep2, st.binary(max_size=300)),
    st.builds(Update, st.binary(max_size=300)),
    st.builds(AwarenessUpdate, st.binary(max_size=300)),
    st.builds(PermissionDenied, st.text(max_size=300)),
    st.just(QueryAwareness()),
)

# By hand from y-protocols' PROTOCOL.md, so that encoder and decoder cannot err together.
KNOWN = {
    "000000": SyncStep1(b""),
    "00000100": SyncStep1(b"\x00"),
    "0001020000": SyncStep2(b"\x00\x00"),
    "0002020000": Update(b"\x00\x00"),
    "01020100": AwarenessUpdate(b"\x01\x00"),
    "020002686f": PermissionDenied("ho"),
    "03": QueryAwareness(),
}


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("frame", KNOWN)
def test_known_frames_are_met_bit_for_bit(frame: str) -> None:
    assert encode(KNOWN[frame]).hex() == frame
    assert decode(bytes.fromhex(frame)) == KNOWN[frame]


@given(MESSAGES, st.data())
def test_a_shortened_frame_is_refused(message: Message, data: st.DataObject) -> None:
    frame = encode(message)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(RemoteProtocolError):
        decode(frame[:cut])


@given(MESSAGES, st.binary(min_size=1, max_size=8))
def test_a_lengthened_frame_is_refused(message: Message, more: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(encode(message) + more)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_a_remote_protocol_error(frame: bytes) -> None:
    try:
        message = decode(frame)
    except RemoteProtocolError as error:
        assert error.code == 4400  # noqa: PT017
    else:
        assert encode(message) == frame


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "ends"),
        (b"\x04", "unknown"),
        (b"\x00\x03\x00", "unknown"),
        (b"\x02\x01\x00", "unknown"),
        (b"\x00\x02\x80\x00", "longer than it needs"),
        (b"\x02\x00\x01\xff", "UTF-8"),
    ],
)
def test_what_is_wrong_is_said(frame: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        decode(frame)
