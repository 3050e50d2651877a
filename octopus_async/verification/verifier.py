"""Walks through all records of a system: the primary's, looked up everywhere; then the replicas' own."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b

from octopus_async.clock import is_version
from octopus_async.errors import ConfigurationError, SchemaMismatch
from octopus_async.guard import Guard
from octopus_async.record import Key, Record
from octopus_async.schema import Schema
from octopus_async.strategies.plan import Plan
from octopus_async.verification.difference import Difference, Pair
from octopus_async.verification.mending import mend
from octopus_async.verification.owed import Owed
from octopus_async.verification.report import Divergence, Position, Report, Side, State
from octopus_async.verification.stores import Stores, Suspect
from octopus_async.verification.suspicion import Suspicion

_MOST_SUSPECTS = 500
_EVERY = 0.25


@dataclass(frozen=True, slots=True)
class Options:
    """What is compared, and what is done about it.

    Attributes:
        fraction: the share of records that is compared, chosen at random; 1 for all.
        since: only what is newer than this version; empty for everything.
        repair: mend what differs.
        primary_wins: mend too where a replica has what the primary does not: it is forgotten.
        settle: seconds within which a write has ended, or is in the journal: the deadline of the
            service's operations, and something more.
        described: how many divergences are described; all are counted.
        batch: how many records are looked up at a time.
        fresh: the service makes tables at a model's first use: there may be none yet.
        skip: names of backends to leave out, and why.
    """

    fraction: float = 1.0
    since: str = ""
    repair: bool = False
    primary_wins: bool = False
    settle: float = 6.0
    described: int = 100
    batch: int = 500
    fresh: bool = False
    skip: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigurationError(f"the share to compare is above 0 and at most 1, not {self.fraction!r}")
        if self.since and not is_version(self.since):
            raise ConfigurationError(f"not a version: {self.since[:40]!r}")
        if self.primary_wins and not self.repair:
            raise ConfigurationError("primary_wins says how to repair: ask for the repair as well")
        if not 0 <= self.settle < math.inf:
            raise ConfigurationError(f"settle is a number of seconds, not {self.settle!r}")


class Verifier:
    """Compares replicas and caches with their primary, while all of them are in use.

    Parameters:
        guards: the backends by name.
        plan_of: where a model goes, by its name.
        schemas: the models to compare, which the guards have learnt.
        owed: what is going to be made up.
        options: what is compared.
        wall: seconds since 1970.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of, and what it is told
        self,
        guards: Mapping[str, Guard],
        plan_of: Callable[[str], Plan],
        schemas: Sequence[Schema],
        owed: Owed,
        options: Options | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.options = options or Options()
        self._guards = guards
        self._plan_of = plan_of
        self._schemas = {schema.model: schema for schema in schemas}
        self._owed = owed
        self._wall = wall

    def state(self) -> State:
        """Where a comparison begins."""
        skipped = dict(self.options.skip)
        steps = []
        for model in self._schemas:
            plan = self._plan_of(model)
            steps.append((model, plan.primary.name))
            for replica in plan.replicas:
                if not replica.capabilities.readable:
                    skipped[replica.name] = "it can only be written to"
                elif not replica.capabilities.scan:
                    skipped[replica.name] = "it cannot list its records: surplus ones were not looked for"
                elif replica.name not in skipped:
                    steps.append((model, replica.name))
        state = State(steps, self.options.fraction, secrets.randbits(63), self.options.since)
        state.report.skipped = skipped
        return state

    async def run(
        self,
        state: State | None = None,
        *,
        keep: Callable[[State], None] = lambda _: None,
        tell: Callable[[str, str, int, int | None], None] = lambda *_: None,
    ) -> Report:
        """Compare everything, or go on from where an earlier run has come to.

        Parameters:
            state: where to begin; it is moved on.
            keep: is given the state whenever everything up to there has been dealt with.
            tell: is told model and backend, how many of its records were read in this run, and of
                how many if that is known.

        Raises:
            Unavailable: the primary or a replica failed again and again.
            JournalError: the journal cannot be read.
            OperationNotSupported: the primary cannot list its records.
        """
        state = state or self.state()
        await self._owed.look()
        lengths: dict[str, int] = {}
        while state.step < len(state.steps):
            model, backend = state.steps[state.step]
            try:
                walk = _Walk(self, model, backend, state, keep)
                read = await walk.run(partial(tell, model, backend), lengths.get(model))
                lengths.setdefault(model, read)
            except SchemaMismatch as error:
                self._note(state.report, model, backend, error)
            state.step, state.position = state.step + 1, None
            keep(state)
        await self._owed.look()
        state.report.pending = {name: number for name, number in self._owed.pending().items() if number}
        return state.report

    def _note(self, report: Report, model: str, walked: str, error: SchemaMismatch) -> None:
        """A model whose table does not fit keeps no other from being compared."""
        notes = report.skipped if self.options.fresh and error.backend == walked else report.unasked
        notes[f"{error.backend}, {model}"] = str(error)

    def stores(self, model: str, report: Report) -> Stores:
        """The backends of a model that are compared."""
        plan = self._plan_of(model)
        asked = [it for it in (*plan.replicas, *plan.caches) if it.capabilities.readable]
        guards = [self._guards[it.name] for it in asked if it.name not in self.options.skip]
        return Stores(
            self._schemas[model],
            self._guards[plan.primary.name],
            [guard for guard in guards if guard.capabilities.durable],
            [guard for guard in guards if not guard.capabilities.durable],
            report.unasked,
        )

    def suspicion(self, report: Report) -> Suspicion:
        """What tells divergences from changes under way."""
        return Suspicion(self._owed, report, settle=self.options.settle, wall=self._wall)

    def explained(self, stores: Stores, suspect: Suspect, found: Difference, pair: Pair) -> Divergence:
        """A divergence with its likely cause."""
        key, backend = suspect
        cause = stores.cause(backend, found, pair, self._owed.letters(key))
        sides = (Side.of(pair.primary), Side.of(pair.other))
        return Divergence(backend, stores.role(backend), *key, found.value, *sides, cause)


class _Walk:
    """One scan: of the primary, whose records are looked up everywhere; or of a replica, for its own."""

    def __init__(
        self, verifier: Verifier, model: str, backend: str, state: State, keep: Callable[[State], None]
    ) -> None:
        self._verifier = verifier
        self._options = verifier.options
        self._backend = backend
        self._state = state
        self._report = state.report
        self._keep = keep
        self._stores = verifier.stores(model, self._report)
        self._suspicion = verifier.suspicion(self._report)
        self._suspects: set[Suspect] = set()

    async def run(self, tell: Callable[[int, int | None], None], length: int | None) -> int:
        """Walk to the end, which is about ``length`` records away; gives how many were read."""
        state, stores, loop = self._state, self._stores, asyncio.get_running_loop()
        read, kept = 0, -math.inf
        beyond = None if state.position is None else state.position.as_record(stores.schema.model)
        pages = stores.pages(self._backend, state.since, self._options.batch, beyond)
        async with aclosing(pages):
            async for page in pages:
                await self._compare([record for record in page if self._is_chosen(record.key)])
                read += len(page)
                tell(read, None if length is None else max(length, read))
                if len(self._suspects) >= _MOST_SUSPECTS or loop.time() - kept > _EVERY:
                    await self._settle()
                    state.position = Position.of(page[-1])
                    self._keep(state)
                    kept = loop.time()
        await self._settle()
        return read

    def _is_chosen(self, key: Key) -> bool:
        fraction = self._state.fraction
        if fraction == 1:
            return True
        name = f"{key.model}:{key.id}".encode(errors="surrogatepass")
        number = blake2b(name, digest_size=8, key=self._state.seed.to_bytes(8)).digest()
        return int.from_bytes(number) < fraction * 2**64

    async def _compare(self, records: Sequence[Record]) -> None:
        if self._backend == self._stores.primary.name:
            await self._compare_everywhere(records)
        else:
            await self._compare_unmet(records)

    async def _compare_everywhere(self, records: Sequence[Record]) -> None:
        stores, keys = self._stores, [record.key for record in records]
        self._report.compared += len(records)
        self._report.unversioned += sum(not record.version for record in records)
        held = await stores.each((*stores.replicas, *stores.caches), lambda _: keys)
        for name, there in held.items():
            for record in records:
                self._suspect(name, Pair(record, there.get(record.key)))

    async def _compare_unmet(self, records: Sequence[Record]) -> None:
        """Compare what the walk through the primary did not meet: it is not there, or not as new."""
        stores, since = self._stores, self._state.since
        primary = await stores.held(stores.primary.name, [record.key for record in records])
        unmet = {
            record.key: record
            for record in records
            if record.key not in primary or (since and primary[record.key].version <= since)
        }
        # One replica of several is enough to find what caches hold beside them.
        caches = stores.caches if self._backend == next(iter(stores.replicas)) else ()
        held = await stores.each(caches, lambda _: list(unmet))
        for name, there in {**held, self._backend: unmet}.items():
            for key, record in there.items():
                self._suspect(name, Pair(primary.get(key), record))

    def _suspect(self, backend: str, pair: Pair) -> None:
        record = pair.primary or pair.other
        if record is None or self._stores.difference(backend, pair) is None:
            return
        suspect = Suspect(record.key, backend)
        if not self._suspicion.is_owed(self._stores, suspect):
            self._suspects.add(suspect)

    async def _settle(self) -> None:
        """Find out which of the suspects differ, and mend these if that is wanted."""
        suspects, self._suspects = self._suspects, set()
        found = await self._suspicion.settled(self._stores, suspects)
        problems: Mapping[Suspect, str | None] = {}
        if self._options.repair and found:
            problems = await mend(self._stores, found, primary_wins=self._options.primary_wins)
        for suspect, (kind, pair) in sorted(found.items()):
            divergence = self._verifier.explained(self._stores, suspect, kind, pair)
            if suspect in problems:
                problem = problems[suspect]
                divergence = replace(divergence, mended=problem is None, problem=problem)
            self._take_down(divergence)

    def _take_down(self, divergence: Divergence) -> None:
        report = self._report
        report.found[divergence.kind] = report.found.get(divergence.kind, 0) + 1
        report.mended += divergence.mended
        if len(report.divergences) < self._options.described:
            report.divergences.append(divergence)
