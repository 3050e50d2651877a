"""The comparison in the end: every acknowledged write against what the primary holds. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from octopus_async.cli.drill.ledger import Fault, Ledger, Name


class HeldRecord(Protocol):
    """What the primary holds of a record."""

    @property
    def name(self) -> Name:
        """Which record it claims to be."""
        ...

    @property
    def step(self) -> int:
        """The step that it claims to be the state of."""
        ...

    @property
    def intact(self) -> bool:
        """Whether all its fields belong to that step."""
        ...


def compare(ledger: Ledger, held: Iterable[HeldRecord], dead: Collection[str] = ()) -> None:
    """Note in the ledger what was lost, and what is there although it should not be.

    Args:
        ledger: what was promised.
        held: what the primary holds.
        dead: the ids of records with dead letters, whose callers were told.
    """
    steps: dict[Name, int] = {}
    for record in held:
        name, step = record.name, record.step
        history = ledger.by_name.get(name)
        if history is None or not 0 < step <= history.newest or name in steps:
            ledger.note(Fault.RESURRECTED, f"{name}: the primary holds a step {step} that nobody wrote")
            continue
        if not record.intact:
            ledger.note(Fault.LOST, f"{name}: the primary holds step {step} with other contents")
        steps[name] = step
    for history in ledger.histories:
        found = history.stored(steps.get(history.name))
        if found is not None and not (found[0] is Fault.LOST and str(history.id) in dead):
            ledger.note(*found)
