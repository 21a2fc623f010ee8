"""What every storage engine promises about tries; a part of `StoreContract`.

The numbers in the comments are those of crdt_state/storage/contract.py.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import FoldOutdated, StoreCorrupt, WriteInvalid
from crdt_state.identifiers import DocumentId, Scope, document_id
from crdt_state.lineage import BORN
from crdt_state.storage.contract import (
    Append,
    Fold,
    Forget,
    ForgetDigests,
    Head,
    Heads,
    Sequence,
    SetLeaf,
    SetLife,
    SetMetadata,
    SetNodes,
    StaleBuckets,
    StoredLeaf,
)

if TYPE_CHECKING:
    from crdt_state.storage.contract import Store, Write

SCOPE = Scope("notes")
TODAY = document_id("notes/today")
LATER = document_id("notes/tomorrow")
DEEPER = document_id("notes/old/today")
ALONE = document_id("alone")

LEAF = bytes(range(16))
NODE = bytes(range(256)) * 4


def leaf(document: DocumentId, through: int, bucket: int = 7, value: bytes = LEAF) -> SetLeaf:
    return SetLeaf(document, Sequence(through), bucket, value)


async def heads(store: Store, after: int, size: int = 1_000) -> tuple[Head, ...]:
    return (await store.heads(SCOPE, Sequence(after), limit=100, size=size)).heads


class TrieContract:
    """9: digests, leaves, nodes, heads."""

    async def test_an_update_makes_its_document_undigested_in_the_same_commit(
        self, store: Store
    ) -> None:
        await store.write([Append(TODAY, (b"a", b"b")), SetMetadata("only", b"value", LATER)])
        assert await store.undigested() == (TODAY,)
        await store.write([leaf(TODAY, 2)])
        assert await store.undigested() == ()
        await store.write([Append(TODAY, (b"c",))])
        assert await store.undigested() == (TODAY,), "what it holds has changed"
        await store.write([leaf(TODAY, 2)])
        assert await store.undigested() == (TODAY,), "that leaf is of what was before"
        await store.write([leaf(TODAY, 3), Fold(TODAY, b"abc", b"", Sequence(3))])
        assert await store.undigested() == (), "a fold changes nothing of what it holds"

    async def test_the_undigested_are_listed_by_scope_page_by_page(self, store: Store) -> None:
        await store.write([Append(d, (b"x",)) for d in (LATER, ALONE, TODAY, DEEPER)])
        assert await store.undigested() == (ALONE, DEEPER, TODAY, LATER)
        assert await store.undigested(SCOPE) == (TODAY, LATER)
        assert await store.undigested(Scope("")) == (ALONE,)
        assert await store.undigested(Scope("notes/old")) == (DEEPER,)
        assert await store.undigested(Scope("not")) == ()
        assert await store.undigested(SCOPE, limit=1) == (TODAY,)
        assert await store.undigested(SCOPE, after=TODAY) == (LATER,)

    async def test_leaves_lie_in_the_buckets_of_their_scope(self, opened) -> None:
        store = opened.store
        await store.write([Append(d, (b"x",)) for d in (LATER, ALONE, TODAY, DEEPER)])
        await store.write([leaf(LATER, 1), leaf(ALONE, 2), leaf(TODAY, 3), leaf(DEEPER, 4, 8)])
        store = await opened.reopen()
        assert sorted((await store.buckets(SCOPE, [7]))[7]) == [(TODAY, LEAF), (LATER, LEAF)]
        assert await store.buckets(Scope("notes/old"), range(64)) == {8: [(DEEPER, LEAF)]}
        assert await store.buckets(SCOPE, [1, 8, 262_143]) == {}
        assert await store.buckets(Scope("nobody"), [7]) == {}
        assert await store.leaves(prefix="notes/", limit=2) == (
            StoredLeaf(DEEPER, Sequence(4), LEAF),
            StoredLeaf(TODAY, Sequence(3), LEAF),
        )
        assert [each.document for each in await store.leaves(after=TODAY)] == [LATER]

    async def test_a_document_without_a_digest_has_no_leaf_and_is_not_asked_about_again(
        self, store: Store
    ) -> None:
        await store.write([Append(TODAY, (b"x",)), leaf(TODAY, 1)])
        await store.write([Append(TODAY, (b"y",))])
        await store.write([SetLeaf(TODAY, Sequence(2), 7, None)])
        assert await store.undigested() == ()
        assert await store.buckets(SCOPE, [7]) == {}
        assert await store.leaves() == ()

    async def test_nodes_are_kept_by_scope_and_number(self, opened) -> None:
        store = opened.store
        await store.write(
            [SetNodes(SCOPE, {0: NODE, 4_160: NODE[::-1]}), SetNodes(ALONE, {0: NODE})]
        )  # type: ignore[arg-type]
        store = await opened.reopen()
        assert await store.nodes(SCOPE, [0, 1, 4_160]) == {0: NODE, 4_160: NODE[::-1]}
        await store.write([SetNodes(SCOPE, {0: NODE[::-1], 4_160: bytes(1_024)})])
        assert await store.nodes(SCOPE, range(4_161)) == {0: NODE[::-1]}
        assert await store.nodes(Scope("alone"), [0]) == {0: NODE}
        assert await store.nodes(Scope("nobody"), [0]) == {}

    async def test_forgetting_makes_a_bucket_stale_until_its_nodes_are_made_again(
        self, opened
    ) -> None:
        store = opened.store
        await store.write([Append(TODAY, (b"x",)), Append(ALONE, (b"x",)), leaf(TODAY, 1)])
        await store.write([Forget(TODAY), Forget(ALONE)])
        store = await opened.reopen()
        stale = await store.stale(SCOPE)
        assert stale == StaleBuckets((7,), stale.through)
        assert (await store.stale(Scope(""))).buckets == (), "it never had a leaf"
        await store.write([leaf(TODAY, 1, 9)])
        assert (await store.stale(SCOPE)).buckets == (7, 9), "a leaf came too late"
        await store.write([SetNodes(SCOPE, {}, stale.through)])
        assert (await store.stale(SCOPE)).buckets == (9,), "that came after what was read"
        assert await store.buckets(SCOPE, [7, 9]) == {}

    async def test_a_leaf_of_an_earlier_life_is_not_set(self, store: Store) -> None:
        await store.write([Append(TODAY, (b"old",)), Forget(TODAY), Append(TODAY, (b"new",))])
        await store.write([leaf(TODAY, 1)])
        assert await store.undigested() == (TODAY,)
        assert await store.buckets(SCOPE, [7]) == {}
        await store.write([leaf(TODAY, 2)])
        assert await store.undigested() == ()

    async def test_forgetting_the_digests_begins_every_trie_anew(self, store: Store) -> None:
        await store.write([Append(TODAY, (b"x",)), leaf(TODAY, 1), SetNodes(SCOPE, {0: NODE})])
        await store.write([ForgetDigests()])
        assert await store.undigested() == (TODAY,)
        assert await store.leaves() == ()
        assert await store.nodes(SCOPE, [0]) == {}
        assert (await store.read(TODAY)).updates() == [b"x"]

    async def test_heads_are_given_in_the_order_of_their_last_sequences(self, store: Store) -> None:
        await store.write([Append(TODAY, (b"1", b"2")), Append(LATER, (b"3",))])
        await store.write([Append(TODAY, (b"4",)), SetMetadata("only", b"value", ALONE)])
        await store.write([Append(DEEPER, (b"5",)), Append(ALONE, (b"6",))])
        later = Head(LATER, Sequence(3), (b"3",))
        assert await heads(store, 0) == (later, Head(TODAY, Sequence(4), (b"1", b"2", b"4")))
        assert await heads(store, 3) == (Head(TODAY, Sequence(4), (b"4",)),)
        assert await heads(store, 4) == ()
        assert (await store.heads(SCOPE, Sequence(0), limit=9, size=99)).through == 6
        some = await store.heads(SCOPE, Sequence(0), limit=1, size=99)
        assert some == Heads((later,), Sequence(3), is_all=False)

    async def test_no_fold_hides_what_came_after_a_sequence(self, store: Store) -> None:
        await store.write([Append(TODAY, (b"1", b"2")), Append(LATER, (b"3", b"4"))])
        await store.write(
            [Fold(TODAY, b"12", b"", Sequence(2)), Fold(LATER, b"3", b"", Sequence(3))]
        )
        today, later = Head(TODAY, Sequence(2), None), Head(LATER, Sequence(4), None)
        assert await heads(store, 0) == (today, later)
        assert await heads(store, 3) == (Head(LATER, Sequence(4), (b"4",)),)
        await store.write([Fold(LATER, b"34", b"", Sequence(4))])
        assert await heads(store, 0) == (today, later)
        assert await heads(store, 2) == (later,)
        await store.write([Forget(LATER)])
        assert await heads(store, 0) == (today,)

    async def test_heads_name_what_has_another_life_and_bring_nothing_of_it(
        self, store: Store
    ) -> None:
        await store.write([Append(TODAY, (b"1",)), Append(LATER, (b"2",))])
        await store.write([SetLife(TODAY, BORN.deleted(), WallTime(7))])
        later = Head(LATER, Sequence(2), (b"2",))
        assert await heads(store, 0) == (later, Head(TODAY, Sequence(3), None))
        assert await heads(store, 2) == (Head(TODAY, Sequence(3), None),)
        again = BORN.successor(WallTime(8), Random(1))
        await store.write([SetLife(TODAY, again, WallTime(8)), Append(TODAY, (b"new",))])
        assert await heads(store, 3) == (Head(TODAY, Sequence(5), None),)
        assert await heads(store, 5) == ()

    async def test_what_is_deleted_and_forgotten_at_once_leaves_its_bucket_stale(
        self, store: Store
    ) -> None:
        await store.write([Append(TODAY, (b"1",)), SetLeaf(TODAY, Sequence(1), 9, bytes(16))])
        await store.write([SetLife(TODAY, BORN.deleted(), WallTime(7)), Forget(TODAY)])
        assert (await store.stale(SCOPE)).buckets == (9,)

    async def test_what_is_deleted_can_be_taken_out_of_the_trie(self, store: Store) -> None:
        await store.write([Append(TODAY, (b"1",)), SetLeaf(TODAY, Sequence(1), 9, bytes(16))])
        await store.write([SetLife(TODAY, BORN.deleted(), WallTime(7))])
        assert await store.undigested() == (TODAY,)
        await store.write([SetLeaf(TODAY, Sequence(2), 9, None)])
        assert await store.undigested() == ()
        assert await store.leaves() == ()
        assert await store.buckets(SCOPE, [9]) in ({}, {9: ()})

    async def test_heads_bring_no_more_bytes_than_were_asked_for(self, store: Store) -> None:
        names = [document_id(f"notes/{n}") for n in range(9)]
        await store.write([Append(name, (bytes(30), bytes(30))) for name in names])
        assert {h.updates for h in await heads(store, 0, size=59)} == {None}
        found, at = [], Sequence(0)
        while page := (await store.heads(SCOPE, at, limit=100, size=60)).heads:
            assert len(page) <= 4
            found += page
            at = page[-1].last
        assert [head.document for head in found] == names
        assert all(head.updates == (bytes(30), bytes(30)) for head in found)

    async def test_scopes_are_listed_that_have_leaves(self, store: Store) -> None:
        await store.write([Append(d, (b"x",)) for d in (TODAY, ALONE, DEEPER)])
        assert await store.scopes() == ()
        await store.write([leaf(TODAY, 1), leaf(ALONE, 2), leaf(DEEPER, 3)])
        assert sorted(await store.scopes()) == ["", "notes", "notes/old"]
        assert await store.scopes(after="notes", limit=5) == ("notes/old",)

    async def test_a_refused_call_leaves_the_trie_as_it_was(self, store: Store) -> None:
        await store.write([Append(TODAY, (b"x",)), Append(LATER, (b"x",)), leaf(LATER, 2)])
        with pytest.raises(FoldOutdated):
            await store.write(
                [
                    leaf(TODAY, 1),
                    SetNodes(SCOPE, {0: NODE}),
                    Forget(LATER),
                    Fold(TODAY, b"", b"", Sequence(9)),
                ]
            )
        assert await store.undigested() == (TODAY,)
        assert await store.nodes(SCOPE, [0]) == {}
        assert (await store.stale(SCOPE)).buckets == ()

    @pytest.mark.parametrize(
        "write",
        [
            SetLeaf(TODAY, Sequence(1), 262_144, LEAF),
            SetLeaf(TODAY, Sequence(1), 0, LEAF[1:]),
            SetNodes(SCOPE, {8_192: NODE}),
            SetNodes(SCOPE, {0: NODE[1:]}),
        ],
    )
    async def test_what_fits_no_trie_is_refused(self, store: Store, write: Write) -> None:
        with pytest.raises(WriteInvalid):
            await store.write([write])

    @pytest.mark.parametrize("kind", ["leaf", "node"])
    async def test_damage_to_a_trie_is_noticed_and_harms_no_document(
        self, opened, kind: str
    ) -> None:
        store = opened.store
        await store.write([Append(TODAY, (b"x",)), leaf(TODAY, 1), SetNodes(SCOPE, {0: NODE})])
        assert [finding async for finding in store.verify()] == []
        await opened.damage(kind, TODAY)
        with pytest.raises(StoreCorrupt, match=kind):
            await (store.buckets(SCOPE, [7]) if kind == "leaf" else store.nodes(SCOPE, [0]))
        found = [finding async for finding in store.verify()]
        assert len(found) == 1
        assert kind in found[0].what
        assert (await store.read(TODAY)).updates() == [b"x"]
        await store.write([ForgetDigests()])
        assert [finding async for finding in store.verify()] == []
