"""`crdt-state serve`: the server in the foreground; its flags are the server's settings."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from crdt_client.commands.outcome import Exit
from crdt_client.commands.terminal import complain, note
from crdt_state.errors import SettingsRefused
from sync_server.settings import ServerSettings, load, names_of, unknown_variables

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

__all__ = ["new_serve"]

HELP = """Run the server in the foreground, until SIGINT or SIGTERM.

Stock Yjs clients (y-websocket) and replicas of this package connect to
ws://HOST:PORT/<document id>.  Without a key everybody on this machine may connect and nobody
else; to listen on other addresses, set one.

Every flag is also a variable (CRDT_STATE_…, and HOST and PORT) and a key of the settings file;
flags win over variables, and variables over the file.  A secret has no flag:
CRDT_STATE_JWT_SECRET.

\b
Examples:
  crdt-state serve
  crdt-state serve --port 8080 --store ./data
  crdt-state serve --host 0.0.0.0 --jwt-key-file login.jwks.json \\
      --tls-certificate chain.pem --tls-key key.pem
  crdt-state serve --settings /etc/crdt-state.toml

\b
Exit codes: 0 stopped; 1 the address cannot be had; 2 bad settings;
            3 the store cannot be used.
"""

WORDS = {
    "host": "The address or name to listen on.",
    "port": "The port; 0 takes any free one.",
    "store": "The folder that holds the documents.",
    "authentication": "none or jwt; by default jwt where a key is set.",
    "jwt_key_file": "A secret, a public key in PEM, or a JWKS.",
    "jwt_audience": "What tokens have to name as their audience.",
    "jwt_issuer": "Who has to have issued tokens.",
    "jwt_leeway_seconds": "How far clocks may differ.",
    "tls_certificate": "The certificate chain in PEM.",
    "tls_key": "Its private key in PEM, without password.",
    "allowed_origins": "Web pages that may connect, separated by commas.",
    "allowed_hosts": "Names this server is called by, separated by commas.",
    "log_format": "console or json.",
    "log_level": "debug, info, warning or error.",
    "workers": "Processes that open foreign documents.",
    "metrics": "Whether /metrics answers.",
    "topology": "mesh, gossip, star, multi-primary or chain; for replicas that dial one another.",
    "peers": "Addresses of other replicas, ws://host:port, separated by commas.",
    "advertise": "The address at which the others dial this replica.",
    "hub": "Of a star, the address of its middle.",
    "primaries": "Of multi-primary, their addresses, separated by commas.",
    "chain": "Of a chain, the addresses from head to tail, separated by commas.",
    "epoch": "Of a chain: raised with every change of the order.",
    "gossip_fan_out": "Of gossip, to how many at once.",
    "gossip_rounds_between": "Of gossip, rounds between comparisons of everything.",
    "round_seconds": "Between rounds of a topology; by default 60, of gossip 2.",
    "peer_exchange": "Dial members, too, that a peer tells of; they are shown the token.",
    "peer_token_file": "A file with the token shown to peers; read for each connection.",
    "rich_text": "Collections of rich texts for ShareDB clients, separated by commas.",
    "operations_at": "In a topology, the address of the member that takes their operations.",
}
"""What a flag is for.  A setting without words here is a flag without help, not a lost one."""

VALUES = {int: "N", float: "N", Path: "PATH"}


def new_serve() -> Callable[..., None]:
    """The command, with a flag for every setting that may have one."""
    parameters = [_parameter("settings", "--settings", Path, "A settings file in TOML.")]
    for name, field in ServerSettings.model_fields.items():
        flag = names_of(name).flag
        if flag is not None and name != "limits":
            parameters.append(_parameter(name, flag, _kind(field), WORDS.get(name, ""), field))

    def serve(**given: Any) -> None:
        file = given.pop("settings")
        raise typer.Exit(_serve(given, file))

    signature = inspect.Signature(parameters)
    serve.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads
    serve.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return serve


def _serve(given: dict[str, Any], file: Path | None) -> int:
    try:
        settings = load(given, file=file)
    except SettingsRefused as error:
        for problem in error.problems:
            complain(problem)
        return Exit.USAGE
    for sentence in unknown_variables(os.environ):
        note(f"warning: {sentence}", style="yellow")
    from sync_server.server import run  # noqa: PLC0415 - only now is it worth its time

    return run(settings)


def _kind(field: FieldInfo) -> type:
    annotation = field.annotation
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    kind = kinds[0] if len(kinds) == 1 else annotation
    return kind if kind in (bool, *VALUES) else str


def _parameter(
    name: str, flag: str, kind: type, words: str, field: FieldInfo | None = None
) -> inspect.Parameter:
    """One flag.  Its value stays text where it is no switch: the settings say what is wrong."""
    is_switch = kind is bool
    default = None if field is None or field.default_factory is not None else field.default
    shown = f"  [default: {getattr(default, 'value', default)}]"
    has_default = default not in (None, ()) and type(default).__name__ != "PydanticUndefinedType"
    option = typer.Option(
        f"{flag}/--no-{flag.removeprefix('--')}" if is_switch else flag,
        help=words + (shown if has_default and not is_switch else ""),
        metavar=None if is_switch else VALUES.get(kind, "TEXT"),
        show_default=False,
    )
    annotation = Annotated[bool | None if is_switch else str | None, option]  # type: ignore[valid-type]  # made here
    if name == "settings":
        annotation = Annotated[Path | None, option]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
