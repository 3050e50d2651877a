"""The manager: the only place that puts the parts together, and the owner of their lifetimes."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

from octopus_async.backend import Adapter, Journal, JournalStatistics
from octopus_async.catchup import CatchUp
from octopus_async.clock import Clock
from octopus_async.config import Routing, Settings, settings_from_toml
from octopus_async.copying import Copy, CopyProgress
from octopus_async.dao import Dao, model_of
from octopus_async.errors import ConfigurationError, JournalError, ManagerClosed, Unavailable
from octopus_async.events import BreakerChanged, Event, Events, Listener, WriteJournalled, log_event
from octopus_async.guard import Guard, GuardStatistics
from octopus_async.journal import FileJournal
from octopus_async.mapper import Mapper
from octopus_async.model import KeyedModel
from octopus_async.planner import Planner
from octopus_async.record import Key, Operation, Record
from octopus_async.recovery import DebtCollector, Replayer
from octopus_async.session import Session
from octopus_async.shipping import Collector, Shipper
from octopus_async.sink import SINK, SinkAdapter
from octopus_async.strategies.admission import Admission
from octopus_async.strategies.debts import CacheDebts
from octopus_async.strategies.keys import KeyLocks
from octopus_async.strategies.lowwater import LowWater
from octopus_async.strategies.plan import Plan
from octopus_async.strategies.read import ReadStrategy
from octopus_async.strategies.reader import Reader
from octopus_async.strategies.receipt import Receipt
from octopus_async.strategies.unit import UnitWriter
from octopus_async.strategies.versions import Versions
from octopus_async.strategies.writer import Draft, Writer
from octopus_async.tasks import Tasks, to_the_end
from octopus_async.verification import LiveJournal, Options, Owed, Verifier

M = TypeVar("M", bound=KeyedModel)
D = TypeVar("D", bound=Dao[Any])
_log = logging.getLogger("octopus_async")


class _State(Enum):
    NEW = "not open yet"
    OPENING = "not open yet, but being opened"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    FORKED = "of the parent process: open one of your own after a fork"


@dataclass(frozen=True, slots=True)
class Statistics:
    """A manager at one moment.

    Attributes:
        backends: each backend's breakers and queues, by its name.
        journal: the journal's figures; None without a journal.
        paused: why the replay of a backend waits for an operator, by its name.
        waiting: models whose operations wait in the journal, because nobody asked for their Daos yet
            or because their tables do not fit.
        behind: how many keys each cache has to be told of, by its name.
        writing: how many writes are under way.
        comparing: the models whose replicas are to be compared with their primary, or are being
            compared, because a process died or lost track of a write.
    """

    backends: dict[str, GuardStatistics]
    journal: JournalStatistics | None
    paused: dict[str, str]
    waiting: tuple[str, ...]
    behind: dict[str, int]
    writing: int
    comparing: frozenset[str]


class DaoManager:
    """Opens backends and journal, and hands out Daos. Use it with ``async with``.

    ::

        async with DaoManager(["sqlite:///shop.db", "memory://"], journal="journal") as octopus:
            books = octopus.dao(Book)

    A backend that cannot be reached does not keep the manager from opening: its breaker is open,
    and it is probed until it is there (``strict`` makes it an error instead).

    Parameters:
        write: the backends to write to, as URLs or adapters; the first is the primary.
        read: how to read; by default the written caches in order, then the primary.
        journal: a folder for what the primary could not take; None to be refused then.
        options: any further attribute of `octopus_async.config.Settings`, by its name; in
            ``routings`` a model's class may stand for its name.
        listeners: are told of every event. The standard logger always is.

    Raises:
        ConfigurationError: an URL, an option or a name is wrong, or a driver is missing.
    """

    def __init__(
        self,
        write: Sequence[str | Adapter],
        read: ReadStrategy | None = None,
        journal: str | Path | Journal | None = None,
        *,
        listeners: Iterable[Listener] = (),
        **options: Any,  # noqa: ANN401 - the attributes of Settings, checked by its constructor
    ) -> None:
        routings: Mapping[Any, Routing] = options.pop("routings", {})
        try:
            settings = Settings(
                write=write,
                read=read,
                journal=journal,
                routings={_model_name(model): routing for model, routing in routings.items()},
                **options,
            )
        except TypeError as error:
            raise ConfigurationError(str(error).replace("Settings.__init__()", "DaoManager")) from None
        self._set_up(settings, listeners)

    @classmethod
    def from_config(cls, source: str | Path | Settings, *, listeners: Iterable[Listener] = ()) -> Self:
        """A manager from a TOML file, or from settings. Raises `ConfigurationError`."""
        settings = source if isinstance(source, Settings) else settings_from_toml(source)
        manager = cls.__new__(cls)
        manager._set_up(settings, listeners)  # noqa: SLF001 - the class itself
        return manager

    def _set_up(self, settings: Settings, listeners: Iterable[Listener]) -> None:
        self._state = _State.NEW
        self.settings = settings
        self.events = Events(log_event, self._on_event, *listeners)
        self._planner = Planner(settings, self.events)
        self._guards = self._planner.guards
        self._tasks = Tasks()
        source = settings.journal
        self.journal = FileJournal(source) if isinstance(source, str | Path) else source
        self._clock = Clock(settings.wall)
        self._versions = Versions(self._clock, self.journal, self.events)
        self._locks = KeyLocks()
        self._debts = {
            name: CacheDebts(guard, lambda: asyncio.get_running_loop().time(), self.events)
            for name, guard in self._guards.items()
            if not guard.capabilities.durable
        }
        self._water = LowWater(self._clock, self.journal)
        self._catch_up = self._make_catch_up()
        self._reader = Reader(self._clock, self._locks, self.journal, self._debts)
        self._writer = Writer(
            self._versions,
            self._locks,
            self.journal,
            self._debts,
            self._water,
            self._reader.detach,
            self.events,
            self._tasks.spawn,
        )
        self._unit_writer = UnitWriter(
            self._versions, self._locks, self.journal, self._water, self._reader.detach, self._writer
        )
        self._admission = Admission(settings.max_writes)
        self._daos: dict[type, Dao[Any]] = {}
        self._mappers: dict[str, Mapper[Any]] = {}
        self._replayers: dict[str, Replayer] = {}
        self._shipper: Shipper | None = None
        self._exit = AsyncExitStack()
        _managers.add(self)

    # -- lifetime --------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Open journal and backends, and take up what an earlier run left in the journal.

        Raises:
            JournalError: the journal cannot be used.
            Unavailable: a backend cannot be reached, with ``strict`` alone.
            ManagerClosed: it is open, or was open before.
        """
        if self._state is not _State.NEW:
            msg = f"this manager is {self._state.value}; make a new one"
            raise ManagerClosed(msg)
        self._state = _State.OPENING
        async with AsyncExitStack() as stack:
            stack.callback(setattr, self, "_state", _State.CLOSED)
            await self._open_journal(stack)
            await self._open_backends(stack)
            self._start_recovery(stack)
            stack.push_async_callback(self._finish_writes)
            self._exit = stack.pop_all()
        self._state = _State.OPEN
        return self

    async def close(self) -> None:
        """Wait for writes under way (at most ``close_timeout``), then release everything."""
        if self._state is _State.OPEN:
            self._state = _State.CLOSING
            await self._exit.aclose()
        elif self._state is _State.NEW:
            self._state = _State.CLOSED

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = asyncio.ensure_future(self.close())
        # A cancelled caller must not leave descriptors and threads behind: closing is bounded.
        await to_the_end(closing)

    def __del__(self) -> None:
        if getattr(self, "_state", None) is _State.OPEN:
            names = ", ".join(self._guards)
            warnings.warn(f"a DaoManager on {names} was never closed", ResourceWarning, stacklevel=2)

    # -- what applications use -------------------------------------------------------------------

    @overload
    def dao(self, kind: type[D]) -> D: ...
    @overload
    def dao(self, kind: type[M]) -> Dao[M]: ...
    def dao(self, kind: Any) -> Dao[Any]:
        """The Dao of a model class, or of a Dao subclass. Raises `ConfigurationError`."""
        known = self._daos.get(kind) if isinstance(kind, type) else None
        if known is None:
            known = self._daos[kind] = self._make_dao(kind)
        return known

    def session(self, *, atomic: bool = True, timeout: float | None = None) -> Session:
        """A unit of work: what is changed in its block is written at its end, all of it or nothing.

        ::

            async with octopus.session() as session:
                account = await session.get_one(Account, number)
                account.balance -= amount
                session.create(Transfer(account=number, amount=amount))

        Parameters:
            atomic: with False each change is a write of its own, all made at the same time; for a
                primary without transactions.
            timeout: seconds for what is written at the end; None for the manager's default.
        """
        return Session(self, atomic=atomic, timeout=timeout)

    async def create_tables(self, *models: type[KeyedModel]) -> None:
        """Create what is missing for these models (or all known ones) in every durable backend.

        Raises:
            SchemaMismatch: a table exists and does not fit.
            Unavailable: a backend cannot be reached.
            ManagerClosed: the manager is not open.
        """
        self.check_open()
        for model in models:
            self.dao(model)
        for name in [_model_name(model) for model in models] or list(self._mappers):
            for guard in self._planner.guards_of(name):
                if guard.capabilities.durable:
                    await guard.prepare(self._mappers[name].schema, create=True)

    # -- what operators use ----------------------------------------------------------------------

    @property
    def backends(self) -> Mapping[str, Guard]:
        """The guarded backends by name. Their ``reads`` and ``writes`` are breakers to steer by hand."""
        return self._guards

    def statistics(self) -> Statistics:
        """The figures of this moment."""
        return Statistics(
            backends={name: guard.statistics() for name, guard in self._guards.items()},
            journal=self.journal.statistics() if self.journal is not None else None,
            paused={name: it.paused for name, it in self._replayers.items() if it.paused is not None},
            waiting=tuple(sorted(set[str]().union(*(it.waiting for it in self._replayers.values())))),
            behind={name: debts.total for name, debts in self._debts.items()},
            writing=len(self._tasks),
            comparing=self._water.comparing(self._mappers),
        )

    def resume_replay(self, *names: str) -> None:
        """Let the replay of these backends (or all) go on after it paused, or look again at once.

        Raises:
            ConfigurationError: nothing is replayed into a backend of such a name.
        """
        unknown = sorted(set(names) - set(self._replayers))
        if unknown:
            known = ", ".join(self._replayers) or "none, as there is no journal or it is not open"
            msg = f"nothing is replayed into {unknown[0]!r}; backends with a replay are: {known}"
            raise ConfigurationError(msg)
        for name in names or self._replayers:
            self._replayers[name].resume()

    async def drained(self, *, every: float = 0.01) -> None:
        """Wait until nothing is owed to any backend, or on its way. Bound it with ``asyncio.timeout``."""
        while self._owed():  # noqa: ASYNC110 - what is owed has many sources, and none waits for an operator
            await asyncio.sleep(every)

    def verifier(
        self, options: Options | None = None, *, owed: Owed | None = None, models: Sequence[str] = ()
    ) -> Verifier:
        """What compares the stores of all models that Daos were made of, while they are in use.

        Parameters:
            options: what is compared, and whether it is mended.
            owed: knows what will be made up; by default what this process owes. Where several
                processes share a journal's folder it is a `JournalFolder`.
            models: the names of those to compare; all of them where it is empty.

        Raises:
            ConfigurationError: there is no model of such a name.
        """
        unknown = sorted(set(models) - set(self._mappers))
        if unknown:
            msg = f"there is no model {unknown[0]!r}, but {', '.join(self._mappers)}"
            raise ConfigurationError(msg)
        return Verifier(
            self._guards,
            self.plan_of,
            [self._mappers[name].schema for name in models or self._mappers],
            owed or LiveJournal(self.journal, self._debts),
            options or Options(settle=self.settings.timeout + 1, fresh=self.settings.create_tables),
            wall=self.settings.wall,
        )

    async def copy(
        self,
        source: str,
        target: str,
        *kinds: type[Any],
        resume: Mapping[str, str] | None = None,
        patience: float = 30.0,
    ) -> AsyncGenerator[CopyProgress]:
        """Copy records from one backend of this manager into another, model after model.

        Deleted ones are deleted there too. The target looks at versions alone, so that a copy may
        be repeated, and run beside live writes: nothing newer is replaced::

            async for progress in octopus.copy("mysql", "postgres", Book):
                print(progress.model, progress.read)

        Parameters:
            source: the name of the backend that is read; it has to be able to list its records.
            target: the name of the durable backend that is written.
            kinds: models or Daos; all that Daos were made of where there are none.
            resume: where to go on: a `CopyProgress.point` by the name of its model.
            patience: seconds for which a backend that is away is waited for.

        Raises:
            ConfigurationError: there is no such backend or point.
            OperationNotSupported: the source cannot list its records.
            RecordRejected: the target refuses more than a thousand of them.
            Unavailable: a backend was away for longer than that.
        """
        self.check_open()
        guards = self._copied(source, target)
        for kind in kinds:
            self.dao(kind)
        names = [_model_name(model_of(kind) if _is_subclass(kind, Dao) else kind) for kind in kinds]
        deadline = self.deadline(None)
        for name in names or list(self._mappers):
            for guard in guards:
                guard.learn(self._mappers[name].schema, create=self.settings.create_tables)
            version = await self._versions.issue(deadline)
            copy = Copy(*guards, name, version, (resume or {}).get(name, ""), patience)
            async with aclosing(copy.run()) as progress:
                async for told in progress:
                    yield told

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that Daos were made of."""
        return tuple(self._mappers)

    def collector(self, queue: SinkAdapter) -> Collector:
        """What brings the operations that wait in a queue into the backends of this manager.

        Parameters:
            queue: opened by the caller; Daos were made of the models that it carries.

        Raises:
            ConfigurationError: there is no journal to take them into.
        """
        if self.journal is None:
            msg = "what a queue holds is taken into the journal, and there is none"
            raise ConfigurationError(msg)
        return Collector(
            queue,
            self.journal,
            plan_of=lambda model: self.plan_of(model) if model in self._mappers else None,
            events=self.events,
            writable=lambda name: self._guards[name].writes.passes,
            wall=self.settings.wall,
            retention=self.settings.retention,
        )

    def plan_of(self, model: str) -> Plan:
        """Where the model of that name goes."""
        return self._planner.plan_of(model)

    # -- the parts -------------------------------------------------------------------------------

    def _copied(self, source: str, target: str) -> tuple[Guard, Guard]:
        for name in (source, target):
            if name not in self._guards:
                msg = f"no backend is called {name!r}; there are {', '.join(self._guards)}"
                raise ConfigurationError(msg)
        if source == target or not self._guards[target].capabilities.durable:
            msg = f"{source!r} cannot be copied into {target!r}: that has to be another one, and durable"
            raise ConfigurationError(msg)
        return self._guards[source], self._guards[target]

    def _make_dao(self, kind: type[Any]) -> Dao[Any]:
        is_dao = _is_subclass(kind, Dao)
        model = model_of(kind) if is_dao else kind
        if not _is_subclass(model, KeyedModel):
            msg = f"{model!r} is neither a Model nor a Dao"
            raise ConfigurationError(msg)
        mapper = self._mapper(model)
        gateway = _Gateway(self, self.plan_of(mapper.schema.model))
        return kind(mapper, gateway) if is_dao else Dao(mapper, gateway)

    def _mapper(self, model: type[KeyedModel]) -> Mapper[Any]:
        name = _model_name(model)
        known = self._mappers.get(name)
        if known is not None:
            if known.model is not model:
                msg = f"two models are called {name!r}: give one another name, class {name}(Model, name=...)"
                raise ConfigurationError(msg)
            return known
        mapper = self._mappers[name] = Mapper(model)
        for guard in self._planner.guards_of(name):
            guard.learn(mapper.schema, create=self.settings.create_tables)
        for replayer in self._replayers.values():
            replayer.wake()
        self._water.changed.set()
        return mapper

    async def _open_journal(self, stack: AsyncExitStack) -> None:
        if self.journal is not None:
            self._clock.start_above(await self.journal.open(self.events))
            self._water.want(self.journal.inherited())
            stack.push_async_callback(self.journal.close)
            stack.callback(lambda: self._water.close(self._mappers))
            # Closing the backends may leave the journal something to keep for a replica.
            stack.push_async_callback(self._finish_writes)

    async def _open_backends(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._close_backends)
        results = await asyncio.gather(
            *(guard.open() for guard in self._guards.values()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and (
                self.settings.strict or not isinstance(result, Unavailable)
            ):
                raise result

    async def _close_backends(self) -> None:
        await asyncio.gather(*(guard.close() for guard in self._guards.values()))

    def _start_recovery(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._tasks.stop)
        journal = self.journal
        if journal is not None:
            for name, guard in self._guards.items():
                if guard.capabilities.durable and guard is not self._planner.sink:
                    self._replayers[name] = self._make_replayer(journal, guard)
            self._shipper = self._make_shipper(journal)
            self._tasks.keep_going(self._shipper.run)
            self._shipper.wake()
            for replayer in self._replayers.values():
                self._tasks.keep_going(replayer.run)
                replayer.wake()
            self._tasks.keep_going(lambda: self._adopt_forever(journal))
            self._tasks.keep_going(self._water.run)
        self._tasks.keep_going(self._catch_up.run)
        for name, debts in self._debts.items():
            guard = self._guards[name]
            self._tasks.keep_going(DebtCollector(guard, debts, lambda guard=guard: guard.writes.passes).run)  # type: ignore[misc]

    def _make_replayer(self, journal: Journal, guard: Guard) -> Replayer:
        return Replayer(
            guard,
            journal,
            plan_of=lambda model: self.plan_of(model) if model in self._mappers else None,
            debts=self._debts,
            water=self._water,
            locks=self._locks,
            versions=self._versions,
            events=self.events,
            wall=self.settings.wall,
            retention=self.settings.retention,
            writable=lambda: guard.writes.passes,
            busy=lambda: guard.has_waiting_writes,
        )

    def _make_shipper(self, journal: Journal) -> Shipper:
        sink = self._planner.sink
        return Shipper(
            sink,
            journal,
            plan_of=lambda model: self.plan_of(model) if model in self._mappers else None,
            events=self.events,
            writable=lambda: sink is not None and sink.writes.passes,
        )

    def _make_catch_up(self) -> CatchUp:
        return CatchUp(
            self._water,
            models=lambda: self._mappers,
            plan_of=self.plan_of,
            journal=self.journal,
            events=self.events,
            late=self.settings.late_writes,
            usable=lambda name, direction: getattr(self._guards[name], direction).passes,
            busy=lambda name: self._guards[name].has_waiting_writes,
        )

    async def _adopt_forever(self, journal: Journal) -> None:
        while True:
            await asyncio.sleep(self.settings.adopt_every)
            try:
                self._clock.start_above(await journal.adopt())
            except JournalError as error:
                _log.warning("the journals of dead processes could not be looked for: %s", error)
            self._water.want(journal.inherited())
            for replayer in self._replayers.values():
                replayer.wake()
            if self._shipper is not None:
                self._shipper.wake()

    def _on_event(self, event: Event) -> None:
        """Recovery hears of what it waits for as everybody else does."""
        if isinstance(event, BreakerChanged) and event.backend in self._replayers:
            self._replayers[event.backend].wake()
        elif isinstance(event, WriteJournalled):
            if self._shipper is not None and SINK in event.targets:
                self._shipper.wake()
            for name in event.targets:
                if name in self._replayers:
                    self._replayers[name].wake()

    def _owed(self) -> bool:
        owed = self.journal is not None and any(self.journal.owes(name) for name in self._replayers)
        behind = any(debts.total for debts in self._debts.values()) or bool(self._catch_up.behind())
        # What is on its way to a cache or a replica may be missed there, and be owed from then on. What is
        # on its way to the journal is owed to the primary as soon as it is there.
        under_way = bool(self._tasks) or self._locks.unsettled or self._writer.late.undecided
        return owed or behind or under_way

    # -- tasks -----------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise `ManagerClosed` unless calls may be made now."""
        if self._state is not _State.OPEN:
            msg = f"this manager is {self._state.value}"
            raise ManagerClosed(msg)

    def deadline(self, seconds: float | None) -> float:
        """The moment of the loop's clock at which an operation has to end."""
        if seconds is None:
            seconds = self.settings.timeout
        elif not seconds > 0:
            msg = f"timeout is a number of seconds above 0, not {seconds!r}"
            raise ConfigurationError(msg)
        return asyncio.get_running_loop().time() + seconds

    def find(
        self, plan: Plan, key: Key, seconds: float | None, *, fresh: bool = False
    ) -> Coroutine[Any, Any, Record | None]:
        """Look a key up by its plan; ``fresh`` past all caches."""
        self.check_open()
        return self._reader.find(plan, key, self.deadline(seconds), fresh=fresh)

    def write(
        self, plan: Plan, draft: Draft, seconds: float | None
    ) -> Coroutine[Any, Any, tuple[Receipt, Operation]]:
        """Write a draft by its plan; goes on when the caller is cancelled."""
        self.check_open()
        deadline = self.deadline(seconds)
        self._admission.enter(draft, len(self._tasks))
        work = self._writer.write(plan, draft, deadline)
        return self._tasks.begin(work, lambda: self._admission.leave(draft)).result()

    def write_unit(
        self, drafts: Sequence[tuple[Plan, Draft]], seconds: float | None
    ) -> Coroutine[Any, Any, list[tuple[Receipt, Operation]]]:
        """Write drafts together; goes on when the caller is cancelled."""
        self.check_open()
        deadline = self.deadline(seconds)
        entered: list[Draft] = []

        def leave() -> None:
            for draft in entered:
                self._admission.leave(draft)

        try:
            for _, draft in drafts:
                self._admission.enter(draft, len(self._tasks))
                entered.append(draft)
        except BaseException:
            leave()
            raise
        return self._tasks.begin(self._unit_writer.write(drafts, deadline), leave).result()

    def way_of(self, kind: type[M]) -> tuple[Mapper[M], Plan]:
        """How models of a class are translated, and where they go. Raises `ConfigurationError`."""
        self.dao(kind)
        mapper = self._mappers[_model_name(kind)]
        return mapper, self.plan_of(mapper.schema.model)

    async def _finish_writes(self) -> None:
        await self._tasks.finish(self.settings.close_timeout)

    def _forked(self) -> None:
        """In a forked child: this manager is the parent's. Its descriptors go, its locks stay."""
        if self._state not in (_State.NEW, _State.CLOSED):
            self._state = _State.FORKED
            if self.journal is not None:
                self.journal.forget_process()


class _Gateway:
    """One model's way into the manager."""

    __slots__ = ("_manager", "_plan")

    def __init__(self, manager: DaoManager, plan: Plan) -> None:
        self._manager = manager
        self._plan = plan

    def find(
        self, key: Key, deadline: float | None, *, fresh: bool = False
    ) -> Coroutine[Any, Any, Record | None]:
        return self._manager.find(self._plan, key, deadline, fresh=fresh)

    def write(self, draft: Draft, deadline: float | None) -> Coroutine[Any, Any, tuple[Receipt, Operation]]:
        return self._manager.write(self._plan, draft, deadline)

    def wall(self) -> float:
        return self._manager.settings.wall()

    def deadline(self, seconds: float | None) -> float:
        return self._manager.deadline(seconds)


def _is_subclass(thing: object, base: type) -> bool:
    return isinstance(thing, type) and issubclass(thing, base)


def _model_name(model: object) -> str:
    if isinstance(model, str):
        return model
    if _is_subclass(model, KeyedModel):
        model = cast("type[KeyedModel]", model)
        return model.__octopus_mapping__.name or model.__name__
    msg = f"{model!r} is no model"
    raise ConfigurationError(msg)


_managers: weakref.WeakSet[DaoManager] = weakref.WeakSet()


def _after_fork() -> None:
    for manager in list(_managers):
        manager._forked()  # noqa: SLF001 - the module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["DaoManager", "Settings", "Statistics"]
