"""What holds over one wire holds over the other: tests that ask for `wire` run over both."""

from __future__ import annotations

import pytest

from crdt_state.transport.link import Wire


@pytest.fixture(params=list(Wire), ids=lambda wire: wire.value)
def wire(request: pytest.FixtureRequest) -> Wire:
    """What links of this test speak."""
    chosen: Wire = request.param
    return chosen
