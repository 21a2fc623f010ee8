"""Updates that real Yjs programs made, in any order and with duplicates, reach what Yjs reached."""

from __future__ import annotations

import hashlib
import json
from random import Random
from typing import TYPE_CHECKING

import pytest

from crdt_state.model import engine
from model.documents import assert_converged, document
from reference import Session, documents, sessions

if TYPE_CHECKING:
    from pathlib import Path

    from crdt_state.model.document import Document

SAMPLE = 300
SEED = 20260


@pytest.fixture(scope="module")
def every_session(data_folder: Path) -> list[Session]:
    found = sessions(data_folder)
    assert len(found) == 5_320
    assert sum(len(session.updates) for session in found) == 46_385
    return found


def seen_in(source: Document) -> Session:
    return Session(
        [], str(source.text("text")), dict(source.map("map")), list(source.list("array"))
    )


def assert_reaches_what_yjs_reached(number: int, session: Session) -> None:
    random = Random(SEED + number)
    expected = session._replace(updates=[])
    updates = [*session.updates, *random.choices(session.updates, k=len(session.updates) // 2)]
    random.shuffle(updates)
    shuffled = document(1)
    for update in updates:
        shuffled.apply(update)
    at_once = document(2, [engine.merge(random.sample(session.updates, len(session.updates)))])
    where = f"session {number}, seed {SEED + number}"
    assert seen_in(shuffled) == expected, where
    assert seen_in(at_once) == expected, where
    assert_converged(shuffled, at_once)
    shuffled.close()
    at_once.close()


def test_a_sample_of_the_sessions_reaches_what_yjs_reached(every_session: list[Session]) -> None:
    numbers = Random(SEED).sample(range(len(every_session)), SAMPLE)
    for number in numbers:
        assert_reaches_what_yjs_reached(number, every_session[number])


@pytest.mark.full
def test_all_sessions_reach_what_yjs_reached(every_session: list[Session]) -> None:
    for number, session in enumerate(every_session):
        assert_reaches_what_yjs_reached(number, session)


def test_whole_documents_of_yjs_are_read(data_folder: Path) -> None:
    found = documents(data_folder)
    assert len(found) == 3
    digests = json.loads((data_folder / "yjs-documents" / "sha256.json").read_text())
    for name, update in found.items():
        source = document(1, [update])
        text = str(source.text("text"))
        expected = digests.get(name.split(".")[0])
        if expected is None:
            assert (name, len(text)) == ("b4-update.bin", 104_852)
        else:
            assert len(text) == expected["codepoints"]
            assert hashlib.sha256(text.encode()).hexdigest() == expected["sha256_utf8"]
        source.close()
