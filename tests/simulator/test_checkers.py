"""What a replica reports to its event loop is a finding, unless the disk is to blame."""

from __future__ import annotations

import pytest

from crdt_state.errors import EditNotStored
from crdt_state.simulator.checkers import Checkers
from crdt_state.simulator.ledger import Ledger

NOT_STORED = EditNotStored("no space left", (b"\x00\x00",))


def test_a_loss_that_is_told_while_the_disk_is_ill_is_honest() -> None:
    checkers = Checkers(Ledger())
    checkers.reported("what was last edited is lost", NOT_STORED, is_disk_ill=True)
    assert not checkers.found


@pytest.mark.parametrize(
    ("error", "is_disk_ill"), [(NOT_STORED, False), (KeyError("channel"), True), (None, False)]
)
def test_everything_else_that_is_reported_is_a_finding(
    error: BaseException | None, is_disk_ill: bool
) -> None:
    checkers = Checkers(Ledger())
    checkers.reported("a task ended", error, is_disk_ill=is_disk_ill)
    assert [found.checker for found in checkers.found] == ["silence"]
