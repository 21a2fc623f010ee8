"""`crdt_state.replica.tries` and `verification`: what is digested when, and what decay shows."""

from __future__ import annotations

from random import Random

import pytest

from crdt_state.errors import StoreFull, WorkerFailed
from crdt_state.identifiers import DocumentId, Scope
from crdt_state.merkle.hashes import EMPTY_ROOT_HASH, ROOT, leaf_of, root_hash
from crdt_state.merkle.trie import build
from crdt_state.replica import worker_jobs
from crdt_state.replica.workers import InProcess
from crdt_state.storage.contract import Append, Fold, Forget, Sequence, SetLeaf, SetNodes
from wired import IMPATIENT, GatedStore, opened_shell, typed

SCOPE = Scope("notes")


def named(number: int) -> DocumentId:
    return DocumentId(f"notes/{number}")


async def rebuilt_root(store) -> bytes:
    """The root hash of the scope, made of nothing but the documents' bytes."""
    entries = []
    for summary in await store.list(prefix="notes/"):
        stored = await store.read(summary.document)
        digest = worker_jobs.digest(stored.updates(), IMPATIENT).deep_digest
        entries.append((summary.document, leaf_of(summary.document, digest)))
    nodes = build(entries)
    return root_hash(nodes[ROOT]) if nodes else EMPTY_ROOT_HASH


async def test_a_settled_trie_is_that_of_the_documents_whatever_happened_before() -> None:
    seed = 11
    dice = Random(seed)
    lengths: dict[int, int] = {}
    async with opened_shell() as shell:
        store, tries = shell.store, shell.tries
        for _ in range(12):
            for _ in range(dice.randrange(30)):
                number = dice.randrange(40)
                if dice.random() < 0.1:
                    await store.write([Forget(named(number))])
                    lengths.pop(number, None)
                    continue
                at = lengths.get(number, 0)
                await store.write([Append(named(number), (typed("x", at=at),))])
                lengths[number] = at + 1
            await store.write([Append(DocumentId("other/1"), (typed("elsewhere"),))])
            await tries.settle(SCOPE)
            assert await tries.root(SCOPE) == await rebuilt_root(store), f"seed {seed}"
            assert await store.undigested(SCOPE) == ()
            assert await tries.mend(SCOPE) == 0, f"seed {seed}"
        assert lengths
        assert await store.undigested() == ("other/1",), "it is of another scope"


async def test_a_failed_write_leaves_neither_leaves_nor_nodes() -> None:
    async with opened_shell() as shell:
        await shell.store.write([Append(named(1), (typed("x"),))])
        shell.store.fault = StoreFull("no space left")
        with pytest.raises(StoreFull):
            await shell.tries.settle(SCOPE)
        shell.store.fault = None
        assert await shell.tries.root(SCOPE) == EMPTY_ROOT_HASH
        assert await shell.store.leaves() == ()
        await shell.tries.settle(SCOPE)
        assert await shell.tries.root(SCOPE) == await rebuilt_root(shell.store)


async def test_leaves_and_the_nodes_above_them_are_one_write() -> None:
    async with opened_shell() as shell:
        await shell.store.write([Append(named(n), (typed("x"),)) for n in range(300)])
        before = len(shell.store.writes)
        await shell.tries.settle(SCOPE)
        batches = shell.store.writes[before:]
        assert [len(batch) for batch in batches] == [257, 45]
        for *leaves, nodes in batches:
            assert {type(leaf) for leaf in leaves} == {SetLeaf}
            assert isinstance(nodes, SetNodes)
            assert ROOT in nodes.nodes


class Choosy(InProcess):
    """Workers that one document harms."""

    async def digest(self, updates):
        if updates == [typed("evil")]:
            raise WorkerFailed("time", "it took too long")
        return await super().digest(updates)


async def test_a_document_that_harms_workers_is_set_aside_and_the_others_are_digested() -> None:
    async with opened_shell(workers=Choosy(IMPATIENT)) as shell:
        await shell.store.write(
            [Append(named(1), (typed("evil"),)), Append(named(2), (typed("fine"),))]
        )
        await shell.tries.settle(SCOPE)
        assert [name for name, _ in shell.witness.aside] == [named(1)]
        assert [leaf.document for leaf in await shell.store.leaves()] == [named(2)]
        assert await shell.store.undigested() == (), "it is not tried again and again"


async def test_damaged_nodes_are_mended_from_the_leaves() -> None:
    async with opened_shell() as shell:
        await shell.store.write([Append(named(n), (typed("x"),)) for n in range(20)])
        await shell.tries.settle(SCOPE)
        right = await shell.tries.root(SCOPE)
        await shell.store.write([SetNodes(SCOPE, {ROOT: bytes(1_023) + b"\1"})])
        assert await shell.tries.root(SCOPE) != right
        assert await shell.tries.mend(SCOPE) == 1
        assert await shell.tries.root(SCOPE) == right


async def test_a_forgotten_trie_is_made_anew() -> None:
    async with opened_shell() as shell:
        await shell.store.write([Append(named(n), (typed("x"),)) for n in range(20)])
        await shell.tries.settle(SCOPE)
        right = await shell.tries.root(SCOPE)
        await shell.tries.forget()
        assert await shell.tries.root(SCOPE) == EMPTY_ROOT_HASH
        await shell.tries.settle(SCOPE)
        assert await shell.tries.root(SCOPE) == right


async def test_verification_goes_through_all_documents_and_finds_nothing_wrong() -> None:
    async with opened_shell() as shell:
        await shell.store.write([Append(named(n), (typed("x"),)) for n in range(100)])
        await shell.tries.settle(SCOPE)
        await shell.store.write([Fold(named(5), typed("x"), b"", Sequence(6))])
        read = [await shell.verification.read_some() for _ in range(4)]
        assert read == [64, 36, 0, 64]
        assert shell.witness.unsounds == []


async def test_verification_finds_other_content_under_the_same_counters() -> None:
    async with opened_shell() as shell:
        await shell.store.write([Append(named(n), (typed("true"),)) for n in range(3)])
        await shell.tries.settle(SCOPE)
        # A fold by somebody else, of bytes with the same state vector: digests are equal.
        await shell.store.write([Fold(named(1), typed("fake"), b"", Sequence(2))])
        await shell.verification.read_some()
        ((document, what),) = shell.witness.unsounds
        assert document == named(1)
        assert "no longer holds" in what


async def test_verification_finds_damage_and_what_is_missing() -> None:
    async with opened_shell(GatedStore()) as shell:
        await shell.store.write([Append(named(n), (typed("true"),)) for n in range(3)])
        await shell.tries.settle(SCOPE)
        checksums = shell.store._documents[named(0)].checksums
        checksums["log", 1] ^= 1
        await shell.store.write([Fold(named(2), typed("tru"), b"", Sequence(3))])
        await shell.verification.read_some()
        (damaged, _), (lost, what) = shell.witness.unsounds
        assert (damaged, lost) == (named(0), named(2))
        assert "no longer holds" in what
