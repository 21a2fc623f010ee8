"""What every storage engine promises; subclass `StoreContract` with an `opened` fixture.

The numbers in the comments are those of crdt_state/storage/contract.py.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Protocol

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import (
    DocumentClosed,
    FoldOutdated,
    LifeOutdated,
    StoreCorrupt,
    StoreFull,
    WriteInvalid,
)
from crdt_state.identifiers import document_id
from crdt_state.limits import Limits
from crdt_state.lineage import BORN, Life, Lineage
from crdt_state.storage.contract import (
    PEERS,
    UNKNOWN,
    WATERMARKS,
    Append,
    Checkpoint,
    ClearOutbox,
    DropAside,
    Entry,
    Fold,
    Forget,
    Hold,
    KeepText,
    OutboxEntry,
    PendingEntry,
    QuarantineEntry,
    Release,
    Revise,
    Sequence,
    SetAside,
    SetLife,
    SetMetadata,
    Summary,
    Usage,
)
from storage.revision_contract import RevisionContract
from storage.trie_contract import TrieContract

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.contract import Finding, Store, StoredDocument, Write

NOTES = document_id("notes/today")
OTHER = document_id("notes/tomorrow")
HUB = "wss://hub.example"
HOME = "wss://home.example"
NOON = WallTime(1_700_000_000_000_000)
SECOND = Life(Lineage(b"\0\5" + b"2" * 14))
THIRD = Life(Lineage(b"\0\5" + b"3" * 14))
PEER = PEERS + "ada"
SMALL = Limits(quarantine_entries_max=3, quarantine_bytes_max=1_000, stored_bytes_max=100_000)


class Opened(Protocol):
    """An engine under test and what a test may do to it from outside."""

    store: Store

    async def reopen(self) -> Store:
        """Close and open again."""

    async def restore(self) -> Store:
        """Close, and open a copy as one put back from a backup."""

    async def damage(self, kind: str, document: DocumentId) -> None:
        """Flip a bit of the first stored value of this kind: log, checkpoint, pending, …"""

    async def fill_disk(self) -> None:
        """From now on a write finds no space."""

    async def free_disk(self) -> None:
        """Undo `fill_disk`."""


class StoreContract(TrieContract, RevisionContract):
    """The acceptance suite."""

    @pytest.fixture
    def store(self, opened: Opened) -> Store:
        return opened.store

    # --- 1 and 2: writing, sequences ---------------------------------------------------------

    async def test_a_new_store_is_empty(self, store: Store) -> None:
        assert await store.read(NOTES) is None
        assert await store.summary(NOTES) is None
        assert await store.read_since(NOTES, Sequence(0)) == ()
        assert await store.metadata("nothing") is None
        assert await store.outbox(HUB) == ()
        assert await store.revisions(NOTES) is None
        assert await store.quarantine() == ()
        assert await store.quarantine(NOTES) == ()
        assert await store.list() == ()
        assert await store.overgrown(updates=0, size=0, limit=10) == ()
        assert await findings(store) == []
        assert await store.write([]) == 0

    async def test_updates_are_read_back_in_the_order_of_their_sequences(
        self, store: Store
    ) -> None:
        assert await store.write([Append(NOTES, (b"a", b"b"))]) == 2
        assert await store.write([Append(OTHER, (b"c",)), Append(NOTES, (b"", b"d"))]) == 5
        stored = await read(store, NOTES)
        assert stored.log == entries((1, b"a"), (2, b"b"), (4, b""), (5, b"d"))
        assert stored.last == 5
        assert stored.checkpoint is None
        assert await store.read_since(NOTES, Sequence(2)) == entries((4, b""), (5, b"d"))
        assert await store.read_since(NOTES, Sequence(5)) == ()
        assert (await read(store, OTHER)).last == 3

    async def test_everything_is_there_after_reopening(self, opened: Opened) -> None:
        store = opened.store
        await store.write([*everything(), SetLife(OTHER, SECOND.deleted(), NOON, (HUB,))])
        before = await contents(store)
        assert before["documents"], "there must be something to compare"
        after = await contents(await opened.reopen())
        assert after == before
        assert not opened.store.is_new_incarnation

    async def test_identity_outlives_reopening(self, opened: Opened) -> None:
        store = opened.store
        replica, incarnation = store.replica_id, store.incarnation
        assert len(replica) == len(incarnation) == 16
        assert replica != incarnation
        assert not store.is_new_incarnation
        for _ in range(3):
            store = await opened.reopen()
            assert (store.replica_id, store.incarnation) == (replica, incarnation)
            assert not store.is_new_incarnation

    async def test_sequences_are_never_given_twice(self, opened: Opened) -> None:
        store = opened.store
        assert await store.write([Append(NOTES, (b"a", b"b", b"c"))]) == 3
        await store.write([Fold(NOTES, b"abc", b"", Sequence(3))])
        assert await store.write([Append(NOTES, (b"d",))]) == 4
        await store.write([Forget(NOTES)])
        store = await opened.reopen()
        assert await store.write([]) == 4
        assert await store.write([Append(NOTES, (b"e",))]) == 5
        assert (await read(store, NOTES)).log == entries((5, b"e"))

    async def test_quarantine_numbers_are_never_given_twice(self, opened: Opened) -> None:
        store = opened.store
        await store.write([aside(NOTES, b"x"), Forget(NOTES)])
        store = await opened.reopen()
        await store.write([aside(NOTES, b"y")])
        assert [entry.number for entry in await store.quarantine()] == [2]

    async def test_a_refused_call_gives_no_sequence_away(self, store: Store) -> None:
        await store.write([Append(NOTES, (b"a",))])
        with pytest.raises(FoldOutdated):
            await store.write([Append(NOTES, (b"b",)), Fold(NOTES, b"", b"", Sequence(9))])
        assert await store.write([Append(NOTES, (b"c",))]) == 2

    # --- 3: order, cancellation --------------------------------------------------------------

    async def test_calls_are_carried_out_in_their_order(self, store: Store) -> None:
        expected = [str(n).encode() for n in range(500)]
        given = await asyncio.gather(*(store.write([Append(NOTES, (u,))]) for u in expected))
        stored = await read(store, NOTES)
        assert [entry.update for entry in stored.log] == expected
        assert list(given) == sorted(given)
        assert all(
            answer >= entry.sequence for answer, entry in zip(given, stored.log, strict=True)
        )

    async def test_kinds_of_writes_keep_their_order_within_one_call(self, store: Store) -> None:
        await store.write(
            [
                Append(NOTES, (b"a",), (HUB,)),
                Forget(NOTES),
                Append(NOTES, (b"b",), (HOME,)),
                SetMetadata("k", b"1", NOTES),
                Append(NOTES, (b"c",)),
                Fold(NOTES, b"bc", b"", Sequence(3)),
                ClearOutbox(HOME, NOTES, Sequence(2)),
                Append(NOTES, (b"d",), (HUB,)),
            ]
        )
        stored = await read(store, NOTES)
        assert stored.log == entries((4, b"d"))
        assert stored.metadata == {"k": b"1"}
        assert await store.outbox(HUB) == (OutboxEntry(HUB, NOTES, Sequence(4)),)
        assert await store.outbox(HOME) == ()

    async def test_a_cancelled_call_is_carried_out_whole_or_not_at_all(self, store: Store) -> None:
        documents = [document_id(f"cancelled/{n}") for n in range(60)]
        calls = [
            asyncio.create_task(store.write([Append(d, (b"1",)), Append(d, (b"2",), (HUB,))]))
            for d in documents
        ]
        for n, call in enumerate(calls):
            if n % 3 == 0:
                await asyncio.sleep(0)
            if n % 2 == 0:
                call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await store.write([])
        owed = {entry.document for entry in await store.outbox(HUB)}
        seen = 0
        for document, call in zip(documents, calls, strict=True):
            stored = await store.read(document)
            if stored is not None:
                assert [entry.update for entry in stored.log] == [b"1", b"2"]
                seen += 1
            assert (stored is not None) == (document in owed)
            assert stored is not None or call.cancelled()
        assert seen >= len(documents) // 2
        assert await findings(store) == []

    # --- 4: folds ----------------------------------------------------------------------------

    async def test_a_fold_replaces_exactly_the_log_up_to_its_sequence(self, store: Store) -> None:
        await store.write([Append(NOTES, (b"a", b"b", b"c")), hold(NOTES, 1, b"waits")])
        await store.write([Fold(NOTES, b"ab", b"head", Sequence(2))])
        stored = await read(store, NOTES)
        assert stored.checkpoint == Checkpoint(b"ab", b"head", Sequence(2))
        assert stored.log == entries((3, b"c"))
        assert stored.updates() == [b"ab", b"c"]
        assert [entry.update for entry in stored.pending] == [b"waits"]
        assert stored.last == 3
        assert await store.read_since(NOTES, Sequence(0)) == entries((3, b"c"))
        assert await store.summary(NOTES) == Summary(NOTES, Sequence(3), 1, 1, 6, 1, 0)

    async def test_a_document_can_be_folded_again_and_again(self, store: Store) -> None:
        for n in range(1, 6):
            await store.write([Append(NOTES, (b"x",)), Fold(NOTES, b"x" * n, b"", Sequence(n))])
        await store.write([Fold(NOTES, b"better", b"", Sequence(5))])
        stored = await read(store, NOTES)
        assert stored.checkpoint == Checkpoint(b"better", b"", Sequence(5))
        assert stored.log == ()
        assert await findings(store) == []

    async def test_a_fold_that_would_lose_something_is_refused(self, store: Store) -> None:
        await store.write([Append(NOTES, (b"a", b"b", b"c"))])
        await store.write([Fold(NOTES, b"ab", b"", Sequence(2))])
        for through in (0, 1, 4, 99):
            with pytest.raises(FoldOutdated):
                await store.write([Fold(NOTES, b"lost", b"", Sequence(through))])
        assert (await read(store, NOTES)).updates() == [b"ab", b"c"]

    async def test_a_fold_does_not_resurrect_a_forgotten_document(self, store: Store) -> None:
        await store.write([Append(NOTES, (b"old",))])
        await store.write([Forget(NOTES)])
        with pytest.raises(FoldOutdated):
            await store.write([Fold(NOTES, b"old", b"", Sequence(1))])
        assert await store.read(NOTES) is None
        await store.write([Append(NOTES, (b"new",))])
        with pytest.raises(FoldOutdated):
            await store.write([Fold(NOTES, b"old", b"", Sequence(1))])
        assert (await read(store, NOTES)).updates() == [b"new"]

    # --- 5: damage ---------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["log", "checkpoint", "pending", "quarantine"])
    async def test_damage_is_noticed_and_named_and_stays_where_it_is(
        self, opened: Opened, kind: str
    ) -> None:
        store = opened.store
        for document in (NOTES, OTHER):
            await store.write(
                [
                    Append(document, (b"abc", b"def")),
                    Fold(document, b"abc", b"", await following(store)),
                ]
                if kind == "checkpoint"
                else [Append(document, (b"abc", b"def"))]
            )
            await store.write([hold(document, 7, b"waits"), aside(document, b"bad")])
        await opened.damage(kind, NOTES)
        store = opened.store
        with pytest.raises(StoreCorrupt) as caught:
            await (store.quarantine(NOTES) if kind == "quarantine" else store.read(NOTES))
        assert caught.value.document == NOTES
        assert caught.value.sequence is not None
        assert (await read(store, OTHER)).log
        assert len(await store.quarantine(OTHER)) == 1
        found = await findings(store)
        assert {finding.document for finding in found} == {NOTES}

    # --- 6: a full disk ----------------------------------------------------------------------

    async def test_a_full_disk_is_an_error_and_reading_goes_on(self, opened: Opened) -> None:
        store = opened.store
        await store.write([Append(NOTES, (b"kept",), (HUB,))])
        before = await contents(store)
        await opened.fill_disk()
        big = Append(OTHER, (bytes(90_000),))
        with pytest.raises(StoreFull):  # noqa: PT012 - the disk has room for some
            for _ in range(100):
                await store.write([big, Append(NOTES, (b"half",))])
        stored = await read(store, NOTES)
        assert stored.log[0].update == b"kept"
        written = len(stored.log) - 1
        other = await store.read(OTHER)
        assert (0 if other is None else len(other.log)) == written
        await opened.free_disk()
        await store.write([Append(NOTES, (b"again",)), Forget(OTHER)])
        assert (await read(store, NOTES)).log[-1].update == b"again"
        assert await findings(store) == []
        assert before["documents"]

    # --- 7: invalid calls --------------------------------------------------------------------

    @pytest.mark.parametrize(
        "write",
        [
            Append(NOTES, ("text",)),  # type: ignore[arg-type]
            Append(NOTES, (bytes(100_001),)),
            Append(document_id("x").replace("x", ""), (b"a",)),  # type: ignore[arg-type]
            Append(NOTES, (b"a",), ("\ud800",)),
            Append("\udfff", (b"a",)),  # type: ignore[arg-type]
            Append(NOTES, (b"a",), (), (-1,)),
            Hold(NOTES, 2**63, b"a", "", NOON),
            Hold(NOTES, 1, b"a", "", WallTime(-1)),
            SetAside(NOTES, b"a", 1, None, "", NOON),  # type: ignore[arg-type]
            Fold(NOTES, b"a", None, Sequence(1)),  # type: ignore[arg-type]
            ClearOutbox(HUB, NOTES, "1"),  # type: ignore[arg-type]
            SetMetadata("key", bytearray(b"a")),  # type: ignore[arg-type]
            SetLife(NOTES, b"\0", NOON),  # type: ignore[arg-type]
            SetLife(NOTES, SECOND, WallTime(-1)),
            SetLife(NOTES, SECOND, NOON, (7,)),  # type: ignore[arg-type]
            SetLife(NOTES, BORN, NOON),
            DropAside(NOTES, (-1,)),
            "not a write",
        ],
        ids=lambda write: repr(write)[:40],
    )
    async def test_an_invalid_call_changes_nothing(self, store: Store, write: Write) -> None:
        with pytest.raises(WriteInvalid):
            await store.write([Append(OTHER, (b"a",)), write])
        assert await store.list() == ()

    async def test_an_invalid_call_harms_no_call_beside_it(self, store: Store) -> None:
        calls: list[list[Write]] = []
        for n in range(40):
            document = document_id(f"beside/{n}")
            call: list[Write] = [Append(document, (b"a", b"b"), (HUB,)), hold(document, 1, b"c")]
            if n % 4 == 1:
                call.append(Fold(document, b"", b"", Sequence(10**9)))
            if n % 4 == 2:
                call.append(hold(document, 1, b"taken"))
            calls.append(call)
        results = await asyncio.gather(*map(store.write, calls), return_exceptions=True)
        refused = {n for n, result in enumerate(results) if isinstance(result, WriteInvalid)}
        assert refused == {n for n in range(40) if n % 4 in (1, 2)}
        stored = {summary.document for summary in await store.list()}
        assert stored == {document_id(f"beside/{n}") for n in range(40) if n not in refused}
        assert {entry.document for entry in await store.outbox(HUB)} == stored
        assert await findings(store) == []

    # --- 8: a new incarnation ----------------------------------------------------------------

    async def test_a_restored_store_owes_everything_to_every_remote(self, opened: Opened) -> None:
        store = opened.store
        replica, incarnation = store.replica_id, store.incarnation
        await store.write(
            [
                Append(NOTES, (b"a",), (HUB,)),
                Append(OTHER, (b"b", b"c")),
                Fold(OTHER, b"bc", b"", Sequence(3)),
                ClearOutbox(HUB, NOTES, Sequence(1)),
                ClearOutbox(HOME, NOTES, Sequence(1)),
                SetMetadata("only a value", b"v", document_id("valued")),
                SetMetadata(WATERMARKS + HUB, b"3"),
                SetMetadata("name", b"kept"),
            ]
        )
        assert await store.outbox(HUB) == ()
        store = await opened.restore()
        assert store.is_new_incarnation
        assert store.replica_id == replica
        assert store.incarnation != incarnation
        for remote in (HUB, HOME):
            assert await store.outbox(remote) == (
                OutboxEntry(remote, NOTES, Sequence(1)),
                OutboxEntry(remote, OTHER, Sequence(3)),
            )
        assert await store.metadata(WATERMARKS + HUB) is None
        assert await store.metadata("name") == b"kept"
        incarnation = store.incarnation
        store = await opened.reopen()
        assert not store.is_new_incarnation
        assert store.incarnation == incarnation

    # --- what is kept beside the log ---------------------------------------------------------

    async def test_pending_updates_are_kept_in_the_order_of_their_numbers(
        self, store: Store
    ) -> None:
        await store.write([hold(NOTES, 2, b"two"), hold(NOTES, 5, b"five")])
        await store.write([hold(NOTES, 9, b"nine")])
        stored = await read(store, NOTES)
        assert stored.last == 0
        assert stored.log == ()
        assert stored.pending == (
            PendingEntry(2, b"two", "peer", NOON),
            PendingEntry(5, b"five", "peer", NOON),
            PendingEntry(9, b"nine", "peer", NOON),
        )
        await store.write([Append(NOTES, (b"two",), (), (2, 77))])
        await store.write([Release(NOTES, (5, 6)), Release(OTHER, (1,))])
        stored = await read(store, NOTES)
        assert [entry.number for entry in stored.pending] == [9]
        assert stored.log == entries((1, b"two"))
        summary = await store.summary(NOTES)
        assert summary is not None
        assert summary.pending_updates == 1

    async def test_a_pending_number_that_is_taken_is_refused(self, store: Store) -> None:
        await store.write([hold(NOTES, 1, b"first")])
        with pytest.raises(WriteInvalid):
            await store.write([Append(NOTES, (b"a",)), hold(NOTES, 1, b"second")])
        stored = await read(store, NOTES)
        assert [entry.update for entry in stored.pending] == [b"first"]
        assert stored.log == ()
        await store.write([Release(NOTES, (1,)), hold(NOTES, 1, b"third")])
        assert [entry.update for entry in (await read(store, NOTES)).pending] == [b"third"]

    async def test_quarantine_lets_the_oldest_entries_go(self, store: Store) -> None:
        await store.write([aside(OTHER, b"other")])
        for n in range(5):
            await store.write([aside(NOTES, b"%d" % n)])
        kept = await store.quarantine(NOTES)
        assert kept == tuple(
            QuarantineEntry(n + 2, NOTES, b"%d" % n, 4422, "because", "peer", NOON)
            for n in (2, 3, 4)
        )
        assert [entry.document for entry in await store.quarantine()] == [OTHER, *[NOTES] * 3]
        await store.write([aside(NOTES, bytes(999))])
        assert [len(entry.update) for entry in await store.quarantine(NOTES)] == [1, 999]
        await store.write([aside(NOTES, bytes(5_000))])
        assert [len(entry.update) for entry in await store.quarantine(NOTES)] == [5_000]
        summary = await store.summary(NOTES)
        assert summary == Summary(NOTES, Sequence(0), 0, 0, 0, 0, 1)
        assert await findings(store) == []

    async def test_an_outbox_entry_holds_the_last_sequence_and_leaves_when_covered(
        self, store: Store
    ) -> None:
        await store.write(
            [Append(NOTES, (b"a", b"b"), (HUB, HOME)), Append(OTHER, (b"c",), (HUB,))]
        )
        await store.write([Append(NOTES, (b"d",), (HUB,))])
        assert await store.outbox(HUB) == (
            OutboxEntry(HUB, NOTES, Sequence(4)),
            OutboxEntry(HUB, OTHER, Sequence(3)),
        )
        assert await store.outbox(HOME) == (OutboxEntry(HOME, NOTES, Sequence(2)),)
        await store.write([ClearOutbox(HUB, NOTES, Sequence(3))])
        assert len(await store.outbox(HUB)) == 2
        await store.write(
            [ClearOutbox(HUB, NOTES, Sequence(4)), ClearOutbox(HUB, NOTES, Sequence(9))]
        )
        assert await store.outbox(HUB) == (OutboxEntry(HUB, OTHER, Sequence(3)),)
        assert await store.outbox(HOME) == (OutboxEntry(HOME, NOTES, Sequence(2)),)

    async def test_a_document_can_be_owed_without_a_new_update(self, store: Store) -> None:
        await store.write([Append(NOTES, (b"a",))])
        await store.write([Append(NOTES, (), (HUB,)), Append(OTHER, (), (HUB,))])
        assert await store.outbox(HUB) == (OutboxEntry(HUB, NOTES, Sequence(1)),)
        assert await store.read(OTHER) is None

    async def test_values_are_set_replaced_and_removed(self, store: Store) -> None:
        await store.write([SetMetadata("k", b"replica"), SetMetadata("k", b"notes", NOTES)])
        await store.write([SetMetadata("empty", b"", NOTES)])
        assert await store.metadata("k") == b"replica"
        assert (await read(store, NOTES)).metadata == {"k": b"notes", "empty": b""}
        await store.write([SetMetadata("k", b"2"), SetMetadata("k", None, NOTES)])
        await store.write([SetMetadata("k", None, OTHER), SetMetadata("absent", None)])
        assert await store.metadata("k") == b"2"
        assert (await read(store, NOTES)).metadata == {"empty": b""}
        await store.write([SetMetadata("k", None)])
        assert await store.metadata("k") is None
        assert await store.read(OTHER) is None

    async def test_forgetting_removes_every_trace_of_one_document(self, store: Store) -> None:
        await store.write([*everything(), Append(OTHER, (b"kept",), (HUB,))])
        kept = await read(store, OTHER)
        await store.write([Forget(NOTES), Forget(document_id("never/was"))])
        assert await store.read(NOTES) is None
        assert await store.summary(NOTES) is None
        assert await store.revisions(NOTES) is None
        assert await store.quarantine(NOTES) == ()
        assert [entry.document for entry in await store.outbox(HUB)] == [OTHER]
        assert await read(store, OTHER) == kept
        assert await findings(store) == []

    async def test_a_write_that_takes_away_makes_no_document(self, store: Store) -> None:
        await store.write(
            [
                Append(NOTES, ()),
                Release(NOTES, (1,)),
                ClearOutbox(HUB, NOTES, Sequence(1)),
                SetMetadata("k", None, NOTES),
                Forget(NOTES),
            ]
        )
        assert await store.list() == ()

    # --- lists -------------------------------------------------------------------------------

    async def test_documents_are_listed_by_prefix_page_by_page(self, store: Store) -> None:
        names = [
            "a",
            "a/b",
            "a/b/c",
            "a/ü",
            "a/\U0010fffe",
            "a0",
            "b",
            "ä/1",
            "\ud7ff",
            "\ud7ffx",
            "\ue000",
        ]
        for name in Random(5).sample(names, len(names)):
            await store.write([Append(document_id(name), (b"x",))])
        for prefix in ("", "a", "a/", "a/b", "ä", "\ud7ff", "zz", "a/\U0010fffe"):
            expected = sorted(name for name in names if name.startswith(prefix))
            found: list[str] = []
            while page := await store.list(
                prefix=prefix, after=found[-1] if found else "", limit=2
            ):
                assert len(page) <= 2
                found += [summary.document for summary in page]
            assert found == expected, f"with prefix {prefix!r}"
        assert await store.list(limit=0) == ()

    async def test_outbox_and_quarantine_are_read_page_by_page(self, store: Store) -> None:
        names = [document_id(f"page/{n}") for n in range(7)]
        for name in names:
            await store.write([Append(name, (b"x",), (HUB,)), aside(name, b"bad")])
        owed: list[str] = []
        while entries_owed := await store.outbox(HUB, after=owed[-1] if owed else "", limit=3):
            assert len(entries_owed) <= 3
            owed += [entry.document for entry in entries_owed]
        assert owed == names
        numbers: list[int] = []
        while kept := await store.quarantine(after=numbers[-1] if numbers else 0, limit=3):
            assert len(kept) <= 3
            numbers += [entry.number for entry in kept]
        assert numbers == [1, 2, 3, 4, 5, 6, 7]
        assert [entry.number for entry in await store.quarantine(names[4], after=2)] == [5]
        assert await store.quarantine(names[4], after=5) == ()

    async def test_overgrown_documents_come_largest_first(self, store: Store) -> None:
        for name, updates, size in (("many", 200, 1), ("big", 3, 9_000), ("small", 5, 1)):
            await store.write([Append(document_id(name), (bytes(size),) * updates)])
        assert await store.overgrown(updates=100, size=20_000, limit=9) == ("big", "many")
        assert await store.overgrown(updates=100, size=20_000, limit=1) == ("big",)
        assert await store.overgrown(updates=199, size=27_000, limit=9) == ("many",)
        assert await store.overgrown(updates=200, size=27_000, limit=9) == ()
        assert await store.overgrown(updates=4, size=10**9, limit=9) == ("many", "small")
        await store.write([Fold(document_id("many"), b"s", b"", Sequence(200))])
        assert await store.overgrown(updates=100, size=20_000, limit=9) == ("big",)

    async def test_summaries_count_what_is_there(self, store: Store) -> None:
        await store.write(everything())
        assert await store.summary(NOTES) == Summary(NOTES, Sequence(4), 2, 3, 7, 2, 1)
        assert await store.list() == (Summary(NOTES, Sequence(4), 2, 3, 7, 2, 1),)

    # --- creators ----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "first",
        [
            Append(NOTES, (b"a",), creator="ada"),
            Hold(NOTES, 1, b"a", "peer", NOON, "ada"),
            SetAside(NOTES, b"a", 4422, "because", "peer", NOON, "ada"),
            SetMetadata("owner/1", b"ada", NOTES, "ada"),
        ],
        ids=lambda write: type(write).__name__,
    )
    async def test_the_first_write_names_the_creator_and_no_later_one_changes_it(
        self, opened: Opened, first: Write
    ) -> None:
        store = opened.store
        await store.write([first])
        await store.write(
            [
                Append(NOTES, (b"b",), creator="bob"),
                Hold(NOTES, 2, b"b", "peer", NOON, "bob"),
                SetAside(NOTES, b"b", 4422, "because", "peer", NOON, "bob"),
                SetMetadata("owner/2", b"bob", NOTES, "bob"),
                Append(NOTES, (b"c",)),
            ]
        )
        for _ in range(2):
            assert (await read(store, NOTES)).creator == "ada"
            (summary,) = await store.list()
            assert summary.creator == "ada"
            assert (await store.usage("ada")).documents == 1
            assert await store.usage("bob") == Usage(0, 0)
            store = await opened.reopen()

    async def test_a_restored_store_knows_its_creators(self, opened: Opened) -> None:
        await opened.store.write([Append(NOTES, (b"a",), creator="ada")])
        store = await opened.restore()
        assert (await read(store, NOTES)).creator == "ada"
        assert await store.usage("ada") == Usage(1, 1)

    async def test_what_nobody_created_stays_nobodys(self, store: Store) -> None:
        await store.write([Append(NOTES, (b"a",))])
        await store.write([Append(NOTES, (b"b",), creator="ada")])
        assert (await read(store, NOTES)).creator is None
        assert await store.usage("ada") == Usage(0, 0)

    async def test_creators_are_kept_apart_within_one_call(self, store: Store) -> None:
        await store.write(
            [
                Append(NOTES, (b"a",), creator="ada"),
                Append(OTHER, (b"bb",), creator="bob"),
                Append(NOTES, (b"ccc",), creator="bob"),
                Append(document_id("third"), (b"d",)),
            ]
        )
        assert await store.usage("ada") == Usage(1, 4)
        assert await store.usage("bob") == Usage(1, 2)

    async def test_usage_counts_log_checkpoint_pending_and_quarantine(self, store: Store) -> None:
        await store.write([Append(NOTES, (b"1", b"22"), creator="ada")])
        assert await store.usage("ada") == Usage(1, 3)
        await store.write([Fold(NOTES, b"state", b"head", Sequence(1))])
        assert await store.usage("ada") == Usage(1, 2 + 9)
        await store.write([hold(NOTES, 1, b"waits"), hold(NOTES, 2, b"as well")])
        assert await store.usage("ada") == Usage(1, 2 + 9 + 12)
        await store.write([Release(NOTES, (1, 99))])
        assert await store.usage("ada") == Usage(1, 2 + 9 + 7)
        await store.write([Append(NOTES, (b"as well",), released=(2,)), aside(NOTES, b"bad")])
        assert await store.usage("ada") == Usage(1, 9 + 9 + 3)
        await store.write([Append(OTHER, (b"4444",), creator="ada")])
        assert await store.usage("ada") == Usage(2, 9 + 9 + 3 + 4)
        assert await findings(store) == []

    async def test_a_fold_makes_room_and_so_does_forgetting(self, store: Store) -> None:
        await store.write(
            [
                Append(NOTES, (bytes(500), bytes(500)), creator="ada"),
                Append(OTHER, (bytes(70),), creator="ada"),
            ]
        )
        await store.write([Fold(NOTES, b"state", b"", Sequence(2))])
        assert await store.usage("ada") == Usage(2, 75)
        await store.write([Forget(NOTES)])
        assert await store.usage("ada") == Usage(1, 70)

    async def test_a_forgotten_document_can_begin_as_somebody_elses(self, store: Store) -> None:
        await store.write([Append(NOTES, (b"a",), creator="ada")])
        await store.write([Forget(NOTES), Append(NOTES, (b"bb",), creator="bob")])
        assert (await read(store, NOTES)).creator == "bob"
        assert await store.usage("ada") == Usage(0, 0)
        assert await store.usage("bob") == Usage(1, 2)

    async def test_a_creator_that_is_no_text_is_refused(self, store: Store) -> None:
        for write in (
            Append(NOTES, (b"a",), creator=7),  # type: ignore[arg-type]
            Hold(NOTES, 1, b"a", "peer", NOON, 0),  # type: ignore[arg-type]
            SetAside(NOTES, b"a", 4422, "because", "peer", NOON, "\ud800"),
            SetMetadata("k", b"v", NOTES, b"ada"),  # type: ignore[arg-type]
        ):
            with pytest.raises(WriteInvalid):
                await store.write([write])
        assert await store.list() == ()

    # --- 9: lives ----------------------------------------------------------------------------

    async def test_a_document_is_born_with_the_life_that_is_the_same_everywhere(
        self, store: Store
    ) -> None:
        await store.write([Append(NOTES, (b"a",))])
        assert (await read(store, NOTES)).life == BORN

    async def test_a_new_life_has_nothing_of_the_one_before_but_what_was_set_aside(
        self, opened: Opened
    ) -> None:
        store = opened.store
        await store.write([*everything(), Append(OTHER, (b"kept",), (HUB,))])
        kept = await read(store, OTHER)
        set_aside = await store.quarantine(NOTES)
        last = await store.write([SetLife(NOTES, SECOND, NOON, (HOME,), "bob")])
        assert last == kept.last + 1, "the change is something that comes after a sequence"
        for _ in range(2):
            stored = await read(store, NOTES)
            assert (stored.life, stored.last, stored.creator) == (SECOND, last, "bob")
            assert stored.updates() == []
            assert (stored.pending, stored.metadata) == ((), {})
            assert await store.quarantine(NOTES) == set_aside != ()
            assert [entry.document for entry in await store.outbox(HUB)] == [OTHER]
            assert await store.outbox(HOME) == (OutboxEntry(HOME, NOTES, last),)
            assert await read(store, OTHER) == kept
            assert await findings(store) == []
            store = await opened.reopen()
        await store.write([Append(NOTES, (b"new",), (HUB,))])
        stored = await read(store, NOTES)
        assert stored.updates() == [b"new"]
        assert stored.held == {HOME: 0, HUB: 0}, "nobody holds any of this life"
        assert await findings(store) == []

    async def test_a_deleted_document_is_in_no_list_and_its_tombstone_is_still_owed(
        self, opened: Opened
    ) -> None:
        store = opened.store
        await store.write([Append(NOTES, (b"a",), creator="ada"), Append(OTHER, (b"b",))])
        await store.write([SetLife(NOTES, BORN.deleted(), NOON, (HUB, PEER))])
        for _ in range(2):
            assert [line.document for line in await store.list()] == [OTHER]
            everyone = await store.list(with_deleted=True)
            assert [(line.document, line.is_deleted) for line in everyone] == [
                (NOTES, True),
                (OTHER, False),
            ]
            assert await store.summary(NOTES) is None
            assert (await read(store, NOTES)).life == BORN.deleted()
            assert await store.usage("ada") == Usage(0, 0)
            for remote in (HUB, PEER):
                assert await store.outbox(remote) == (OutboxEntry(remote, NOTES, Sequence(3)),)
            assert await findings(store) == []
            store = await opened.reopen()

    async def test_a_life_only_ever_becomes_greater(self, store: Store) -> None:
        await store.write([SetLife(NOTES, SECOND, NOON), Append(NOTES, (b"a",))])
        for life in (BORN, BORN.deleted(), SECOND):
            with pytest.raises(LifeOutdated):
                await store.write([Append(OTHER, (b"b",)), SetLife(NOTES, life, NOON)])
        assert (await read(store, NOTES)).updates() == [b"a"]
        assert await store.read(OTHER) is None
        for life in (SECOND.deleted(), THIRD, THIRD.deleted()):
            await store.write([SetLife(NOTES, life, NOON)])
            assert (await read(store, NOTES)).life == life

    async def test_a_fold_of_an_earlier_life_is_refused(self, store: Store) -> None:
        await store.write([Append(NOTES, (b"old",)), SetLife(NOTES, SECOND, NOON)])
        for through in (1, 2):
            with pytest.raises(FoldOutdated):
                await store.write([Fold(NOTES, b"old", b"", Sequence(through))])
        await store.write([Append(NOTES, (b"new",)), Fold(NOTES, b"NEW", b"", Sequence(3))])
        assert (await read(store, NOTES)).updates() == [b"NEW"]

    async def test_a_damaged_life_is_noticed(self, opened: Opened) -> None:
        await opened.store.write([SetLife(NOTES, SECOND, NOON), SetLife(OTHER, SECOND, NOON)])
        await opened.damage("life", NOTES)
        with pytest.raises(StoreCorrupt) as caught:
            await opened.store.read(NOTES)
        assert caught.value.document == NOTES
        assert (await read(opened.store, OTHER)).life == SECOND
        assert {finding.document for finding in await findings(opened.store)} == {NOTES}

    async def test_a_tombstone_that_everybody_has_passed_is_found_after_a_while(
        self, store: Store
    ) -> None:
        later = WallTime(NOON + 1)
        names = [document_id(name) for name in ("owed", "aside", "passed", "alive", "new")]
        for name in names[:3]:
            await store.write([SetLife(name, BORN.deleted(), NOON)])
        await store.write(
            [
                SetLife(names[0], SECOND.deleted(), NOON, (PEER,)),
                aside(names[1], b"copy"),
                SetLife(names[3], SECOND, NOON),
                SetLife(names[4], BORN.deleted(), later),
            ]
        )
        assert await store.passed_tombstones(before=NOON, limit=9) == ()
        assert await store.passed_tombstones(before=later, limit=9) == ("passed",)
        (entry,) = await store.quarantine(names[1])
        await store.write([DropAside(names[1], (entry.number, 99)), Forget(names[2])])
        await store.write([ClearOutbox(PEER, names[0], await store.write([]))])
        assert await store.passed_tombstones(before=later, limit=9) == ("aside", "owed")
        assert await store.passed_tombstones(before=later, limit=1) == ("aside",)
        assert await findings(store) == []

    async def test_an_outbox_keeps_through_where_its_remote_held_everything(
        self, store: Store
    ) -> None:
        await store.write([Append(NOTES, (b"a",))])
        await store.write([Append(NOTES, (b"b",), (HUB,)), Append(OTHER, (b"x",), (HUB,))])
        await store.write([Append(NOTES, (b"c",), (HUB,))])
        assert (await read(store, NOTES)).held == {HUB: 1}
        await store.write([Append(NOTES, (), (HOME,))])
        assert (await read(store, NOTES)).held == {HOME: 0, HUB: 1}
        await store.write([ClearOutbox(HUB, NOTES, Sequence(2))])
        assert (await read(store, NOTES)).held == {HOME: 0, HUB: 2}
        await store.write([Append(NOTES, (), (HUB, HOME), is_again=True)])
        assert (await read(store, NOTES)).held == {HOME: 0, HUB: 2}, "what it lacked, it lacks"
        await store.write([ClearOutbox(remote, NOTES, Sequence(4)) for remote in (HUB, HOME)])
        assert (await read(store, NOTES)).held == {}
        await store.write(
            [Append(NOTES, (), (HUB,), is_again=True), Append(NOTES, (b"d",), (HUB,))]
        )
        assert (await read(store, NOTES)).held == {HUB: 4}, "it held all but the last"
        assert (await read(store, OTHER)).held == {HUB: 0}, "it was born here"
        assert UNKNOWN < 0

    async def test_a_restored_store_owes_peers_lives_alone(self, opened: Opened) -> None:
        await opened.store.write(
            [
                Append(NOTES, (b"a",), (HUB,)),
                SetLife(OTHER, BORN.deleted(), NOON, (PEER,)),
                ClearOutbox(PEER, OTHER, Sequence(9)),
            ]
        )
        store = await opened.restore()
        assert [entry.document for entry in await store.outbox(PEER)] == [OTHER]
        assert [entry.document for entry in await store.outbox(HUB)] == [NOTES, OTHER]
        assert (await read(store, NOTES)).held == {HUB: 0}, "what was owed before, still is"
        assert (await read(store, OTHER)).held == {HUB: 2}, "of peers nobody asks"
        assert (await read(store, OTHER)).life == BORN.deleted()

    # --- the end -----------------------------------------------------------------------------

    async def test_a_closed_store_says_so(self, opened: Opened) -> None:
        store = opened.store
        await store.close()
        await store.close()
        for call in (
            lambda: store.write([]),
            lambda: store.read(NOTES),
            store.list,
            lambda: store.metadata("k"),
            lambda: store.revisions(NOTES),
        ):
            with pytest.raises(DocumentClosed):
                await call()
        with pytest.raises(DocumentClosed):
            await findings(store)

    async def test_closing_carries_out_what_was_asked_before(self, opened: Opened) -> None:
        store = opened.store
        calls = [asyncio.create_task(store.write([Append(NOTES, (b"x",))])) for _ in range(50)]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*calls)
        assert len((await read(await opened.reopen(), NOTES)).log) == 50


# --- in the tests' words ---------------------------------------------------------------------


def entries(*pairs: tuple[int, bytes]) -> tuple[Entry, ...]:
    return tuple(Entry(Sequence(sequence), update) for sequence, update in pairs)


def hold(document: DocumentId, number: int, update: bytes) -> Hold:
    return Hold(document, number, update, "peer", NOON)


def aside(document: DocumentId, update: bytes) -> SetAside:
    return SetAside(document, update, 4422, "because", "peer", NOON)


def everything() -> list[Write]:
    """One of each in NOTES and in the replica."""
    return [
        Append(NOTES, (b"a", b"b"), (HUB, HOME)),
        Fold(NOTES, b"abc", b"head", Sequence(2)),
        Append(NOTES, (b"c", b"dd"), (HUB,)),
        hold(NOTES, 1, b"waits"),
        hold(NOTES, 2, b"waits too"),
        aside(NOTES, b"bad"),
        SetMetadata("lineage", b"0", NOTES),
        SetMetadata("name", b"replica"),
        Revise(NOTES, 6, (b"6", b"seven"), 5, b"floor"),
        KeepText(NOTES, 7, b"the text"),
    ]


async def read(store: Store, document: DocumentId) -> StoredDocument:
    stored = await store.read(document)
    assert stored is not None, f"there is no {document!r}"
    return stored


async def following(store: Store) -> Sequence:
    """The sequence that the next update gets."""
    return Sequence(await store.write([]) + 1)


async def findings(store: Store) -> list[Finding]:
    return [finding async for finding in store.verify()]


async def contents(store: Store) -> dict[str, object]:
    """All that a store shows."""
    summaries = await store.list(with_deleted=True)
    return {
        "documents": [await store.read(summary.document) for summary in summaries],
        "summaries": summaries,
        "revisions": [await store.revisions(summary.document) for summary in summaries],
        "outboxes": [await store.outbox(remote) for remote in (HUB, HOME)],
        "quarantine": await store.quarantine(),
        "value": await store.metadata("name"),
        "sequence": await store.write([]),
    }
