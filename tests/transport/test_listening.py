"""An application's replica that others dial, over real sockets of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from crdt_state.errors import UsageError
from crdt_state.transport.link import Wire
from crdt_state.transport.neighbourhood import Neighbourhood
from crdt_state.transport.replica import Replica
from running import eventually


@pytest.mark.parametrize("wire", list(Wire))
async def test_a_replica_of_an_application_can_be_dialled(tmp_path: Path, wire: Wire) -> None:
    async with (
        Replica.open(tmp_path / "here.db") as here,
        Replica.open(tmp_path / "there.db") as there,
    ):
        listening = await here.listen("127.0.0.1")
        note = await there.document("notes")
        note.text("text").insert(0, "hello")
        await there.connect(listening.url, wire=wire).synced()
        assert str((await here.document("notes")).text("text")) == "hello"


async def test_two_applications_that_listen_make_a_mesh(tmp_path: Path) -> None:
    async with (
        Replica.open(tmp_path / "here.db") as here,
        Replica.open(tmp_path / "there.db") as there,
    ):
        addresses = [(await each.listen("127.0.0.1")).url for each in (here, there)]
        for replica, address in zip((here, there), addresses, strict=True):
            replica.join(Neighbourhood.mesh(addresses, address=address))
        note = await here.document("notes")
        note.text("text").insert(0, "hello")
        other = await there.document("notes")
        await eventually(lambda: str(other.text("text")), "hello")


async def test_without_authentication_an_application_listens_on_this_machine_only(
    tmp_path: Path,
) -> None:
    async with Replica.open(tmp_path / "here.db") as here:
        with pytest.raises(UsageError, match="give `authentication`"):
            await here.listen("0.0.0.0")
