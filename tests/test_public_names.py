"""The public interface: every name is there, and loads no more than it must."""

from __future__ import annotations

import subprocess
import sys

import pytest

import crdt_state


@pytest.mark.parametrize("name", crdt_state.__all__)
def test_a_public_name_can_be_imported(name: str) -> None:
    assert getattr(crdt_state, name) is not None
    assert name in dir(crdt_state)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Repplica'"):
        _ = crdt_state.Repplica


def test_a_worker_process_loads_neither_sockets_nor_sqlite() -> None:
    program = (
        "import sys, crdt_state.replica.worker_process\n"
        "print(sorted({'websockets', 'sqlite3', 'aiosqlite', 'joserfc'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
