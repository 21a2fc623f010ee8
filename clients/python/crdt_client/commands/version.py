"""`crdt-state version`: what a bug report needs to begin with."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of

from crdt_client.commands.stores import JsonOption
from crdt_client.commands.terminal import show, write_json

__all__ = ["version", "version_line"]

HELP = """Say which version this is, and of what it is built.

\b
Examples:
  crdt-state version
  crdt-state version --json
"""


def version_line() -> str:
    """What `--version` says, as every other program does."""
    return f"crdt-state {version_of('crdt-state')}"


def version(*, as_json: JsonOption = False) -> None:
    """The command; its words are `HELP`."""
    versions = {
        "crdt-state": version_of("crdt-state"),
        "python": platform.python_version(),
        "pycrdt": version_of("pycrdt"),
        "websockets": version_of("websockets"),
        "system": platform.platform(),
    }
    if as_json:
        write_json(versions)
    else:
        show("\n".join(f"{name} {number}" for name, number in versions.items()))
