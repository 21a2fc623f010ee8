"""`crdt-state token`: a token for development, signed with the server's own key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from crdt_client.commands.outcome import EXIT_CODES, Exit, carry_out, usage_error
from crdt_client.commands.stores import JsonOption
from crdt_client.commands.terminal import write_json, write_text
from crdt_state.clocks import SystemClock, WallTime
from crdt_state.errors import KeyNotUsable, TokenRejected
from crdt_state.security.grant import Access, Grant, Right
from crdt_state.security.tokens import TokenRules, sign, verify
from sync_server.settings import load, names_of

__all__ = ["seconds_of", "token"]

HELP = f"""Make a token for development.

It is signed with the key of the server's settings: CRDT_STATE_JWT_SECRET, or a key file that
holds a secret or a private key.  In production a service of yours makes tokens, with any JWT
library; what is in them is in PROTOCOL.md.  Patterns: `notes/today` is one document, `notes/*` is
everything directly below, `notes/**` however deep, `**` everything.  Writing includes reading.

\b
Examples:
  export CRDT_STATE_JWT_SECRET=$(openssl rand -hex 32)
  crdt-state token --identity ana --write 'notes/ana/**'
  crdt-state token --identity kiosk --read 'public/*' --expires 30d
  curl -H "Authorization: Bearer $(crdt-state token --identity me --read '**')" \\
       http://localhost:1234/-/api/documents

{EXIT_CODES}
"""

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DURATION = re.compile(r"(\d{1,9})([smhd])")


def token(
    *,
    identity: Annotated[
        str, typer.Option("--identity", help="Who its bearer is.", show_default=False)
    ],
    read: Annotated[
        list[str] | None, typer.Option("--read", metavar="PATTERN", help="May be read.")
    ] = None,
    write: Annotated[
        list[str] | None,
        typer.Option("--write", metavar="PATTERN", help="May be read and written."),
    ] = None,
    relay: Annotated[
        bool, typer.Option("--relay", help="May bring what others wrote (for servers).")
    ] = False,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="Such as 90s, 30m, 8h or 7d.")
    ] = "8h",
    key_file: Annotated[
        Path | None,
        typer.Option("--jwt-key-file", metavar="FILE", help="As for `crdt-state serve`."),
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option("--settings", metavar="FILE", help="The server's settings in TOML."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The command; its words are `HELP`."""
    seconds = seconds_of(expires)
    if seconds is None:
        usage_error(f"--expires {expires!r} is no time; write 90s, 30m, 8h or 7d")
    if not (read or write):
        usage_error("a token without rights opens nothing; give --read or --write a pattern")
    rights = dict.fromkeys(read or (), "read") | dict.fromkeys(write or (), "write")
    carry_out(
        _token(
            identity,
            rights,
            seconds,
            relay=relay,
            key_file=key_file,
            settings_file=settings_file,
            as_json=as_json,
        )
    )


def seconds_of(text: str) -> int | None:
    """The seconds of a time such as `8h`, above 0, or None."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        return None
    return int(match[1]) * UNITS[match[2]] or None


async def _token(
    identity: str,
    rights: dict[str, str],
    seconds: int,
    *,
    relay: bool,
    key_file: Path | None,
    settings_file: Path | None,
    as_json: bool,
) -> Exit:
    # What the server would read, so that it accepts what we make; its address does not matter.
    settings = load({"jwt_key_file": key_file, "host": "localhost"}, file=settings_file)
    keys = settings.keys()
    if not keys:
        raise KeyNotUsable(
            "there is no key to sign with; make a secret with `openssl rand -hex 32`, and give it "
            f"to the server and to this command by {names_of('jwt_secret').variable}, or in a "
            "file by --jwt-key-file"
        )
    now = SystemClock().wall()
    ends = WallTime((now // 1_000_000 + seconds) * 1_000_000)
    granted = tuple(Right(pattern, Access(access)) for pattern, access in rights.items())
    grant = Grant(identity, granted, expires_at=ends, may_relay=relay)
    rules = TokenRules(audience=settings.jwt_audience, issuer=settings.jwt_issuer)
    try:
        text = sign(grant, keys, now=now, rules=rules)
        verify(text, keys, now=now, rules=rules, limits=settings.limits)
    except (TokenRejected, ValueError) as error:
        usage_error(f"the server would not take this token: {error}")
    if as_json:
        write_json({"token": text, "identity": identity, "expires_at": ends // 1_000_000})
    else:
        write_text(text + "\n")
    return Exit.FINE
