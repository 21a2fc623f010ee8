"""What a server is told before it starts: flags over environment over a TOML file.

Every setting has one name in three spellings, which `names_of` gives: `allowed_origins` is the
flag `--allowed-origins`, the variable `CRDT_STATE_ALLOWED_ORIGINS` and the key `allowed_origins`
of the file.  Two are shorter, as hosting platforms set them: `HOST` and `PORT`.  Lists are
separated by commas outside the file.  Bounds stand in a table of their own:

    host = "0.0.0.0"
    jwt_key_file = "/etc/crdt-state/login.jwks.json"
    allowed_hosts = ["notes.example"]

    [limits]                                    # CRDT_STATE_LIMITS__CONNECTIONS_MAX
    connections_max = 5_000

1. `load` returns settings that a server can start with, or raises `SettingsRefused` with one
   sentence for every problem it found.
2. Without authentication a server listens on loopback addresses only.
3. No message and no text form of the settings holds a secret.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import ssl
import tomllib
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import platformdirs
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    SettingsConfigDict,
    SettingsError,
)

from crdt_state.errors import KeyNotUsable, SettingsRefused, UsageError
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.protocol.sharedb.text_types import RICH_TEXT
from crdt_state.security.tokens import (
    Authentication,
    NoAuthentication,
    TokenAuthentication,
    TokenKey,
    TokenRules,
    parse_keys,
)
from crdt_state.transport.neighbourhood import Neighbourhood
from crdt_state.transport.origin import OriginRules, is_loopback, origin_rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic_core import ErrorDetails
    from pydantic_settings import PydanticBaseSettingsSource

    from crdt_state.protocol.sharedb.text_types import TextType

__all__ = [
    "STORE_FILE",
    "AuthenticationKind",
    "LogFormat",
    "LogLevel",
    "Names",
    "ServerSettings",
    "TopologyKind",
    "default_store",
    "load",
    "names_of",
    "unknown_variables",
]

STORE_FILE = "replica.db"
"""The replica's file in the store's folder."""

PREFIX = "CRDT_STATE_"
FILE_VARIABLE = PREFIX + "SETTINGS"
BARE_VARIABLES = {"host": "HOST", "port": "PORT"}
SECRETS = frozenset({"jwt_secret"})
KEY_FILE_BYTES_MAX = 1_048_576

# Variables with our prefix that are not for the server.
OTHER_VARIABLES = frozenset({FILE_VARIABLE, PREFIX + "DATA"})


class AuthenticationKind(Enum):
    """How peers prove who they are."""

    NONE = "none"
    JWT = "jwt"


class LogFormat(Enum):
    """For a person's eyes, or one JSON object a line."""

    CONSOLE = "console"
    JSON = "json"


class TopologyKind(Enum):
    """Who talks to whom."""

    MESH = "mesh"
    GOSSIP = "gossip"
    STAR = "star"
    MULTI_PRIMARY = "multi-primary"
    CHAIN = "chain"


class LogLevel(Enum):
    """The least severe event that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """The three spellings of one setting; bounds and secrets have no flag."""

    flag: str | None
    variable: str
    key: str

    def __str__(self) -> str:
        flag = f"{self.flag}, " if self.flag else ""
        return f"{flag}{self.variable} or `{self.key}` in the settings file"


def names_of(setting: str) -> Names:
    """Spell a setting (`port`, `limits.connections_max`) in its three ways."""
    variable = BARE_VARIABLES.get(setting, PREFIX + setting.upper().replace(".", "__"))
    # A secret in the arguments would be seen by every user of the machine.
    flag = None if "." in setting or setting in SECRETS else "--" + setting.replace("_", "-")
    return Names(flag, variable, setting)


def _listed(value: object) -> object:
    if isinstance(value, str):
        return [entry.strip() for entry in value.split(",") if entry.strip()]
    return value


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


def default_store(package_folder: Path | None = None) -> Path:
    """Return where documents are kept unless told otherwise.

    In a clone its `data` folder, which git ignores; else this user's data folder.
    """
    root = (package_folder or Path(__file__).parent).parent
    if (root / "pyproject.toml").is_file():
        return root / "data"
    return platformdirs.user_data_path("crdt-state", appauthor=False)


class ServerSettings(BaseSettings):
    """All settings of a server; made by `load`.  Relative paths start at the working folder."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    host: str = Field("localhost", validation_alias="host", max_length=255)
    """The address or name to listen on."""

    port: int = Field(1234, validation_alias="port", ge=0, le=65_535)
    """0 takes any free port."""

    store: Path = Field(default_factory=default_store)
    """The folder that holds the documents."""

    authentication: AuthenticationKind | None = None
    """By default `jwt` where a key is set, else `none`."""

    jwt_secret: SecretStr | None = None
    """An HMAC secret of at least 32 bytes."""

    jwt_key_file: Path | None = None
    """A file with such a secret, a public key in PEM, or a JWKS."""

    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_leeway_seconds: float = Field(5.0, ge=0, allow_inf_nan=False)

    tls_certificate: Path | None = None
    """The certificate chain in PEM."""

    tls_key: Path | None = None
    """Its private key in PEM, without password."""

    allowed_origins: Listed = ()
    allowed_hosts: Listed = ()

    log_format: LogFormat = LogFormat.CONSOLE
    log_level: LogLevel = LogLevel.INFO

    workers: int = Field(default=1, ge=1, le=64)
    """Processes that integrate foreign bytes."""

    metrics: bool = True
    """Whether `/metrics` answers."""

    topology: TopologyKind = TopologyKind.MESH
    """Who talks to whom, where there are `peers`, a `hub`, `primaries` or a `chain`."""

    peers: Listed = ()
    """Addresses of other replicas, as `ws://host:port`; this one's own among them is left out."""

    advertise: str = ""
    """The address at which the others dial this replica."""

    hub: str = ""
    """Of a star, the address of its middle."""

    primaries: Listed = ()
    """Of multi-primary, their addresses."""

    chain: Listed = ()
    """Of a chain, the addresses of its members from head to tail."""

    epoch: int = Field(1, ge=1)
    """Of a chain: raised by whoever changes the order, on all members."""

    gossip_fan_out: int = Field(3, ge=1, le=64)
    gossip_rounds_between: int = Field(10, ge=1)
    """Rounds of gossip from one comparison of everything to the next."""

    round_seconds: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Between two rounds of a topology; by default 60, of gossip 2."""

    peer_exchange: bool = False
    """Whether members are also dialled that a peer has told of; they are shown the token, too."""

    peer_token_file: Path | None = None
    """A file with the token that this replica shows to those it dials; read for each connection."""

    rich_text: Listed = ()
    """Collections whose texts are rich ones for ShareDB clients; texts of others are plain."""

    operations_at: str = ""
    """In a topology, the address of the one member that takes operations of ShareDB clients."""

    limits: Limits = DEFAULT_LIMITS

    @property
    def store_file(self) -> Path:
        """The file that holds the documents."""
        return self.store / STORE_FILE

    def keys(self) -> tuple[TokenKey, ...]:
        """Read the keys that tokens are checked with.  Raises `SettingsRefused`."""
        if self.jwt_secret is not None:
            return _keys(self.jwt_secret.get_secret_value(), "jwt_secret", self.limits)
        if self.jwt_key_file is not None:
            return _keys(_read_key_file(self.jwt_key_file), "jwt_key_file", self.limits)
        return ()

    @property
    def has_authentication(self) -> bool:
        """Whether peers have to prove who they are."""
        if self.authentication is None:
            return self.jwt_secret is not None or self.jwt_key_file is not None
        return self.authentication is AuthenticationKind.JWT

    def peer_authentication(self) -> Authentication:
        """Return how peers prove who they are.  Raises `SettingsRefused`."""
        if not self.has_authentication:
            return NoAuthentication()
        rules = TokenRules(
            audience=self.jwt_audience,
            issuer=self.jwt_issuer,
            leeway_seconds=self.jwt_leeway_seconds,
        )
        return TokenAuthentication(self.keys(), rules, self.limits)

    def origin_rules(self) -> OriginRules:
        """Return which web pages may connect.  Raises ValueError."""
        return origin_rules(
            host=self.host, allowed_hosts=self.allowed_hosts, allowed_origins=self.allowed_origins
        )

    def neighbourhood(self) -> Neighbourhood | None:
        """Return the topology that this replica takes part in, if any.  Raises `UsageError`."""
        found = self._configured()
        return found.learning() if found is not None and self.peer_exchange else found

    def text_types(self) -> dict[str, TextType]:
        """Return the types of collections that are not of plain texts."""
        return dict.fromkeys(self.rich_text, RICH_TEXT)

    def authority(self) -> str | None:
        """Return who takes operations on texts, if that is somebody else."""
        is_alone = self._configured() is None
        if is_alone or (self.operations_at and self.operations_at == self.advertise):
            return None
        return self.operations_at or f"no member of this topology: set {names_of('operations_at')}"

    def _configured(self) -> Neighbourhood | None:
        kind, seconds = self.topology, self.round_seconds
        rounds = {} if seconds is None else {"round_seconds": seconds}
        if kind is TopologyKind.STAR:
            return Neighbourhood.star(self.hub, self.peers, address=self.advertise, **rounds)
        if kind is TopologyKind.MULTI_PRIMARY:
            return Neighbourhood.multi_primary(
                self.primaries, self.peers, address=self.advertise, **rounds
            )
        if kind is TopologyKind.CHAIN:
            return Neighbourhood.chain(self.chain, self.epoch, address=self.advertise, **rounds)
        if not self.peers:
            return None
        if kind is TopologyKind.GOSSIP:
            return Neighbourhood.gossip(
                self.peers,
                address=self.advertise,
                fan_out=self.gossip_fan_out,
                rounds_between=self.gossip_rounds_between,
                **rounds,
            )
        return Neighbourhood.mesh(self.peers, address=self.advertise, **rounds)

    def peer_token(self) -> str:
        """Read the token for those that are dialled.  Raises `SettingsRefused`."""
        if self.peer_token_file is None:
            return ""
        return _read_text_file(self.peer_token_file, "token", "peer_token_file").strip()

    def tls(self) -> ssl.SSLContext | None:
        """Make the TLS context to listen with; None for plain text.  Raises `SettingsRefused`."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # An empty password: a key that has one is an error, not a question at the terminal.
            context.load_cert_chain(self.tls_certificate, self.tls_key, password="")
        except (OSError, ValueError) as error:
            raise SettingsRefused(
                (
                    f"the certificate and key cannot be used ({error}); both have to be PEM files, "
                    f"and the key without password: set {names_of('tls_certificate')}, "
                    f"and {names_of('tls_key')}",
                )
            ) from None
        return context

    def warnings(self) -> tuple[str, ...]:
        """Say what is allowed but should be known, in sentences."""
        found = []
        if not self.has_authentication:
            found.append(
                "authentication is off: every program and user of this machine may read and "
                f"write every document; to change that, set {names_of('jwt_key_file')}"
            )
        elif self.tls_certificate is None and not is_loopback(self.host):
            found.append(
                "tokens and documents travel unencrypted unless a proxy in front of this server "
                f"adds TLS; to do it here, set {names_of('tls_certificate')}"
            )
        if "*" in self.allowed_origins or "*" in self.allowed_hosts:
            found.append("every web page that somebody here opens may reach this server")
        return tuple(found)


def load(flags: Mapping[str, object] | None = None, *, file: Path | None = None) -> ServerSettings:
    """Read the settings of a server; `flags` that are None were not given.

    `file` is the flag `--settings`; without it the variable `CRDT_STATE_SETTINGS` may name one.
    Raises `SettingsRefused`.
    """
    named = os.environ.get(FILE_VARIABLE)
    if file is None and named:
        file = Path(named)
    in_file = {} if file is None else _read_file(file)

    class Sourced(ServerSettings):
        """The settings, with this one file below flags and environment."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, in_file)

    given: dict[str, Any] = {
        name: value for name, value in (flags or {}).items() if value is not None
    }
    try:
        settings = Sourced(**given)
    except ValidationError as error:
        raise SettingsRefused(tuple(_sentence(problem) for problem in error.errors())) from None
    except SettingsError:
        # Only a whole table in one variable is read as JSON, and only this one is a table.
        raise SettingsRefused(
            (f"{PREFIX}LIMITS is not JSON; set one bound a variable: {PREFIX}LIMITS__<NAME>",)
        ) from None
    problems = tuple(_contradictions(settings))
    if problems:
        raise SettingsRefused(problems)
    return settings


def unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Say which variables look like settings of ours, but are none.

    A misspelt variable is otherwise silently without effect.
    """
    known = {names_of(name).variable for name in _all_settings()} | OTHER_VARIABLES
    found = []
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable.upper() not in known:
            bare = BARE_VARIABLES.get(variable.removeprefix(PREFIX).lower())
            hint = f"; it is called {bare}" if bare else _suggestion(variable, known)
            found.append(f"{variable} is no setting and has no effect{hint}")
    return tuple(found)


NEEDED_BY = {
    TopologyKind.STAR: ("hub", "advertise"),
    TopologyKind.MULTI_PRIMARY: ("primaries", "advertise"),
    TopologyKind.CHAIN: ("chain", "advertise"),
}
OWNED_BY = {
    "hub": TopologyKind.STAR,
    "primaries": TopologyKind.MULTI_PRIMARY,
    "chain": TopologyKind.CHAIN,
}

# --- reading ---------------------------------------------------------------------------------


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        reason = "is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        reason = f"is not TOML ({error})"
    raise SettingsRefused(
        (f"the settings file {file} {reason}; name another with --settings or {FILE_VARIABLE}",)
    )


def _read_key_file(file: Path) -> str:
    return _read_text_file(
        file, "key", "jwt_key_file", what_else="; a key is a secret, a key in PEM, or a JWKS"
    )


def _read_text_file(file: Path, kind: str, setting: str, *, what_else: str = "") -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(KEY_FILE_BYTES_MAX + 1)
        if len(data) > KEY_FILE_BYTES_MAX:
            reason = f"is larger than {KEY_FILE_BYTES_MAX:,} bytes"
        else:
            return data.decode()
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        reason = f"is not text{what_else}"
    raise SettingsRefused(
        (f"the {kind} file {file} {reason}; name another with {names_of(setting)}",)
    )


def _keys(text: str, setting: str, limits: Limits) -> tuple[TokenKey, ...]:
    try:
        return parse_keys(text, limits=limits)
    except KeyNotUsable as error:
        raise SettingsRefused((f"{error.reason} (set {names_of(setting)})",)) from None


# --- what is wrong ---------------------------------------------------------------------------


def _all_settings() -> list[str]:
    bounds = [f"limits.{bound.name}" for bound in dataclasses.fields(Limits)]
    return [*ServerSettings.model_fields, *bounds]


def _suggestion(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _sentence(problem: ErrorDetails) -> str:
    setting = ".".join(str(part) for part in problem["loc"][:2] if isinstance(part, str))
    if problem["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return f"there is no setting {setting!r}{_suggestion(setting, _all_settings())}"
    should = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    value = "" if setting in SECRETS else f" ({_shown(problem['input'])} was given)"
    return f"{setting} has to be {should}{value}: change {names_of(setting)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _contradictions(settings: ServerSettings) -> Iterator[str]:
    yield from _problems_of_limits(settings.limits)
    yield from _problems_of_authentication(settings)
    yield from _problems_of_tls(settings)
    yield from _problems_of_topology(settings)
    yield from _problems_of_operations(settings)
    try:
        settings.origin_rules()
    except ValueError as error:
        yield f"{error}: change {names_of('allowed_origins')}, or {names_of('allowed_hosts')}"


def _problems_of_limits(limits: Limits) -> Iterator[str]:
    for bound in dataclasses.fields(Limits):
        value = getattr(limits, bound.name)
        if not 0 < value < math.inf:
            setting = f"limits.{bound.name}"
            yield (
                f"{setting} has to be a number above 0 ({value} was given): "
                f"change {names_of(setting)}"
            )


def _problems_of_authentication(settings: ServerSettings) -> Iterator[str]:
    secret, file = names_of("jwt_secret"), names_of("jwt_key_file")
    keys_given = sum(key is not None for key in (settings.jwt_secret, settings.jwt_key_file))
    if keys_given == 2:
        yield f"two keys are set; keep one of {secret}, and {file}"
    if settings.has_authentication:
        if not keys_given:
            yield f"authentication is jwt, but there is no key: set {secret}, or {file}"
        if settings.jwt_leeway_seconds > settings.limits.token_leeway_seconds_max:
            yield (
                f"jwt_leeway_seconds has to be at most {settings.limits.token_leeway_seconds_max} "
                f"({settings.jwt_leeway_seconds} was given): "
                f"change {names_of('jwt_leeway_seconds')}"
            )
        if keys_given == 1:
            try:
                settings.keys()
            except SettingsRefused as error:
                yield from error.problems
        return
    if keys_given:
        yield (
            "authentication is none, but there is a key for it: remove one of "
            f"{names_of('authentication')}, and {secret if settings.jwt_secret else file}"
        )
    if not is_loopback(settings.host):
        yield (
            f"refused: {settings.host!r} can be reached from other machines, and without "
            "authentication everybody there could read and write every document; set "
            f"{file}, or listen on localhost with {names_of('host')}"
        )


def _problems_of_topology(settings: ServerSettings) -> Iterator[str]:
    kind = settings.topology
    needed = NEEDED_BY.get(kind, ())
    for name in needed:
        if not getattr(settings, name):
            yield f"a {kind.value} needs {name}: set {names_of(name)}"
    for name, owner in sorted(OWNED_BY.items()):
        if getattr(settings, name) and kind is not owner:
            yield (
                f"{name} is of a {owner.value}, and the topology is {kind.value}: change "
                f"{names_of('topology')}, or remove {names_of(name)}"
            )
    if not all(getattr(settings, name) for name in needed):
        return
    try:
        found = settings.neighbourhood()
    except UsageError as error:
        yield f"{error}: change {_names_of_members(kind)}"
        return
    if found is not None:
        try:
            settings.peer_token()
        except SettingsRefused as error:
            yield from error.problems
    elif settings.peer_token_file is not None:
        yield f"there is a token for peers, but there are none: set {names_of('peers')}"


def _problems_of_operations(settings: ServerSettings) -> Iterator[str]:
    if settings.operations_at and not settings.advertise:
        yield (
            f"operations_at names a member of a topology, and this one has no address: "
            f"set {names_of('advertise')}"
        )
    for collection in settings.rich_text:
        if "/" in collection:
            yield (
                f"{collection!r} is no collection, which is what stands before the first slash of "
                f"a document's id: change {names_of('rich_text')}"
            )


def _names_of_members(kind: TopologyKind) -> str:
    names = [*NEEDED_BY.get(kind, ("advertise",)), "peers"]
    return "; or ".join(str(names_of(name)) for name in names)


def _problems_of_tls(settings: ServerSettings) -> Iterator[str]:
    files = {"tls_certificate": settings.tls_certificate, "tls_key": settings.tls_key}
    missing = [name for name, file in files.items() if file is None]
    if len(missing) == 1:
        (given,) = files.keys() - set(missing)
        yield f"{given} is set without {missing[0]}: set {names_of(missing[0])}"
    if not missing:
        try:
            settings.tls()
        except SettingsRefused as error:
            yield from error.problems
