"""The running server under attack: whatever comes, it lives, answers, and loses nothing.

That each shape harms a process without guard is proved in tests/replica/test_hostile_shapes.py.
Here the same shapes, whole and spread over many small updates and many connections, meet the
server, while an honest bystander writes (tests/siege.py says what holds throughout).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any

import pycrdt
import pytest

from crdt_state.errors import RemoteProtocolError, UpdateRefused
from crdt_state.lib0 import encode_string, encode_varuint
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.head import Head
from crdt_state.model.inspect import inspect
from crdt_state.model.state import encode_state_vector
from crdt_state.protocol.ywebsocket import (
    AwarenessUpdate,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    encode,
    encode_update,
)
from crdt_state.replica.admission import ANYONE, Refused, admit_many
from crdt_state.storage.sqlite import SqliteStore
from hostile import SHAPES, SWARMS, deleting, mutate, section, string, update, value
from raw_peer import RawPeer, frame, request
from siege import BUSY_WAIT_SECONDS_MAX, WAIT_SECONDS_MAX, Siege, text_of
from sync_server.settings import STORE_FILE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from running import RunningServer

MALFORMED, TOO_LARGE = 4422, 4413


# --- the attacks --------------------------------------------------------------------------------
#
# Each takes the port and a scale between 0 and 1, which is 1 in full.


async def single_shapes(port: int, scale: float) -> None:
    """Every shape of one update, each refused with a code of ours and set aside."""
    for number, (name, shape) in enumerate(SHAPES.items()):
        if number % max(1, round(0.2 / scale)) and name != "values nested 30,000 deep":
            continue
        peer = await RawPeer.connect(port, f"bad/{number}")
        peer.send_updates([shape])
        await peer.barrier()
        assert await peer.gone() in (MALFORMED, TOO_LARGE), name


async def _spread(port: int, document: str, updates: Iterable[bytes], connections: int) -> int:
    """Send updates in order, in chunks over many connections; how many connections were closed."""
    closed = 0
    peers: list[RawPeer] = []
    iterator = iter(updates)
    while chunk := list(islice(iterator, 200)):
        if len(peers) < connections:
            peers.append(await RawPeer.connect(port, document))
        peer = peers.pop(0)
        if peer.ended.done():
            closed += 1
            peer = await RawPeer.connect(port, document)
        peer.send_updates(chunk)
        await peer.barrier(encode_state_vector({1: 2**31 - 1}))
        peers.append(peer)
    for peer in peers:
        closed += peer.ended.done()
        peer.hang_up()
    return closed


def swarm(name: str) -> Callable[[int, float], Awaitable[None]]:
    """40,000 updates that each are harmless, over 50 connections, and a delete above them."""

    async def attack(port: int, scale: float) -> None:
        document = f"swarms/{name.replace(' ', '-')}"
        count = round(40_000 * scale)
        closed = await _spread(port, document, SWARMS[name](count), 50)
        closed += await _spread(port, document, [update(deletes=deleting((1, 0, 1)))], 1)
        if count > DEFAULT_LIMITS.document_writers_per_place_max or "nesting" in name:
            assert closed

    return attack


async def crowds_below_every_bound(port: int, scale: float) -> None:
    """As many writers per key as are let in, at many keys: what the workers must bear."""
    most = DEFAULT_LIMITS.document_writers_per_place_max
    keys = max(1, round(10 * scale))
    writers = most if scale == 1 else round(most * scale)
    updates = (
        update(section(1 + writer + key * most, 0, value(key=f"key {key}")))
        for key in range(keys)
        for writer in range(writers)
    )
    await _spread(port, "swarms/below", updates, 50)


async def _streams(port: int, documents: int, connections: int, updates: Sequence[bytes]) -> None:
    peers = [
        await RawPeer.connect(port, f"streams/{number % documents}")
        for number in range(connections)
    ]
    for peer in peers:
        peer.send_updates(updates)
    await asyncio.gather(*(peer.barrier(encode_state_vector({1: 2**31 - 1})) for peer in peers))
    for peer in peers:
        peer.hang_up()


async def many_streams_at_once(port: int, scale: float) -> None:
    """Hundreds of connections send thousands of tiny updates each, all at the same moment."""
    count = max(20, round(200 * scale))
    length = max(500, round(5_000 * scale))
    typing = [update(section(7, at, string("x", origin=(7, at - 1)))) for at in range(1, length)]
    await _streams(port, 20, count, [update(section(7, 0, string("x"))), *typing])


async def medium_updates_at_once(port: int, scale: float) -> None:
    """Many updates just below what is taken for large, of as many structs as fit."""
    structs = [string("y", origin=(9, at - 1)) if at else string("y") for at in range(8_000)]
    one = update(section(9, 0, *structs))[:-1] + b"\x00"
    await _streams(port, 200, max(10, round(150 * scale)), [one])


def tiny_structs(client: int, size: int) -> bytes:
    """About `size` bytes of the smallest structs that there are."""
    count = size // 8
    typed = b"".join(
        string("a", origin=(client, at - 1)) if at else string("a") for at in range(count)
    )
    return update(encode_varuint(count) + encode_varuint(client) + b"\0" + typed)


def scattered_deletes(count: int) -> bytes:
    """One letter, and as many deleted ranges of it as can be named, in the worst order."""
    starts = list(range(0, 2 * count, 2))
    Random(3).shuffle(starts)
    text = string("a" * (2 * count))
    return update(section(5, 0, text), deletes=deleting(*((5, start, 1) for start in starts)))


async def huge_updates(port: int, scale: float) -> None:
    """16 MiB of tiny structs, of scattered deletes, of clients; from several at once."""
    size = round((15 << 20) * scale)
    structs, deletes = tiny_structs(3, size), scattered_deletes(size // 12)
    clients = update(
        *(section(client, 0, string("a")) for client in range(1, round(99_000 * scale)))
    )

    async def send(number: int, what: bytes) -> None:
        peer = await RawPeer.connect(port, f"huge/{number}")
        peer.send_updates([what])
        await peer.barrier()
        peer.send_updates([what])
        await peer.barrier(encode_state_vector({3: 5}))
        peer.hang_up()

    await asyncio.gather(*(send(n, w) for n, w in enumerate([structs, deletes, clients, structs])))


async def join_storm(port: int, scale: float) -> None:
    """A large document that hundreds ask for, whole and in part, again and again."""
    writer = await RawPeer.connect(port, "storm")
    writer.send_updates([tiny_structs(3, round((4 << 20) * scale))])
    await writer.barrier()
    peers = [await RawPeer.connect(port, "storm") for _ in range(max(10, round(200 * scale)))]

    async def ask(number: int, peer: RawPeer) -> None:
        for turn in range(3):
            await peer.barrier(encode_state_vector({3: 100 * number + turn}) if turn else b"\0")

    await asyncio.gather(*(ask(number, peer) for number, peer in enumerate(peers)))
    for peer in [*peers, writer]:
        peer.hang_up()


async def bogus_state_vectors(port: int, scale: float) -> None:
    """Step 1 with 100,000 clients that nobody knows, and with what is no state vector at all."""
    count = round(100_000 * scale)
    vector = encode_state_vector({2**40 + 7 * client: client + 1 for client in range(count)})
    peers = [await RawPeer.connect(port, f"vectors/{number % 3}") for number in range(10)]
    for peer in peers:
        peer.send_updates([update(section(3, 0, string("here")))])
    for _ in range(3):
        await asyncio.gather(*(peer.barrier(vector) for peer in peers))
    for peer, broken in zip(peers, (b"", b"\xff" * 40, vector[:-1], vector + b"\0"), strict=False):
        peer.send(encode(SyncStep1(broken)))
        assert await peer.gone() == MALFORMED
    for peer in peers:
        peer.hang_up()


async def peers_that_never_read(port: int, scale: float) -> None:
    """They sit in a document, at a stream, and ask for it again and again, and read nothing."""
    count = max(5, round(50 * scale))
    document = "never-read"
    writer = await RawPeer.connect(port, document)
    deaf = [await RawPeer.connect(port, document) for _ in range(count)]
    for peer in deaf:
        peer.stop_reading()
    chunk = 64 * 1024
    for at in range(round(400 * scale)):
        text = string("z" * chunk, origin=(8, at * chunk - 1)) if at else string("z" * chunk)
        writer.send_updates([update(section(8, at * chunk, text))])
        if at % 50 == 0:
            await writer.barrier(encode_state_vector({8: 2**31 - 1}))
    await writer.barrier(encode_state_vector({8: 2**31 - 1}))
    for peer in deaf:
        # 100 times the whole document, and pings, none of whose answers is read.
        peer.write(frame(encode(SyncStep1(b"\0"))) * 100)
        peer.write(frame(encode(QueryAwareness())) * 100)
        peer.write(frame(b"x" * 125, opcode=9) * round(50_000 * scale))
    assert await writer.barrier(encode_state_vector({8: 2**31 - 1})) is not None
    await asyncio.sleep(2 * scale)  # for the server to run into its bounds, if it has none
    for peer in [*deaf, writer]:
        peer.hang_up()


def awareness(entries: Iterable[tuple[int, int, str]]) -> bytes:
    parts = [
        encode_varuint(client) + encode_varuint(clock) + encode_string(text)
        for client, clock, text in entries
    ]
    return encode(AwarenessUpdate(encode_varuint(len(parts)) + b"".join(parts)))


async def huge_awareness(port: int, scale: float) -> None:
    """Many entries, large ones, deep ones, ever new ones, to people some of whom do not read."""
    document = "awareness"
    deaf = [await RawPeer.connect(port, document) for _ in range(max(3, round(30 * scale)))]
    for peer in deaf:
        peer.stop_reading()
    shouting = await RawPeer.connect(port, document)
    large = json.dumps("s" * 60_000)
    for clock in range(1, round(20 * scale) + 2):
        shouting.send(awareness((client, clock, large) for client in range(200)))
        shouting.send(awareness((client, clock, "{}") for client in range(1_000, 11_000)))
        await shouting.barrier()
    shouting.hang_up()
    deep = await RawPeer.connect(port, document)
    deep.send(awareness([(1, 9_999, "[" * 30_000 + "]" * 30_000)]))
    await deep.gone()
    numbers = await RawPeer.connect(port, document)
    numbers.send(awareness([(1, 99_999, "9" * 60_000)]))
    await numbers.barrier()
    for peer in [*deaf, numbers]:
        peer.hang_up()


async def slow_handshakes(port: int, scale: float) -> None:
    """Sockets that say nothing, or half a request, and wait."""
    sockets = [await RawPeer.dial(port) for _ in range(round(1_000 * scale))]
    for number, peer in enumerate(sockets):
        peer.write(request(port, "slow")[: number % 120])
    honest = await RawPeer.connect(port, "not-so-slow")
    assert await honest.barrier() is not None
    for peer in [*sockets, honest]:
        peer.hang_up()


async def half_frames(port: int, scale: float) -> None:
    """Frames that claim 30 MiB, of which nearly all comes, and then nothing."""
    peers = [await RawPeer.connect(port, "halves") for _ in range(round(60 * scale))]
    for peer in peers:
        peer.write(frame(b"h" * round((29 << 20) * scale), size=30 << 20))
    for peer in peers:
        await peer.written()
    for peer in peers:
        peer.write(b"h")
    for peer in peers:
        peer.hang_up()


async def broken_frames(port: int, scale: float) -> None:
    """Text, fragments without end, lies about size, unknown opcodes, no mask."""
    for data, codes in {
        frame(b"hello", opcode=1): {1003},
        frame(b"\xff\xfe", opcode=1): {1003, 1007},
        frame(b"", size=2**62): {1009},
        frame(b"x" * 100, size=40 << 20): {1009},
        frame(b"x", opcode=5): {1002},
        b"\x82\x05hello": {1002},
        frame(b"x" * 200, opcode=9): {1002},
        frame(b"\x00"): {4400},
        frame(b"\x63"): {4400},
        frame(b""): {4400},
    }.items():
        peer = await RawPeer.connect(port, "broken")
        peer.write(data)
        code = await peer.gone()
        assert code in codes, (data[:20], code)
    fragments = await RawPeer.connect(port, "broken")
    fragments.write(frame(b"\x00", fin=False))
    fragments.write(frame(b"", opcode=0, fin=False) * round(500_000 * scale))
    await fragments.written()
    fragments.write(frame(b"", opcode=0))
    await fragments.barrier()
    fragments.hang_up()


async def garbage_requests(port: int, scale: float) -> None:
    """What is no HTTP, or far too much of it."""
    random = Random(7)
    lines = [f"X-{number}: {'v' * 8_000}" for number in range(200)]
    for data in [
        *(random.randbytes(random.randrange(1, 2_000)) for _ in range(round(200 * scale))),
        b"GET / HTTP/1.1\r\n" * 1_000,
        request(port, "a" * 100_000),
        request(port, "many", *lines),
        request(port, "%ff%fe"),
        request(port, "../../etc/passwd"),
        request(port, "-/api/documents/" + "%00"),
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100_000,
        b"\x16\x03\x01" + random.randbytes(500),
    ]:
        peer = await RawPeer.dial(port)
        peer.write(data + b"\r\n\r\n")
        await asyncio.wait([peer.ended], timeout=0.02)
        peer.hang_up()


async def comings_and_goings(port: int, scale: float) -> None:
    """Thousands of connections that come and go, some with a goodbye."""

    async def visit(number: int) -> None:
        peer = await RawPeer.connect(port, f"doors/{number % 50}")
        if number % 3 == 0:
            await peer.barrier()
        if number % 3 == 1:
            peer.write(frame(b"\x03\xe8", opcode=8))
            await peer.gone()
        peer.hang_up()

    for first in range(0, round(5_000 * scale), 100):
        await asyncio.gather(*(visit(number) for number in range(first, first + 100)))


async def many_documents(port: int, scale: float) -> None:
    """One peer makes thousands of documents, each with a little in it, and asks for more."""

    async def make(number: int) -> None:
        peer = await RawPeer.connect(port, f"many/{number}")
        if number % 2:
            peer.send_updates([update(section(2, 0, string("x" * 100)))])
        await peer.barrier()
        peer.hang_up()

    for first in range(0, round(10_000 * scale), 100):
        await asyncio.gather(*(make(number) for number in range(first, first + 100)))


async def waiting_updates(port: int, scale: float) -> None:
    """Updates that wait for what never comes, more than may wait."""
    orphans = (
        update(section(100 + number, 5, string("o", origin=(99, number))))
        for number in range(round(12_000 * scale))
    )
    await _spread(port, "orphans", orphans, 10)


ATTACKS: dict[str, Callable[[int, float], Awaitable[None]]] = {
    "every shape of one update": single_shapes,
    **{f"swarm, {name}": swarm(name) for name in SWARMS},
    "crowds below every bound": crowds_below_every_bound,
    "many streams at once": many_streams_at_once,
    "medium updates at once": medium_updates_at_once,
    "huge updates": huge_updates,
    "join storm": join_storm,
    "bogus state vectors": bogus_state_vectors,
    "peers that never read": peers_that_never_read,
    "huge awareness": huge_awareness,
    "slow handshakes": slow_handshakes,
    "half frames": half_frames,
    "broken frames": broken_frames,
    "garbage requests": garbage_requests,
    "comings and goings": comings_and_goings,
    "many documents": many_documents,
    "updates that wait": waiting_updates,
}


@pytest.mark.full
@pytest.mark.alone
@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_harms_nobody_else(server: RunningServer, name: str) -> None:
    async with Siege(server, name) as siege:
        await ATTACKS[name](siege.port, 1.0)


async def test_a_little_of_every_attack_harms_nobody_else(server: RunningServer) -> None:
    name = "a little of every attack"
    async with Siege(server, name, wait_seconds_max=BUSY_WAIT_SECONDS_MAX) as siege:
        for attack in ATTACKS.values():
            await attack(siege.port, 0.02)


# --- mutants ------------------------------------------------------------------------------------


def honest_histories(random: Random) -> Iterator[list[bytes]]:
    """Updates of small documents that a program makes with every type there is."""
    while True:
        document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=random.randrange(1, 2**32))
        text = document.get("text", type=pycrdt.Text)
        items = document.get("map", type=pycrdt.Map)
        array = document.get("array", type=pycrdt.Array)
        updates: list[bytes] = []
        subscription = document.observe(lambda event, into=updates: into.append(event.update))
        for number in range(random.randint(3, 12)):
            match random.randrange(6):
                case 0 | 1:
                    text.insert(0, random.choice(("a", "hello", "héllo", "x😀y")))
                case 2:
                    items[f"key {random.randrange(3)}"] = random.choice((1, "two", None, [1, {}]))
                case 3:
                    array.append(random.choice((True, 2.5, "three", {"four": [5]})))
                case 4:
                    items["nested"] = pycrdt.Map({"deeper": pycrdt.Array([number])})
                case _ if len(array):
                    del array[0]
        document.unobserve(subscription)
        if updates:
            yield updates


def mutant_frame(random: Random, history: Sequence[bytes]) -> bytes:
    """A frame with something wrong in the update that it carries, or around it."""
    victim = random.choice(history)
    if random.random() < 0.75:
        mutant = mutate(victim, random, history)
        # Most of what is mutated is no update any more; half of the time, look a little longer.
        for _ in range(random.choice((0, 6))):
            with contextlib.suppress(UpdateRefused):
                inspect(mutant, DEFAULT_LIMITS)
                break
            mutant = mutate(victim, random, history)
        return encode_update(mutant)
    kinds = (
        encode_update(victim),
        encode(SyncStep2(victim)),
        encode(SyncStep1(encode_state_vector({1: 2, 3: 4}))),
        awareness([(7, 1, '{"name": "mutant"}')]),
        encode(QueryAwareness()),
    )
    return mutate(random.choice(kinds), random, kinds)


def expected_outcome(head: Head, mutant: bytes) -> str:
    """What the guard has to say to a frame, by its own rules; advances the head."""
    try:
        message = decode(mutant)
    except RemoteProtocolError:
        return "no message"
    if not isinstance(message, Update | SyncStep2):
        return f"a {type(message).__name__}"
    (verdict,) = admit_many(head, [message.update], ANYONE, DEFAULT_LIMITS)
    if isinstance(verdict, Refused):
        return f"refused, {type(verdict.error).__name__}"
    return f"an update, {type(verdict).__name__}"


async def send_mutants(port: int, count: int, seed: int) -> Counter[str]:
    """A few at each document, behind half of its honest history; what they were, by outcome."""
    random = Random(seed)
    histories = honest_histories(random)
    outcomes: Counter[str] = Counter()
    wrong: list[tuple[str, int | None, bytes]] = []

    async def attack(number: int) -> None:
        history = next(histories)
        peer = await RawPeer.connect(port, f"mutants/{seed}-{number}")
        head = Head()
        held = history[: 1 + len(history) // 2]
        admit_many(head, held, ANYONE, DEFAULT_LIMITS)
        peer.send_updates(held)
        for _ in range(12):
            mutant = mutant_frame(random, history)
            outcome = expected_outcome(head, mutant)
            outcomes[outcome] += 1
            peer.send(mutant)
            if outcome in ("no message", "a PermissionDenied") or outcome.startswith("refused"):
                break
        else:
            if await peer.barrier() is None and peer.close_code not in (4400, MALFORMED):
                wrong.append((outcome, peer.close_code, mutant))
            peer.hang_up()
            return
        async with asyncio.timeout(20):
            code = await peer.gone()
        if code is None or not 4400 <= code < 4500:
            wrong.append((outcome, code, mutant))

    number = 0
    while outcomes.total() < count:
        await asyncio.gather(*(attack(number + each) for each in range(50)))
        number += 50
    assert wrong == []
    return outcomes


async def check_mutants(server: RunningServer, count: int, seed: int) -> None:
    bound = BUSY_WAIT_SECONDS_MAX if count < 100_000 else WAIT_SECONDS_MAX
    name = f"{count:,} mutants, seed {seed}"
    async with Siege(server, name, wait_seconds_max=bound) as siege:
        outcomes = await send_mutants(siege.port, count, seed)
    total = outcomes.total()
    for outcome, found in outcomes.most_common():
        print(f"    {found:7,}  {100 * found / total:5.1f} %  {outcome}")  # noqa: T201
    assert total >= count
    decoded = total - outcomes["no message"] - outcomes["refused, UpdateMalformed"]
    passed = sum(
        outcomes[f"an update, {verdict}"] for verdict in ("Admitted", "NothingNew", "Waits")
    )
    assert decoded >= 0.2 * total
    assert passed >= 0.05 * total


async def test_a_sample_of_mutants_harms_nobody(server: RunningServer) -> None:
    await check_mutants(server, 1_000, 20_240_607)


@pytest.mark.full
@pytest.mark.alone
async def test_100_000_mutants_harm_nobody(server: RunningServer) -> None:
    await check_mutants(server, 100_000, 20_240_608)


# --- what has to go well --------------------------------------------------------------------------


def crowd_text(writers: int) -> Iterator[bytes]:
    """One text, to which each of so many clients adds one letter behind the last."""
    before: tuple[int, int] | None = None
    for number in range(writers):
        client = 1_000 + 7 * number
        letter = "abcdefghij"[number % 10]
        yield update(section(client, 0, string(letter, origin=before)))
        before = (client, 0)


@pytest.mark.full
@pytest.mark.alone
async def test_one_text_by_20_000_client_ids_synchronises(server: RunningServer) -> None:
    writers = 20_000
    async with Siege(server, f"a text by {writers:,} clients") as siege:
        peer = await RawPeer.connect(siege.port, "crowd")
        watching = await RawPeer.connect(siege.port, "crowd")
        updates = crowd_text(writers)
        while chunk := list(islice(updates, 500)):
            peer.send_updates(chunk)
            await peer.barrier(encode_state_vector({1: 1}))
        assert await text_of(siege.port, "crowd") == "abcdefghij" * (writers // 10)
        assert peer.close_code is watching.close_code is None
        peer.hang_up()
        watching.hang_up()
    assert await text_of(server.port, "crowd") == "abcdefghij" * (writers // 10)


async def test_a_document_with_refused_updates_is_named_in_the_list(
    server: RunningServer,
) -> None:
    peer = await RawPeer.connect(server.port, "bad/one")
    peer.send_updates([update(section(1, 0, string("kept"))), SHAPES["a GC of no length"]])
    assert await peer.gone() == MALFORMED
    good = await RawPeer.connect(server.port, "good/one")
    good.send_updates([update(section(1, 0, string("fine")))])
    await good.barrier()
    await RawPeer.all_hang_up()
    server.terminate()
    assert await asyncio.to_thread(server.exit_code) == 0
    store = await SqliteStore.open(server.store / STORE_FILE, random=Random(1))
    try:
        named = {line.document: line.quarantined_updates for line in await store.list()}
        assert named == {"bad/one": 1, "good/one": 0}
        (entry,) = await store.quarantine()
        assert (entry.document, entry.update) == ("bad/one", SHAPES["a GC of no length"])
        kept = await store.read(entry.document)
        assert kept is not None
        assert len(kept.updates()) == 1
    finally:
        await store.close()
