"""Keystrokes of real documents, replayed through the facade, end where they ended."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from model.documents import assert_converged, document, updates_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEQUENTIAL = ("automerge-paper", "friendsforever_flat", "json-crdt-patch", "sveltecomponent")
SAMPLE_EDITS = 6_000


@dataclass(frozen=True)
class Trace:
    start: str
    end: str
    transactions: list[list[tuple[int, int, str]]]

    def begun(self, edits: int) -> Trace:
        """Its first edits, with the end that a plain string comes to."""
        text, taken = self.start, []
        for patches in self.transactions[:edits]:
            taken.append(patches)
            for position, deleted, inserted in patches:
                text = text[:position] + inserted + text[position + deleted :]
        return Trace(self.start, text, taken)

    def spelled(self, letter: Callable[[str], str]) -> Trace:
        """The same with every character spelled otherwise, one for one."""

        def spell(text: str) -> str:
            return "".join(map(letter, text))

        return Trace(
            spell(self.start),
            spell(self.end),
            [
                [(position, deleted, spell(inserted)) for position, deleted, inserted in patches]
                for patches in self.transactions
            ],
        )


def trace(folder: Path, name: str) -> Trace:
    with gzip.open(folder / "editing-traces" / f"{name}.json.gz") as file:
        content: dict[str, Any] = json.load(file)
    transactions = [one["patches"] for one in content["txns"]]
    assert sum(map(len, transactions)) > SAMPLE_EDITS
    return Trace(content["startContent"], content["endContent"], transactions)


def assert_replays(one: Trace) -> None:
    source = document()
    updates = updates_of(source)
    text = source.text("text")
    text.append(one.start)
    for patches in one.transactions:
        with source.transaction():
            for position, deleted, inserted in patches:
                text.delete(position, deleted)
                text.insert(position, inserted)
    assert str(text) == one.end
    assert len(text) == len(one.end)
    assert len(updates) > len(one.transactions) // 2
    copy = document(2, updates)
    assert str(copy.text("text")) == one.end
    assert_converged(source, copy)
    source.close()
    copy.close()


def as_emoji(letter: str) -> str:
    return chr(0x1F400 + ord(letter)) if letter.isascii() and letter.isalpha() else letter


def as_chinese(letter: str) -> str:
    return chr(0x4E00 + ord(letter)) if letter.isascii() and letter.isalpha() else letter


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_the_beginning_of_a_trace_ends_as_a_string_does(data_folder: Path, name: str) -> None:
    assert_replays(trace(data_folder, name).begun(SAMPLE_EDITS))


@pytest.mark.parametrize("spelling", [as_emoji, as_chinese])
def test_the_beginning_of_a_trace_in_another_script(
    data_folder: Path, spelling: Callable[[str], str]
) -> None:
    one = trace(data_folder, "sveltecomponent").begun(SAMPLE_EDITS).spelled(spelling)
    assert not one.end.isascii()
    assert_replays(one)


@pytest.mark.full
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_a_trace_ends_equal_to_its_end_content(data_folder: Path, name: str) -> None:
    assert_replays(trace(data_folder, name))


@pytest.mark.full
@pytest.mark.parametrize("spelling", [as_emoji, as_chinese])
def test_a_trace_in_another_script_ends_equal_to_its_end_content(
    data_folder: Path, spelling: Callable[[str], str]
) -> None:
    assert_replays(trace(data_folder, "sveltecomponent").spelled(spelling))
