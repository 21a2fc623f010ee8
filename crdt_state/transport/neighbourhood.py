"""What a replica is told of a topology before it takes part: which, with whom, how often.

Members are told by the addresses at which they can be dialled, and every member is told the same
ones in the same spelling: that is how all of them mean the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from crdt_state.errors import UsageError
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.replica.forwarding import member_name
from crdt_state.topology.chain import Chain
from crdt_state.topology.gossip import Gossip
from crdt_state.topology.mesh import Mesh
from crdt_state.topology.multi_primary import MultiPrimary
from crdt_state.topology.star import Star

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crdt_state.topology.contract import Topology

__all__ = ["GOSSIP_ROUND_SECONDS", "ROUND_SECONDS", "Neighbourhood", "member_address"]

CHAIN_MEMBERS_MAX = 16
"""A relay tells a peer of no more others than that."""

ROUND_SECONDS = 60.0
"""Between two rounds; in each, one peer is compared with."""

GOSSIP_ROUND_SECONDS = 2.0
"""Of gossip, which draws its peers anew in every round and compares in some of them."""


def member_address(text: str) -> str:
    """The one spelling of an address at which a member can be dialled.

    Raises `UsageError` for what is none.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{_shown(text)} is not an address of a replica: {error}") from None
    host = (parts.hostname or "").lower()
    reason = None
    if parts.scheme not in ("ws", "wss"):
        reason = "it begins with ws:// or wss://"
    elif not host:
        reason = "it names no host"
    elif parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        reason = "it is a scheme, a host and a port, and nothing behind"
    elif len(text.encode()) > DEFAULT_LIMITS.member_address_bytes_max:
        reason = f"it is longer than {DEFAULT_LIMITS.member_address_bytes_max} bytes"
    elif not host.isascii() or any(not c.isprintable() or c.isspace() for c in host):
        reason = "its host is not written in ASCII"
    if reason is not None:
        raise UsageError(f"{_shown(text)} is not an address of a replica: {reason}")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """A topology and its members; made by `mesh`, `gossip`, `star`, `multi_primary` and `chain`.

    All of these raise `UsageError` for what cannot be.
    """

    kind: str
    """What the topology is called."""
    topology: Topology
    peers: tuple[str, ...]
    """Addresses of members, without this one's own."""
    address: str
    """This one's own; empty where nobody needs to know it."""
    round_seconds: float
    order: tuple[str, ...] = ()
    """Of a chain, its addresses from head to tail."""
    learns: bool = False
    """Whether members are also dialled that a peer has told of: they are shown the token, too."""

    def learning(self) -> Neighbourhood:
        """The same with peer exchange."""
        return replace(self, learns=True)

    @classmethod
    def mesh(
        cls, peers: Iterable[str], *, address: str = "", round_seconds: float = ROUND_SECONDS
    ) -> Neighbourhood:
        """Everybody talks to everybody."""
        return cls._of("mesh", Mesh(), peers, address, round_seconds)

    @classmethod
    def gossip(
        cls,
        peers: Iterable[str],
        *,
        address: str = "",
        fan_out: int = 3,
        rounds_between: int = 10,
        round_seconds: float = GOSSIP_ROUND_SECONDS,
    ) -> Neighbourhood:
        """Everybody talks to `fan_out` others, drawn anew in every round.

        With one of them everything is compared, every `rounds_between` rounds.
        """
        if fan_out < 1 or rounds_between < 1:
            raise UsageError("gossip needs a fan-out and rounds between comparisons of 1 or more")
        topology = Gossip(fan_out=fan_out, rounds_between=rounds_between)
        return cls._of("gossip", topology, peers, address, round_seconds)

    @classmethod
    def star(
        cls,
        hub: str,
        peers: Iterable[str] = (),
        *,
        address: str,
        round_seconds: float = ROUND_SECONDS,
    ) -> Neighbourhood:
        """Everybody talks to `hub` alone; only the hub needs the other `peers`."""
        hub = member_address(hub)
        own = member_address(address)
        topology = Star(member_name(hub))
        return cls._of(
            "star", topology, (hub, *peers) if own == hub else (hub,), own, round_seconds
        )

    @classmethod
    def multi_primary(
        cls,
        primaries: Iterable[str],
        peers: Iterable[str] = (),
        *,
        address: str,
        round_seconds: float = ROUND_SECONDS,
    ) -> Neighbourhood:
        """A mesh of `primaries`; every other member talks to one of them.

        Only primaries need the other `peers`.
        """
        chosen = tuple(map(member_address, primaries))
        if not chosen:
            raise UsageError("several primaries are at least one")
        topology = MultiPrimary(frozenset(map(member_name, chosen)))
        return cls._of("multi-primary", topology, (*chosen, *peers), address, round_seconds)

    @classmethod
    def chain(
        cls,
        order: Sequence[str],
        epoch: int,
        *,
        address: str,
        round_seconds: float = ROUND_SECONDS,
    ) -> Neighbourhood:
        """Writes enter at the first of `order` and pass to its last, in `epoch`."""
        addresses = tuple(map(member_address, order))
        if epoch < 1:
            raise UsageError("epochs of a chain are counted from 1")
        if len(addresses) > CHAIN_MEMBERS_MAX:
            raise UsageError(f"a chain has at most {CHAIN_MEMBERS_MAX} members")
        topology = Chain(tuple(map(member_name, addresses)), epoch)
        made = cls._of("chain", topology, addresses, address, round_seconds)
        return replace(made, order=addresses)

    @classmethod
    def _of(
        cls,
        kind: str,
        topology: Topology,
        peers: Iterable[str],
        address: str,
        round_seconds: float,
    ) -> Neighbourhood:
        own = member_address(address) if address else ""
        if not own and kind not in ("mesh", "gossip"):
            raise UsageError(f"a member of a {kind} has to know its own address among the others")
        if not round_seconds > 0:
            raise UsageError(f"rounds are more than 0 seconds apart, not {round_seconds}")
        others = dict.fromkeys(map(member_address, peers))
        others.pop(own, None)
        return cls(
            kind=kind,
            topology=topology,
            peers=tuple(others),
            address=own,
            round_seconds=round_seconds,
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
