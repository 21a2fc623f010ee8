"""What one sync of the disk takes: what a server that keeps its word has to wait for."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["sync_seconds"]

APPENDED_BYTES = 128
SYNCS = 50


def sync_seconds(folder: Path) -> list[float]:
    """Seconds of each of some small appends to a file in `folder`, every one with its sync."""
    sync = getattr(os, "fdatasync", os.fsync)
    path, found = folder / "appended", []
    with path.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            begin = time.perf_counter()
            file.write(bytes(APPENDED_BYTES))
            sync(file.fileno())
            found.append(time.perf_counter() - begin)
    path.unlink()
    return found
