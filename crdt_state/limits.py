"""Every bound of the system in one frozen value.

A queue, buffer, table, loop or recursion without an entry here is a bug.  Units come last in a
name; `_max` is inclusive.  A field is added with the code that enforces it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound of the engine; each is enforced where its comment says."""

    # What one author adds (model/inspect).  Merged and full states are not bound by these.
    update_bytes_max: int = 16 * 1024 * 1024
    update_clients_max: int = 100_000
    update_structs_max: int = 1_000_000
    update_delete_ranges_max: int = 1_000_000
    value_depth_max: int = 64
    value_items_max: int = 1_000_000
    key_bytes_max: int = 4_096

    # What one document may grow to (admission in replica).
    document_bytes_max: int = 128 * 1024 * 1024
    document_containers_max: int = 100_000
    document_nesting_max: int = 128
    # Concurrent inserts at one place or one map key cost n²: 4,000 take yrs some 0.5 s.
    document_writers_per_place_max: int = 4_000
    # Client ids whose range a refusal has ended; beyond it, what builds on them waits in vain.
    document_refusals_max: int = 10_000

    # Updates that wait for what they depend on (replica, storage).
    pending_updates_max: int = 10_000
    pending_bytes_max: int = 16 * 1024 * 1024
    pending_seconds_max: float = 7 * 24 * 3600.0
    # Of one update with gaps: what would make more waits in one (model/gaps).
    pending_parts_max: int = 1_000

    # Set aside for a person to look at (storage).
    quarantine_entries_max: int = 1_000
    quarantine_bytes_max: int = 64 * 1024 * 1024

    # Our own edits (model).
    transaction_operations_max: int = 100_000
    events_waiting_max: int = 10_000
    undo_steps_max: int = 1_000
    # Pairs of characters, or of values, when edits are made again elsewhere (model/rebasing).
    rebase_comparisons_max: int = 250_000
    register_drift_seconds_max: float = 3_600.0

    # Operations (ot); their values are bound by value_depth_max and key_bytes_max as well.
    operation_components_max: int = 100_000
    # Of one component.
    operation_attributes_max: int = 256
    # Of one embed, or of one attribute.
    operation_value_bytes_max: int = 1024 * 1024
    # Of characters, by the greedy part of a difference (ot/difference).
    diff_comparisons_max: int = 100_000

    # Revisions of one text that are kept, and sources of which the last is known (bridge).
    revisions_kept_max: int = 10_000
    revisions_kept_bytes_max: int = 16 * 1024 * 1024
    revision_sources_max: int = 10_000
    revision_source_bytes_max: int = 256
    # How far back a base may be: in revisions, and in components that are gone over to rebase on
    # them, some 0.2 s of a processor.
    revision_base_revisions_max: int = 5_000
    revision_base_components_max: int = 250_000
    # Beyond it a client that catches up is sent the document.
    revision_catch_up_bytes_max: int = 4 * 1024 * 1024

    # What a thin client inserts and has not been able to send (crdt_client/thin), and whose cursors
    # it shows.
    thin_waiting_characters_max: int = 4_000_000
    thin_cursors_max: int = 1_024

    # The store.
    stored_bytes_max: int = 512 * 1024 * 1024
    group_writes_max: int = 4_096
    group_bytes_max: int = 64 * 1024 * 1024
    store_queue_writes_max: int = 65_536
    store_queue_bytes_max: int = 256 * 1024 * 1024
    wal_bytes_before_checkpoint: int = 16 * 1024 * 1024
    store_busy_seconds_max: float = 5.0
    writer_queue_bytes_max: int = 64 * 1024 * 1024

    # Compaction: fold when the log since the checkpoint passes either.
    log_updates_before_fold: int = 500
    log_bytes_before_fold: int = 128 * 1024

    # Between two times that some documents are read again (replica/verification).
    verification_seconds: float = 60.0

    # What is kept in memory.
    open_documents_bytes_max: int = 256 * 1024 * 1024
    encodings_cached_bytes_max: int = 128 * 1024 * 1024

    # Worker processes that integrate foreign bytes (replica/workers).
    worker_seconds_max: float = 20.0
    worker_start_seconds_max: float = 20.0
    worker_memory_bytes_max: int = 1024 * 1024 * 1024
    worker_jobs_waiting_max: int = 1_024

    # The wire (protocol, transport).
    message_bytes_max: int = 32 * 1024 * 1024
    unfinished_bytes_max: int = 256 * 1024 * 1024
    state_vector_bytes_max: int = 4 * 1024 * 1024
    # Documents that one connection of our own protocol may have open (protocol/peer).
    channels_max: int = 10_000
    # Connections of our own protocol that are compressed at once: each takes some 450 KB.
    compressed_connections_max: int = 1_000
    # The same of all connections of one identity, or address where there are none.
    identity_channels_max: int = 50_000
    # Bytes of updates that a peer may send before they are durable here.
    peer_credit_bytes: int = 1024 * 1024
    awareness_bytes_max: int = 64 * 1024
    awareness_total_bytes_max: int = 16 * 1024 * 1024
    awareness_clients_max: int = 10_000
    # How often an entry is passed on from replica to replica, and by how many ways it is known.
    awareness_hops_max: int = 32
    awareness_ways_max: int = 4
    peer_queue_bytes_max: int = 8 * 1024 * 1024
    peer_slow_seconds_max: float = 30.0
    large_answers_bytes_max: int = 64 * 1024 * 1024
    connections_max: int = 20_000
    connections_per_address_max: int = 5_000
    handshake_seconds_max: float = 10.0
    identity_connections_max: int = 20_000
    identity_messages_per_second_max: float = 200_000.0
    identity_bytes_per_second_max: float = 256 * 1024 * 1024.0
    idle_message_seconds: float = 10.0
    # A question that was not answered with yes is asked again after twice as long.
    confirm_seconds: float = 0.1
    confirm_seconds_max: float = 30.0
    # Other replicas of which is remembered how far they hold one document (replica/receipts).
    holders_max: int = 1_024
    # Documents that one link talks about at once, but for those that the application has open.
    link_conversations_max: int = 64
    link_refusals_max: int = 64
    # Documents for which one link has a channel because people are there to be shown.
    link_gatherings_max: int = 1_024
    # How long a member's channel is kept when nothing is said on it, and how soon a document that
    # the member has come for itself is looked at again.
    link_linger_seconds: float = 5.0
    link_look_seconds: float = 0.5
    # Before a document that a remote will not have is offered to it again.
    refused_seconds: float = 600.0
    remotes_max: int = 64
    # Replicas that have dialled, each of which is owed every deletion (replica/peers).
    peers_max: int = 1_024
    # How long a deletion is remembered at least, and who was silent for so long is forgotten.
    peer_forget_seconds: float = 90 * 24 * 3600.0
    reconnect_seconds_min: float = 0.1
    reconnect_seconds_max: float = 30.0
    # How long who is refused is kept before the close (transport/farewell).
    refused_close_seconds: float = 1.0
    close_seconds_max: float = 5.0
    drain_seconds_max: float = 10.0

    # What the documents take up that one identity created, whoever writes to them
    # (replica/quotas).  Without authentication nobody is a document's creator, and there is no
    # such bound.  Who relays is the creator of what it brings first: mind it for whole servers.
    identity_documents_max: int = 100_000
    identity_stored_bytes_max: int = 16 * 1024 * 1024 * 1024
    usages_kept_max: int = 10_000
    usage_recount_seconds: float = 1.0

    # A walk over a scope's trie (merkle); both sides of it are bound by the smaller message.
    walk_message_bytes_max: int = 1024 * 1024
    walk_requests_max: int = 64
    walk_differences_max: int = 4_000_000

    # The ShareDB wire (protocol/sharedb).  Its documents are bound by channels_max, also in one
    # bulk: a client that comes back asks for all of its documents at once.
    sharedb_depth_max: int = 72
    sharedb_name_bytes_max: int = 256
    sharedb_submits_max: int = 1_024
    sharedb_presences_max: int = 256

    # Scopes that one connection of our own protocol may keep in step (transport/scope_*).
    scopes_max: int = 256
    # Messages about them that have been heard and not dealt with, before no more are read.
    scope_messages_max: int = 128

    # Who is known beside those that were configured (topology).
    members_max: int = 1_024
    member_address_bytes_max: int = 2_048
    # Told at once, and how long one that was only heard of may be silent.
    members_told_max: int = 64
    member_forget_seconds: float = 3_600.0

    # Identity (security).
    token_bytes_max: int = 7_168
    token_rights_max: int = 256
    token_keys_max: int = 64
    token_leeway_seconds_max: float = 60.0

    # HTTP (sync_server/http).
    http_path_bytes_max: int = 7_168
    http_page_documents_max: int = 1_000
    http_page_scanned_documents_max: int = 10_000


DEFAULT_LIMITS = Limits()
