"""The thin client over a real socket: offline, concurrent, cut off, refused, killed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from client.thin_server import Fate, ThinServer, thin_server
from crdt_client.thin import (
    RICH_TEXT,
    TEXT_UNICODE,
    HandedBack,
    Progress,
    ThinClient,
    ThinText,
    Why,
)
from crdt_state.errors import (
    DocumentClosed,
    EditHandedBack,
    InvalidDocumentId,
    OperationPastEnd,
    RequestRefused,
    StoreCorrupt,
    StoreInUse,
    StoreUnavailable,
    UsageError,
)
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.ot import Attributes, Embed, Insert, Operation, Retain, apply
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.requests import Submit, Subscribe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

TURNS_MAX = 500_000

LIMITS = replace(
    DEFAULT_LIMITS,
    reconnect_seconds_min=0.001,
    reconnect_seconds_max=0.004,
    close_seconds_max=0.2,
)
"""Waits that only spare the network are short."""

SECONDS_MAX = 30.0
"""No test waits for time; one that waits for what never comes fails by this."""

SEEDS = list(range(8))


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ThinServer]:
    loop = asyncio.get_running_loop()
    hangs = loop.call_later(SECONDS_MAX, lambda: [each.cancel() for each in asyncio.all_tasks()])
    async with thin_server() as server:
        yield server
    hangs.cancel()


def client_at(server: ThinServer, seed: int = 0, **options: Any) -> ThinClient:
    random = Random(f"{seed} {len(options)} {next(NAMES)}")
    return ThinClient(server.url, limits=LIMITS, random=random, **options)


NAMES = iter(range(1_000_000))


def insertion(content: str, at: int = 0) -> Operation:
    return Operation.of(Retain(at), Insert(content))


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until something holds; fails instead of hanging."""
    for _ in range(TURNS_MAX):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"still not so after {TURNS_MAX:,} turns of the loop")


async def until_all_show(server: ThinServer, name: str, *texts: ThinText) -> None:
    """Everybody shows what the server holds, and nothing waits."""
    held = server.text(name)

    def are_in_step() -> bool:
        return all(
            text.is_saved
            and text.progress is Progress.IN_STEP
            and text._thin.revision == held.revisions.published
            for text in texts
        )

    await until(are_in_step)
    for text in texts:
        assert text.document == held.document


class Shown:
    """An editor that is told of every change made by others."""

    def __init__(self, text: ThinText) -> None:
        self.text = text
        self.document = text.document
        text.observe(self.observed)

    def observed(self, change: Operation) -> None:
        self.document = apply(self.document, change)

    def edit(self, operation: Operation) -> None:
        self.text.edit(operation)
        self.document = apply(self.document, operation)


# --- one client ---------------------------------------------------------------------------------


async def test_what_is_edited_is_saved_and_others_see_it(server: ThinServer) -> None:
    async with client_at(server) as one, client_at(server) as two:
        mine = await one.open("notes/today", format=TEXT_UNICODE)
        mine.insert(0, "hello world")
        mine.delete(5, 6)
        await mine.saved()
        assert server.text("notes/today").document == "hello"
        theirs = await two.open("notes/today", format=TEXT_UNICODE)
        await theirs.in_step()
        assert str(theirs) == "hello"
        shown = Shown(mine)
        theirs.insert(5, "!")
        await theirs.saved()
        await until_all_show(server, "notes/today", mine, theirs)
        assert str(mine) == shown.document == "hello!"
        assert one.progress is Progress.IN_STEP


async def test_rich_text_has_attributes_embeds_and_characters_of_two_units(
    server: ThinServer,
) -> None:
    async with client_at(server) as one, client_at(server) as two:
        mine = await one.open("rich/a", format=RICH_TEXT)
        theirs = await two.open("rich/a", format=RICH_TEXT)
        mine.insert(0, "a😀c")
        await mine.saved()
        await until_all_show(server, "rich/a", mine, theirs)
        theirs.insert(2, Embed.of({"image": "cat.png"}))
        mine.edit(Operation.of(Retain(2, Attributes.of({"bold": True}))))
        await until_all_show(server, "rich/a", mine, theirs)
        assert str(mine) == "a😀\ufffcc"
        assert len(mine) == 4
        assert mine.document == Operation.of(
            Insert("a😀", Attributes.of({"bold": True})),
            Insert(Embed.of({"image": "cat.png"})),
            Insert("c"),
        )


async def test_what_is_edited_while_offline_is_sent_when_there_is_a_server(
    server: ThinServer,
) -> None:
    server.shut()
    server.write("notes/a", insertion("the cat"))
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        text.insert(0, "said ")
        text.insert(5, "I: ")
        assert str(text) == "said I: "
        assert not text.is_saved
        server.reopen()
        await text.saved()
        assert sorted(server.text("notes/a").document) == sorted("said I: the cat")


async def test_a_document_that_two_create_at_once_has_what_both_have_written(
    server: ThinServer,
) -> None:
    server.holds = True
    async with client_at(server) as one, client_at(server) as two:
        texts = [await each.open("notes/new", format=TEXT_UNICODE) for each in (one, two)]
        texts[0].insert(0, "one")
        texts[1].insert(0, "two")
        await server.until_heard(Submit, 2)
        server.release()
        await until_all_show(server, "notes/new", *texts)
        assert sorted(str(texts[0])) == sorted("onetwo")
        assert not any(text.handed_back for text in texts)


async def test_a_client_shows_how_far_it_is(server: ThinServer) -> None:
    seen: list[Progress] = []
    server.shut()
    async with client_at(server) as client:
        client.watch(seen.append)
        text = await client.open("notes/a", format=TEXT_UNICODE)
        assert text.progress in {Progress.OFFLINE, Progress.CONNECTING}
        await until(lambda: Progress.OFFLINE in seen)
        assert client.last_error is not None
        server.reopen()
        await text.in_step()
        assert text.progress is Progress.IN_STEP
        await until(lambda: client.progress is Progress.IN_STEP)
        server.shut()
        await until(lambda: text.progress is not Progress.IN_STEP)
    assert client.progress is not Progress.IN_STEP


async def test_a_token_is_asked_anew_for_each_connection(server: ThinServer) -> None:
    numbers = iter(range(100))
    async with client_at(server, token=lambda: f"t{next(numbers)}") as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        server.cut()
        await until(lambda: len(server.tokens) > 1)
    assert server.tokens[:2] == ["Bearer t0", "Bearer t1"]


async def test_a_client_that_is_not_let_in_says_so_and_tries_again(server: ThinServer) -> None:
    server.refuses_clients = True
    async with client_at(server, token="bad") as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        text.insert(0, "x")
        await until(lambda: client.progress is Progress.REFUSED)
        assert "401" in str(client.last_error)
        server.refuses_clients = False
        await text.saved()


async def test_a_function_for_tokens_that_fails_is_told_and_asked_again(
    server: ThinServer,
) -> None:
    answers = iter([None, "t"])

    def token() -> str:
        answer = next(answers, "t")
        if answer is None:
            raise ValueError("no token today")
        return answer

    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with client_at(server, token=token) as client:
        await (await client.open("notes/a", format=TEXT_UNICODE)).in_step()
    assert "no token today" in str(reported[0]["exception"])


async def test_an_observer_that_fails_is_told_and_the_change_is_in(server: ThinServer) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fails(_: Operation) -> None:
        raise ValueError("no")

    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        text.observe(fails)
        shown = Shown(text)
        server.write("notes/a", insertion("x"))
        await until_all_show(server, "notes/a", text)
        assert shown.document == "x"
    assert "notes/a" in reported[0]["message"]


async def test_a_document_is_opened_once_and_in_one_format(server: ThinServer) -> None:
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        assert await client.open("notes/a", format=TEXT_UNICODE) is text
        with pytest.raises(UsageError, match="cannot be opened as rich-text"):
            await client.open("notes/a", format=RICH_TEXT)
        with pytest.raises(InvalidDocumentId):
            await client.open("without-a-slash", format=TEXT_UNICODE)
        with pytest.raises(OperationPastEnd):
            text.insert(1, "x")
        with pytest.raises(UsageError, match="no store"):
            await text.kept()


async def test_a_text_that_was_closed_is_over_and_can_be_opened_again(server: ThinServer) -> None:
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        text.insert(0, "x")
        await text.saved()
        await text.close()
        await text.close()
        with pytest.raises(DocumentClosed):
            text.insert(0, "y")
        again = await client.open("notes/a", format=TEXT_UNICODE)
        await again.in_step()
        assert str(again) == "x"
    with pytest.raises(DocumentClosed):
        await client.open("notes/a", format=TEXT_UNICODE)


async def test_who_waits_while_the_client_ends_is_told(server: ThinServer) -> None:
    server.shut()
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        text.insert(0, "x")
        waits = asyncio.gather(text.saved(), text.in_step(), return_exceptions=True)
        await asyncio.sleep(0)
    assert [type(each) for each in await waits] == [DocumentClosed, DocumentClosed]


@pytest.mark.parametrize("url", ["http://localhost", "localhost:1234", "ws:///x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="ws://"):
        ThinClient(url)


def test_a_thin_client_loads_no_crdt() -> None:
    program = (
        "import sys, crdt_client.thin\n"
        "print(sorted({'pycrdt', 'sqlite3', 'aiosqlite', 'joserfc'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


# --- what cannot stay ---------------------------------------------------------------------------


async def test_a_refused_edit_is_handed_back_and_who_waits_for_it_is_told(
    server: ThinServer,
) -> None:
    server.write("notes/a", insertion("abc"))
    backs: list[HandedBack] = []
    async with client_at(server, handed_back=lambda _, back: backs.append(back)) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        shown = Shown(text)
        server.refuses_edits = Code.NOT_PERMITTED
        shown.edit(insertion("x", 1))
        with pytest.raises(EditHandedBack, match="refused") as raised:
            await text.saved()
        assert raised.value.handed_back is backs[0]
        assert (backs[0].why, backs[0].before) == (Why.REFUSED, "abc")
        assert backs[0].operation == insertion("x", 1)
        assert str(text) == shown.document == "abc"
        server.refuses_edits = None
        text.edit(backs[0].operation)
        await text.saved()
        assert server.text("notes/a").document == "axbc"


async def test_what_waits_behind_a_refused_edit_is_saved(server: ThinServer) -> None:
    server.write("notes/a", insertion("abc"))
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        server.holds, server.refuses_edits = True, Code.LIMIT_EXCEEDED
        text.insert(0, "x")
        await server.until_heard(Submit)
        text.insert(4, "y")
        server.release()
        server.refuses_edits = None
        await until_all_show(server, "notes/a", text)
        assert str(text) == "abcy"
        assert [back.operation for back in text.handed_back] == [insertion("x")]


async def test_an_edit_whose_base_is_out_of_reach_is_made_once_more(server: ThinServer) -> None:
    server.write("notes/a", insertion("the cat sat on the mat"))
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        shown = Shown(text)
        server.holds = True
        shown.edit(insertion("black ", 4))
        await server.until_heard(Submit)
        shown.edit(insertion(".", 28))
        # It is told of this behind what it sent, and its base is below the floor by then.
        held = server.text("notes/a").revisions
        held.persisted(held.observed(insertion("so ")).number)
        server.raise_floor("notes/a")
        server.release()
        await until_all_show(server, "notes/a", text)
        assert str(text) == shown.document == "so the black cat sat on the mat."
        assert not text.handed_back


async def test_offline_edits_below_the_floor_are_made_once_more(server: ThinServer) -> None:
    server.write("notes/a", insertion("the cat sat on the mat"))
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        server.shut()
        await until(lambda: text.progress is not Progress.IN_STEP)
        text.insert(4, "black ")
        server.write("notes/a", insertion("so "))
        server.raise_floor("notes/a")
        server.reopen()
        await until_all_show(server, "notes/a", text)
        assert str(text) == "so the black cat sat on the mat"
        assert not text.handed_back


async def test_what_may_be_applied_or_not_is_handed_back(server: ThinServer) -> None:
    server.write("notes/a", insertion("the cat"))
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        server.holds = True
        text.insert(7, "s")
        await server.until_heard(Submit)
        server.shut()
        server.write("notes/a", insertion("so "))
        server.raise_floor("notes/a")
        server.reopen()
        with pytest.raises(EditHandedBack, match="nobody knows"):
            await text.saved()
        await text.in_step()
        assert [back.why for back in text.handed_back] == [Why.IN_DOUBT]
        assert str(text) == "so the cat"


async def test_where_the_text_is_another_one_edits_are_handed_back(server: ThinServer) -> None:
    server.write("notes/a", insertion("the cat"))
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        server.shut()
        await until(lambda: text.progress is not Progress.IN_STEP)
        text.insert(4, "black ")
        server.begin_epoch("notes/a", "something else")
        server.reopen()
        with pytest.raises(EditHandedBack, match="gone"):
            await text.saved()
        assert str(text) == "something else"


async def test_a_text_that_is_replaced_under_its_reader_is_shown(server: ThinServer) -> None:
    server.write("rich/a", insertion("the cat"))
    async with client_at(server) as client:
        text = await client.open("rich/a", format=RICH_TEXT)
        await text.in_step()
        shown = Shown(text)
        server.begin_epoch("rich/a", "the dog")
        await until(lambda: str(text) == "the dog")
        assert shown.document == text.document
        text.insert(0, "o ")
        await text.saved()
        assert server.text("rich/a").document == Operation.of(Insert("o the dog"))


async def test_a_document_that_may_not_be_read_is_asked_for_again(server: ThinServer) -> None:
    server.refuses_readers = True
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        with pytest.raises(RequestRefused, match="may not read"):
            await text.in_step()
        assert text.progress is Progress.REFUSED
        assert Code.SNAPSHOT_READS_REJECTED in str(text.last_error)
        text.insert(0, "x")
        server.refuses_readers = False
        await text.saved()
        assert server.text("notes/a").document == "x"


async def test_a_document_of_another_type_is_not_shown(server: ThinServer) -> None:
    server.write("rich/a", insertion("x"))
    async with client_at(server) as client:
        text = await client.open("rich/a", format=TEXT_UNICODE)
        with pytest.raises(RequestRefused, match="opened as text-unicode"):
            await text.in_step()


# --- cursors ------------------------------------------------------------------------------------


async def test_others_see_a_cursor_where_it_stands_in_their_text(server: ThinServer) -> None:
    server.write("rich/a", insertion("a😀c"))
    async with client_at(server) as one, client_at(server) as two:
        mine = await one.open("rich/a", format=RICH_TEXT)
        theirs = await two.open("rich/a", format=RICH_TEXT)
        await mine.in_step()
        await theirs.in_step()
        seen = asyncio.Event()
        theirs.observe_cursors(seen.set)
        mine.place_cursor(2)
        await until(lambda: list(theirs.cursors.values()) == [(2,)])
        assert seen.is_set()
        mine.place_cursor(1, 3)
        await until(lambda: list(theirs.cursors.values()) == [(1, 3)])
        theirs.insert(0, "👧")
        await until_all_show(server, "rich/a", mine, theirs)
        assert list(theirs.cursors.values()) == [(2, 4)]
        assert mine.cursor == (2, 4)
        mine.place_cursor(3)
        mine.insert(3, "xy")
        await until(lambda: list(theirs.cursors.values()) == [(5,)])
        mine.place_cursor()
        await until(lambda: not theirs.cursors)
        with pytest.raises(UsageError):
            mine.place_cursor(0, 1, 2)


async def test_a_cursor_is_there_again_after_a_cut_and_gone_with_its_user(
    server: ThinServer,
) -> None:
    server.write("rich/a", insertion("abc"))
    async with client_at(server) as one:
        mine = await one.open("rich/a", format=RICH_TEXT)
        await mine.in_step()
        async with client_at(server) as two:
            theirs = await two.open("rich/a", format=RICH_TEXT)
            await theirs.in_step()
            theirs.insert(0, "x")
            theirs.place_cursor(1)
            await until(lambda: list(mine.cursors.values()) == [(1,)])
            server.shut()
            await until(lambda: not mine.cursors)
            server.reopen()
            await until(lambda: list(mine.cursors.values()) == [(1,)])
            await theirs.close()
            await until(lambda: not mine.cursors)
            again = await two.open("rich/a", format=RICH_TEXT)
            await again.in_step()
            again.place_cursor(4)
            await until(lambda: list(mine.cursors.values()) == [(4,)])
        await until(lambda: not mine.cursors)


async def test_cursors_of_plain_text_are_not_spoken_of(server: ThinServer) -> None:
    async with client_at(server) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        text.insert(0, "abc")
        text.place_cursor(1)
        text.insert(1, "x")
        await text.saved()
        assert text.cursor == (2,)
    assert {type(each) for each in server.heard} == {Subscribe, Submit} | {
        type(each) for each in server.heard if type(each).__name__ == "Unsubscribe"
    }


# --- its own file -------------------------------------------------------------------------------


async def test_what_waits_survives_the_process(server: ThinServer, tmp_path: Path) -> None:
    server.write("notes/a", insertion("the cat"))
    folder = tmp_path / "mine"
    async with client_at(server, store=folder) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        server.shut()
        text.insert(4, "black ")
        await text.kept()
    async with client_at(server, store=folder) as client:
        assert await client.kept() == ["notes/a"]
        text = await client.open("notes/a", format=TEXT_UNICODE)
        assert str(text) == "the black cat"
        text.insert(13, "s")
        server.write("notes/a", insertion("so "))
        server.reopen()
        await text.saved()
        await until_all_show(server, "notes/a", text)
        assert str(text) == "so the black cats"
    async with client_at(server, store=folder) as client:
        with pytest.raises(UsageError, match="cannot be opened"):
            await client.open("notes/a", format=RICH_TEXT)


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNANSWERED])
async def test_what_was_under_way_when_the_process_was_killed_is_applied_once(
    server: ThinServer, tmp_path: Path, fate: Fate
) -> None:
    server.write("notes/a", insertion("the cat"))
    folder, copy = tmp_path / "mine", tmp_path / "as it was"
    async with client_at(server, store=folder) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        server.fate = lambda: fate
        text.insert(4, "black ")
        await until(lambda: text.progress is not Progress.IN_STEP)
        shutil.copytree(folder, copy)
    server.fate = lambda: Fate.HEARD
    async with client_at(server, store=copy) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.saved()
        await until_all_show(server, "notes/a", text)
        assert str(text) == "the black cat"


async def test_a_folder_has_one_client_at_a_time_which_keeps_its_name(
    server: ThinServer, tmp_path: Path
) -> None:
    async with client_at(server, store=tmp_path / "mine") as client:
        name = client._wire.source
        with pytest.raises(StoreInUse):
            await client_at(server, store=tmp_path / "mine").__aenter__()
    async with client_at(server, store=tmp_path / "mine") as client:
        assert client._wire.source == name


async def test_what_cannot_be_written_down_is_not_sent(server: ThinServer, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    async with client_at(server, store=folder) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        await text.in_step()
        aside = tmp_path / "aside"
        folder.rename(aside)
        text.insert(0, "x")
        with pytest.raises(StoreUnavailable):
            await text.kept()
        await until(lambda: "mine" in str(client.last_error))
        assert not any(isinstance(each, Submit) for each in server.heard)
        aside.rename(folder)
        await text.saved()
        assert server.text("notes/a").document == "x"


async def test_a_damaged_file_is_told(server: ThinServer, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    async with client_at(server, store=folder) as client:
        text = await client.open("notes/a", format=TEXT_UNICODE)
        text.insert(0, "x")
        await text.kept()
    for path in folder.glob("*.thin"):
        path.write_bytes(path.read_bytes()[:-1])
    async with client_at(server, store=folder) as client:
        with pytest.raises(StoreCorrupt):
            await client.open("notes/a", format=TEXT_UNICODE)
