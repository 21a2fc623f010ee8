"""What the system tests may ask for: servers, which are gone when the test is over."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from crdt_state.identifiers import DocumentId
from running import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start a server: `serve(CRDT_STATE_JWT_SECRET=…)`; it ends with the test."""
    with ExitStack() as stack:
        count = 0

        def start(**settings: str) -> RunningServer:
            nonlocal count
            count += 1
            folder = tmp_path / f"server-{count}"
            folder.mkdir()
            return stack.enter_context(RunningServer(folder, settings))

        yield start


@pytest.fixture
def server(serve: Callable[..., RunningServer]) -> RunningServer:
    """A server without authentication."""
    return serve()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server for tests that do not touch it otherwise than as clients; starting one takes time.

    Each has a document of its own (`room`).
    """
    with RunningServer(tmp_path_factory.mktemp("shared-server")) as server:
        yield server


@pytest.fixture
def room(request: pytest.FixtureRequest) -> DocumentId:
    """A document that no other test uses."""
    return DocumentId(f"team/{request.node.name}".replace(" ", "-").replace("?", "-"))


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Write a line that is seen though the test passes: what a long check has counted."""

    def write(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")

    return write
