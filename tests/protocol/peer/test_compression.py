"""`crdt_state.protocol.peer.compression`: streams that shrink, within bounds."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import zstandard

from crdt_state.errors import RemoteProtocolError
from crdt_state.lib0 import encode_varuint
from crdt_state.protocol.peer.compression import (
    COMPRESSED,
    PARAMETERS,
    WORTH_BYTES,
    ZSTD,
    Compressor,
    Decompressor,
)
from crdt_state.protocol.peer.conversation import Role, SyncProtocol
from crdt_state.protocol.peer.messages import Authenticate, Updates
from protocol.peer.test_conversation import HELLO, NOTES, NOTHING, SMALL, WELCOME

FRAMES = [bytes([number % 7]) * 40 + b"typed by one person " * 10 for number in range(50)]


def test_frames_come_out_as_they_went_in_and_small_ones_shrink_too() -> None:
    there, here = Compressor(), Decompressor(10_000)
    compressed = [there.frame(frame) for frame in FRAMES]
    assert [here.messages(frame) for frame in compressed] == FRAMES
    assert all(frame[0] == COMPRESSED for frame in compressed)
    assert sum(map(len, compressed)) < sum(map(len, FRAMES)) / 5


def test_random_frames_of_every_size_come_through() -> None:
    """Seed 5."""
    dice = Random(5)
    there, here = Compressor(), Decompressor(200_000)
    for size in (0, 1, 127, 65_536, 131_072, *(dice.randrange(5_000) for _ in range(50))):
        frame = dice.randbytes(size)
        assert here.messages(there.frame(frame)) == frame


def bomb(size: int, says: int) -> bytes:
    stream = zstandard.ZstdCompressor(compression_params=PARAMETERS).compressobj()
    block = stream.compress(bytes(size)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return bytes([COMPRESSED]) + encode_varuint(says) + block


def test_a_bomb_is_refused_before_it_has_taken_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Decompressor(131_072)
    out = 0
    stream = here._stream

    class Counting:
        def decompress(self, data: bytes) -> bytes:
            nonlocal out
            found = stream.decompress(data)
            out += len(found)
            return found

    monkeypatch.setattr(here, "_stream", Counting())
    frame = bomb(1_000_000_000, says=100_000)
    assert len(frame) < 100_000
    with pytest.raises(RemoteProtocolError, match="not of the 100,000 bytes"):
        here.messages(frame)
    assert out <= 9 * 1024 * 1024


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (bomb(100, says=99), "not of the 99 bytes"),
        (bomb(100, says=101), "not of the 101 bytes"),
        (bomb(100, says=1_000_001), "1,000,001 bytes, where 1,000 are allowed"),
        (bytes([COMPRESSED]), "ends"),
        (bytes([COMPRESSED, 5]), "not of the 5 bytes"),
        (bytes([COMPRESSED, 5]) + b"garbage", "does not decompress"),
    ],
)
def test_what_is_not_as_it_says_is_refused(frame: bytes, what: str) -> None:
    with pytest.raises(RemoteProtocolError, match=what):
        Decompressor(1_000).messages(frame)


def test_a_window_larger_than_agreed_is_refused() -> None:
    wide = zstandard.ZstdCompressionParameters.from_level(1, window_log=20)
    stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    block = stream.compress(b"x" * 100) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(RemoteProtocolError, match="memory"):
        Decompressor(1_000).messages(bytes([COMPRESSED, 100]) + block)


# --- in a conversation -----------------------------------------------------------------------


def greeted(capabilities: tuple[str, ...]) -> tuple[SyncProtocol, SyncProtocol]:
    dialler, listener = SyncProtocol(Role.DIALLER, SMALL), SyncProtocol(Role.LISTENER, SMALL)
    dialler.greet(replace(HELLO, capabilities=(ZSTD,)))
    pass_on(dialler, listener)
    listener.greet(replace(WELCOME, capabilities=capabilities))
    pass_on(listener, dialler)
    channel = dialler.open(NOTES, NOTHING)
    pass_on(dialler, listener)
    listener.answer(channel, NOTHING, 0)
    pass_on(listener, dialler)
    return dialler, listener


def pass_on(one: SyncProtocol, other: SyncProtocol) -> tuple[list[bytes], list[object]]:
    frames = one.frames_to_send()
    return frames, [message for frame in frames for message in other.receive(frame)]


@pytest.mark.parametrize("capabilities", [(ZSTD,), ()])
def test_frames_are_compressed_where_both_can(capabilities: tuple[str, ...]) -> None:
    dialler, listener = greeted(capabilities)
    for sender, hearer in ((dialler, listener), (listener, dialler)):
        sender.send_updates(0, (b"abc" * 100,))
        (frame,), heard = pass_on(sender, hearer)
        assert heard == [Updates(0, 1, (b"abc" * 100,))]
        assert (frame[0] == COMPRESSED) == bool(capabilities)
        assert (len(frame) < 100) == bool(capabilities)


def test_what_is_small_goes_out_as_it_is() -> None:
    dialler, listener = greeted((ZSTD,))
    dialler.send_updates(0, (b"a" * (WORTH_BYTES - 20),))
    (frame,), _ = pass_on(dialler, listener)
    assert frame[0] == 0x12


def test_a_token_is_never_compressed() -> None:
    dialler, listener = greeted((ZSTD,))
    dialler.send_updates(0, (b"abc" * 100,))
    dialler.say(Authenticate("t" * 500))
    frames, heard = pass_on(dialler, listener)
    assert [frame[0] for frame in frames] == [0x02, COMPRESSED]
    assert heard == [Authenticate("t" * 500), Updates(0, 1, (b"abc" * 100,))]


def test_a_compressed_frame_that_was_not_agreed_on_ends_the_conversation() -> None:
    _, listener = greeted(())
    with pytest.raises(RemoteProtocolError, match="not agreed on"):
        listener.receive(Compressor().frame(b"\x17\x00"))
