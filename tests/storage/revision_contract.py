"""What every storage engine promises about the revisions of a text; a part of `StoreContract`.

The numbers in the comments are those of crdt_state/storage/contract.py.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import FoldOutdated, StoreCorrupt, WriteInvalid
from crdt_state.identifiers import document_id
from crdt_state.lineage import BORN
from crdt_state.storage.contract import (
    Append,
    Fold,
    Forget,
    KeepText,
    Revise,
    Sequence,
    SetLeaf,
    SetLife,
    SetMetadata,
    StoredRevisions,
    Usage,
)

if TYPE_CHECKING:
    from crdt_state.storage.contract import Finding, Store, Write

PAPER = document_id("papers/one")
SECOND_PAPER = document_id("papers/two")
EPOCH = 2**32


def fold(through: int) -> Fold:
    return Fold(PAPER, b"state", b"", Sequence(through))


async def begun(store: Store, *revisions: bytes, floor_number: int = 10) -> None:
    """A paper with one update, and these revisions above a floor."""
    await store.write(
        [
            Append(PAPER, (b"a",)),
            Revise(PAPER, floor_number + 1, revisions, floor_number, b"floor"),
        ]
    )


async def revised(store: Store) -> StoredRevisions:
    stored = await store.revisions(PAPER)
    assert stored is not None, "it has no revisions"
    return stored


async def findings(store: Store) -> list[Finding]:
    return [finding async for finding in store.verify()]


class RevisionContract:
    """11: revisions of a text, their floor, and how far a log may be folded."""

    # --- numbers -----------------------------------------------------------------------------

    async def test_revisions_are_read_back_above_their_floor(self, opened) -> None:
        store = opened.store
        await begun(store, b"11", b"")
        await store.write([Append(PAPER, (b"b", b"c")), Revise(PAPER, 13, (b"thirteen",))])
        for _ in range(2):
            assert await store.revisions(PAPER) == StoredRevisions(
                10, b"floor", (b"11", b"", b"thirteen"), Sequence(3), None, True
            )
            assert await store.revisions(SECOND_PAPER) is None
            assert await findings(store) == []
            store = await opened.reopen()

    async def test_a_floor_takes_the_place_of_what_is_numbered_as_itself_or_less(
        self, store: Store
    ) -> None:
        await begun(store, b"11", b"12", b"13")
        await store.write([Revise(PAPER, 14, (b"14",), 12, b"raised")])
        stored = await revised(store)
        assert (stored.floor_number, stored.floor) == (12, b"raised")
        assert stored.revisions == (b"13", b"14")
        await store.write([Revise(PAPER, 15, (), 14, b"all of it")])
        assert (await revised(store)).revisions == ()
        await store.write([Revise(PAPER, 15, (b"15",), 14, b"in its own place")])
        stored = await revised(store)
        assert (stored.floor_number, stored.floor) == (14, b"in its own place")
        assert stored.revisions == (b"15",)
        assert await findings(store) == []

    async def test_a_floor_beyond_every_number_takes_all_away(self, store: Store) -> None:
        await begun(store, b"11", b"12")
        await store.write([Revise(PAPER, EPOCH + 1, (b"first",), EPOCH, b"a new epoch")])
        stored = await revised(store)
        assert (stored.floor_number, stored.floor) == (EPOCH, b"a new epoch")
        assert stored.revisions == (b"first",)
        assert await findings(store) == []

    @pytest.mark.parametrize(
        "write",
        [
            Revise(PAPER, 12, (b"again",)),
            Revise(PAPER, 14, (b"a gap",)),
            Revise(PAPER, 12),
            Revise(PAPER, 13, (b"13",), 13, b"into what comes"),
            Revise(PAPER, 12, (b"12",), 11, b"again above a floor"),
            Revise(PAPER, 13, (b"13",), 9, b"a floor that went back"),
            Revise(PAPER, EPOCH + 2, (b"x",), EPOCH, b"an epoch with a gap"),
            Revise(SECOND_PAPER, 1, (b"1",)),
        ],
        ids=lambda write: f"{write.document}-{write.first}-{write.floor}",
    )
    async def test_what_does_not_follow_the_stored_revisions_is_refused(
        self, store: Store, write: Revise
    ) -> None:
        await begun(store, b"11", b"12")
        await store.write([Append(SECOND_PAPER, (b"x",))])
        before = await revised(store)
        with pytest.raises(WriteInvalid) as caught:
            await store.write([Append(PAPER, (b"lost",)), write])
        assert not isinstance(caught.value, FoldOutdated)
        assert await revised(store) == before
        assert (await store.read(PAPER)).updates() == [b"a"]
        assert await store.revisions(SECOND_PAPER) is None

    async def test_the_first_revisions_bring_their_floor(self, store: Store) -> None:
        await store.write([Append(PAPER, (b"a",))])
        for write in (Revise(PAPER, 1), Revise(PAPER, 1, (b"1",), 0)):
            with pytest.raises(WriteInvalid, match="floor"):
                await store.write([write])
        await store.write([Revise(PAPER, 1, (), 0, b"")])
        assert await revised(store) == StoredRevisions(0, b"", (), Sequence(1), None, True)

    async def test_only_what_exists_has_revisions(self, store: Store) -> None:
        first = Revise(PAPER, 1, (b"1",), 0, b"floor")
        for writes in ([first], [first, Append(PAPER, (b"a",))], [Append(PAPER, ()), first]):
            with pytest.raises(WriteInvalid, match="no document"):
                await store.write(writes)
        assert await store.read(PAPER) is None
        await store.write([SetMetadata("k", b"v", PAPER), first])
        before = await revised(store)
        assert before.revisions == (b"1",)
        await store.write([Append(PAPER, (b"a",)), Revise(PAPER, 2)])
        assert (await revised(store)).through > before.through
        await store.write([SetLife(PAPER, BORN.deleted(), WallTime(1))])
        with pytest.raises(WriteInvalid, match="no document"):
            await store.write([first])

    @pytest.mark.parametrize(
        "write",
        [
            Revise(PAPER, -1, (), -2, b"floor"),
            Revise(PAPER, 2**63 - 1, (b"r", b"r"), 2**63 - 2, b"floor"),
            Revise(PAPER, 12, ("r",)),  # type: ignore[arg-type]
            Revise(PAPER, 12, (bytes(100_001),)),
            Revise(PAPER, 12, (), 11, bytes(100_001)),
            Revise(PAPER, 12, (), 11, "floor"),  # type: ignore[arg-type]
            Revise(PAPER, 12, (), "11", b"floor"),  # type: ignore[arg-type]
            KeepText(PAPER, 11, None),  # type: ignore[arg-type]
            KeepText(PAPER, 11, bytes(100_001)),
            KeepText(PAPER, "11", b"text"),  # type: ignore[arg-type]
            KeepText(7, 11, b"text"),  # type: ignore[arg-type]
        ],
        ids=lambda write: repr(write)[:60],
    )
    async def test_what_fits_no_row_of_revisions_is_refused(
        self, store: Store, write: Revise | KeepText
    ) -> None:
        await begun(store, b"11")
        before = await revised(store)
        with pytest.raises(WriteInvalid):
            await store.write([write])
        assert await revised(store) == before

    # --- where they stand in the log -----------------------------------------------------------

    async def test_revisions_stand_for_the_log_as_of_their_write(self, store: Store) -> None:
        await begun(store, b"11")
        assert (await revised(store)).through == 1
        await store.write([Append(SECOND_PAPER, (b"x",)), Append(PAPER, (b"b",))])
        assert (await revised(store)).through == 1
        await store.write([Append(PAPER, (b"c",)), Revise(PAPER, 12), Append(PAPER, (b"d",))])
        stored = await revised(store)
        assert (stored.through, stored.revisions) == (4, (b"11",))

    async def test_a_fold_beyond_the_revisions_is_refused(self, store: Store) -> None:
        await begun(store, b"11")
        await store.write([Append(PAPER, (b"b", b"c"))])
        for through in (2, 3):
            with pytest.raises(FoldOutdated, match="revisions"):
                await store.write([fold(through)])
        assert (await store.read(PAPER)).updates() == [b"a", b"b", b"c"]
        await store.write([fold(1)])
        assert (await store.read(PAPER)).updates() == [b"state", b"b", b"c"]
        assert await findings(store) == []

    async def test_a_fold_follows_revisions_that_were_brought_on_in_its_call(
        self, store: Store
    ) -> None:
        await begun(store, b"11")
        await store.write([Append(PAPER, (b"b",)), Revise(PAPER, 12, (b"12",)), fold(2)])
        assert (await store.read(PAPER)).updates() == [b"state"]
        assert (await revised(store)).through == 2
        await store.write([Append(PAPER, (b"c",))])
        with pytest.raises(FoldOutdated):
            await store.write([fold(3), Revise(PAPER, 13)])
        assert await findings(store) == []

    async def test_a_text_that_is_kept_lets_folds_pass_until_the_next_revision(
        self, opened
    ) -> None:
        store = opened.store
        await begun(store, b"11")
        await store.write([Append(PAPER, (b"b", b"c")), KeepText(PAPER, 11, b"text"), fold(2)])
        await store.write([fold(3)])
        for _ in range(2):
            assert await revised(store) == StoredRevisions(
                10, b"floor", (b"11",), Sequence(1), b"text", True
            )
            assert await findings(store) == []
            store = await opened.reopen()
        await store.write([KeepText(PAPER, 11, b"the same, told again")])
        assert (await revised(store)).text == b"the same, told again"
        await store.write([Revise(PAPER, 12), Append(PAPER, (b"d",))])
        stored = await revised(store)
        assert (stored.text, stored.through) == (None, 3)
        with pytest.raises(FoldOutdated):
            await store.write([fold(4)])
        assert await findings(store) == []

    async def test_only_the_text_at_the_last_revision_is_kept(self, store: Store) -> None:
        await begun(store)
        await store.write([KeepText(PAPER, 10, b"at the floor")])
        assert (await revised(store)).text == b"at the floor"
        await store.write([Revise(PAPER, 11, (b"11", b"12"))])
        for number in (10, 11, 13):
            with pytest.raises(WriteInvalid, match="is 12"):
                await store.write([KeepText(PAPER, number, b"text")])
        await store.write([Append(SECOND_PAPER, (b"x",))])
        with pytest.raises(WriteInvalid):
            await store.write([KeepText(SECOND_PAPER, 0, b"text")])
        assert (await revised(store)).text is None

    async def test_documents_that_were_never_revised_are_folded_as_ever(self, store: Store) -> None:
        await begun(store, b"11")
        await store.write([Append(SECOND_PAPER, (b"x", b"y"))])
        await store.write([Fold(SECOND_PAPER, b"xy", b"", Sequence(3))])
        assert (await store.read(SECOND_PAPER)).updates() == [b"xy"]

    # --- their end ---------------------------------------------------------------------------

    @pytest.mark.parametrize("end", [SetLife(PAPER, BORN.deleted(), WallTime(1)), Forget(PAPER)])
    async def test_revisions_end_with_the_life_of_their_document(
        self, opened, end: SetLife | Forget
    ) -> None:
        store = opened.store
        await begun(store, b"11", b"12")
        await store.write([KeepText(PAPER, 12, b"text"), end])
        for _ in range(2):
            assert await store.revisions(PAPER) is None
            assert await findings(store) == []
            store = await opened.reopen()
        if isinstance(end, Forget):
            await begun(store, b"1", floor_number=0)
            stored = await revised(store)
            assert (stored.floor_number, stored.revisions, stored.text) == (0, (b"1",), None)
            assert await findings(store) == []

    async def test_a_new_incarnation_keeps_revisions_and_says_so(self, opened) -> None:
        await begun(opened.store, b"11")
        await opened.store.write([KeepText(PAPER, 11, b"text")])
        store = await opened.restore()
        assert await revised(store) == StoredRevisions(
            10, b"floor", (b"11",), Sequence(1), b"text", False
        )
        store = await opened.reopen()
        await store.write([Append(PAPER, (b"b",)), Revise(PAPER, 12, (b"12",))])
        assert not (await revised(store)).is_of_this_incarnation, "its floor is not"
        await store.write([Revise(PAPER, EPOCH + 1, (), EPOCH, b"a new epoch")])
        for _ in range(2):
            assert (await revised(store)).is_of_this_incarnation
            store = await opened.reopen()

    # --- beside the rest ---------------------------------------------------------------------

    async def test_revisions_take_no_sequence_and_leave_digests_alone(self, store: Store) -> None:
        assert await store.write([Append(PAPER, (b"a",), ("wss://hub.example",))]) == 1
        await store.write([SetLeaf(PAPER, Sequence(1), 7, bytes(range(16)))])
        outbox = await store.outbox("wss://hub.example")
        before = await store.read(PAPER)
        assert await store.write([Revise(PAPER, 1, (b"1",), 0, b"floor")]) == 1
        assert await store.write([KeepText(PAPER, 1, b"text")]) == 1
        assert await store.read(PAPER) == before
        assert await store.undigested() == ()
        assert (await store.stale("papers")).buckets == ()
        assert await store.outbox("wss://hub.example") == outbox != ()

    async def test_usage_counts_revisions_floors_and_texts(self, store: Store) -> None:
        await store.write([Append(PAPER, (b"a",), creator="ada")])
        await store.write([Revise(PAPER, 1, (b"22", b"333"), 0, b"4444")])
        assert await store.usage("ada") == Usage(1, 1 + 5 + 4)
        await store.write([KeepText(PAPER, 2, b"a text of 20 letters")])
        assert await store.usage("ada") == Usage(1, 1 + 5 + 4 + 20)
        await store.write([KeepText(PAPER, 2, b"shorter")])
        assert await store.usage("ada") == Usage(1, 1 + 5 + 4 + 7)
        await store.write([Revise(PAPER, 3, (b"55555",), 1, b"6")])
        assert await store.usage("ada") == Usage(1, 1 + 3 + 5 + 1)
        await store.write([Revise(PAPER, EPOCH + 1, (), EPOCH, b"77")])
        assert await store.usage("ada") == Usage(1, 1 + 2)
        assert await findings(store) == []
        await store.write([SetLife(PAPER, BORN.deleted(), WallTime(1), (), "ada")])
        assert await store.usage("ada") == Usage(1, 0)
        assert await findings(store) == []

    async def test_a_refused_call_leaves_revisions_as_they_were(self, store: Store) -> None:
        await begun(store, b"11", b"12")
        await store.write([KeepText(PAPER, 12, b"text")])
        before = await revised(store)
        with pytest.raises(FoldOutdated):
            await store.write(
                [
                    Append(PAPER, (b"b",)),
                    Revise(PAPER, 13, (b"13",), 11, b"raised"),
                    KeepText(PAPER, 13, b"another"),
                    fold(99),
                ]
            )
        assert await revised(store) == before
        assert await findings(store) == []
        await store.write([Revise(PAPER, 13, (b"13",))])
        assert (await revised(store)).revisions == (b"11", b"12", b"13")

    async def test_revisions_that_are_refused_harm_no_call_beside_them(self, store: Store) -> None:
        names = [document_id(f"papers/{number}") for number in range(30)]
        calls: list[list[Write]] = []
        for number, name in enumerate(names):
            append, revise = Append(name, (b"a",)), Revise(name, 1, (b"1",), 0, b"floor")
            text = KeepText(name, 1, b"text")
            calls.append(
                [[append, revise, Revise(name, 7)], [append, text], [append, revise, text]][
                    number % 3
                ]
            )
        results = await asyncio.gather(*map(store.write, calls), return_exceptions=True)
        for number, (name, result) in enumerate(zip(names, results, strict=True)):
            stored = await store.revisions(name)
            if number % 3 == 2:
                assert stored is not None
                assert (stored.revisions, stored.text) == ((b"1",), b"text")
            else:
                assert isinstance(result, WriteInvalid)
                assert stored is None
                assert await store.read(name) is None
        assert await findings(store) == []

    async def test_many_revisions_are_written_and_forgotten_at_once(self, store: Store) -> None:
        many = tuple(Random(4).randbytes(number % 40) for number in range(1_000))
        await begun(store, *many)
        assert (await revised(store)).revisions == many
        await store.write([Revise(PAPER, 1_011, (b"last",), 1_000, b"raised")])
        assert (await revised(store)).revisions == (*many[990:], b"last")
        assert await findings(store) == []

    # --- damage ------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["revised", "floor", "revision", "text"])
    async def test_damage_to_revisions_is_noticed_and_a_new_epoch_begins_anew(
        self, opened, kind: str
    ) -> None:
        store = opened.store
        for document in (PAPER, SECOND_PAPER):
            await store.write(
                [
                    Append(document, (b"a",)),
                    Revise(document, 1, (b"1", b"2"), 0, b"floor"),
                    KeepText(document, 2, b"text"),
                ]
            )
        assert await findings(store) == []
        await opened.damage(kind, PAPER)
        store = opened.store
        with pytest.raises(StoreCorrupt) as caught:
            await store.revisions(PAPER)
        assert caught.value.document == PAPER
        assert caught.value.sequence is not None
        found = await findings(store)
        assert {finding.document for finding in found} == {PAPER}
        assert (await store.read(PAPER)).updates() == [b"a"], "its log is not touched by it"
        assert (await store.revisions(SECOND_PAPER)).revisions == (b"1", b"2")
        await store.write([Revise(PAPER, EPOCH + 1, (b"new",), EPOCH, b"a new epoch")])
        stored = await revised(store)
        assert (stored.floor, stored.revisions) == (b"a new epoch", (b"new",))
        assert await findings(store) == []

    async def test_only_a_floor_follows_a_damaged_position(self, opened) -> None:
        store = opened.store
        await begun(store, b"11")
        await store.write([KeepText(PAPER, 11, b"text")])
        await opened.damage("revised", PAPER)
        store = opened.store
        for write in (Revise(PAPER, 12), KeepText(PAPER, 11, b"text")):
            with pytest.raises(WriteInvalid):
                await store.write([write])
        await store.write([Append(PAPER, (b"b",)), fold(2)])
        await store.write([Revise(PAPER, 2, (b"2",), 1, b"floor")])
        assert await revised(store) == StoredRevisions(
            1, b"floor", (b"2",), Sequence(2), None, True
        )
        assert await findings(store) == []
