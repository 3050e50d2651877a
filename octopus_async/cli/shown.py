"""A journal's values as people and programs are shown them: rows of tables, and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from octopus_async.backend import DeadLetter
from octopus_async.cli.output import safe
from octopus_async.journal.inspect import FolderSummary, PendingEntry, Summary
from octopus_async.record import Operation

WRITER_HEADINGS = ("writer", "state", "pending", "oldest", "dead letters", "bytes", "damage")
ENTRY_HEADINGS = ("number", "since", "operation", "model", "id", "owed to")
LETTER_HEADINGS = ("number", "since", "operation", "model", "id", "refused by", "reason")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table of texts, in which nothing steers the terminal."""
    made = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*(safe(cell) for cell in row))
    return made


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def moment(seconds: float) -> str:
    """A moment in ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


# -- rows ------------------------------------------------------------------------------------------


def writer_row(writer: FolderSummary) -> list[object]:
    """A writer's folder, under WRITER_HEADINGS."""
    by_target = ", ".join(f"{number:,} to {name}" for name, number in writer.pending_by_target.items())
    return [
        writer.name,
        "running" if writer.alive else "ended",
        by_target or "nothing",
        "" if writer.oldest_at is None else moment(writer.oldest_at),
        len(writer.dead_letters),
        f"{writer.bytes:,}",
        len(writer.damage),
    ]


def entry_row(entry: PendingEntry, *, fields: bool) -> list[object]:
    """An entry that waits, under ENTRY_HEADINGS, perhaps with its record's contents."""
    row = [entry.sequence, moment(entry.at), *_operation_row(entry.operation), ", ".join(entry.targets)]
    return [*row, *_contents(entry.operation, fields=fields)]


def letter_row(letter: DeadLetter, *, fields: bool) -> list[object]:
    """A dead letter, under LETTER_HEADINGS, perhaps with its record's contents."""
    row = [letter.sequence, moment(letter.at), *_operation_row(letter.operation), letter.target]
    return [*row, f"{letter.error}: {letter.reason}", *_contents(letter.operation, fields=fields)]


def headings(names: Sequence[str], *, fields: bool) -> list[str]:
    """Headings, with one for contents where they are shown."""
    return [*names, "contents"] if fields else list(names)


def _operation_row(operation: Operation) -> list[object]:
    return [operation.kind.value, operation.key.model, operation.key.id]


def _contents(operation: Operation, *, fields: bool) -> list[object]:
    return [json.dumps(operation.fields, ensure_ascii=False)] if fields else []


# -- JSON ------------------------------------------------------------------------------------------


def summary_as_json(summary: Summary) -> dict[str, Any]:
    """A journal as JSON; times in ISO 8601."""
    return {
        "path": summary.path,
        "pending": summary.pending,
        "dead_letters": len(summary.dead_letters),
        "damage": len(summary.damage),
        "quarantine": list(summary.quarantine),
        "writers": [_writer_as_json(writer) for writer in summary.folders],
    }


def _writer_as_json(writer: FolderSummary) -> dict[str, Any]:
    return {
        "name": writer.name,
        "alive": writer.alive,
        "pending": writer.pending,
        "pending_by_target": writer.pending_by_target,
        "oldest": None if writer.oldest_at is None else moment(writer.oldest_at),
        "dead_letters": len(writer.dead_letters),
        "bytes": writer.bytes,
        "files": [
            {
                "path": segment.path,
                "bytes": segment.bytes,
                "lines": segment.lines,
                "first": segment.first,
                "last": segment.last,
            }
            for segment in writer.segments
        ],
        "damage": [damage._asdict() for damage in writer.damage],
    }


def _operation_as_json(operation: Operation, *, fields: bool) -> dict[str, Any]:
    members = {
        "op": operation.kind.value,
        "model": operation.key.model,
        "id": operation.key.id,
        "version": operation.version,
    }
    return {**members, "fields": operation.fields} if fields else members


def entry_as_json(entry: PendingEntry, *, fields: bool) -> dict[str, Any]:
    """An entry that waits, as JSON."""
    return {
        "sequence": entry.sequence,
        "at": moment(entry.at),
        **_operation_as_json(entry.operation, fields=fields),
        "targets": list(entry.targets),
        "provisional": entry.provisional,
    }


def letter_as_json(letter: DeadLetter, *, fields: bool) -> dict[str, Any]:
    """A dead letter, as JSON."""
    return {
        "sequence": letter.sequence,
        "at": moment(letter.at),
        **_operation_as_json(letter.operation, fields=fields),
        "target": letter.target,
        "error": letter.error,
        "reason": letter.reason,
    }
