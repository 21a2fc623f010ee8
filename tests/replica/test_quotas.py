"""`crdt_state.replica.quotas`: whether the documents of one creator may take up more."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from crdt_state.errors import QuotaExceeded
from crdt_state.identifiers import DocumentId
from crdt_state.replica.admission import ANYONE, Author
from crdt_state.storage.contract import Append, Usage
from wired import IMPATIENT, NOTES, OTHER, GatedStore, Watcher, opened_shell, typed

ADA = Author("ada")
SIZE = len(typed("a"))


class CountingStore(GatedStore):
    """A store that keeps whose usage it was asked for, and answers when the gate is open."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[str] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def usage(self, identity: str) -> Usage:
        self.asked.append(identity)
        usage = await super().usage(identity)
        await self.answering.wait()
        return usage


async def test_whoever_is_not_counted_yet_counts_as_beyond() -> None:
    async with opened_shell(CountingStore()) as shell:
        await shell.use(NOTES, 7, Watcher())
        with pytest.raises(QuotaExceeded) as caught:
            shell.take(typed("a"), author=ADA)
        assert not caught.value.is_counted
        await shell.recount("ada")
        shell.take(typed("a"), author=ADA)
        await shell.settled(NOTES)
        assert await shell.store.usage("ada") == Usage(1, SIZE)


async def test_the_store_is_asked_once_however_much_is_brought() -> None:
    store = CountingStore()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 7, Watcher())
        await shell.recount("ada")
        for at in range(100):
            shell.take(typed("a", at=at), author=ADA)
        await shell.settled(NOTES)
        assert store.asked == ["ada"]
        assert (
            shell.core.quotas.tallied("ada").stored_bytes == (await store.usage("ada")).stored_bytes
        )


async def test_new_documents_count_before_they_are_stored() -> None:
    limits = replace(IMPATIENT, identity_documents_max=2)
    async with opened_shell(limits=limits) as shell:
        names = [DocumentId(name) for name in ("one", "two", "three")]
        for name in names:
            await shell.use(name, 7, Watcher())
        await shell.recount("ada")
        shell.store.gate.clear()
        for name in names[:2]:
            shell.take(typed("a"), document=name, author=ADA)
        with pytest.raises(QuotaExceeded) as caught:
            shell.take(typed("a"), document=names[2], author=ADA)
        assert (caught.value.limit, caught.value.allowed) == ("identity_documents_max", 2)
        shell.store.gate.set()


async def test_what_is_brought_while_the_store_is_asked_counts_as_well() -> None:
    store = CountingStore()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 7, Watcher())
        await shell.use(OTHER, 7, Watcher())
        await shell.recount("ada")
        shell.take(typed("a"), author=ADA)
        await shell.settled(NOTES)
        store.answering.clear()
        recount = asyncio.create_task(shell.recount("ada"))
        await asyncio.sleep(0)
        shell.take(typed("b"), document=OTHER, author=ADA)
        store.answering.set()
        await recount
        assert shell.core.quotas.tallied("ada") == Usage(2, 2 * SIZE)


async def test_many_who_ask_at_once_are_answered_by_one_count() -> None:
    store = CountingStore()
    async with opened_shell(store) as shell:
        await asyncio.gather(*(shell.recount("ada") for _ in range(100)))
        assert store.asked == ["ada"]
        shell.clock.advance(IMPATIENT.usage_recount_seconds)
        await shell.recount("ada")
        assert store.asked == ["ada"] * 2


async def test_who_waited_for_somebody_elses_count_takes_its_answer() -> None:
    store = CountingStore()
    async with opened_shell(store, limits=replace(IMPATIENT, usage_recount_seconds=0.0)) as shell:
        store.answering.clear()
        asking = [asyncio.create_task(shell.recount("ada")) for _ in range(10)]
        await asyncio.sleep(0)
        shell.clock.advance(1.0)
        store.answering.set()
        await asyncio.gather(*asking)
        # The first count began before the others asked; the second answers all of them.
        assert store.asked == ["ada"] * 2


async def test_where_something_was_let_in_the_store_is_asked_at_once() -> None:
    store = CountingStore()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 7, Watcher())
        await shell.recount("ada")
        shell.take(typed("a"), author=ADA)
        await shell.recount("ada")
        assert store.asked == ["ada"] * 2


async def test_our_own_edits_are_counted_and_never_refused() -> None:
    limits = replace(IMPATIENT, identity_stored_bytes_max=SIZE)
    store = GatedStore(limits=limits)
    await store.write([Append(NOTES, (typed("a"),), creator="ada")])
    async with opened_shell(store, limits=limits) as shell:
        await shell.use(NOTES, 7, Watcher())
        shell.take(typed("b", client=2), author=ANYONE)
        await shell.settled(NOTES)
        await shell.recount("ada")
        shell.take(typed("c", client=3), author=ANYONE)
        with pytest.raises(QuotaExceeded):
            shell.take(typed("d", client=4), author=ADA)
        await shell.settled(NOTES)
        assert len(store.appended()) == 3
        assert shell.core.quotas.tallied("ada") == await store.usage("ada") == Usage(1, 3 * SIZE)


async def test_the_table_of_tallies_is_bounded_and_the_oldest_leave() -> None:
    limits = replace(IMPATIENT, usages_kept_max=2)
    async with opened_shell(limits=limits) as shell:
        for name in ("ada", "bob", "ada", "cyd"):
            shell.clock.advance(limits.usage_recount_seconds)
            await shell.recount(name)
            assert len(shell.core.quotas) <= 2
        await shell.use(OTHER, 7, Watcher())
        shell.take(typed("a"), document=OTHER, author=ADA)
        with pytest.raises(QuotaExceeded):
            shell.take(typed("a"), document=OTHER, author=Author("bob"))
