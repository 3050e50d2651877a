"""What the drill found, as one object and as a verdict for a person."""

from __future__ import annotations

from dataclasses import dataclass, field

from octopus_async.cli.drill.ledger import Fate, Fault, Ledger
from octopus_async.cli.drill.meter import PhaseRecord, Sample

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Report:
    """A drill from its end. ``seconds`` is its length; ``pending`` what the journal and caches are owed."""

    primary: str
    cache: str
    seed: int
    seconds: float
    ledger: Ledger
    phases: list[PhaseRecord]
    samples: list[Sample] = field(repr=False)
    records: int
    held: int
    replayed: int
    dead_letters: int
    pending: int

    @property
    def passed(self) -> bool:
        """Whether promises were put to the test, all were kept, and nothing is left to be done."""
        return self.ledger.journalled > 0 and not self._wrongs()

    @property
    def acknowledged(self) -> int:
        """How many writes were acknowledged."""
        return self.ledger.fates[Fate.ACKNOWLEDGED]

    def as_json(self) -> dict[str, object]:
        """The report as one JSON object."""
        faults = self.ledger.faults
        return {
            "passed": self.passed,
            "primary": self.primary,
            "cache": self.cache,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "acknowledged": self.acknowledged,
            "failed": faults[Fault.FAILED],
            "lost": faults[Fault.LOST],
            "resurrected": faults[Fault.RESURRECTED],
            "stale_reads": faults[Fault.STALE],
            "refused_reads": self.ledger.refused_reads,
            "journalled": self.ledger.journalled,
            "replayed": self.replayed,
            "dead_letters": self.dead_letters,
            "pending": self.pending,
            "records": self.records,
            "held": self.held,
            "phases": [phase.as_json() for phase in self.phases],
            "examples": {fault.name.lower(): texts for fault, texts in self.ledger.examples.items() if texts},
        }

    def verdict(self) -> list[str]:
        """Sentences: the verdict first, then what it rests on, then examples of what went wrong."""
        return [self._headline(), *self._basis(), *self._examples()]

    def _headline(self) -> str:
        if self.passed:
            return "PASSED: nothing that was acknowledged was lost, and nothing stale was read."
        return f"FAILED: {', '.join(self._wrongs()) or 'no write met an outage, so nothing was proved'}."

    def _wrongs(self) -> list[str]:
        faults = self.ledger.faults
        counted = (
            (faults[Fault.LOST], "acknowledged write", "was lost", "were lost"),
            (faults[Fault.RESURRECTED], "record", "came back", "came back"),
            (faults[Fault.STALE], "read", "was stale", "were stale"),
            (faults[Fault.FAILED], "operation", "failed", "failed"),
            (self.dead_letters, "write", "became a dead letter", "became dead letters"),
            (self.pending, "write", "is still owed", "are still owed"),
        )
        return [
            f"1 {noun} {one}" if count == 1 else f"{count:,} {noun}s {many}"
            for count, noun, one, many in counted
            if count
        ]

    def _basis(self) -> list[str]:
        reads = sum(phase.tally.reads.count for phase in self.phases)
        compared = "each as it was promised" if self.passed else "compared with what was promised"
        journalled, refused = self.ledger.journalled, self.ledger.refused_reads
        sentences = [
            f"{self.acknowledged:,} writes to {self.records:,} records were acknowledged.",
            f"{journalled:,} of them went to the journal; {self.replayed:,} were replayed.",
            f"{self.primary}, read with its own driver in the end, holds {self.held:,} records, {compared}.",
            f"{reads:,} reads were answered.",
        ]
        if refused:
            sentences.append(
                f"{refused:,} reads were refused while both backends were down: nobody could know."
            )
        return sentences

    def _examples(self) -> list[str]:
        kinds = self.ledger.examples.items()
        return [f"{fault.name.lower()}: {text}" for fault, texts in kinds for text in texts[:_SHOWN]]
