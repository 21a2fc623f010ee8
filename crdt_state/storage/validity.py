"""Whether a write can be carried out at all, judged before it meets others in a group.

Everything a row cannot hold is refused here, in the caller's own call, so that no group commit
fails for one of its members.  What depends on the stored state (an outdated fold) is for the
engine to judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.errors import WriteInvalid
from crdt_state.lineage import Life
from crdt_state.storage.contract import (
    Append,
    ClearOutbox,
    DropAside,
    Fold,
    Forget,
    ForgetDigests,
    Hold,
    KeepText,
    Release,
    Revise,
    SetAside,
    SetLeaf,
    SetLife,
    SetMetadata,
    SetNodes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crdt_state.limits import Limits
    from crdt_state.storage.contract import Write

__all__ = ["BUCKETS", "CONDITIONAL", "NODES", "checked_bytes"]

CONDITIONAL = frozenset({Fold, Hold, SetLife, Revise, KeepText})
"""Writes that what is stored can still refuse; an engine needs a way back out of their calls."""

BUCKETS = 64**3
NODES = 8_192
LEAF_BYTES = 16
NODE_BYTES = 1_024
"""What a trie is made of; the engines number their rows by the first two."""

INTEGER_MAX = 2**63 - 1
TEXT_CHARACTERS_MAX = 65_536


def checked_bytes(writes: Iterable[Write], limits: Limits) -> int:
    """The bytes that `writes` carry; raises `WriteInvalid` for the first that cannot be."""
    total = 0
    for write in writes:
        if type(write) is Append:
            total += _append(write, limits)
        else:
            total += _other(write, limits)
    return total


def _append(write: Append, limits: Limits) -> int:
    """The hot path: one comparison for each update that is well."""
    _text("document", write.document)
    total, largest = 0, limits.stored_bytes_max
    for update in write.updates:
        if type(update) is not bytes or len(update) > largest:
            _blob("update", update, limits)
        total += len(update)
    for remote in write.unsent_to:
        _text("unsent_to", remote)
    for number in write.released:
        _integer("released", number)
    _creator(write.creator)
    return total


def _other(write: Write, limits: Limits) -> int:  # noqa: C901, PLR0911, PLR0912 - a table
    match write:
        case Hold(document, number, update, source, at, creator):
            _texts(document=document, source=source)
            _creator(creator)
            _integer("number", number)
            _integer("at", at)
            return _blob("update", update, limits)
        case Release(document, numbers) | DropAside(document, numbers):
            _text("document", document)
            for number in numbers:
                _integer("numbers", number)
            return 0
        case SetAside(document, update, code, reason, source, at, creator):
            _texts(document=document, reason=reason, source=source)
            _creator(creator)
            _integer("code", code)
            _integer("at", at)
            return _blob("update", update, limits)
        case Fold(document, state, head, through):
            _text("document", document)
            _integer("through", through)
            return _blob("state", state, limits) + _blob("head", head, limits)
        case ClearOutbox(remote, document, through):
            _texts(remote=remote, document=document)
            _integer("through", through)
            return 0
        case SetMetadata(key, value, document, creator):
            _texts(key=key)
            _creator(creator)
            if document is not None:
                _text("document", document)
            return 0 if value is None else _blob("value", value, limits)
        case SetLife(document, life, at, unsent_to, creator):
            _text("document", document)
            _life(life)
            _integer("at", at)
            for remote in unsent_to:
                _text("unsent_to", remote)
            _creator(creator)
            return 0
        case Forget(document):
            _text("document", document)
            return 0
        case SetLeaf() | SetNodes():
            return _of_a_trie(write, limits)
        case Revise() | KeepText():
            return _of_revisions(write, limits)
        case ForgetDigests():
            return 0
        case _:
            raise WriteInvalid(f"{type(write).__name__} is not a write of a store")


def _of_a_trie(write: SetLeaf | SetNodes, limits: Limits) -> int:
    match write:
        case SetLeaf(document, through, bucket, leaf):
            _text("document", document)
            _integer("through", through)
            _place("bucket", bucket, BUCKETS)
            _sized("leaf", leaf if leaf is not None else bytes(LEAF_BYTES), LEAF_BYTES)
            return LEAF_BYTES
        case SetNodes(scope, nodes, fresh_through):
            _texts(scope=scope)
            _integer("fresh_through", fresh_through)
            for number, blob in nodes.items():
                _place("node", number, NODES)
                _sized("node", blob, NODE_BYTES)
            return NODE_BYTES * len(nodes)


def _of_revisions(write: Revise | KeepText, limits: Limits) -> int:
    match write:
        case Revise(document, first, revisions, floor_number, floor):
            _text("document", document)
            _integer("first", first)
            _integer("the number after the last", first + len(revisions))
            _integer("floor_number", floor_number)
            size = sum(_blob("revision", revision, limits) for revision in revisions)
            return size if floor is None else size + _blob("floor", floor, limits)
        case KeepText(document, number, text):
            _text("document", document)
            _integer("number", number)
            return _blob("text", text, limits)


def _place(name: str, value: object, stop: int) -> None:
    if not isinstance(value, int) or not 0 <= value < stop:
        raise WriteInvalid(f"{name} must be an integer from 0 to {stop - 1:,}, not {value!r}")


def _sized(name: str, value: object, size: int) -> None:
    if not isinstance(value, bytes) or len(value) != size:
        raise WriteInvalid(f"{name} must be {size:,} bytes")


def _texts(**fields: str) -> None:
    for name, value in fields.items():
        _text(name, value)


def _creator(creator: str | None) -> None:
    if creator is not None:
        _text("creator", creator)


def _life(life: object) -> None:
    if not isinstance(life, Life):
        raise WriteInvalid(f"life must be a Life, not a {type(life).__name__}")


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise WriteInvalid(f"{name} must be a string, not a {type(value).__name__}")
    if value.isascii():
        if 0 < len(value) <= TEXT_CHARACTERS_MAX or (not value and name != "document"):
            return
    elif len(value) <= TEXT_CHARACTERS_MAX:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise WriteInvalid(f"{name} {value!r} holds a lone surrogate") from None
        return
    raise WriteInvalid(
        f"{name} has {len(value):,} characters; 1 to {TEXT_CHARACTERS_MAX:,} can be stored"
    )


def _blob(name: str, value: object, limits: Limits) -> int:
    if not isinstance(value, bytes):
        raise WriteInvalid(f"{name} must be bytes, not a {type(value).__name__}")
    size = len(value)
    if size > limits.stored_bytes_max:
        raise WriteInvalid(
            f"{name} has {size:,} bytes, more than stored_bytes_max = {limits.stored_bytes_max:,}"
        )
    return size


def _integer(name: str, value: object) -> None:
    if not isinstance(value, int) or not 0 <= value <= INTEGER_MAX:
        raise WriteInvalid(f"{name} must be an integer from 0 to 2^63 - 1, not {value!r}")
