"""A host's shared memory cache: killed and stopped writers, damaged files, other people's folders."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from octopus_async.adapters import _shm_segment
from octopus_async.adapters.shm import SharedMemoryAdapter
from octopus_async.config import adapter_for
from octopus_async.errors import BackendFailed, BackendRefused, ConfigurationError, Unavailable
from octopus_async.record import APPLIED, Miss, Mode, Operation, Record, Status
from octopus_async.testing.operations import Author, fields_of

SCRIPT = str(Path(__file__).with_name("shm_processes.py"))
KILLS = os.environ.get("OCTOPUS_SHM_KILLS", "15")
BYTES = 4 * 1024**2


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def author() -> Author:
    return Author()


def make(folder: Path, max_bytes: int = BYTES) -> SharedMemoryAdapter:
    return SharedMemoryAdapter(folder=folder / "octopus", max_bytes=max_bytes)


def file_of(folder: Path) -> Path:
    return folder / "octopus" / "octopus.v1"


@pytest.fixture
async def shm(folder: Path) -> AsyncGenerator[SharedMemoryAdapter]:
    adapter = make(folder)
    await adapter.open()
    yield adapter
    await adapter.close()


def run(what: str, folder: Path, number: str = "0") -> str:
    ended = subprocess.run(
        [sys.executable, SCRIPT, what, str(folder / "octopus"), number],
        capture_output=True,
        text=True,
        timeout=120 + int(number),  # a second a kill is plenty
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.strip()


async def created(
    adapter: SharedMemoryAdapter, author: Author, count: int, size: int = 20
) -> list[Operation]:
    titles = [f"{number:04}" * (size // 4) for number in range(count)]
    operations = [author.create(author.key(), fields_of(title=title)) for title in titles]
    assert await adapter.apply(operations, Mode.MIRROR) == [APPLIED] * count
    return operations


async def found(adapter: SharedMemoryAdapter, operations: list[Operation]) -> int:
    """How many of them are there; whatever is not is a miss, and nothing else."""
    answers = await adapter.read([operation.key for operation in operations])
    for operation, answer in zip(operations, answers, strict=True):
        if not isinstance(answer, Miss):
            assert isinstance(answer, Record)
            assert answer[:2] + answer[3:] == (operation.key, operation.version, operation.fields)
    return sum(isinstance(answer, Record) for answer in answers)


def system_errors(base: type[OSError] = OSError) -> list[type[OSError]]:
    ours = [error for error in base.__subclasses__() if error.__module__ == "builtins"]
    return [base, *(deeper for error in ours for deeper in system_errors(error))]


IMAGES = {
    "cut to nothing": b"",
    "cut short": bytes(100),
    "ones": b"\xff" * BYTES,
    "noise": random.Random(3).randbytes(BYTES),
}


class TestOtherProcesses:
    """Rule: whatever happens to one of them, the others read and write on."""

    @pytest.mark.timeout(0)  # the count is an argument, and bounds it
    def test_writers_killed_at_random_moments_leave_it_usable(self, folder: Path) -> None:
        said = run("kills", folder, KILLS)
        assert said.startswith(f"{KILLS} killed, ")
        assert int(said.split()[2]) > 100

    @pytest.mark.timeout(150)  # a Python starts, on a machine that may be busy
    def test_a_forked_child_is_told_to_open_its_own(self, folder: Path) -> None:
        said, _, read = run("forked", folder).partition(" / ")
        assert "before a fork: open one in the child" in said
        assert read == "from the parent"

    @pytest.mark.parametrize("end", ["continued", "killed"])
    async def test_one_that_stops_with_a_lock_keeps_nobody_waiting(
        self, folder: Path, shm: SharedMemoryAdapter, author: Author, end: str
    ) -> None:
        assert shm._segment is not None
        operations = await created(shm, author, 64)
        parts = [shm._segment.place_of(operation.key).part for operation in operations]
        stopped = await asyncio.create_subprocess_exec(
            sys.executable, SCRIPT, "stop", str(folder / "octopus"), str(parts[0]), stdout=subprocess.PIPE
        )
        assert stopped.stdout is not None
        assert await stopped.stdout.readline() == b"locked\n"
        while b"\nState:\tT" not in Path(f"/proc/{stopped.pid}/status").read_bytes():  # noqa: ASYNC110, ASYNC240 - it tells nobody
            await asyncio.sleep(0.01)
        assert await found(shm, operations) == 64, "reads take no lock"

        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        updates = [author.update(operation.key, fields_of(title="new")) for operation in operations]
        outcomes = await shm.apply(updates, Mode.MIRROR)
        ticking.cancel()
        assert ticks > 50, "the event loop went on"
        held = [part == parts[0] for part in parts]
        assert [outcome.status is Status.UNAVAILABLE for outcome in outcomes] == held
        error = outcomes[0].error
        assert isinstance(error, BackendFailed)
        assert (error.sent, error.alive) == (False, True)
        await shm.probe()
        stopped.send_signal(signal.SIGCONT if end == "continued" else signal.SIGKILL)
        await stopped.wait()
        assert await shm.apply(updates, Mode.MIRROR) == [APPLIED] * 64

    async def test_two_share_what_they_write(
        self, folder: Path, shm: SharedMemoryAdapter, author: Author
    ) -> None:
        other = make(folder)
        await other.open()
        operations = await created(shm, author, 30)
        assert await found(other, operations) == 30
        await other.close()


class TestDamage:
    """Rule: a damaged byte is a miss, never a wrong record, and what is written next is there."""

    async def test_flipped_bits_are_misses(
        self, folder: Path, shm: SharedMemoryAdapter, author: Author
    ) -> None:
        chance = random.Random(7)
        operations = await created(shm, author, 200, size=400)
        image = file_of(folder).read_bytes()
        used = [at for at in range(0, len(image), 16) if any(image[at : at + 16])]
        missed = 0
        for _ in range(25):
            damaged = bytearray(image)
            for _ in range(60):
                damaged[chance.choice(used) + chance.randrange(16)] ^= 1 << chance.randrange(8)
            file_of(folder).write_bytes(damaged)
            missed += 200 - await found(shm, operations)
            updates = [author.update(operation.key, fields_of(title="new")) for operation in operations]
            outcomes = await shm.apply(updates, Mode.MIRROR)
            assert outcomes == [APPLIED] * 200
            assert await found(shm, updates) > 0
        assert missed > 200

    @pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
    async def test_any_other_bytes_are_misses(
        self, folder: Path, shm: SharedMemoryAdapter, author: Author, image: bytes
    ) -> None:
        operations = await created(shm, author, 100)
        file_of(folder).write_bytes(image)
        assert await found(shm, operations) == 0
        await shm.ping()
        again = await created(shm, author, 100)
        assert await found(shm, again) == 100

    async def test_a_file_that_was_removed_is_shared_anew(
        self, folder: Path, shm: SharedMemoryAdapter, author: Author
    ) -> None:
        operations = await created(shm, author, 10)
        file_of(folder).unlink()
        other = make(folder)
        await other.open()
        assert await found(shm, operations) == 0
        assert await found(other, await created(shm, author, 10)) == 10
        await other.close()

    @pytest.mark.parametrize("error", system_errors(), ids=lambda it: it.__name__)
    async def test_every_error_of_the_system_is_unavailability(
        self, shm: SharedMemoryAdapter, author: Author, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
    ) -> None:
        def fail(*_: object) -> None:
            raise error(5, "planted")

        create = author.create(author.key(), fields_of())
        monkeypatch.setattr(os, "pread", fail)
        for call in (shm.ping(), shm.probe(), shm.read([create.key]), shm.apply([create], Mode.MIRROR)):
            with pytest.raises(BackendFailed, match="planted"):
                await call


class TestItsSize:
    async def test_the_oldest_make_way_and_the_file_keeps_its_size(
        self, folder: Path, shm: SharedMemoryAdapter, author: Author
    ) -> None:
        operations = [
            operation for _ in range(20) for operation in await created(shm, author, 50, size=8_000)
        ]
        assert await found(shm, operations[-100:]) == 100
        assert await found(shm, operations[:100]) == 0
        assert file_of(folder).stat().st_size == BYTES

    async def test_a_crowded_index_makes_room_too(self, folder: Path, author: Author) -> None:
        shm = make(folder, 1024**2)
        await shm.open()
        assert shm._segment is not None
        entries = shm._segment._buckets * 8 * _shm_segment.PARTS
        batches = [await created(shm, author, 1000, size=4) for _ in range(entries // 800)]
        operations = [operation for batch in batches for operation in batch]
        assert len(operations) > entries
        assert await found(shm, operations[-100:]) == 100
        await shm.close()

    async def test_what_is_too_large_by_itself_is_invalidated(
        self, shm: SharedMemoryAdapter, author: Author
    ) -> None:
        (old,) = await created(shm, author, 1)
        large = author.update(old.key, fields_of(title="x" * BYTES))
        assert await shm.apply([large], Mode.MIRROR) == [APPLIED]
        assert await found(shm, [old]) == 0
        (outcome,) = await shm.apply([old], Mode.MIRROR)
        assert (outcome.status, outcome.stored) == (Status.SUPERSEDED, large.version)

    async def test_another_size_is_refused_while_others_use_it(
        self, folder: Path, shm: SharedMemoryAdapter
    ) -> None:
        other = make(folder, 2 * BYTES)
        with pytest.raises(BackendRefused, match="another size, and other processes use it"):
            await other.open()
        await shm.close()
        await other.open()
        assert file_of(folder).stat().st_size == 2 * BYTES
        await other.close()

    async def test_no_room_for_it_is_told_at_once(self, folder: Path) -> None:
        with pytest.raises(BackendRefused, match="lower max_bytes, or give it more"):
            await make(folder, 1024**4).open()

    async def test_a_value_is_forgotten_after_its_time(
        self, shm: SharedMemoryAdapter, author: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operations = await created(shm, author, 5)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 299)
        assert await found(shm, operations) == 5
        monkeypatch.setattr(time, "monotonic", lambda: now + 301)
        assert await found(shm, operations) == 0


class TestWhoseItIs:
    """Rule: one user's own, and never through a link."""

    async def test_nobody_else_may_use_it(self, folder: Path, shm: SharedMemoryAdapter) -> None:
        await shm.ping()
        assert stat.S_IMODE((folder / "octopus").stat().st_mode) == 0o700
        assert stat.S_IMODE(file_of(folder).stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        "what", ["open folder", "linked folder", "open file", "linked file", "pipe", "folder"]
    )
    async def test_what_is_not_ours_alone_is_refused(self, folder: Path, what: str) -> None:
        own = folder / "octopus"
        if what == "linked folder":
            (folder / "elsewhere").mkdir(mode=0o700)
            own.symlink_to(folder / "elsewhere")
        else:
            own.mkdir(mode=0o700)
        if what == "open folder":
            own.chmod(0o750)
        elif what == "open file":
            file_of(folder).touch(mode=0o644)
        elif what == "linked file":
            (folder / "elsewhere").touch(mode=0o600)
            file_of(folder).symlink_to(folder / "elsewhere")
        elif what == "pipe":
            os.mkfifo(file_of(folder), 0o600)
        elif what == "folder":
            file_of(folder).mkdir(mode=0o700)
        with pytest.raises(BackendRefused):
            await make(folder).open()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    async def test_a_folder_of_another_user_is_refused(self, folder: Path) -> None:
        (folder / "octopus").mkdir(mode=0o700)
        os.chown(folder / "octopus", 65534, 65534)
        with pytest.raises(BackendRefused, match="belongs to somebody else"):
            await make(folder).open()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("shm://localhost/shop", "is on this host"),
        ("shm:///a/b", "a segment has up to 64 letters"),
        ("shm:///..", "a segment has up to 64 letters"),
        ("shm:///shop?max_bytes=1KB", "max_bytes at least 1 MB"),
        ("shm:///shop?size=1", "unknown option 'size'"),
    ],
)
def test_a_url_that_cannot_be_is_told(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        adapter_for(url)


async def test_calls_while_it_is_closed_are_refused(folder: Path, author: Author) -> None:
    adapter = make(folder)
    for call in (adapter.ping(), adapter.probe(), adapter.read([author.key()])):
        with pytest.raises(Unavailable, match="is not open"):
            await call
