"""`crdt_state.protocol.peer.scopes`: batches, and what no decoder takes."""

from __future__ import annotations

from random import Random

import pytest

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import DocumentId, Scope
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol.peer.conversation import Role, SyncProtocol
from crdt_state.protocol.peer.messages import Hello, decode, encode
from crdt_state.protocol.peer.parts import FRAME_BYTES_MAX
from crdt_state.protocol.peer.scopes import (
    Bring,
    Exchanged,
    News,
    Parcel,
    Root,
    Since,
    Subscribe,
    batches,
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
    assert [parcel for batch in packed for parcel in batch] == given, f"seed {seed}"
    for batch in packed:
        message = Exchanged(2**53 - 1, batch)
        coded = encode(message)
        assert decode(coded) == message
        assert len(coded) < FRAME_BYTES_MAX // 2


def test_a_parcel_that_is_too_large_for_a_batch_goes_apart() -> None:
    large = Parcel(DocumentId("notes/large"), (bytes(40_000),), b"\0")
    small = Parcel(DocumentId("notes/small"), (b"\0\0",))
    (batch,) = batches([large, small])
    assert batch == (Parcel(DocumentId("notes/large"), is_apart=True), small)


def test_a_batch_of_more_documents_than_are_let_in_is_refused() -> None:
    tiny = [Parcel(DocumentId(f"{number}")) for number in range(1_025)]
    assert [len(batch) for batch in batches(tiny)] == [1_024, 1]
    with pytest.raises(RemoteProtocolError, match="1,025"):
        decode(encode(Bring(0, tuple(tiny))))


@pytest.mark.parametrize(
    "message",
    [
        Subscribe(3, Scope("notes"), root=bytes(32)),
        Root(3, bytes(24), 99, bytes(32), b"node"),
        News(3, 99, True, (Parcel(DocumentId("notes/a"), (b"one", b"two"), b"\0"),)),
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
