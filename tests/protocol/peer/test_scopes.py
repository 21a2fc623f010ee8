"""`crdt_state.protocol.peer.scopes`: batches, and what no decoder takes."""

from __future__ import annotations

import zlib
from random import Random

import pytest

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import DocumentId, Scope
from crdt_state.lib0 import encode_varuint
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol.peer.conversation import Role, SyncProtocol
from crdt_state.protocol.peer.messages import Hello, decode, encode
from crdt_state.protocol.peer.parts import FRAME_BYTES_MAX
from crdt_state.protocol.peer.scopes import (
    Exchanged,
    News,
    Parcel,
    Root,
    Since,
    Subscribe,
    batches,
    unpack,
)


def parcels(dice: Random, count: int) -> list[Parcel]:
    return [
        Parcel(
            DocumentId(f"notes/{dice.randrange(10**6)}-{number}"),
            tuple(dice.randbytes(dice.randrange(400)) for _ in range(dice.randrange(4))),
            dice.randbytes(dice.randrange(20)),
        )
        for number in range(count)
    ]


def test_parcels_come_out_of_batches_as_they_went_in_and_every_batch_fits_a_frame() -> None:
    seed = 5
    given = parcels(Random(seed), 700)
    packed = list(batches(given))
    assert len(packed) > 1
    assert sum(count for _, count in packed) == len(given)
    taken = [parcel for batch, _ in packed for parcel in unpack(batch)]
    assert taken == given, f"seed {seed}"
    assert all(
        len(encode(Exchanged(2**53 - 1, batch))) < FRAME_BYTES_MAX // 2 for batch, _ in packed
    )


def test_a_batch_that_repeats_itself_is_compressed_and_a_short_one_is_not() -> None:
    alike = [Parcel(DocumentId(f"notes/{n}"), (bytes(range(60)),)) for n in range(200)]
    ((batch, _),) = batches(alike)
    assert len(batch) < 200 * 60 / 4
    ((short, _),) = batches(alike[:1])
    assert short[0] == 0


def test_a_parcel_that_is_too_large_for_a_batch_goes_apart() -> None:
    large = Parcel(DocumentId("notes/large"), (bytes(40_000),), b"\0")
    ((batch, count),) = batches([large, Parcel(DocumentId("notes/small"), (b"\0\0",))])
    assert count == 2
    assert unpack(batch)[0] == Parcel(DocumentId("notes/large"), is_apart=True)
    assert unpack(batch)[1].updates == (b"\0\0",)


def test_no_more_is_inflated_than_was_said_and_allowed() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    for said in (10, 50_000, 50_000_000, 2**50):
        with pytest.raises(RemoteProtocolError):
            unpack(b"\1" + encode_varuint(said) + bomb)
    with pytest.raises(RemoteProtocolError, match="inflated"):
        unpack(b"\1\x05hello")
    with pytest.raises(RemoteProtocolError, match="does not hold"):
        unpack(b"\1\x05" + zlib.compress(b"12345") + b"more")
    with pytest.raises(RemoteProtocolError, match="unknown"):
        unpack(b"\2")


def test_a_batch_that_is_cut_anywhere_is_refused() -> None:
    ((batch, _),) = batches(parcels(Random(6), 1))
    for end in range(1, len(batch)):
        with pytest.raises(RemoteProtocolError):
            unpack(batch[:end])


@pytest.mark.parametrize(
    "message",
    [
        Subscribe(3, Scope("notes"), root=bytes(32)),
        Root(3, bytes(24), 99, bytes(32), b"node"),
        News(3, 99, True, b"batch"),
    ],
)
def test_a_message_that_is_cut_anywhere_is_refused(message) -> None:
    coded = encode(message)
    assert decode(coded) == message
    for end in range(len(coded)):
        with pytest.raises(RemoteProtocolError):
            decode(coded[:end])


def test_only_the_dialler_subscribes_and_only_a_subscription_comes_before_the_welcome() -> None:
    hello = Hello(
        version_min=1,
        version_max=1,
        replica=bytes(16),
        incarnation=bytes(16),
        message_bytes_max=2**20,
        update_bytes_max=2**20,
        credit=1,
    )
    subscribe = Subscribe(0, Scope("notes"))
    listener = SyncProtocol(Role.LISTENER, DEFAULT_LIMITS)
    assert listener.receive(encode(hello) + encode(subscribe)) == [hello, subscribe]
    with pytest.raises(RemoteProtocolError, match="Since"):
        listener.receive(encode(Since(0, 1)))
    with pytest.raises(RemoteProtocolError, match="Subscribe"):
        SyncProtocol(Role.LISTENER, DEFAULT_LIMITS).receive(encode(subscribe))
    dialler = SyncProtocol(Role.DIALLER, DEFAULT_LIMITS)
    with pytest.raises(RemoteProtocolError, match="Subscribe"):
        dialler.receive(encode(subscribe))
