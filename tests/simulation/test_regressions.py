"""What the simulation found, each with the seed that found it first, told again without chance."""

import asyncio
import shutil
import threading
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.clock import encode_version
from octopus_async.errors import DuplicateRecord, RecordNotFound, WriteUnavailable
from octopus_async.guard import BreakerPolicy, GuardPolicy
from octopus_async.journal import FileJournal
from octopus_async.journal.disk import OsDisk
from octopus_async.manager import DaoManager
from octopus_async.model import KeyedModel, Model
from octopus_async.record import Key, Kind, Mode, Operation, Record, Status, Stored, decide
from octopus_async.strategies.plan import Order
from octopus_async.testing.faulty import Fault, FaultyAdapter


class Book(KeyedModel):
    id: str
    title: str


class Note(Model):
    text: str


KEY = Key("Book", "1")
SOON = GuardPolicy(writes=BreakerPolicy(open_for=0.02), reads=BreakerPolicy(open_for=0.02))


async def drained(octopus: DaoManager) -> None:
    async with asyncio.timeout(10):
        await octopus.drained()


async def stored_in(adapter: MemoryAdapter, key: Key = KEY) -> Record:
    [record] = await adapter.read([key])
    assert isinstance(record, Record)
    return record


def title_of(record: Record) -> object:
    assert record.fields is not None
    return record.fields["title"]


async def test_a_refused_delete_leaves_the_replica_as_it_was() -> None:
    """Seed 48: the replica was told at once, and a delete cannot be taken back."""
    primary = FaultyAdapter(MemoryAdapter(durable=True, name="primary"))
    replica = MemoryAdapter(durable=True, name="replica")
    async with DaoManager([primary, replica]) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="kept"))
        await asyncio.sleep(0.01)
        primary.break_down(Fault.REFUSE)
        with pytest.raises(WriteUnavailable):
            await books.delete("1")
        await asyncio.sleep(0.01)
        [record] = await replica.read([KEY])
        assert isinstance(record, Record)
        assert record.fields is not None


async def test_an_update_that_finds_nothing_leaves_the_tombstone_in_the_cache() -> None:
    """Seed 105: the cache took it before the primary refused it, and its tombstone was gone with it."""
    cache = MemoryAdapter(name="cache")
    async with DaoManager([MemoryAdapter(durable=True, name="primary"), cache]) as octopus:
        books = octopus.dao(Book)
        book = Book(id="1", title="gone")
        await books.create(book)
        deleted = await books.delete(book)
        with pytest.raises(RecordNotFound):
            await books.update(book)
        await asyncio.sleep(0.01)
        [record] = await cache.read([KEY])
        assert isinstance(record, Record)
        assert (record.version, record.fields) == (deleted.version, None)


async def test_a_read_under_way_does_not_show_a_write_that_was_refused_meanwhile() -> None:
    """Seed 1498: the key was not busy yet when the read asked the cache, and the answer came late."""
    failing = FaultyAdapter(MemoryAdapter(durable=True, name="primary"))
    primary = FaultyAdapter(failing, delay=0.1)
    cache = FaultyAdapter(MemoryAdapter(name="cache"), delay=0.05)
    async with DaoManager([primary, cache], order=Order.CONCURRENT) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="old"))
        await asyncio.sleep(0.01)
        cache.reads = Fault.SLOW
        reading = asyncio.ensure_future(books.read("1"))
        await asyncio.sleep(0.03)
        primary.writes, failing.writes = Fault.SLOW, Fault.FAIL
        with pytest.raises(WriteUnavailable):
            await books.update(Book(id="1", title="refused"))
        found = await reading
        assert found is not None
        assert found.title == "old"


async def test_a_create_that_is_tried_again_leaves_the_replica_as_it_was() -> None:
    """Seed 412: a caller was cancelled, and tried the same object again; the replica lost the record."""
    replica = MemoryAdapter(durable=True, name="replica")
    async with DaoManager([MemoryAdapter(durable=True, name="primary"), replica]) as octopus:
        notes = octopus.dao(Note)
        note = Note(text="kept")
        await notes.create(note)
        await asyncio.sleep(0.01)
        with pytest.raises(DuplicateRecord):
            await notes.create(note)
        await asyncio.sleep(0.01)
        assert (await stored_in(replica, Key("Note", str(note.id)))).fields is not None


def test_a_create_and_its_later_update_in_one_do_not_outlive_a_delete_between_them() -> None:
    """Seed 255: coalesced for replay, they brought back what another process had deleted meanwhile."""
    created, deleted, updated = (encode_version(moment, 0, 0) for moment in (1, 2, 3))
    operation = Operation(Kind.CREATE, KEY, updated, created, {"title": "again"}, b"{}")
    outcome = decide(operation, Stored(deleted, created, alive=False), Mode.REPLAY)
    assert outcome is not None
    assert outcome.status is Status.REJECTED
    assert isinstance(outcome.error, RecordNotFound)


async def test_what_follows_a_dead_letter_reaches_no_replica(tmp_path: Path) -> None:
    """Seed 184: the primary's dead letters took the later writes of the key along, the replica's did not."""
    primary = FaultyAdapter(MemoryAdapter(durable=True, name="primary"))
    replica = MemoryAdapter(durable=True, name="replica")
    async with DaoManager([primary, replica], journal=tmp_path / "journal", guard=SOON) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="first"))
        primary.break_down(Fault.REFUSE)
        await books.create(Book(id="1", title="rival"))
        await books.delete("1")
        primary.heal()
        await drained(octopus)
        assert title_of(await stored_in(replica)) == "first"


async def test_what_replay_finds_superseded_is_not_shown_by_a_cache(tmp_path: Path) -> None:
    """Seed 249: an empty cache was told the old write, though the primary had a newer one."""
    shared = MemoryAdapter(durable=True, name="primary")
    primary, cache = FaultyAdapter(shared), MemoryAdapter(name="cache")
    async with DaoManager([primary, cache], journal=tmp_path / "journal", guard=SOON) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="first"))
        primary.break_down(Fault.REFUSE)
        await books.update(Book(id="1", title="second"))
        await asyncio.sleep(0.01)
        async with DaoManager([shared]) as other:
            await other.dao(Book).update(Book(id="1", title="third"))
            await cache.close()
            await cache.open()
            await shared.open()
            primary.heal()
            await drained(octopus)
            found = await books.get_one("1")
            assert found.title == "third"


async def test_a_write_in_an_outage_is_newer_than_what_a_refusal_has_shown(tmp_path: Path) -> None:
    """Seed 1065: a process whose clock was behind had been told of the record, and wrote behind it."""
    shared = MemoryAdapter(durable=True, name="primary")
    primary = FaultyAdapter(shared)
    behind = DaoManager([primary], journal=tmp_path / "journal", guard=SOON, wall=lambda: time.time() - 600.0)
    async with DaoManager([shared]) as ahead, behind:
        await ahead.dao(Book).create(Book(id="1", title="first"))
        with pytest.raises(DuplicateRecord):
            await behind.dao(Book).create(Book(id="1", title="refused"))
        primary.break_down(Fault.REFUSE)
        await behind.dao(Book).update(Book(id="1", title="second"))
        primary.heal()
        await drained(behind)
        assert title_of(await stored_in(shared)) == "second"


async def test_a_write_in_an_outage_is_newer_than_the_tombstone_that_was_read(tmp_path: Path) -> None:
    """As above, told by a read."""
    shared = MemoryAdapter(durable=True, name="primary")
    primary = FaultyAdapter(shared)
    behind = DaoManager([primary], journal=tmp_path / "journal", guard=SOON, wall=lambda: time.time() - 600.0)
    async with DaoManager([shared]) as ahead, behind:
        await ahead.dao(Book).create(Book(id="1", title="first"))
        await ahead.dao(Book).delete("1")
        assert await behind.dao(Book).read("1") is None
        primary.break_down(Fault.REFUSE)
        await behind.dao(Book).create(Book(id="1", title="second"))
        primary.heal()
        await drained(behind)
        assert title_of(await stored_in(shared)) == "second"


class SlowDisk(OsDisk):
    """A disk that takes its time to make anything durable."""

    seconds = 0.0

    def sync(self, file: int) -> None:
        time.sleep(self.seconds)
        super().sync(file)


async def test_nobody_claims_that_nothing_was_written_while_the_journal_still_writes(tmp_path: Path) -> None:
    """The entry was durable after the deadline, and was replayed."""
    disk = SlowDisk()
    primary = FaultyAdapter(MemoryAdapter(durable=True, name="primary"))
    journal = FileJournal(tmp_path / "journal", disk=disk)
    async with DaoManager([primary], journal=journal, guard=SOON) as octopus:
        books = octopus.dao(Book)
        primary.break_down(Fault.REFUSE)
        disk.seconds = 0.3
        with pytest.raises(WriteUnavailable, match="may still be applied"):
            await books.create(Book(id="1", title="late"), timeout=0.1)
        disk.seconds = 0.0
        await asyncio.sleep(0.5)
        primary.heal()
        await drained(octopus)
        found = await books.get_one("1")
        assert found.title == "late"


async def test_a_slow_disk_delays_no_write_beyond_its_deadline(tmp_path: Path) -> None:
    """Seed 12881: the first write waited for the ceiling of versions longer than it had time."""
    disk = SlowDisk()
    journal = FileJournal(tmp_path / "journal", disk=disk)
    async with DaoManager([MemoryAdapter(durable=True, name="primary")], journal=journal) as octopus:
        disk.seconds = 0.6
        began = time.monotonic()
        await octopus.dao(Book).create(Book(id="1", title="in time"), timeout=0.2)
        assert time.monotonic() - began < 0.2
        disk.seconds = 0.0


async def test_a_cache_is_told_of_a_dead_letter_before_the_journal_lets_go_of_it(tmp_path: Path) -> None:
    """Seeds 1625 and 1932: drained, and for a moment more the cache served what had been refused."""
    shared, values = MemoryAdapter(durable=True, name="primary"), MemoryAdapter(name="cache")
    primary, cache = FaultyAdapter(shared), FaultyAdapter(values, delay=0.2)
    async with (
        DaoManager([shared]) as other,
        DaoManager([primary, cache], journal=tmp_path / "journal", guard=SOON) as octopus,
    ):
        primary.break_down(Fault.REFUSE)
        await octopus.dao(Book).create(Book(id="1", title="refused later"))
        await other.dao(Book).create(Book(id="1", title="first"))
        await asyncio.sleep(0.01)
        cache.writes = Fault.SLOW
        primary.heal()
        await drained(octopus)
        [left] = await values.read([KEY])
        assert not isinstance(left, Record)


async def test_a_record_that_was_seen_and_deleted_before_its_create_arrived_stays_deleted() -> None:
    """Seed 1048: found superseded by the tombstone, the create was issued again and brought it back."""
    shared, cache = MemoryAdapter(durable=True, name="primary"), MemoryAdapter(name="cache")
    slow = FaultyAdapter(shared, delay=0.2)
    async with DaoManager([shared, cache]) as other, DaoManager([slow, cache]) as octopus:
        slow.writes = Fault.SLOW
        note = Note(text="short-lived")
        creating = asyncio.ensure_future(octopus.dao(Note).create(note))
        async with asyncio.timeout(10):
            while await other.dao(Note).read(note.id) is None:  # noqa: ASYNC110 - a cache announces nothing
                await asyncio.sleep(0.001)
        deleted = await other.dao(Note).delete(note.id)
        receipt = await creating
        assert receipt.version < deleted.version
        assert await octopus.dao(Note).read(note.id) is None
        assert await other.dao(Note).read(note.id) is None


async def test_a_record_that_was_deleted_can_be_created_again_from_a_clock_that_is_behind() -> None:
    """The same object: its id is not new any more, and the tombstone is one that was known."""
    shared = MemoryAdapter(durable=True, name="primary")
    async with (
        DaoManager([shared], wall=lambda: time.time() + 5.0) as ahead,
        DaoManager([shared]) as octopus,
    ):
        note = Note(text="again")
        await octopus.dao(Note).create(note)
        deleted = await ahead.dao(Note).delete(note.id)
        assert (await octopus.dao(Note).create(note)).version > deleted.version
        assert await octopus.dao(Note).read(note.id) is not None


async def test_what_is_on_its_way_to_a_cache_or_a_replica_is_owed_to_it() -> None:
    """Seeds 700348, 20044, 800425, 804343: drained, and the others were a write or two behind."""
    cached, copied = MemoryAdapter(name="cache"), MemoryAdapter(durable=True, name="replica")
    cache, replica = FaultyAdapter(cached, delay=0.2), FaultyAdapter(copied, delay=0.2)
    primary = MemoryAdapter(durable=True, name="primary")
    async with DaoManager([primary, cache, replica]) as octopus:
        cache.writes = replica.writes = Fault.SLOW
        await octopus.dao(Book).create(Book(id="1", title="everywhere"))
        await drained(octopus)
        assert title_of(await stored_in(cached)) == "everywhere"
        assert title_of(await stored_in(copied)) == "everywhere"


async def test_what_is_taken_back_from_a_cache_does_not_arrive_there_afterwards(tmp_path: Path) -> None:
    """Seeds 20000 and 804779: what the dead letter had to take back was still on its way, and arrived."""
    shared, cached = MemoryAdapter(durable=True, name="primary"), MemoryAdapter(name="cache")
    primary, cache = FaultyAdapter(shared), FaultyAdapter(cached, delay=0.2)
    async with (
        DaoManager([shared]) as other,
        DaoManager([primary, cache], journal=tmp_path / "journal", guard=SOON) as octopus,
    ):
        books = octopus.dao(Book)
        book = Book(id="1", title="deleted")
        await books.create(book)
        await other.dao(Book).delete("1")
        await drained(octopus)
        cache.writes = Fault.SLOW
        primary.break_down(Fault.REFUSE)
        for title in ("on its way", "behind it", "and refused later"):
            book.title = title
            await books.update(book)
        primary.heal()
        await drained(octopus)
        assert octopus.journal is not None
        assert octopus.journal.dead_letters()
        [left] = await cached.read([KEY])
        assert not isinstance(left, Record)


async def test_what_lands_late_in_a_cache_does_not_outlive_its_retraction() -> None:
    """Seed 1014520: a slow cache was told of a refused create after its retraction, and served it."""
    primary, cached = MemoryAdapter(durable=True, name="primary"), MemoryAdapter(name="cache")
    cache = FaultyAdapter(cached, delay=0.2)
    hasty = GuardPolicy(timeout=0.05)
    async with DaoManager([primary, cache], guard=hasty, order=Order.CONCURRENT) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="first"))
        await drained(octopus)
        late = [Fault.LATE]
        cache.writes = lambda: late.pop() if late else None
        with pytest.raises(DuplicateRecord):
            await books.create(Book(id="1", title="refused"))
        await cache.landed()
        await drained(octopus)
        [left] = await cached.read([KEY])
        assert not isinstance(left, Record)
        assert (await books.get_one("1")).title == "first"


async def test_what_was_replayed_before_a_crash_is_no_rival_of_itself(tmp_path: Path) -> None:
    """Seed 1012590: created, deleted and created again, and then replayed twice, it became a dead letter."""
    primary = FaultyAdapter(MemoryAdapter(durable=True, name="primary"))
    async with DaoManager([primary], journal=tmp_path / "journal", guard=SOON) as octopus:
        books = octopus.dao(Book)
        primary.break_down(Fault.REFUSE)
        await books.create(Book(id="1", title="first"))
        await books.delete("1")
        await books.create(Book(id="1", title="second"))
        shutil.copytree(tmp_path / "journal", tmp_path / "as a crash leaves it")
        primary.heal()
        await drained(octopus)
    async with DaoManager([primary], journal=tmp_path / "as a crash leaves it", guard=SOON) as octopus:
        books = octopus.dao(Book)
        await drained(octopus)
        assert octopus.journal is not None
        assert not octopus.journal.dead_letters()
        assert (await books.get_one("1")).title == "second"


async def test_a_replica_that_waited_for_a_write_does_not_get_it_before_the_primary(tmp_path: Path) -> None:
    """Seed 2000171: in line behind a write, its replay took along what that left in the journal."""
    shared, copied = MemoryAdapter(durable=True, name="primary"), MemoryAdapter(durable=True, name="replica")
    primary, replica = FaultyAdapter(shared), FaultyAdapter(copied)
    patient = GuardPolicy(timeout=0.5, writes=BreakerPolicy(open_for=0.02))
    async with (
        DaoManager([shared]) as other,
        DaoManager([primary, replica], journal=tmp_path / "journal", guard=patient) as octopus,
    ):
        books = octopus.dao(Book)
        book = Book(id="1", title="first")
        replica.break_down(Fault.REFUSE)
        await books.create(book)
        assert octopus.journal is not None
        async with asyncio.timeout(10):
            while not octopus.journal.owes("replica"):  # noqa: ASYNC110 - a journal announces nothing
                await asyncio.sleep(0.001)
        await other.dao(Book).delete("1")
        primary.writes = Fault.HANG
        book.title = "refused later"
        updating = asyncio.ensure_future(books.update(book))
        await asyncio.sleep(0)
        replica.heal()
        assert (await updating).journalled
        await asyncio.sleep(0.1)
        primary.heal()
        await drained(octopus)
        assert octopus.journal.dead_letters()
        assert await stored_in(copied) == await stored_in(shared)


class HeldDisk(OsDisk):
    """One whose syncs wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()

    def sync(self, file: int) -> None:
        self.free.wait(10.0)
        super().sync(file)


async def give_up_on_the_journal(primary: FaultyAdapter, disk: HeldDisk, writing: Awaitable[object]) -> None:
    """A write that the primary fails once, and of which the journal does not say in time if it has it."""
    disk.free.clear()
    primary.writes = Fault.FAIL
    with pytest.raises(WriteUnavailable, match="may still be applied"):
        await writing
    primary.heal()


async def test_an_entry_that_is_durable_late_does_not_hide_what_was_written_since(tmp_path: Path) -> None:
    """Seed 1008889: the next write went past it to the primary, and then the older state was read."""
    disk, values = HeldDisk(), MemoryAdapter(durable=True, name="primary")
    primary = FaultyAdapter(values)
    async with DaoManager([primary], journal=FileJournal(tmp_path / "journal", disk=disk)) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="first"))
        late = books.update(Book(id="1", title="late"), timeout=0.1)
        await give_up_on_the_journal(primary, disk, late)
        writing = asyncio.ensure_future(books.update(Book(id="1", title="newest"), timeout=5))
        await asyncio.sleep(0.05)
        disk.free.set()
        await writing
        for _ in range(50):
            assert (await books.get_one("1")).title == "newest"
            await asyncio.sleep(0.002)
        await drained(octopus)
        assert title_of(await stored_in(values)) == "newest"


async def test_what_follows_a_doubtful_entry_that_is_durable_late_is_provisional(tmp_path: Path) -> None:
    """Seed 1018376: a delete whose receipt was sure became a dead letter with the create before it."""
    disk, values = HeldDisk(), MemoryAdapter(durable=True, name="primary")
    primary = FaultyAdapter(values)
    async with DaoManager([primary], journal=FileJournal(tmp_path / "journal", disk=disk)) as octopus:
        books = octopus.dao(Book)
        await give_up_on_the_journal(primary, disk, books.create(Book(id="1", title="late"), timeout=0.1))
        primary.writes = Fault.FAIL
        deleting = asyncio.ensure_future(books.delete("1", timeout=5))
        await asyncio.sleep(0.05)
        disk.free.set()
        assert (await deleting).provisional


async def test_a_write_behind_an_entry_that_is_on_its_way_to_the_journal_is_not_sent(tmp_path: Path) -> None:
    disk, values = HeldDisk(), MemoryAdapter(durable=True, name="primary")
    primary = FaultyAdapter(values)
    async with DaoManager([primary], journal=FileJournal(tmp_path / "journal", disk=disk)) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="first"))
        late = books.update(Book(id="1", title="late"), timeout=0.1)
        await give_up_on_the_journal(primary, disk, late)
        with pytest.raises(WriteUnavailable, match=r"on its way to the journal.*Nothing was written"):
            await books.update(Book(id="1", title="refused"), timeout=0.1)
        with pytest.raises(WriteUnavailable, match=r"on its way to the journal.*Nothing was written"):
            async with octopus.session(timeout=0.1) as session:
                session.delete(await session.get_one(Book, "1"))
        await books.create(Book(id="2", title="another"), timeout=5)
        assert title_of(await stored_in(values)) == "first"
        disk.free.set()


async def test_an_entry_that_is_durable_late_is_replayed_at_once(tmp_path: Path) -> None:
    """Nobody told the replay of it, which found it when it looked for journals to adopt."""
    disk, values = HeldDisk(), MemoryAdapter(durable=True, name="primary")
    primary = FaultyAdapter(values)
    journal = FileJournal(tmp_path / "journal", disk=disk)
    async with DaoManager([primary], journal=journal, adopt_every=60.0) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="first"))
        late = books.update(Book(id="1", title="late"), timeout=0.1)
        await give_up_on_the_journal(primary, disk, late)
        disk.free.set()
        async with asyncio.timeout(5):
            while title_of(await stored_in(values)) != "late":  # noqa: ASYNC110 - a store announces nothing
                await asyncio.sleep(0.001)


async def test_nothing_is_drained_while_an_entry_is_on_its_way_to_the_journal(tmp_path: Path) -> None:
    """Seed 3000288: what was durable soon after was read, and the primary did not have it."""
    disk, values = HeldDisk(), MemoryAdapter(durable=True, name="primary")
    primary = FaultyAdapter(values)
    async with DaoManager([primary], journal=FileJournal(tmp_path / "journal", disk=disk)) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="first"))
        late = books.update(Book(id="1", title="late"), timeout=0.1)
        await give_up_on_the_journal(primary, disk, late)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await octopus.drained()
        disk.free.set()
        await drained(octopus)
        assert title_of(await stored_in(values)) == "late"
