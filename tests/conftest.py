"""What every test may ask for: the reference data and Node, or a reason why not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI") == "true"


def absent(reason: str) -> None:
    """Skip on a person's machine; fail where nothing may be missing."""
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Reference inputs with their expected results."""
    folder = Path(os.environ.get("CRDT_STATE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        absent(f"no reference data at {folder}; name its folder in CRDT_STATE_DATA")
    return folder


@pytest.fixture(scope="session")
def node_programs() -> Path:
    """The folder of the Node programs, with its packages installed."""
    folder = ROOT / "tests" / "js"
    if shutil.which("node") is None:
        absent("Node is not installed")
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    if not all((folder / "node_modules" / name).is_dir() for name in wanted):
        absent("the Node packages are not installed, or not all; run `npm ci` in tests/js")
    return folder
