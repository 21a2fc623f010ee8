"""Exit codes, and which error leads to which: the one place where a command's errors end.

0    it went well
1    something was found wrong: a damaged, refused or set-aside document
2    bad usage: a flag, a document id, a file that is none
3    the store cannot be used: not there, in use, damaged, full
130  interrupted
"""

from __future__ import annotations

import asyncio
import os
import sys
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

import typer

from crdt_client.commands.terminal import complain
from crdt_state.errors import CrdtStateError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["EXIT_CODES", "Exit", "carry_out", "usage_error"]

EXIT_CODES = """\b
Exit codes: 0 fine; 1 something was found wrong; 2 bad usage;
            3 the store cannot be used."""


class Exit(IntEnum):
    """What a command says to whoever called it."""

    FINE = 0
    WRONG = 1
    USAGE = 2
    STORE = 3
    INTERRUPTED = 130


def carry_out(work: Coroutine[object, object, Exit]) -> NoReturn:
    """Run a command to its end and exit with its code, or with that of its error."""
    try:
        code = asyncio.run(work)
    except KeyboardInterrupt:
        complain("interrupted; what was reported as done is done")
        code = Exit.INTERRUPTED
    except StoreError as error:
        complain(str(error))
        code = Exit.STORE
    except UsageError as error:
        complain(str(error))
        code = Exit.USAGE
    except CrdtStateError as error:
        complain(str(error))
        code = Exit.WRONG
    except BrokenPipeError:
        # Whoever read us (`| head`) has seen enough; the flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.FINE
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        code = Exit.USAGE
    raise typer.Exit(code)


def usage_error(text: str) -> NoReturn:
    """End with a sentence on what to do instead."""
    complain(text)
    raise typer.Exit(Exit.USAGE)
