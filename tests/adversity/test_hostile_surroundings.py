"""What lies where the journal's files should be, and what may be said of a login that fails."""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from octopus_async import DaoManager, Model
from octopus_async.errors import OctopusError
from octopus_async.testing.servers import Server
from octopus_async.url import BackendURL
from tests.crash.journals import PRIMARY, create, opened, segments

SECRET = "s3cret%25-%40%2F%3A"  # noqa: S105 - it is no password of anybody
SHOWN = ("s3cret", "%40%2F", "-@/:")


class Novel(Model):
    title: str


_PLACES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


# A pipe in a folder of the journal's own can be locked as well as a file, and is: nothing is read from it.
_CASES = [
    (place, which)
    for place in _PLACES
    for which in ("ceiling", "lock", "segment", "writer's lock")
    if place != "a pipe" or "lock" not in which
]


@pytest.mark.parametrize(("place", "which"), _CASES)
async def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, place: str, which: str) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create(), [PRIMARY])
    (segment,) = segments(tmp_path / "j")
    paths = {
        "ceiling": tmp_path / "j" / "ceiling",
        "lock": tmp_path / "j" / "lock",
        "segment": segment,
        "writer's lock": segment.parent / "lock",
    }
    paths[which].unlink(missing_ok=True)
    _PLACES[place](paths[which])
    async with asyncio.timeout(20):
        with pytest.raises(OctopusError):
            async with opened(tmp_path / "j"):
                pass


async def test_a_wrong_password_is_in_no_log_and_no_message(
    mariadb_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ((host, port),) = BackendURL.parse(mariadb_server.url).hosts
    said = []
    for login, strict in ((f"octopus:{SECRET}", True), (f"nobody:{SECRET}", False)):
        url = f"mysql://{login}@{host}:{port}/octopus"
        manager = DaoManager([url], journal=tmp_path / login[:3], strict=strict, timeout=1.0)
        try:
            async with manager as octopus:
                await octopus.dao(Novel).create(Novel(title="kept in the journal"))
                await octopus.create_tables(Novel)
        except OctopusError:
            said.append(traceback.format_exc())
        said.append(f"{manager!r} {manager.settings!r}")
    text = "\n".join([*said, caplog.text])
    assert "1045" in text or "denied" in text
    assert not [part for part in SHOWN if part in text]
