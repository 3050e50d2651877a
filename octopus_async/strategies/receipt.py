"""What a caller is told of an acknowledged write."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from octopus_async.backend import Journal
from octopus_async.record import Key, Outcome


class Receipt:
    """An acknowledged write.

    Attributes:
        key: the record.
        version: the version that the write gave it.
        journalled: whether the primary could not take it, and the journal holds it.
        provisional: whether the primary may still refuse it, because it could not be asked: others
            may have created the same id or value, or deleted what is updated.
    """

    __slots__ = ("_journal", "_outcomes", "_primary", "_sequence", "key", "provisional", "version")

    def __init__(  # noqa: PLR0913 - a plain value, made in one place
        self,
        key: Key,
        version: str,
        primary: str,
        outcomes: dict[str, Outcome],
        *,
        journal: Journal | None = None,
        sequence: int | None = None,
        provisional: bool = False,
    ) -> None:
        self.key = key
        self.version = version
        self.provisional = provisional
        self._primary = primary
        self._outcomes = outcomes
        self._journal = journal
        self._sequence = sequence

    @property
    def journalled(self) -> bool:
        """Whether the journal holds it in the primary's place."""
        return self._sequence is not None

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """What each backend answered, by its name. Those that have not answered yet are absent."""
        return MappingProxyType(self._outcomes)

    async def settled(self) -> None:
        """Wait until the primary has it. Bound the wait with ``asyncio.timeout``.

        Raises:
            RecordRejected, RecordNotFound: the primary refused it at replay; it is a dead letter.
            JournalError: it became a dead letter for another reason, which the message gives.
        """
        if self._sequence is not None and self._journal is not None:
            await self._journal.settled(self._sequence, self._primary)

    def __repr__(self) -> str:
        said = ", ".join(f"{name}: {outcome.status.value}" for name, outcome in self._outcomes.items())
        where = " journalled" if self.journalled else ""
        return f"<Receipt {self.key} {self.version}{where} ({said})>"
