"""What a topology is told of, and what it refuses."""

from __future__ import annotations

import pytest

from crdt_state.errors import UsageError
from crdt_state.transport.neighbourhood import Neighbourhood, member_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ws://a:1234", "ws://a:1234"),
        (" WS://A.Example:1234/ ", "ws://a.example:1234"),
        ("wss://a.example", "wss://a.example"),
        ("ws://[::1]:1234", "ws://[::1]:1234"),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str) -> None:
    assert member_address(text) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://a:1", "begins with ws:// or wss://"),
        ("a:1", "begins with ws:// or wss://"),
        ("ws://", "names no host"),
        ("ws://a:70000", "Port out of range"),
        ("ws://a:1/-/sync", "nothing behind"),
        ("ws://ana:secret@a:1", "nothing behind"),
        ("ws://a:1?token=x", "nothing behind"),
        ("ws://" + "a" * 3_000, "longer than"),
        ("ws://caf\u00e9:1", "ASCII"),
        ("ws://a b:1", "ASCII"),
    ],
)
def test_what_is_no_address_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        member_address(text)


def test_a_members_own_address_is_left_out_and_others_are_named_once() -> None:
    found = Neighbourhood.mesh(["ws://a:1", "ws://b:1", "ws://b:1/"], address="ws://a:1")
    assert found.peers == ("ws://b:1",)


def test_only_the_hub_of_a_star_is_told_of_the_others() -> None:
    others = ["ws://a:1", "ws://b:1"]
    assert Neighbourhood.star("ws://h:1", others, address="ws://a:1").peers == ("ws://h:1",)
    assert Neighbourhood.star("ws://h:1", others, address="ws://h:1").peers == tuple(others)


def test_a_member_of_an_ordered_topology_has_to_know_its_own_address() -> None:
    with pytest.raises(UsageError, match="its own address"):
        Neighbourhood.chain(["ws://a:1"], 1, address="")


def test_epochs_begin_with_one() -> None:
    with pytest.raises(UsageError, match="from 1"):
        Neighbourhood.chain(["ws://a:1"], 0, address="ws://a:1")
