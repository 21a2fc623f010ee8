"""Leaves, nodes and what has to be digested: what SQLite keeps of the tries of scopes.

A document becomes undigested by the statement that raises its `last` (see the partial index in
sqlite_schema.py), so there is nothing here for that.  Writing is called inside a group's
transaction; every function that reads is one statement, or one read transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.errors import StoreCorrupt
from crdt_state.identifiers import DocumentId, Scope, scope_of
from crdt_state.storage.checksums import checksum
from crdt_state.storage.contract import (
    Finding,
    Head,
    Heads,
    Sequence,
    SetLeaf,
    SetNodes,
    StaleBuckets,
    StoredLeaf,
)
from crdt_state.storage.sqlite_connection import execute_rows, transaction
from crdt_state.storage.sqlite_identity import read_fact
from crdt_state.storage.sqlite_log import count_log, find_log
from crdt_state.storage.sqlite_reading import end_of, read_log
from crdt_state.storage.validity import BUCKETS, NODES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence as Many

    from crdt_state.storage.contract import Buckets
    from crdt_state.storage.sqlite_connection import Connection

__all__ = [
    "find_in_leaf",
    "find_in_nodes",
    "forget_digests",
    "list_heads",
    "list_scopes",
    "list_undigested",
    "mark_stale",
    "read_buckets",
    "read_leaves",
    "read_nodes",
    "read_stale",
    "set_leaves",
    "set_nodes",
]

# Where another life began, that sequence is of it; the one before a first life is not.
SET_LEAVES = """
    UPDATE documents SET digested = column2, place = column3, leaf = column4,
        leaf_checksum = column5
    FROM (VALUES ROWS) WHERE name = column1 AND last >= column2
        AND (born < column2 OR born = column2 AND life IS NOT NULL)"""

NUMBERS_AT_ONCE = 256


# --- writing, inside a group ------------------------------------------------------------------


def set_leaves(connection: Connection, writes: Many[SetLeaf]) -> None:
    """Let leaves stand for documents; buckets become stale where there is none any more."""
    scopes = {scope_of(write.document): 0 for write in writes}
    for scope in scopes:
        scopes[scope] = _scope_id(connection, scope)
    # One for each document: a statement would take whichever it likes.
    rows: dict[DocumentId, tuple[object, ...]] = {}
    places: dict[DocumentId, int] = {}
    for write in writes:
        name, through, leaf = write.document, write.through, write.leaf
        places[name] = place = scopes[scope_of(name)] * BUCKETS + write.bucket
        if leaf is None:
            rows[name] = (name, through, None, None, None)
        else:
            expected = checksum("leaf", name, through, leaf)
            rows[name] = (name, through, place, leaf, expected)
    before = _changes(connection)
    execute_rows(connection, SET_LEAVES, "(?, ?, ?, ?, ?)", list(rows.values()))
    if _changes(connection) - before < len(rows):
        for name, row in rows.items():
            found = connection.execute(
                "SELECT 1 FROM documents WHERE name = ? AND digested = ?", (name, row[1])
            ).fetchone()
            if found is None:
                _add_stale(connection, places[name])


def _changes(connection: Connection) -> int:
    count: int = connection.execute("SELECT total_changes()").fetchone()[0]
    return count


def set_nodes(connection: Connection, write: SetNodes) -> None:
    """Store nodes, and call fresh what they were made of."""
    scope = _scope_id(connection, write.scope)
    first = scope * NODES
    empty = [(first + number,) for number, blob in write.nodes.items() if not any(blob)]
    execute_rows(connection, "DELETE FROM trie_nodes WHERE place IN (VALUES ROWS)", "(?)", empty)
    execute_rows(
        connection,
        "INSERT OR REPLACE INTO trie_nodes (place, checksum, content) VALUES ROWS",
        "(?, ?, ?)",
        [
            (first + number, checksum("node", write.scope, number, blob), blob)
            for number, blob in write.nodes.items()
            if any(blob)
        ],
    )
    connection.execute(
        "DELETE FROM stale_buckets WHERE number <= ? AND place >= ? AND place < ?",
        (write.fresh_through, scope * BUCKETS, (scope + 1) * BUCKETS),
    )


def mark_stale(connection: Connection, row_id: int) -> None:
    """A document is about to be forgotten: the nodes above its leaf are no longer right."""
    (place,) = connection.execute("SELECT place FROM documents WHERE id = ?", (row_id,)).fetchone()
    if place is not None:
        _add_stale(connection, place)


def forget_digests(connection: Connection) -> None:
    """Take away all leaves and nodes."""
    connection.execute(
        "UPDATE documents SET digested = 0, place = NULL, leaf = NULL, leaf_checksum = NULL"
    )
    connection.execute("DELETE FROM trie_nodes")
    connection.execute("DELETE FROM stale_buckets")


def _add_stale(connection: Connection, place: int) -> None:
    connection.execute("INSERT INTO stale_buckets (place) VALUES (?)", (place,))


def _scope_id(connection: Connection, scope: Scope) -> int:
    found = _known_scope(connection, scope)
    if found is None:
        connection.execute("INSERT INTO scopes (name) VALUES (?)", (scope,))
        found = _known_scope(connection, scope)
    assert found is not None  # noqa: S101 - made by the statement before
    return found


def _known_scope(connection: Connection, scope: Scope) -> int | None:
    row = connection.execute("SELECT id FROM scopes WHERE name = ?", (scope,)).fetchone()
    return None if row is None else int(row[0])


# --- reading ----------------------------------------------------------------------------------


def list_heads(connection: Connection, scope: Scope, after: int, limit: int, size: int) -> Heads:
    """Documents of a scope with something behind `after`, and what it is.

    A last sequence is a row of the log, what a checkpoint reaches through, or where another life
    began: all are indexed, and no commit has to keep an index of heads.
    """
    where, parameters = _within(scope)
    lasts: list[tuple[int, str, bool]] = []
    with transaction(connection, is_writing=False):
        through = int.from_bytes(read_fact(connection, "sequence") or b"")
        for column, table in (("sequence", "log"), ("through", "checkpoints")):
            lasts += connection.execute(
                # CROSS JOIN keeps the order: positions are gone through, documents looked up.
                f"SELECT last, name, life IS NULL FROM {table} CROSS JOIN documents "  # noqa: S608
                f"ON id = {table}.document AND last = {table}.{column} "
                f"WHERE {table}.{column} > ? AND {where} ORDER BY {table}.{column} LIMIT ?",
                (after, *parameters, limit + 1),
            ).fetchall()
        lasts += connection.execute(
            "SELECT last, name, 0 FROM documents INDEXED BY documents_begun "  # noqa: S608
            f"WHERE life IS NOT NULL AND last = born AND last > ? AND {where} "
            "ORDER BY last LIMIT ?",
            (after, *parameters, limit + 1),
        ).fetchall()
        lasts.sort()
        left = 4 * size
        found: list[Head] = []
        for last, name, is_first_life in lasts[:limit]:
            updates = None
            if is_first_life:
                updates = _read_behind(connection, DocumentId(name), after, size)
            left -= sum(map(len, updates or ()))
            if left < 0:
                break
            found.append(Head(DocumentId(name), Sequence(last), updates))
    is_all = len(found) == len(lasts)
    return Heads(tuple(found), Sequence(through if is_all else found[-1].last), is_all)


def _read_behind(
    connection: Connection, document: DocumentId, after: int, size: int
) -> tuple[bytes, ...] | None:
    """The log behind `after`; None where it is no longer whole, too long, or damaged."""
    log = find_log(connection, document)
    if log is None or (log.is_folded and log.floor > after):
        return None
    log = log.behind(after)
    _, length = count_log(connection, log, through=log.last)
    if length > size:
        return None
    try:
        return tuple(entry.update for entry in read_log(connection, log))
    except StoreCorrupt:
        return None  # whoever reads the document is told


def list_scopes(connection: Connection, after: Scope | None, limit: int) -> tuple[Scope, ...]:
    """Scopes that have had a leaf."""
    rows = connection.execute(
        "SELECT name FROM scopes WHERE ? IS NULL OR name > ? ORDER BY name LIMIT ?",
        (after, after, limit),
    ).fetchall()
    return tuple(Scope(name) for (name,) in rows)


def _within(scope: Scope) -> tuple[str, list[str]]:
    """A condition for the names of documents in a scope, and not of those below it."""
    prefix = f"{scope}/" if scope else ""
    where, parameters = f"name > ? AND instr(substr(name, {len(prefix) + 1}), '/') = 0", [prefix]
    end = end_of(prefix)
    if end is not None:
        where += " AND name < ?"
        parameters.append(end)
    return where, parameters


def list_undigested(
    connection: Connection, scope: Scope | None, after: str, limit: int
) -> tuple[DocumentId, ...]:
    """Documents whose leaf is not of all they hold."""
    within, parameters = ("name > ''", []) if scope is None else _within(scope)
    where = f"last > digested AND {within} AND name > ?"
    parameters.append(after)
    rows = connection.execute(
        f"SELECT name FROM documents WHERE {where} ORDER BY name LIMIT ?",  # noqa: S608
        (*parameters, limit),
    ).fetchall()
    return tuple(DocumentId(name) for (name,) in rows)


def read_stale(connection: Connection, scope: Scope) -> StaleBuckets:
    """Buckets of a scope that have lost a leaf."""
    number = _known_scope(connection, scope)
    if number is None:
        return StaleBuckets((), 0)
    rows = connection.execute(
        "SELECT number, place FROM stale_buckets WHERE place >= ? AND place < ?",
        (number * BUCKETS, (number + 1) * BUCKETS),
    ).fetchall()
    buckets = sorted({place % BUCKETS for _, place in rows})
    return StaleBuckets(tuple(buckets), max((mark for mark, _ in rows), default=0))


def read_nodes(connection: Connection, scope: Scope, numbers: Many[int]) -> dict[int, bytes]:
    """Nodes by number."""
    nodes: dict[int, bytes] = {}
    with transaction(connection, is_writing=False):
        known = _known_scope(connection, scope)
        if known is None:
            return {}
        for some in _some_of(numbers):
            for place, expected, blob in connection.execute(
                "SELECT place, checksum, content FROM trie_nodes "  # noqa: S608
                f"WHERE place IN ({', '.join('?' * len(some))})",
                [known * NODES + number for number in some],
            ):
                number = place % NODES
                if checksum("node", scope, number, blob) != expected:
                    raise _damage_of_node(scope, number)
                nodes[number] = blob
    return nodes


def read_buckets(connection: Connection, scope: Scope, numbers: Many[int]) -> Buckets:
    """Ids and leaves by number of the bucket."""
    buckets: Buckets = {}
    with transaction(connection, is_writing=False):
        known = _known_scope(connection, scope)
        if known is None:
            return {}
        first = known * BUCKETS
        for where, parameters in _ranges(numbers, first):
            for place, name, digested, leaf, expected in connection.execute(
                "SELECT place, name, digested, leaf, leaf_checksum "  # noqa: S608
                f"FROM documents WHERE place IS NOT NULL AND {where}",
                parameters,
            ):
                if checksum("leaf", name, digested, leaf) != expected:
                    raise _damage_of_leaf(name)
                buckets.setdefault(place - first, []).append((name, leaf))
    return buckets


def read_leaves(
    connection: Connection, prefix: str, after: str, limit: int
) -> tuple[StoredLeaf, ...]:
    """Leaves in the order of ids."""
    where, parameters = ("name >= ?", [prefix]) if prefix > after else ("name > ?", [after])
    end = end_of(prefix)
    if end is not None:
        where += " AND name < ?"
        parameters.append(end)
    found: list[StoredLeaf] = []
    for name, through, leaf, expected in connection.execute(
        "SELECT name, digested, leaf, leaf_checksum FROM documents "  # noqa: S608
        f"WHERE {where} AND +place IS NOT NULL ORDER BY name LIMIT ?",
        (*parameters, limit),
    ).fetchall():
        if checksum("leaf", name, through, leaf) != expected:
            raise _damage_of_leaf(name)
        found.append(StoredLeaf(DocumentId(name), Sequence(through), leaf))
    return tuple(found)


def _ranges(numbers: Many[int], first: int) -> Iterator[tuple[str, list[int]]]:
    """Conditions for buckets: a range where they follow each other, else a list."""
    for some in _some_of(numbers):
        if len(some) > 1 and some[-1] - some[0] == len(some) - 1:
            yield "place BETWEEN ? AND ?", [first + some[0], first + some[-1]]
        else:
            marks = ", ".join("?" * len(some))
            yield f"place IN ({marks})", [first + number for number in some]


def _some_of(numbers: Many[int]) -> Iterator[list[int]]:
    ordered = sorted(set(numbers))
    for at in range(0, len(ordered), NUMBERS_AT_ONCE):
        yield ordered[at : at + NUMBERS_AT_ONCE]


# --- verifying --------------------------------------------------------------------------------


def find_in_nodes(connection: Connection) -> Iterator[Finding]:
    """Nodes against their checksums, and places that belong to no scope."""
    for scope, name in connection.execute("SELECT id, name FROM scopes").fetchall():
        for place, expected, blob in connection.execute(
            "SELECT place, checksum, content FROM trie_nodes WHERE place >= ? AND place < ?",
            (scope * NODES, (scope + 1) * NODES),
        ):
            if checksum("node", name, place % NODES, blob) != expected:
                yield Finding(None, str(_damage_of_node(name, place % NODES)))
    for table, column, size in (
        ("trie_nodes", "place", NODES),
        ("stale_buckets", "place", BUCKETS),
        ("documents", "place", BUCKETS),
    ):
        count = connection.execute(
            f"SELECT count(*) FROM {table} WHERE {column} IS NOT NULL "  # noqa: S608
            f"AND {column} / {size} NOT IN (SELECT id FROM scopes)"
        ).fetchone()[0]
        if count:
            yield Finding(None, f"{count:,} rows of {table} belong to no scope")


def find_in_leaf(connection: Connection, row_id: int, name: DocumentId) -> Iterator[Finding]:
    """A document's leaf against its checksum."""
    last, through, place, leaf, expected = connection.execute(
        "SELECT last, digested, place, leaf, leaf_checksum FROM documents WHERE id = ?",
        (row_id,),
    ).fetchone()
    if through > last:
        yield Finding(name, f"it was digested through {through}, but its last sequence is {last}")
    if place is not None and checksum("leaf", name, through, leaf) != expected:
        yield Finding(name, str(_damage_of_leaf(name)))


def _damage_of_leaf(name: DocumentId) -> StoreCorrupt:
    return StoreCorrupt(
        f"the leaf of {name!r} is damaged, its content is not; run `crdt-state check --rebuild`",
        document=name,
    )


def _damage_of_node(scope: str, number: int) -> StoreCorrupt:
    return StoreCorrupt(
        f"node {number} of the scope {scope!r} is damaged, its documents are not; run "
        f"`crdt-state check --rebuild`"
    )
