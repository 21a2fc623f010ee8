"""Nothing confirmed is lost when the power fails, at any step, however the disk tears.

The store's own SQL runs over a disk that keeps only what was synced (`simulator/disks`).  One run
is a life or several: open, write groups, fold, move the write-ahead log, until the power fails in
a random step; then the file is opened again and compared with what had been confirmed.

A check that finds nothing must first be shown to find something: the same runs with a commit
that does not sync, with a disk that lies, and with a confirmation that comes too early must fail.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, TypeAlias

import apsw
import pytest

from crdt_state.errors import StoreError
from crdt_state.identifiers import document_id
from crdt_state.simulator.disks import Disk, File
from crdt_state.simulator.vfs import FaultyVfs, in_the_dark
from crdt_state.storage.contract import (
    Append,
    ClearOutbox,
    Fold,
    Forget,
    Hold,
    Release,
    Revise,
    Sequence,
    SetAside,
    SetMetadata,
)
from crdt_state.storage.sqlite_connection import checkpoint
from crdt_state.storage.sqlite_reading import read_document, read_outbox, read_value
from crdt_state.storage.sqlite_revisions import read_revisions
from crdt_state.storage.sqlite_writing import commit_group
from storage.apsw_store import ApswStore
from storage.store_contract import HUB, NOON

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.contract import Write

PATH = "/store.db"
LIVES = 3
GROUPS = 25
TOKEN = 8
NAMES = [document_id(f"power/{n}") for n in range(6)]
SHORT_LIVED = document_id("power/short-lived")
REVISED = NAMES[:2]
"""Each of their updates is a revision as well."""
VFS_NUMBERS = itertools.count()

Token: TypeAlias = "tuple[DocumentId, bytes]"


class Lost(AssertionError):
    """Something confirmed is missing, or the file does not hold."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a run breaks on purpose."""

    synchronous: str | None = None
    confirms_early: bool = False
    lies_about: str | None = None


SOUND = Fault()


@dataclass(slots=True)
class Confirmed:
    """What the writer has been told is stored, and what it has at least asked for."""

    tokens: dict[DocumentId, set[bytes]] = field(default_factory=lambda: {n: set() for n in NAMES})
    asked: set[bytes] = field(default_factory=set)
    value: int = 0
    value_asked: int = 0
    forgotten: bool | None = None
    sequence: int = 0

    def check(self, store: ApswStore) -> int:
        """Compare with what is stored; the number of tokens seen."""
        found = [finding.what for finding in store.findings_now()]
        if found:
            raise Lost(f"the check found {found}")
        seen = 0
        for name, tokens in self.tokens.items():
            stored = read_document(store.connection, name)
            there = set() if stored is None else tokens_of(stored.updates())
            missing = tokens - there
            if missing:
                raise Lost(f"{len(missing)} of {len(tokens)} updates of {name} are gone")
            if there - self.asked:
                raise Lost(f"{name} holds what nobody wrote")
            if name in REVISED and stored is not None:
                revised = read_revisions(store.connection, name)
                if revised is None or revised.through != stored.last:
                    raise Lost(f"the revisions of {name} are not those of its log")
                if revised.floor_number + len(revised.revisions) != len(there):
                    raise Lost(f"{name} has other revisions than updates")
                if not set(revised.revisions) <= there:
                    raise Lost(f"{name} has revisions of no update")
            # What survived without being confirmed is stored all the same.
            tokens.update(there)
            seen += len(there)
            owed = any(entry.document == name for entry in read_outbox(store.connection, HUB))
            if tokens and not owed:
                raise Lost(f"the outbox entry of {name} is gone")
        value = int(read_value(store.connection, "value") or b"0")
        if not self.value <= value <= self.value_asked:
            raise Lost(f"value {value} is not between {self.value} and {self.value_asked}")
        self.value = self.value_asked = value
        if self.forgotten is not None:
            is_there = read_document(store.connection, SHORT_LIVED) is not None
            if is_there == self.forgotten:
                raise Lost(f"{SHORT_LIVED} is there: {is_there}")
        if store.write_now([]) < self.sequence:
            raise Lost("sequences go back")
        return seen


def tokens_of(updates: list[bytes]) -> set[bytes]:
    """The first token of every update, or all tokens of a folded state (marked by an F)."""
    tokens: set[bytes] = set()
    for update in updates:
        if update[:1] == b"F":
            tokens |= {update[at : at + TOKEN] for at in range(1, len(update), TOKEN)}
        else:
            tokens.add(update[1 : 1 + TOKEN])
    return tokens


def plan_group(random: Random, store: ApswStore) -> tuple[list[list[Write]], list[Token]]:
    """Calls of every kind, and the tokens that are new in them."""
    calls: list[list[Write]] = []
    fresh: list[Token] = []
    for _ in range(random.randint(1, 4)):
        name = random.choice(NAMES)
        tokens = [random.randbytes(TOKEN) for _ in range(random.randint(1, 3))]
        padding = bytes(random.choice([0, 20, 700, 9_000]))
        call: list[Write] = [Append(name, tuple(b"u" + t + padding for t in tokens), (HUB,))]
        if name in REVISED:
            call.append(revision_of(store, name, tokens, calls))
        if random.random() < 0.3 and (through := foldable(store, name, calls)):
            stored = read_document(store.connection, name)
            assert stored is not None
            state = b"F" + b"".join(sorted(tokens_of(stored.updates())))
            call.insert(0, Fold(name, state, b"head", through))
        if random.random() < 0.2:
            call += [
                Release(name, (1,)),
                Hold(name, 1, b"waits", "peer", NOON),
                SetAside(name, b"bad", 4422, "because", "peer", NOON),
                ClearOutbox("wss://other", name, Sequence(1)),
            ]
        fresh += [(name, token) for token in tokens]
        calls.append(call)
    return calls, fresh


def revision_of(
    store: ApswStore, name: DocumentId, tokens: list[bytes], calls: list[list[Write]]
) -> Revise:
    """Tokens as revisions behind those that are stored, or are in this group; often on a floor."""
    stored = read_revisions(store.connection, name)
    before = [w for call in calls for w in call if isinstance(w, Revise) and w.document == name]
    last = 0 if stored is None else stored.floor_number + len(stored.revisions)
    last += sum(len(write.revisions) for write in before)
    is_floor = last % 3 == 0 or (stored is None and not before)
    return Revise(name, last + 1, tuple(tokens), last, b"floor" if is_floor else None)


def foldable(store: ApswStore, name: DocumentId, calls: list[list[Write]]) -> Sequence | None:
    """Where a fold of what is stored may end, unless this group has folded it already."""
    if any(write.document == name for call in calls for write in call):
        return None
    stored = read_document(store.connection, name)
    return stored.log[-1].sequence if stored is not None and stored.log else None


def write_group(random: Random, confirmed: Confirmed, store: ApswStore, fault: Fault) -> None:
    """One group of calls, confirmed when its commit has returned."""
    calls, fresh = plan_group(random, store)
    forgets = random.random() < 0.5
    confirmed.asked |= {token for _, token in fresh}
    confirmed.value_asked += 1
    confirmed.forgotten = None
    calls.append([SetMetadata("value", b"%d" % confirmed.value_asked)])
    calls.append([Forget(SHORT_LIVED) if forgets else SetMetadata("k", b"v", SHORT_LIVED)])

    def confirm() -> None:
        for name, token in fresh:
            confirmed.tokens[name].add(token)
        confirmed.value = confirmed.value_asked
        confirmed.forgotten = forgets

    if fault.confirms_early:
        confirm()
    outcomes = commit_group(store.connection, calls, store.limits)
    assert not any(isinstance(outcome, Exception) for outcome in outcomes), outcomes
    confirm()
    confirmed.sequence = int(outcomes[-1])  # type: ignore[arg-type]


@contextmanager
def opened(disk: Disk, seed: int) -> Iterator[ApswStore]:
    """A store on this disk; the end of the block is its end, orderly or not."""
    name = f"faulty-{next(VFS_NUMBERS)}"
    vfs = FaultyVfs(name, disk)
    try:
        store = ApswStore(PATH, Random(seed), vfs=name)
        try:
            disk.sync_folder()
            yield store
        finally:
            with suppress(apsw.Error):
                store.connection.close()
    finally:
        vfs.unregister()


def one_life(disk: Disk, seed: int, confirmed: Confirmed, fault: Fault) -> int:
    """From opening to the loss of power, or to the end; tokens seen at the opening."""
    random = Random(seed)
    seen = 0
    try:
        with in_the_dark(), opened(disk, seed) as store:
            seen = confirmed.check(store)
            if fault.synchronous is not None:
                store.connection.execute(f"PRAGMA synchronous = {fault.synchronous}")
            for _ in range(GROUPS):
                write_group(random, confirmed, store, fault)
                if random.random() < 0.25:
                    checkpoint(store.connection, random.choice(["PASSIVE", "PASSIVE", "TRUNCATE"]))
    except (apsw.Error, StoreError):
        if not disk.is_off:
            raise
    return seen


def run(seed: int, fault: Fault = SOUND) -> tuple[int, int]:
    """Several lives on one disk; tokens seen and losses of power."""
    random = Random(seed)
    confirmed = Confirmed()
    files: dict[str, bytes] = {}
    seen = losses = 0
    for _ in range(LIVES):
        life = random.getrandbits(64)
        # A rehearsal without a loss says how many steps there are; the same seed repeats it.
        rehearsal = Disk(files)
        one_life(rehearsal, life, deepcopy(confirmed), fault)
        disk = Disk(files, lost_at=random.randint(1, rehearsal.steps))
        disk.lies_about = fault.lies_about
        seen += one_life(disk, life, confirmed, fault)
        losses += disk.is_off
        files = disk.after_loss(random)
    with opened(Disk(files), 0) as store:
        seen += confirmed.check(store)
    return seen, losses


def losses_found(seeds: Iterable[int], fault: Fault) -> int:
    """How many of these runs show that something confirmed was lost."""
    found = 0
    for seed in seeds:
        try:
            run(seed, fault)
        except (Lost, apsw.Error, StoreError):
            found += 1
    return found


def runs_that_lose_nothing(seeds: Iterable[int]) -> None:
    seen = losses = 0
    for seed in seeds:
        try:
            tokens, lost = run(seed)
        except Exception as error:
            error.add_note(f"repeat it with run({seed})")
            raise
        seen += tokens
        losses += lost
    assert losses > 0, "the power never failed"
    assert seen > 100 * losses, "hardly anything was there to be lost"


def test_nothing_confirmed_is_lost_when_the_power_fails() -> None:
    runs_that_lose_nothing(range(20))


@pytest.mark.full
def test_nothing_confirmed_is_lost_in_two_hundred_runs() -> None:
    runs_that_lose_nothing(range(1_000, 1_200))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(synchronous="NORMAL"),
        Fault(synchronous="OFF"),
        Fault(confirms_early=True),
        Fault(lies_about="-wal"),
        Fault(lies_about=".db"),
    ],
    ids=str,
)
def test_the_check_finds_what_is_lost_when_the_writer_is_broken(fault: Fault) -> None:
    runs = 12
    found = losses_found(range(runs), fault)
    assert found >= 2, f"only {found} of {runs} runs of {fault} lost something"


def test_a_disk_keeps_what_was_synced_and_only_perhaps_the_rest() -> None:
    seen = set()
    for seed in range(400):
        disk = Disk()
        file = disk.names["/f"] = disk.durable_names["/f"] = File()
        file.write(b"a" * 1024, 0)
        file.sync()
        file.write(b"b" * 1024, 0)
        file.write(b"c" * 512, 1024)
        left = disk.after_loss(Random(seed))["/f"]
        assert set(left[:1024]) <= set(b"ab")
        assert len(left) in (1024, 1536)
        seen.add(bytes(left[at] for at in range(0, len(left), 512)))
    assert {b"aa", b"bb", b"ab", b"ba", b"bbc", b"aac", b"aa\0"} <= seen


def test_a_name_is_durable_only_with_its_folder() -> None:
    outcomes = set()
    for seed in range(20):
        disk = Disk()
        disk.names["/new"] = File()
        outcomes.add("/new" in disk.after_loss(Random(seed)))
        disk.sync_folder()
        assert "/new" in disk.after_loss(Random(seed))
    assert outcomes == {True, False}
