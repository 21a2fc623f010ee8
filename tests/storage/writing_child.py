"""A process that writes as fast as it can and says what was confirmed, until it is killed.

    python writing_child.py FILE SEED

Lines on stdout: `open <is new incarnation>`, `closed`, and `<document> <token>` when the write
of that token has returned.  A token is the content of an update: `<seed>.<writer>.<number>;`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from random import Random

from crdt_state.errors import FoldOutdated
from crdt_state.identifiers import document_id
from crdt_state.limits import Limits
from crdt_state.storage.contract import Append, Fold, SetMetadata
from crdt_state.storage.sqlite import SqliteStore

WRITERS = 20
# A small log, so that kills meet checkpoints too.
LIMITS = Limits(wal_bytes_before_checkpoint=64 * 1024)


def say(text: str) -> None:
    # One write call: a line shorter than PIPE_BUF arrives whole or not at all.
    os.write(1, f"{text}\n".encode())


async def write(store: SqliteStore, seed: int, writer: int, random: Random) -> None:
    document = document_id(f"crash/{writer % 7}")
    for number in range(1_000_000):
        token = f"{seed}.{writer}.{number};"
        update = token.encode() + b" " * random.choice([0, 0, 0, 400, 5_000])
        await store.write(
            [Append(document, (update,), ("hub",)), SetMetadata(f"last/{writer}", token.encode())]
        )
        say(f"{document} {token}")
        if random.random() < 0.02:
            stored = await store.read(document)
            assert stored is not None
            if stored.log:
                state = b"".join(part.replace(b" ", b"") for part in stored.updates())
                try:
                    await store.write([Fold(document, state, b"", stored.log[-1].sequence)])
                except FoldOutdated:
                    continue


async def main(path: str, seed: int) -> None:
    random = Random(seed)
    # Some lives end by closing, so that kills meet that too.
    stop_after = random.choice([0.05, 0.2, 60.0])
    store = await SqliteStore.open(path, random=random, limits=LIMITS)
    say(f"open {store.is_new_incarnation}")
    writers = [asyncio.create_task(write(store, seed, n, Random(seed + n))) for n in range(WRITERS)]
    await asyncio.wait(writers, timeout=stop_after)
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    await store.close()
    say("closed")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
