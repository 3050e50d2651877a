"""Simulated clients: they call Daos as a service's handlers would, and note what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from octopus_async.errors import (
    JournalError,
    JournalFull,
    OctopusError,
    ReadUnavailable,
    RecordNotFound,
    RecordRejected,
    WriteUnavailable,
)
from octopus_async.events import WriteJournalled
from octopus_async.manager import DaoManager
from octopus_async.model import KeyedModel, Model
from octopus_async.record import Key, Kind, Operation
from octopus_async.strategies.receipt import Receipt
from octopus_async.testing.simulation.history import (
    CANCELLED,
    NOT_FOUND,
    OK,
    REFUSED,
    REJECTED,
    UNAVAILABLE,
    UNKNOWN,
    Call,
)
from octopus_async.testing.simulation.loop import current_process
from octopus_async.testing.simulation.scenario import Step
from octopus_async.testing.simulation.server import FORBIDDEN
from octopus_async.testing.simulation.sessions import commit_session

_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
_next_id = [UUID(int=0)]


class Item(Model):
    """What clients store under generated ids, which come from the scenario rather than from chance."""

    id: UUID = Field(default_factory=lambda: _next_id[0])
    value: str


class Named(KeyedModel):
    """What clients store under ids of their own."""

    id: str
    value: str


MODELS: tuple[type[KeyedModel], ...] = (Item, Named)


def model_of(name: str) -> type[Any]:
    """The model of a scenario's key."""
    return Item if name.startswith("g") else Named


def id_of(name: str) -> UUID | str:
    """The id of a scenario's key."""
    return UUID(int=int(name[1:]) + 1) if name.startswith("g") else name


def name_of(key: Key) -> str:
    """The scenario's name of a record's key."""
    return f"g{UUID(key.id).int - 1}" if key.model == "Item" else key.id


class Notes:
    """What all clients of a run write down together.

    Attributes:
        calls: every call, in the order of invocation.
        problems: what no caller should ever see.
        makers: which process generates an id, by the key.
        public: keys whose generated ids others can know of.
        settling: what became of journalled writes, by their calls.
        units: the keys of each unit of work.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.problems: list[str] = []
        self.makers: dict[str, str] = {}
        self.public: set[str] = set()
        self.settling: dict[int, str] = {}
        self.units: list[tuple[str, ...]] = []


class Client:
    """One client: makes its steps one after the other, and goes on where it was after a restart.

    Parameters:
        number: its number within its process.
        steps: what it does.
        notes: where it writes down what it is told.
        timeout: seconds that its process gives an operation.
    """

    def __init__(self, number: int, steps: Sequence[Step], notes: Notes, timeout: float) -> None:
        self.number = number
        self._steps = steps
        self._notes = notes
        self._timeout = timeout
        self._position = 0
        self._known: dict[str, Any] = {}

    @property
    def is_done(self) -> bool:
        """Whether it has made all its steps."""
        return self._position >= len(self._steps)

    async def run(self, manager: DaoManager, process: str) -> None:
        """Make the steps that are left."""
        self._known.clear()
        while not self.is_done:
            step = self._steps[self._position]
            await asyncio.sleep(step.wait)
            self._position += 1
            if step.kind == "unit":
                await self._commit_unit(step, manager, process)
            elif self._can_know(step, process):
                await self._make(step, manager, process)

    async def _make(self, step: Step, manager: DaoManager, process: str) -> None:
        known: Any = None if step.blind else self._known.get(step.key)
        conditional = step.conditional and known is not None
        number = len(self._notes.calls)
        writes_value = step.kind in ("create", "update")
        now = asyncio.get_running_loop().time()
        call = Call(
            number,
            process,
            self.number,
            step.kind,
            step.key,
            f"{FORBIDDEN if step.forbidden else 'v'}{number}" if writes_value else None,
            now,
            now + self._timeout,
            expects=known.value if conditional and known is not None else None,
            conditional=conditional,
        )
        self._note(call)
        task = asyncio.get_running_loop().create_task(self._perform(call, known, manager))
        if step.cancel_after is not None:
            await asyncio.wait([task], timeout=step.cancel_after)
            if not task.done():
                call.cancelled_at = asyncio.get_running_loop().time()
                task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            self._notes.problems.append(f"{call}: {error!r}")

    def _note(self, call: Call) -> None:
        self._notes.calls.append(call)
        living = current_process()
        if living is not None and call.is_write:
            living.does("write")

    async def _commit_unit(self, step: Step, manager: DaoManager, process: str) -> None:
        """A session's commit, or what it does in an outage: several records in one entry of the journal."""
        keys = records_of(step)
        self._notes.units.append(keys)
        now = asyncio.get_running_loop().time()
        calls = []
        for key in keys:
            number = len(self._notes.calls)
            calls.append(
                Call(number, process, self.number, "create", key, f"v{number}", now, now + self._timeout)
            )
            self._note(calls[-1])
        try:
            async with asyncio.timeout_at(now + self._timeout):
                if int(step.key[1:]) % 2:
                    await commit_session(calls, [_named(call) for call in calls], manager)
                else:
                    await append_unit(calls, manager)
        except (JournalError, TimeoutError, WriteUnavailable) as error:
            nothing = isinstance(error, JournalFull) or "Nothing was written" in str(error)
            for call in calls:
                call.result = REFUSED if nothing else UNKNOWN
                call.error = repr(error)
        for call in calls:
            call.responded = asyncio.get_running_loop().time()

    def _can_know(self, step: Step, process: str) -> bool:
        """Nobody but its maker knows a generated id before the record is acknowledged, or seen."""
        if not step.key.startswith("g") or step.key in self._notes.public or step.kind in ("read", "exists"):
            return True
        if step.kind != "create":
            return False
        maker = self._notes.makers.setdefault(step.key, process)
        # The ids that a dead process generated are lost with it, unless somebody has seen them.
        return maker == process

    async def _perform(self, call: Call, known: Any, manager: DaoManager) -> None:  # noqa: ANN401 - either model
        loop = asyncio.get_running_loop()
        try:
            await self._ask(call, known, manager)
        except asyncio.CancelledError:
            call.result = CANCELLED
        except WriteUnavailable as error:
            call.result = REFUSED if "Nothing was written" in str(error) else UNKNOWN
            call.error = _said(error)
        except ReadUnavailable as error:
            call.result, call.error = UNAVAILABLE, _said(error)
        except RecordNotFound as error:
            call.result, call.error = NOT_FOUND, _said(error)
        except RecordRejected as error:
            call.result, call.error = REJECTED, _said(error)
        except OctopusError as error:
            call.result, call.error = UNKNOWN, _said(error)
            self._notes.problems.append(f"{call}: an error that no caller expects here")
        # Not in a clause at the end: those run when the remains of a dead process are cleared away.
        call.responded = loop.time()

    async def _ask(self, call: Call, known: Any, manager: DaoManager) -> None:  # noqa: ANN401 - either model
        dao = manager.dao(model_of(call.key))
        if call.kind == "read":
            found = await dao.read(id_of(call.key))
            call.result = OK
            if found is None:
                self._known.pop(call.key, None)
            else:
                call.seen, call.version = found.value, found.version
                self._notes.public.add(call.key)
                self._known[call.key] = found
        elif call.kind == "exists":
            exists = await dao.exists(id_of(call.key))
            call.result, call.seen = OK, "something" if exists else None
        elif call.kind == "delete":
            version = known.version if call.conditional else None
            receipt = await dao.delete(known if known is not None else id_of(call.key), if_version=version)
            self._acknowledge(call, receipt)
            self._known.pop(call.key, None)
        else:
            await self._store(call, known, dao)

    async def _store(self, call: Call, known: Any, dao: Any) -> None:  # noqa: ANN401 - of either model
        model = self._model(call, known)
        before = model.version
        try:
            if call.kind == "create":
                receipt = await dao.create(model)
            else:
                receipt = await dao.update(model, if_version=known.version if call.conditional else None)
        except BaseException:
            if model.version != before:
                self._notes.problems.append(f"{call}: the model changed without an acknowledgement")
            raise
        self._acknowledge(call, receipt)
        if model.version != receipt.version:
            self._notes.problems.append(f"{call}: the model did not learn its version")
        self._known[call.key] = model

    def _model(self, call: Call, known: Any) -> Any:  # noqa: ANN401 - either model
        if call.kind == "update" and known is not None:
            model = known.model_copy()
            model.value = call.value
            return model
        values = {"value": call.value, "created_at": _MOMENT}
        if call.key.startswith("g") and call.key not in self._notes.public:
            _next_id[0] = UUID(int=int(call.key[1:]) + 1)
            return Item.model_validate(values)
        return model_of(call.key).model_validate({**values, "id": id_of(call.key)})

    def _acknowledge(self, call: Call, receipt: Receipt) -> None:
        call.result = OK
        call.version = receipt.version
        self._notes.public.add(call.key)
        call.journalled, call.provisional = receipt.journalled, receipt.provisional
        if receipt.journalled:
            self._notes.settling[call.number] = "pending"
            asyncio.get_running_loop().create_task(self._wait_for(call, receipt))

    async def _wait_for(self, call: Call, receipt: Receipt) -> None:
        try:
            await receipt.settled()
        except OctopusError as error:
            self._notes.settling[call.number] = f"dead: {type(error).__name__}"
        else:
            self._notes.settling[call.number] = "settled"


def records_of(step: Step) -> tuple[str, ...]:
    """The keys that a step is about."""
    return (f"{step.key}a", f"{step.key}b") if step.kind == "unit" else (step.key,)


async def append_unit(calls: Sequence[Call], manager: DaoManager) -> None:
    """Have the journal keep the records of ``calls`` as one unit. Raises JournalError, TimeoutError."""
    assert manager.journal is not None
    plan = manager.plan_of(Named.__name__)
    operations: list[Operation] = []
    for call in calls:
        model = _named(call)
        call.version = await manager._versions.issue(call.deadline)  # noqa: SLF001 - as the writer does
        fields = model.model_dump(mode="json")
        key = Key(Named.__name__, call.key)
        operations.append(Operation(Kind.CREATE, key, call.version, call.version, fields))
    targets = tuple(backend.name for backend in (plan.primary, *plan.replicas))
    await manager.journal.append_unit(operations, targets)
    for call in calls:
        call.result, call.journalled = OK, True
        manager.events.emit(WriteJournalled(Key(Named.__name__, call.key), str(call.version), targets))


def _named(call: Call) -> Named:
    return Named(id=call.key, value=str(call.value), created_at=_MOMENT, updated_at=_MOMENT)


def _said(error: OctopusError) -> str:
    return f"{type(error).__name__}: {error}"
