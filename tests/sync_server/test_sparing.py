"""`sync_server.sparing` and the journal's line about who was refused."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from crdt_state.clocks import Instant, ManualClock
from crdt_state.transport.farewell import Departure
from sync_server.journal import Journal
from sync_server.metrics import ServerMetrics
from sync_server.sparing import QUIET_SECONDS, SUBJECTS_MAX, Reported, Sparing


def test_one_line_a_minute_says_how_many_it_stands_for() -> None:
    sparing = Sparing()
    assert sparing.report("ada", Instant(0)) == Reported(0, 0)
    for second in range(1, 60):
        assert sparing.report("ada", Instant(second)) is None
    assert sparing.report("bob", Instant(59)) == Reported(0, 0)
    assert sparing.report("ada", Instant(QUIET_SECONDS)) == Reported(59, 0)
    assert sparing.report("ada", Instant(QUIET_SECONDS + 1)) is None


def test_however_many_come_the_lines_and_what_is_remembered_are_bounded() -> None:
    sparing = Sparing()
    lines = [sparing.report(number, Instant(1)) for number in range(10 * SUBJECTS_MAX)]
    assert sum(line is not None for line in lines) == SUBJECTS_MAX == len(sparing._subjects)
    assert sparing.report(0, Instant(2)) is None
    later = sparing.report("new", Instant(QUIET_SECONDS + 1))
    assert later is not None
    assert later.others == 9 * SUBJECTS_MAX + 1, "nothing is uncounted: not even who was forgotten"
    assert len(sparing._subjects) == SUBJECTS_MAX


def lines(clock: ManualClock, *departures: tuple[float, Departure]) -> list[Any]:
    journal = Journal(ServerMetrics(), clock)
    with capture_logs() as logs:
        for seconds, departure in departures:
            clock.advance(seconds)
            journal.sent_away(departure)
    return list(logs)


def test_a_client_that_comes_back_for_ever_leaves_a_line_a_minute() -> None:
    expired = Departure("identity ada", "/notes", 4401, "the token has expired; bring a new one")
    forbidden = expired._replace(code=4403, reason="no right to read 'notes'")
    found = lines(ManualClock(), (0, expired), (1, expired), (1, forbidden), (58, expired))
    assert [(line["code"], line["again"]) for line in found] == [(4401, 0), (4403, 0), (4401, 1)]
    assert found[0] == {
        "event": "connection refused",
        "log_level": "warning",
        "peer": "identity ada",
        "path": "/notes",
        "code": 4401,
        "reason": "the token has expired; bring a new one",
        "again": 0,
        "others": 0,
    }
