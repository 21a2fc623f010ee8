"""The server of the demonstration: what `crdt-state serve` runs, ending with its parent.

Run as `python -m crdt_client.demonstration.serving STORE PORT`.  The end of stdin ends it as
SIGTERM would, so that a stage that was killed leaves no server behind.
"""

from __future__ import annotations

import os
import signal
import sys
from threading import Thread

from sync_server.server import run
from sync_server.settings import load

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """The process; its exit code."""
    store, port = arguments
    Thread(target=_end_with_parent, daemon=True).start()
    return run(load({"host": "127.0.0.1", "port": port, "store": store, "log_format": "json"}))


def _end_with_parent() -> None:
    # Not through the buffer: its lock must be free when the interpreter ends in the middle.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
