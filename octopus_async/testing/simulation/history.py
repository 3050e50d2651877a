"""What happened in a run, in plain values: what clients were told, and what is stored at the end.

The checker judges from this alone, and neither module imports anything of the library.
"""

from __future__ import annotations

from dataclasses import dataclass, field

OPEN = "open"
"""The client never heard of it again: its process died."""
OK = "ok"
CANCELLED = "cancelled"
UNKNOWN = "unknown"
"""It was refused with the words that it may still be applied."""
REFUSED = "refused"
"""It was refused with the words that nothing was written."""
REJECTED = "rejected"
NOT_FOUND = "not found"
UNAVAILABLE = "unavailable"
"""A read that nobody could answer."""
WRITES = ("create", "update", "delete")


@dataclass(slots=True)
class Call:
    """One call of a client. Times are virtual seconds.

    Attributes:
        number: in the order of invocation.
        process: the name of the process; a restarted one has another.
        client: who called, within its process.
        kind: create, update, delete, read or exists.
        key: the record's model and id.
        value: the value that it writes; unique to this call. None for the others.
        expects: the value on whose version the write depends; None for no condition.
        conditional: whether there is such a condition.
        invoked: when it was made.
        deadline: when it has to have ended.
        responded: when it ended; None if it never did.
        cancelled_at: when its caller was cancelled, if it was.
        result: one of the words above.
        error: the class name of the error, and what it said.
        version: of the acknowledged write, or of what was read.
        seen: the value that was read; None for nothing.
        journalled: whether the receipt said so.
        provisional: whether the receipt said so.
    """

    number: int
    process: str
    client: int
    kind: str
    key: str
    value: str | None
    invoked: float
    deadline: float
    expects: str | None = None
    conditional: bool = False
    responded: float | None = None
    cancelled_at: float | None = None
    result: str = OPEN
    error: str = ""
    version: str | None = None
    seen: str | None = None
    journalled: bool = False
    provisional: bool = False

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.kind in WRITES

    @property
    def acknowledged(self) -> bool:
        """Whether it is a write whose caller was told that it is written."""
        return self.is_write and self.result == OK

    @property
    def may_apply(self) -> bool:
        """Whether it is a write that may have taken effect, as far as its caller knows."""
        return self.is_write and self.result in (OK, OPEN, CANCELLED, UNKNOWN)

    def __str__(self) -> str:
        ended = "never" if self.responded is None else f"{self.responded:8.4f}"
        what = f"{self.kind} {self.key}"
        if self.value is not None:
            what += f" = {self.value}"
        if self.conditional:
            what += f" if {self.expects}"
        said = self.result
        if self.kind in ("read", "exists") and self.result == OK:
            said += f" {self.seen}"
        marks = " journalled" * self.journalled + " provisional" * self.provisional
        version = f" {self.version}" if self.version else ""
        error = f" ({self.error})" if self.error else ""
        return (
            f"#{self.number:<3} {self.process:>5}/{self.client} {self.invoked:8.4f} - {ended}  "
            f"{what:<34} {said}{marks}{version}{error}"
        )


@dataclass(frozen=True, slots=True)
class Row:
    """What a store holds for a key. ``value`` is None for a tombstone."""

    version: str
    born: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter: whose target, and which versions it took along."""

    target: str
    key: str
    version: str
    error: str


@dataclass(slots=True)
class Final:
    """What is stored after healing and draining.

    Attributes:
        primary: the primary's rows by key.
        replicas: each replica's rows, by its name.
        caches: what each cache would serve, by its name: at once, and after its time to live.
        dead: all dead letters.
        reads: what each living process read of each key in the end: version and value.
        pending: what was still owed to whom when the drain's time was over.
        units: the keys that each unit of work wrote, all of them or none.
        forgotten: keys of which a process still had to tell a cache when it died.
        leaks: what was still held: tasks, locks, permits, futures.
        problems: what went wrong beside all this, in words.
    """

    primary: dict[str, Row] = field(default_factory=dict)
    replicas: dict[str, dict[str, Row]] = field(default_factory=dict)
    caches_at_once: dict[str, dict[str, Row]] = field(default_factory=dict)
    caches_later: dict[str, dict[str, Row]] = field(default_factory=dict)
    dead: list[Dead] = field(default_factory=list)
    reads: dict[str, dict[str, tuple[str | None, str | None]]] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    units: list[tuple[str, ...]] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)
    leaks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Terms:
    """What may be expected of a run, given what was done to it.

    Attributes:
        healthy: no fault at all but cancellations and timeouts.
        alone: one process, which never died.
        steady_caches: no cache lost or regained contents, and none belongs to another process,
            so that none may be stale after the drain even within its time to live.
        fresh_reads: reads go to caches and primary in order, so that they are as fresh as these.
        early_caches: whether caches are told before the primary could reject.
        replicas_kept: whether there is a journal to keep what replicas missed.
        journalled: whether there is a journal.
        journal_failed: whether the journal's disk failed, so that it could not keep its ceiling.
        told_caches: the caches that hold nothing older than what was replayed, as they did not
            come back with old contents.
        relapses: when a cache had what it came back with later, and when it came back.
        ttl: seconds after which caches forget.
        pauses: when which process was stopped: name, from, until.
        forbidden: the word by which the primary rejects a value.
        slack: seconds by which an operation may miss its deadline.
    """

    healthy: bool
    alone: bool
    steady_caches: bool
    fresh_reads: bool
    early_caches: bool
    replicas_kept: bool
    journalled: bool
    journal_failed: bool
    told_caches: tuple[str, ...] = ()
    relapses: tuple[tuple[float, float], ...] = ()
    ttl: float = 0.0
    pauses: tuple[tuple[str, float, float], ...] = ()
    forbidden: str = "bad"
    slack: float = 0.1


@dataclass(slots=True)
class History:
    """All calls of a run, what is stored in the end, and what may be expected of both."""

    calls: list[Call]
    final: Final
    terms: Terms


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: which, of which key, and how."""

    promise: str
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.key}: {self.text}" if self.key else f"{self.promise}: {self.text}"
