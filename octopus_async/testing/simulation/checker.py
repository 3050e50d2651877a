"""Judges a history against the contract, key by key. It shares no code with what it judges.

The promises: C1 no acknowledged write is lost; C2 linearizable where all is well, and a process
reads its own writes, and never goes back, where it is not; C3 replay never replaces newer data,
and nothing deleted comes back; C4 a rejected write leaves no trace; C5 after healing and draining
replicas equal the primary, and no cache is older. Beside these: nothing is later than its
deadline, nothing stays pending, nothing leaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from octopus_async.testing.simulation.history import (
    NOT_FOUND,
    OK,
    REFUSED,
    REJECTED,
    UNAVAILABLE,
    UNKNOWN,
    Call,
    History,
    Row,
    Terms,
    Violation,
)
from octopus_async.testing.simulation.linearizability import is_linearizable

_LONGEST_SEARCH = 30


def check(history: History) -> list[Violation]:
    """All violations that are found, the gravest first."""
    found: list[Violation] = []
    for key in sorted({call.key for call in history.calls}):
        found += _Record(history, key).violations()
    found += _whole(history)
    return found


def _whole(history: History) -> Iterator[Violation]:
    final = history.final
    for problem in final.problems:
        yield Violation("problem", "", problem)
    for name, owed in final.pending.items():
        yield Violation("drain", "", f"still owed in {name}: {owed}")
    for unit in final.units:
        there = [key for key in unit if key in final.primary]
        if there and len(there) < len(unit):
            yield Violation("C1", unit[0], f"of a unit of work only {there} are there: {unit}")
    for leak in final.leaks:
        yield Violation("leak", "", leak)
    for call in history.calls:
        yield from _on_time(call, history.terms)
        if history.terms.healthy and call.result in (UNKNOWN, REFUSED, UNAVAILABLE):
            yield Violation("availability", call.key, f"refused though everything is well: {call}")


def _on_time(call: Call, terms: Terms) -> Iterator[Violation]:
    if call.responded is None or _was_paused(call, terms):
        return
    if call.responded > call.deadline + terms.slack:
        yield Violation("deadline", call.key, f"{call.responded - call.deadline:.3f} s late: {call}")
    if call.cancelled_at is not None and call.responded > call.cancelled_at + terms.slack:
        yield Violation(
            "deadline", call.key, f"went on for {call.responded - call.cancelled_at:.3f} s: {call}"
        )


def _was_paused(call: Call, terms: Terms) -> bool:
    ended = call.responded if call.responded is not None else call.deadline
    return any(
        process == call.process and begin <= ended and call.invoked <= end
        for process, begin, end in terms.pauses
    )


class _Record:
    """Everything known of one key."""

    def __init__(self, history: History, key: str) -> None:
        self.key = key
        self.terms = history.terms
        self.final = history.final
        self.calls = [call for call in history.calls if call.key == key]
        self.writes = [call for call in self.calls if call.is_write]
        self.reads = [call for call in self.calls if call.kind == "read" and call.result == OK]
        self.by_value = {call.value: call for call in self.writes if call.value is not None}
        letters = [letter for letter in history.final.dead if letter.key == key]
        self.letters = letters
        self.dead = {letter.version for letter in letters if letter.target == "primary"}
        self.acknowledged = [
            call for call in self.writes if call.acknowledged and call.version not in self.dead
        ]
        self.row = history.final.primary.get(key)

    def violations(self) -> Iterator[Violation]:
        """Everything that is wrong with this record."""
        yield from self._nothing_lost()
        yield from self._final_value_is_meant()
        yield from self._nothing_resurrected()
        yield from self._versions_follow_time()
        yield from self._dead_letters_are_due()
        yield from self._dead_letters_were_doubtful()
        for read in self.reads:
            yield from self._value_is_meant(read)
            if self.terms.fresh_reads and not self.letters:
                yield from self._read_is_fresh(read)
        if self.terms.fresh_reads and not self.letters:
            yield from self._refusals_are_due()
        yield from self._linearizable()
        yield from self._replicas_and_caches()

    def _wrong(self, promise: str, text: str) -> Violation:
        return Violation(promise, self.key, text)

    # -- what is stored in the end ---------------------------------------------------------------

    def _nothing_lost(self) -> Iterator[Violation]:
        for call in self.acknowledged:
            if self.row is None:
                if call.kind != "delete":
                    yield self._wrong("C1", f"the primary has nothing of {call}")
            elif self.row.version < _version(call):
                yield self._wrong("C1", f"the primary has the older {self.row.version}: {call}")
            elif self.row.version == call.version and self.row.value != call.value:
                yield self._wrong("C1", f"the primary has {self.row.value} under its version: {call}")

    def _final_value_is_meant(self) -> Iterator[Violation]:
        if self.row is None or self.row.value is None:
            return
        call = self.by_value.get(self.row.value)
        if call is None:
            yield self._wrong("C3", f"nobody wrote what the primary has: {self.row}")
        elif not call.may_apply:
            yield self._wrong("C4", f"the primary has what was refused: {call}")
        elif not call.acknowledged:
            for other in self._own_later(call):
                yield self._wrong("C3", f"{call} landed over the newer {other}")

    def _own_later(self, call: Call) -> Iterator[Call]:
        """Acknowledged writes of the same process that began when ``call`` was certainly over."""
        over = call.deadline + self.terms.slack
        for other in self.acknowledged:
            if other.process == call.process and other.invoked > over and not _was_paused(call, self.terms):
                yield other

    def _nothing_resurrected(self) -> Iterator[Violation]:
        row = self.row
        if row is None or row.value is None:
            return
        for delete in self.acknowledged:
            if delete.kind != "delete" or not row.born <= _version(delete) < row.version:
                continue
            # A delete that waits in a journal gives way to what others write meanwhile.
            rivals = delete.journalled and any(call.process != delete.process for call in self.writes)
            if not rivals and not any(self._creates_since(delete)):
                yield self._wrong("C3", f"born {row.born}, it outlived {delete}")

    def _creates_since(self, delete: Call) -> Iterator[Call]:
        for call in self.writes:
            newer = call.version is None or call.version > _version(delete)
            if call.kind == "create" and call.may_apply and newer:
                yield call

    def _versions_follow_time(self) -> Iterator[Violation]:
        if self.terms.journal_failed:
            return
        for earlier in self.acknowledged:
            for later in self.acknowledged:
                if earlier.responded is None or earlier.responded >= later.invoked:
                    continue
                # Whoever starts on the same journal begins above its ceiling.
                heir = _place(earlier) == _place(later) and self.terms.journalled
                known = (
                    heir or earlier.process == later.process or not (earlier.journalled or later.journalled)
                )
                if known and _version(later) < _version(earlier):
                    yield self._wrong("C3", f"{later} has an older version than {earlier}")

    def _dead_letters_are_due(self) -> Iterator[Violation]:
        """A dead letter needs a reason: a rival for the key, or a value that the primary rejects."""
        for letter in self.letters:
            if letter.target != "primary":
                yield self._wrong("C5", f"a dead letter of a replica: {letter}")
                continue
            forbidden = any((call.value or "").startswith(self.terms.forbidden) for call in self.writes)
            rivals = len({call.process for call in self.writes}) > 1
            unsure = any(call.may_apply and not call.acknowledged for call in self.writes)
            if not (forbidden or rivals or unsure or self._unasked_write()):
                yield self._wrong("C1", f"a dead letter without a reason: {letter}")

    def _dead_letters_were_doubtful(self) -> Iterator[Violation]:
        """Whoever was not told that it is provisional may rely on it."""
        if self.key.startswith("g"):
            return  # generated ids, which only this workload creates several times
        for call in self.writes:
            if call.acknowledged and call.version in self.dead and not call.provisional:
                yield self._wrong("C1", f"a dead letter whose receipt was not provisional: {call}")

    def _unasked_write(self) -> bool:
        """Whether a write was accepted unasked, in an outage, that the state before may have forbidden."""
        return any(
            call.version in self.dead and other.may_apply and other.invoked <= call.invoked
            for call in self.writes
            for other in self.writes
            if other is not call
            and (call.kind, other.kind) in (("create", "create"), ("create", "update"), ("update", "delete"))
        )

    # -- what was read ---------------------------------------------------------------------------

    def _value_is_meant(self, read: Call) -> Iterator[Violation]:
        if read.seen is None:
            return
        call = self.by_value.get(read.seen)
        if call is None:
            yield self._wrong("C2", f"nobody wrote what was read: {read}")
        elif read.responded is not None and call.invoked > read.responded:
            yield self._wrong("C2", f"read before it was written: {read}: {call}")
        elif call.version is not None and call.version != read.version:
            yield self._wrong("C2", f"read under another version: {read}: {call}")
        elif call.result in (REJECTED, NOT_FOUND, REFUSED) and not self._may_be_seen(call, read):
            yield self._wrong("C4", f"what was refused was read: {read}: {call}")

    def _may_be_seen(self, call: Call, read: Call) -> bool:
        """What a cache was given too early may be seen by another process, until it is taken back."""
        return self.terms.early_caches and (call.process != read.process or self._came_back(call, read))

    def _came_back(self, call: Call, read: Call) -> bool:
        """Whether a cache had it before it was taken back, and came back with it from a crash.

        What a crash leaves stale in a cache is stale no longer than the time to live, which counts on.
        """
        ended = read.deadline if read.responded is None else read.responded
        return any(
            call.invoked <= had and back <= ended and read.invoked <= had + self.terms.ttl
            for had, back in self.terms.relapses
        )

    def _read_is_fresh(self, read: Call) -> Iterator[Violation]:
        """It shows nothing older than what this process wrote or read before."""
        for earlier in self._seen_before(read):
            if read.seen is not None:
                if str(read.version) < _version(earlier):
                    yield self._wrong("C2", f"older than what the process knew: {read}: {earlier}")
                    return
            elif earlier.kind != "delete" and not any(self._deletes_since(earlier, read)):
                yield self._wrong("C2", f"nothing where the process knew something: {read}: {earlier}")
                return

    def _seen_before(self, read: Call) -> Iterator[Call]:
        for call in self.calls:
            if call.process != read.process or call.responded is None or call.responded >= read.invoked:
                continue
            if call.acknowledged:
                yield call
            elif self.terms.alone and call.kind == "read" and call.seen is not None:
                # What others wrote may be seen and then unseen, for a cache's time to live.
                yield call

    def _deletes_since(self, earlier: Call, read: Call) -> Iterator[Call]:
        for call in self.writes:
            if call.kind != "delete" or not call.may_apply or call.invoked > (read.responded or 0.0):
                continue
            if call.version is None or call.version > _version(earlier):
                yield call

    def _refusals_are_due(self) -> Iterator[Violation]:
        """Nobody is told of a duplicate, or of nothing, where there cannot have been one."""
        for call in self.writes:
            if call.kind == "create" and call.error.startswith("DuplicateRecord"):
                makers = [other for other in self.writes if other is not call and other.kind != "delete"]
                if not any(other.may_apply and other.invoked <= (call.responded or 0.0) for other in makers):
                    yield self._wrong("C2", f"no other can have been there: {call}")
            elif call.result == NOT_FOUND and self.terms.alone:
                yield from self._absence_is_due(call)

    def _absence_is_due(self, call: Call) -> Iterator[Violation]:
        for earlier in self.acknowledged:
            if earlier.kind == "delete" or earlier.responded is None or earlier.responded >= call.invoked:
                continue
            if not any(self._deletes_since(earlier, call)):
                yield self._wrong("C2", f"not found although it was there: {call}: {earlier}")
                return

    def _linearizable(self) -> Iterator[Violation]:
        terms = self.terms
        judged = terms.healthy and terms.alone and terms.fresh_reads and len(self.calls) <= _LONGEST_SEARCH
        if judged and not is_linearizable(self.calls):
            yield self._wrong("C2", "no order of these calls explains their results")

    # -- replicas and caches ---------------------------------------------------------------------

    def _replicas_and_caches(self) -> Iterator[Violation]:
        final = self.final
        replicas = final.replicas.items() if self.terms.replicas_kept else ()
        for name, rows in replicas:
            if not _equal(rows.get(self.key), self.row):
                yield self._wrong("C5", f"{name} has {rows.get(self.key)}, the primary {self.row}")
        caches = list(final.caches_later.items())
        if self.terms.steady_caches and not self._landed_untold():
            caches += final.caches_at_once.items()
        for name, rows in caches:
            cached = rows.get(self.key)
            if cached is not None and not _equal(cached, self.row):
                yield self._wrong("C5", f"{name} serves {cached}, the primary has {self.row}")
        yield from self._replay_told_caches()
        for process, found in final.reads.items():
            version, value = found.get(self.key, (None, None))
            wanted = (
                (self.row.version, self.row.value)
                if self.row and self.row.value is not None
                else (None, None)
            )
            if (version, value) != wanted:
                yield self._wrong(
                    "C5", f"{process} reads {value} {version} in the end, the primary has {self.row}"
                )

    def _landed_untold(self) -> bool:
        """Whether the primary holds a write that nobody was told is there.

        It may have landed when its caches had been cleared of it and filled anew with what was there
        before: they serve that until their time to live is over, and no longer.
        """
        told = {_version(call) for call in self.acknowledged}
        return self.row is not None and self.row.version not in told

    def _replay_told_caches(self) -> Iterator[Violation]:
        """What waited in a journal is, once the primary has it, in every cache, or nothing older is."""
        if self.letters or self.key in self.final.forgotten:
            return
        for name in self.terms.told_caches:
            cached = self.final.caches_at_once.get(name, {}).get(self.key)
            for call in self.acknowledged:
                if cached is not None and call.journalled and cached.version < _version(call):
                    yield self._wrong("C5", f"{name} was not told at replay, it serves {cached}: {call}")


def _equal(one: Row | None, other: Row | None) -> bool:
    """A tombstone is as good as nothing, and as any other."""
    if one is None or other is None:
        return (one or other) is None or (one or other).value is None  # type: ignore[union-attr]
    return (one.version, one.value) == (other.version, other.value) or one.value is other.value is None


def _place(call: Call) -> str:
    """Where a process runs: that of its successors too."""
    return call.process.partition(".")[0]


def _version(call: Call) -> str:
    return call.version or ""


def history_of(history: History, keys: Iterable[str]) -> str:
    """The calls of these keys, for a person to read."""
    wanted: Sequence[str] = sorted(keys)
    lines: list[str] = []
    for key in wanted:
        lines += [str(call) for call in history.calls if call.key == key]
        lines.append(f"  in the end: primary {history.final.primary.get(key)}")
        lines += [f"  {name} {rows.get(key)}" for name, rows in history.final.replicas.items()]
        lines += [f"  {name} at once {rows.get(key)}" for name, rows in history.final.caches_at_once.items()]
        lines += [f"  dead letter {letter}" for letter in history.final.dead if letter.key == key]
    return "\n".join(lines)
