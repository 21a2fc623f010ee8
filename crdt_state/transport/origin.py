"""Which web pages may reach this server: rules for the headers `Origin` and `Host`.

A browser lets any page open a WebSocket to any address, `localhost` included, and tells the
server only where the page came from (`Origin`, RFC 6454).  Without a check every site that
somebody visits could read and write the documents of a server on their machine.  A page that
makes its own name point to 127.0.0.1 (DNS rebinding) has a matching `Origin`, so `Host` is
checked too: it has to be a name we serve.

1. A page of the same host may connect, whatever its port; others have to be allowed.
2. A program that is no browser sends no `Origin`, and is let through: what it may do is a
   question for authentication.
3. The opaque origin `null` (a sandboxed frame, a local file) is nobody's, and always refused.
4. An address as `Host` cannot have been rebound.  Loopback addresses are always served; others
   only where the server listens on all of them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OriginRules", "is_loopback", "origin_rules"]

ANY = "*"
NULL = "null"
DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
HEADER_CHARACTERS_MAX = 1_024

AUTHORITY = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
ORIGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#@\s]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class OriginRules:
    """What `refusal` allows; made by `origin_rules`, which brings all parts to one form.

    `hosts` are names in lower case; one that begins with a dot stands for all below it.
    `origins` are (scheme, host, port), with None for any port.
    """

    hosts: frozenset[str]
    origins: frozenset[tuple[str, str, int | None]]
    serves_every_host: bool = False
    serves_every_address: bool = False
    serves_every_origin: bool = False

    def refusal(self, *, host: Sequence[str], origin: Sequence[str]) -> str | None:
        """Say why a request with these headers is refused, or None where it is welcome.

        `host` and `origin` are all values of the two headers, in any number.
        """
        if len(host) != 1:
            return "exactly one Host header is required"
        served = _authority(host[0])
        if served is None:
            return "the Host header is not a name or an address"
        name, _ = served
        if not self._serves(name):
            return (
                f"this server does not answer as {name!r}; if it should, "
                "add that name to its allowed hosts"
            )
        if not origin:
            return None
        if len(origin) != 1:
            return "more than one Origin header"
        return self._origin_refusal(origin[0], name)

    def _serves(self, name: str) -> bool:
        if self.serves_every_host or name in self.hosts or is_loopback(name):
            return True
        if _address(name) is not None:
            return self.serves_every_address
        labels = name.split(".")
        return any("." + ".".join(labels[at:]) in self.hosts for at in range(1, len(labels)))

    def _origin_refusal(self, origin: str, name: str) -> str | None:
        if origin == NULL:
            return (
                "pages without an origin of their own (local files, sandboxed frames) may not "
                "connect; serve the page over HTTP"
            )
        parsed = _origin(origin)
        if parsed is None:
            return "the Origin header is not an origin"
        scheme, page_name, page_port = parsed
        # The same host, whatever the port: who develops a page has a server of their own for it,
        # and who may serve pages from this host can read what is on it anyway.
        if scheme in {"http", "https"} and page_name == name:
            return None
        if (
            self.serves_every_origin
            or (scheme, page_name, page_port) in self.origins
            or (scheme, page_name, None) in self.origins
        ):
            return None
        shown = _text_of(scheme, page_name, page_port)
        return (
            f"pages from {shown} may not connect; if they should, "
            f"add {shown} to the allowed origins of this server"
        )


def origin_rules(
    *, host: str, allowed_hosts: Sequence[str] = (), allowed_origins: Sequence[str] = ()
) -> OriginRules:
    """Make the rules of a server that listens on `host`.

    `allowed_hosts` are further names without port (`notes.example`), `*.notes.example` for all
    names below one, or `*` for any, which gives up the protection against rebinding.
    `allowed_origins` are origins of pages (`https://app.example`, `http://localhost:5173`),
    with `:*` for any port, or `*` for any origin.  Raises ValueError with a sentence that says
    which entry is wrong.
    """
    names = {name for entry in allowed_hosts if (name := _host_entry(entry)) != ANY}
    listens = _authority_of_listener(host)
    if listens:
        names.add(listens)
    origins = {_origin_entry(entry) for entry in allowed_origins if entry != ANY}
    return OriginRules(
        hosts=frozenset(names),
        origins=frozenset(origins),
        serves_every_host=ANY in allowed_hosts,
        serves_every_address=not listens,
        serves_every_origin=ANY in allowed_origins,
    )


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and only reachable from it, judged without a name server.

    That is `localhost` and what is below it (RFC 6761), 127.0.0.0/8 and ::1.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _authority(text: str) -> tuple[str, int | None] | None:
    """Split `host[:port]`; the host in one form, an IPv6 address without brackets."""
    found = AUTHORITY.fullmatch(text) if len(text) <= HEADER_CHARACTERS_MAX else None
    if found is None:
        return None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and port > 65_535:
        return None
    raw = found["host"].lower().rstrip(".")
    address = _address(raw)
    if address is None and raw.startswith("["):
        return None
    return (raw if address is None else str(address)), port


def _origin(text: str) -> tuple[str, str, int | None] | None:
    found = ORIGIN.fullmatch(text) if len(text) <= HEADER_CHARACTERS_MAX else None
    authority = _authority(found["authority"]) if found else None
    if found is None or authority is None:
        return None
    scheme = found["scheme"].lower()
    name, port = authority
    return scheme, name, DEFAULT_PORTS.get(scheme) if port is None else port


def _authority_of_listener(host: str) -> str:
    """Name what a listener on `host` answers as; empty where it listens on all addresses."""
    address = _address(host)
    if not host or (address is not None and address.is_unspecified):
        return ""
    return host.lower().rstrip(".") if address is None else str(address)


def _host_entry(entry: str) -> str:
    if entry == ANY:
        return ANY
    below = entry.startswith("*.")
    bare = f"[{entry}]" if ":" in entry and not entry.startswith("[") else entry
    authority = _authority(bare.removeprefix("*."))
    if authority is None or authority[1] is not None:
        raise ValueError(
            f"{entry!r} is not a host; write a name without scheme and port, such as "
            "'notes.example', or '*.notes.example' for all names below it"
        )
    return f".{authority[0]}" if below else authority[0]


def _origin_entry(entry: str) -> tuple[str, str, int | None]:
    any_port = entry.endswith(":*")
    parsed = _origin(entry.removesuffix(":*").removesuffix("/"))
    if parsed is None:
        raise ValueError(
            f"{entry!r} is not an origin; write scheme, host and port only, such as "
            "'https://app.example' or 'http://localhost:5173' (or 'http://localhost:*')"
        )
    scheme, name, port = parsed
    return scheme, name, None if any_port else port


def _text_of(scheme: str, name: str, port: int | None) -> str:
    host = f"[{name}]" if ":" in name else name
    return f"{scheme}://{host}" + ("" if port in {None, DEFAULT_PORTS.get(scheme)} else f":{port}")
