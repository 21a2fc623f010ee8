"""The vectors of text-unicode: 10,239 operations with what another implementation made of them."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from crdt_state.ot import Side, apply, compose, text_unicode, transform

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("data_folder")


def vectors(folder: Path, name: str, count: int) -> list[dict[str, Any]]:
    data = gzip.decompress((folder / "ot-vectors" / f"{name}.json.gz").read_bytes())
    found = [json.loads(line) for line in data.splitlines()]
    assert len(found) == count
    return found


def test_all_operations_make_of_their_texts_what_they_should(data_folder: Path) -> None:
    for vector in vectors(data_folder, "apply", 4_316):
        operation = text_unicode.decode(vector["op"])
        assert apply(vector["str"], operation) == vector["result"], vector
        assert text_unicode.encode(operation) == vector["op"]


def test_all_transformed_operations_are_what_they_should_be(data_folder: Path) -> None:
    for vector in vectors(data_folder, "transform", 4_508):
        one, other = map(text_unicode.decode, (vector["op"], vector["otherOp"]))
        found = transform(one, other, Side(vector["side"]), order=text_unicode.ORDER)
        assert text_unicode.encode(found) == vector["result"], vector


def test_all_composed_operations_are_what_they_should_be(data_folder: Path) -> None:
    for vector in vectors(data_folder, "compose", 1_415):
        first, second = map(text_unicode.decode, (vector["op1"], vector["op2"]))
        found = compose(first, second, order=text_unicode.ORDER)
        assert text_unicode.encode(found) == vector["result"], vector
