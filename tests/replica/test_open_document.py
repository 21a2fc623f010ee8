"""`crdt_state.replica.open_document`: edits are stored, or handed back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from crdt_state.clocks import HybridClock, ManualClock
from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    DocumentSetAside,
    EditNotStored,
    EngineFailed,
    ObserversFailed,
    StoreError,
    StoreFull,
)
from crdt_state.replica.open_document import OpenDocument
from wired import (
    IMPATIENT,
    NOTES,
    GatedStore,
    Reports,
    Shell,
    opened_shell,
    text_of,
    turn,
    typed,
)


async def opened(shell: Shell) -> OpenDocument:
    return await OpenDocument.open(
        shell,
        NOTES,
        incarnation=shell.store.incarnation,
        stamps=HybridClock(ManualClock(), drift_seconds_max=1.0),
    )


def shown(document: OpenDocument) -> str:
    return str(document.text("text"))


async def test_an_edit_is_on_the_disk_when_it_is_saved() -> None:
    async with opened_shell() as shell:
        document = await opened(shell)
        document.text("text").insert(0, "hello")
        assert shell.store.appended() == []
        await document.saved()
        assert text_of(shell.store.appended()) == "hello"


async def test_what_was_edited_just_before_closing_is_stored_and_shown_when_opened_again() -> None:
    async with opened_shell() as shell:
        document = await opened(shell)
        document.text("text").insert(0, "hello")
        document.close()
        again = await opened(shell)
        assert shown(again) == "hello"
        assert again.client_id != document.client_id


async def test_what_others_edit_is_shown_once_it_is_durable() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        document = await opened(shell)
        store.gate.clear()
        shell.take(typed("hi"))
        await turn()
        assert shown(document) == ""
        store.gate.set()
        await shell.settled(NOTES)
        assert shown(document) == "hi"


async def test_what_becomes_durable_while_a_document_is_opened_is_shown() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        first = await opened(shell)
        first.close()
        store.reading.clear()
        opening = asyncio.create_task(opened(shell))
        await turn()
        store.reading.set()
        await turn(1)
        store.reading.clear()
        await turn()
        if shell.core.get(NOTES) is not None:
            shell.take(typed("hi"))
        await turn()
        store.reading.set()
        document = await opening
        assert shown(document) == "hi"


async def test_an_edit_that_the_disk_does_not_take_is_handed_back() -> None:
    async with opened_shell() as shell:
        document = await opened(shell)
        shell.store.fault = StoreFull("no space left")
        document.text("text").insert(0, "hello")
        with pytest.raises(EditNotStored) as caught:
            await document.saved()
        assert text_of(caught.value.updates) == "hello"
        assert document.is_closed
        with pytest.raises(EditNotStored):
            await document.saved()
        shell.store.fault = None
        again = await opened(shell)
        assert shown(again) == ""
        again.text("text").insert(0, "hello")
        await again.saved()
        assert text_of(shell.store.appended()) == "hello"


async def test_all_edits_of_a_failed_commit_and_after_it_are_handed_back() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        document = await opened(shell)
        store.gate.clear()
        document.text("text").insert(0, "one ")
        await turn()
        document.text("text").insert(4, "two ")
        await turn()
        document.text("text").insert(8, "three")
        store.fault = StoreFull("no space left")
        saving = asyncio.create_task(document.saved())
        store.gate.set()
        with pytest.raises(EditNotStored) as caught:
            await saving
        assert text_of(caught.value.updates) == "one two three"


async def test_an_edit_that_the_replica_refuses_is_handed_back() -> None:
    limits = replace(IMPATIENT, update_bytes_max=200)
    async with opened_shell(limits=limits) as shell:
        document = await opened(shell)
        document.text("text").insert(0, "x" * 500)
        with pytest.raises(EditNotStored):
            await document.saved()
        assert document.is_closed


async def test_an_edit_of_a_document_that_was_set_aside_is_handed_back() -> None:
    async with opened_shell() as shell:
        document = await opened(shell)
        known = shell.core.get(NOTES)
        assert known is not None
        known.set_aside = "it killed a worker"
        with pytest.raises(ObserversFailed):
            document.text("text").insert(0, "hello")
        with pytest.raises(EditNotStored) as caught:
            await document.saved()
        assert text_of(caught.value.updates) == "hello"


async def test_setting_a_document_aside_closes_it() -> None:
    async with opened_shell() as shell:
        document = await opened(shell)
        await shell.set_aside(NOTES, "it killed a worker")
        assert document.is_closed
        with pytest.raises(DocumentSetAside):
            await document.saved()


async def test_an_edit_while_the_replica_closes_is_handed_back() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        document = await opened(shell)
        store.gate.clear()
        document.text("text").insert(0, "hello")
        await turn()
        closing = asyncio.create_task(shell.close())
        await turn()
        with pytest.raises(ObserversFailed):
            document.text("text").insert(5, " there")
        with pytest.raises(EditNotStored) as caught:
            await document.saved()
        assert len(caught.value.updates) == 1
        store.gate.set()
        await closing
        assert text_of(store.appended()) == "hello"


async def test_what_others_edit_during_a_transaction_is_shown_after_it() -> None:
    async with opened_shell() as shell:
        document = await opened(shell)
        with document.transaction():
            document.text("text").insert(0, "mine")
            shell.take(typed("theirs", client=2))
            await shell.settled(NOTES)
            assert shown(document) == "mine"
        assert sorted(shown(document)) == sorted("minetheirs")


async def test_edits_of_a_closed_document_that_cannot_be_stored_are_reported() -> None:
    reports = Reports()
    async with opened_shell() as shell:
        document = await opened(shell)
        shell.store.fault = StoreFull("no space left")
        document.text("text").insert(0, "lost")
        document.close()
        await turn()
        shell.store.fault = None
    (report,) = reports.contexts
    assert "notes" in report["message"]
    assert isinstance(report["exception"], EditNotStored)
    assert text_of(report["exception"].updates) == "lost"


async def test_a_transaction_that_fails_does_not_keep_others_out_for_ever() -> None:
    async with opened_shell() as shell:
        document = await opened(shell)

        def fail(_: Any) -> None:
            raise RuntimeError("an application's mistake")

        stop = document.text("text").observe(fail)
        with pytest.raises(ObserversFailed):
            document.text("text").insert(0, "mine")
        stop()
        shell.take(typed("theirs", client=2))
        await shell.settled(NOTES)
        assert sorted(shown(document)) == sorted("minetheirs")


async def test_a_callback_that_fails_on_what_others_edit_harms_nobody() -> None:
    reports = Reports()
    async with opened_shell() as shell:
        document = await opened(shell)

        def fail(_: Any) -> None:
            raise RuntimeError("an application's mistake")

        document.text("text").observe(fail)
        shell.take(typed("a"))
        await shell.settled(NOTES)
        shell.take(typed("b", at=1))
        await shell.settled(NOTES)
        assert shown(document) == "ab"
        assert not document.is_closed
        assert len(reports) == 2


async def test_a_commit_that_fails_while_a_document_is_opened_is_a_clear_error() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 5, await opened(shell))
        store.gate.clear()
        shell.take(typed("a"))
        await turn()
        opening = asyncio.create_task(opened(shell))
        await turn()
        store.fault = StoreFull("no space left")
        store.gate.set()
        with pytest.raises(StoreError):
            await opening
        store.fault = None
        assert shown(await opened(shell)) == ""


async def test_a_commit_that_fails_while_a_document_is_read_is_a_clear_error() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        first = await opened(shell)
        await shell.use(NOTES, 5, first)
        store.reading.clear()
        opening = asyncio.create_task(opened(shell))
        await turn()
        store.fault = StoreFull("no space left")
        shell.take(typed("a"))
        await turn()
        store.reading.set()
        with pytest.raises(StoreFull):
            await opening


async def test_a_document_whose_bytes_make_the_engine_panic_is_set_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_shell() as shell:

        def panic(*_: object, **__: object) -> None:
            raise EngineFailed("a panic")

        with monkeypatch.context() as patched:
            patched.setattr("crdt_state.model.document.NativeDocument.apply", panic)
            await shell.store.write([_append(typed("a"))])
            with pytest.raises(EngineFailed):
                await opened(shell)
        assert [document for document, _ in shell.witness.aside] == [NOTES]
        assert len(shell.core) == 0


async def test_a_panic_over_what_others_edit_closes_the_document_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_shell() as shell:
        document = await opened(shell)

        def panic(*_: object, **__: object) -> None:
            raise EngineFailed("a panic")

        with monkeypatch.context() as patched:
            patched.setattr(document._native, "apply", panic)
            shell.take(typed("a"))
            await shell.settled(NOTES)
        assert document.is_closed
        with pytest.raises(EngineFailed):
            await document.saved()
        assert shown(await opened(shell)) == "a"


async def test_a_closed_document_says_so() -> None:
    async with opened_shell() as shell:
        document = await opened(shell)
        document.close()
        document.close()
        with pytest.raises(DocumentClosed):
            await document.saved()
        with pytest.raises(CrdtStateError):
            document.text("text").insert(0, "a")
        await turn()
        assert len(shell.core) == 0


def _append(update: bytes) -> Any:
    from crdt_state.storage.contract import Append  # noqa: PLC0415 - beside its only use

    return Append(NOTES, (update,))
