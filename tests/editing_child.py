"""A replica in a process of its own, for tests that kill it.

    python editing_child.py FILE DOCUMENT (URL | -) SCRIPT

SCRIPT is words, carried out in order: `edit=N` appends N tokens `<pid>.<n>;` to the text `text`,
adds 1 to the counter `edits` with each, and says each token when it is saved; `synced` waits for
the link and says `synced`; `show` says the text; `hold` says `holding` and goes on for ever, until
somebody ends this process.  A start that fails says the name of its error.
"""

from __future__ import annotations

import asyncio
import os
import sys

from crdt_state.errors import CrdtStateError
from crdt_state.transport.replica import Replica


def say(text: str) -> None:
    # One write call: a line shorter than PIPE_BUF arrives whole or not at all.
    os.write(1, f"{text}\n".encode())


async def main(path: str, name: str, url: str, script: list[str]) -> None:
    async with Replica.open(path) as replica:
        document = await replica.document(name)
        link = None if url == "-" else replica.connect(url)
        for word in script:
            match word.partition("="):
                case "edit", _, count:
                    for number in range(int(count)):
                        token = f"{os.getpid()}.{number};"
                        with document.transaction():
                            document.text("text").append(token)
                            document.counter("edits").add(1)
                        await document.saved()
                        say(token)
                case "synced", _, _:
                    assert link is not None
                    await link.synced()
                    say("synced")
                case "show", _, _:
                    say(str(document.text("text")))
                case "hold", _, _:
                    say("holding")
                    await asyncio.Event().wait()
                case _:
                    raise ValueError(word)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
    except CrdtStateError as error:
        say(type(error).__name__)
        sys.exit(1)
