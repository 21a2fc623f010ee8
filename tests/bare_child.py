"""What updates do to a process that trusts them: stock pycrdt, no guard, nothing of ours.

`fate_of` runs this very file as a child, hands it updates one by one, and tells how it ended.
That is the proof that a shape is worth refusing; when upstream mends it, the test says so.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, BinaryIO

import pycrdt

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER_BYTES = 4


class Fate(Enum):
    """How it ended, from harmless to worst."""

    TAKEN = "taken"
    REFUSED = "refused"
    PANICKED = "panicked"
    STALLED = "stalled"
    DIED = "died"


@dataclass(frozen=True)
class Outcome:
    """`state` is what a document reports after it, where it came that far."""

    fate: Fate
    state: bytes = b""


def fate_of(updates: Iterable[bytes], *, seconds: float = 3.0, wants_state: bool = True) -> Outcome:
    """Apply `updates` to a pycrdt document in a child that has so many seconds."""
    frames = b"".join(len(one).to_bytes(HEADER_BYTES, "little") + one for one in updates)
    with subprocess.Popen(
        [sys.executable, __file__, "state" if wants_state else "apply"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            said, _ = child.communicate(frames, timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            return Outcome(Fate.STALLED)
    if child.returncode != 0:
        return Outcome(Fate.DIED)
    word, _, state = said.partition(b"\n")
    return Outcome(Fate(word.decode()), bytes.fromhex(state.decode()))


def _updates(stdin: BinaryIO) -> Iterable[bytes]:
    while header := stdin.read(HEADER_BYTES):
        yield stdin.read(int.from_bytes(header, "little"))


def _main(*, wants_state: bool) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    fate, state = Fate.TAKEN, b""
    try:
        for update in _updates(sys.stdin.buffer):
            document.apply_update(update)
        if wants_state:
            state = document.get_update()
    except ValueError:
        fate = Fate.REFUSED
    except BaseException as error:
        # The class is made inside the extension and cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        fate = Fate.PANICKED
    sys.stdout.write(f"{fate.value}\n{state.hex()}")


if __name__ == "__main__":
    _main(wants_state=sys.argv[1] == "state")
