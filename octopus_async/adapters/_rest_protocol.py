"""The wire protocol of `docs/backends/rest.md`: requests to write, answers to understand. Pure.

What an answer says about a record is an allow-list of status and outcome together, from a service that says
that it speaks this protocol. Whatever else comes back, from a proxy, a wrong path or a service that is
unwell, is unavailability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from pydantic_core import from_json, to_json

from octopus_async.cachevalue import decode_fields
from octopus_async.clock import is_version
from octopus_async.errors import (
    BackendFailed,
    ConstraintViolated,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.record import (
    APPLIED,
    NO_VERSION,
    Key,
    Kind,
    Mode,
    Operation,
    Outcome,
    Record,
    Status,
    duplicate,
    failed,
    not_found,
    rejected,
    stale,
)
from octopus_async.schema import Schema

PROTOCOL = "1"
H_PROTOCOL, H_OUTCOME, H_BORN, H_KIND, H_MODE = (
    f"Octopus-{name}" for name in ("Protocol", "Outcome", "Born", "Kind", "Mode")
)
JSON = "application/json"
_GOOD, _ABSENT, _CONFLICT, _GONE, _STALE = 200, 404, 409, 410, 412
_OUTCOMES = {
    (200, "applied"),
    (201, "applied"),
    (204, "applied"),
    (_STALE, "superseded"),
    (_STALE, "stale"),
    (_CONFLICT, "duplicate"),
    (_ABSENT, "not-found"),
    (_GONE, "not-found"),
    (_CONFLICT, "refused"),
    (413, "refused"),
    (422, "refused"),
}
_DETAIL_LIMIT = 300


class Answer(NamedTuple):
    """An answer as it came.

    Attributes:
        status: of HTTP.
        headers: with names in lower case.
        body: whole.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def outcome(self) -> str:
        """What the service says became of the request; empty for what does not speak the protocol."""
        return self.headers.get(H_OUTCOME.lower(), "") if self.speaks else ""

    @property
    def speaks(self) -> bool:
        """Whether it is of a service of this protocol."""
        return self.headers.get(H_PROTOCOL.lower()) == PROTOCOL

    @property
    def version(self) -> str | None:
        """The version that is stored, where it says so."""
        tag = self.headers.get("etag", "")
        version = tag[1:-1] if len(tag) > 1 and tag[0] == tag[-1] == '"' else None
        return version if version is not None and (version == NO_VERSION or is_version(version)) else None


class Malformed(ValueError):
    """An answer that is none of the protocol's."""


def segment(text: str) -> str | None:
    """A text as one segment of a path; None for what no URL can carry as one."""
    # Whoever normalises a path takes these for steps within it, percent-encoded or not (RFC 3986, 5.2.4).
    return None if text in ("", ".", "..") else quote(text, safe="")


def path_of(key: Key) -> str | None:
    """Where a record is, below the base; None where it can't be."""
    model, identity = segment(key.model), segment(key.id)
    return None if model is None or identity is None else f"/{model}/{identity}"


def headers_of(operation: Operation, mode: Mode) -> dict[str, str]:
    """What a write says beside its body."""
    headers = {
        "Idempotency-Key": f'"{operation.version}"',
        H_KIND: operation.kind.value,
        H_MODE: mode.value,
    }
    if operation.born != NO_VERSION:
        headers[H_BORN] = operation.born
    if operation.if_version is not None and mode in (Mode.LIVE, Mode.MEND):
        headers["If-Match"] = f'"{operation.if_version}"'
    elif mode is Mode.LIVE and operation.kind is Kind.CREATE:
        headers["If-None-Match"] = "*"
    elif mode is Mode.LIVE and operation.kind is Kind.UPDATE:
        headers["If-Match"] = "*"
    return headers


def record_in(answer: Answer, key: Key) -> Record | None:
    """What was read: a record, a tombstone or nothing. Raises `Malformed`."""
    if answer.status == _ABSENT and answer.outcome == "absent":
        return None
    version, born = answer.version, answer.headers.get(H_BORN.lower(), NO_VERSION)
    if not answer.speaks or version is None or not _is_born(born):
        raise Malformed(says(answer))
    if answer.status == _GONE:
        return Record(key, version, born, None)
    if answer.status != _GOOD or not is_json(answer):
        raise Malformed(says(answer))
    return Record(key, version, born, _decoded(answer.body))


def outcome_in(answer: Answer, operation: Operation, backend: str) -> Outcome:
    """What became of a write."""
    if (answer.status, answer.outcome) in _OUTCOMES:
        detail = _detail(answer.body) if answer.outcome == "refused" and is_json(answer) else ""
        outcome = outcome_of(answer.outcome, answer.version, detail, operation, backend)
        if outcome is not None:
            return outcome
    return failed(failure_of(answer, operation.key.model, backend))


def outcome_of(
    word: str, stored: str | None, detail: str, operation: Operation, backend: str
) -> Outcome | None:
    """What a service's word for an outcome means; None for what is no word of the protocol."""
    if word == "applied":
        return APPLIED
    if word == "superseded":
        return Outcome(Status.SUPERSEDED, stored=stored) if stored else None
    if word == "stale":
        return None if stored is None else rejected(stale(operation.key, stored), stored)
    refused = ConstraintViolated(f"{backend} refused the record: {detail or 'it does not say why'}")
    errors = {
        "duplicate": duplicate(operation.key),
        "not-found": not_found(operation.key),
        "refused": refused,
    }
    return rejected(errors[word], stored) if word in errors else None


def failure_of(answer: Answer, model: str, backend: str, problem: str = "") -> Unavailable:
    """The error for an answer that says nothing about a record."""
    if answer.outcome == "unknown-model":
        unknown = f"the service does not know the model {model}: add it there, or set create_tables"
        return SchemaMismatch(f"{backend}: {unknown}", backend=backend)
    return BackendFailed(
        f"{backend}: {problem or says(answer)}",
        backend=backend,
        retry_after=_seconds(answer.headers.get("retry-after", "")),
        # Only a service of this protocol can say that it did nothing: a proxy does not know.
        sent=answer.outcome != "unavailable",
    )


def says(answer: Answer) -> str:
    """An answer for a person, without a word of its body or of a redirect's target."""
    if not answer.speaks:
        return f"HTTP {answer.status} without {H_PROTOCOL}: {PROTOCOL}; is the base URL right?"
    outcome = f" and {answer.outcome[:40]!r}" if answer.outcome else ""
    return f"HTTP {answer.status}{outcome}, which is no answer of the protocol"


def is_json(answer: Answer) -> bool:
    """Whether its content is JSON by its own word, and not compressed."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in (JSON, "application/problem+json") and "content-encoding" not in answer.headers


def features_in(answer: Answer) -> frozenset[str]:
    """What the service says it can, of a request to the base. Raises `Malformed`."""
    features = _table(answer).get("features", [])
    if not isinstance(features, list) or not all(isinstance(feature, str) for feature in features):
        raise Malformed("features are a list of names")
    return frozenset(features)


def described(schema: Schema) -> bytes:
    """A model, for a service that is asked to take it."""
    columns = [
        {"name": column.field, "type": column.type.value, "nullable": column.nullable}
        for column in schema.columns
    ]
    return to_json({"model": schema.model, "id": schema.id_type.value, "fields": columns})


def bulk_body(operations: Sequence[Operation], mode: Mode) -> bytes:
    """Many operations as one document."""
    return b'{"mode":"%b","operations":[%b]}' % (
        mode.value.encode(),
        b",".join(_bulk_operation(operation) for operation in operations),
    )


def _bulk_operation(operation: Operation) -> bytes:
    head = {
        "kind": operation.kind.value,
        "model": operation.key.model,
        "id": operation.key.id,
        "version": operation.version,
        "born": operation.born,
        "if_version": operation.if_version,
    }
    return b'%b,"fields":%b}' % (to_json(head)[:-1], operation.payload or b"null")


def bulk_outcomes(answer: Answer, operations: Sequence[Operation], backend: str) -> list[Outcome]:
    """What became of each of many. Raises `Malformed`."""
    rows = _rows(answer, "outcomes", len(operations))
    return [_bulk_outcome(row, operation, backend) for row, operation in zip(rows, operations, strict=True)]


def _bulk_outcome(row: Mapping[str, Any], operation: Operation, backend: str) -> Outcome:
    word, stored = row.get("outcome"), row.get("stored")
    if stored is not None and stored != NO_VERSION and not is_version(stored):
        raise Malformed("a stored version is none")
    if word == "unknown-model":
        headers = {H_PROTOCOL.lower(): PROTOCOL, H_OUTCOME.lower(): word}
        return failed(failure_of(Answer(_ABSENT, headers, b""), operation.key.model, backend))
    outcome = outcome_of(str(word), stored, _shown(row.get("detail")), operation, backend)
    if outcome is None:
        raise Malformed(f"the outcome {str(word)[:40]!r} is none")
    return outcome


def records_in(answer: Answer, keys: Sequence[Key]) -> list[Record | None]:
    """What was read of many keys, in their order. Raises `Malformed`."""
    rows = _rows(answer, "records", len(keys), nullable=True)
    return [None if row is None else _record(row, key) for row, key in zip(rows, keys, strict=True)]


def page_in(answer: Answer, model: str) -> list[Record]:
    """A page of a scan. Raises `Malformed`."""
    return [_record(row, Key(model, _text(row, "id"))) for row in _rows(answer, "records")]


def _record(row: Mapping[str, Any], key: Key) -> Record:
    version, born, fields = _text(row, "version"), _text(row, "born"), row.get("fields")
    if not _is_born(version) or not _is_born(born) or not (fields is None or isinstance(fields, dict)):
        raise Malformed("a record is not of the protocol's form")
    return Record(key, version, born, fields)


def _rows(answer: Answer, name: str, count: int | None = None, *, nullable: bool = False) -> list[Any]:
    rows = _table(answer).get(name)
    if not isinstance(rows, list) or (count is not None and len(rows) != count):
        raise Malformed(f"{name} are not one for each that was asked for")
    if not all(isinstance(row, dict) or (nullable and row is None) for row in rows):
        raise Malformed(f"{name} are not objects")
    return rows


def _table(answer: Answer) -> dict[str, Any]:
    if not answer.speaks or answer.status != _GOOD or not is_json(answer):
        raise Malformed(says(answer))
    return _decoded(answer.body)


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return decode_fields(body)
    except ValueError:
        raise Malformed("an answer's body is no JSON object") from None


def _text(row: Mapping[str, Any], name: str) -> str:
    text = row.get(name)
    if not isinstance(text, str):
        raise Malformed(f"{name} is no text")
    return text


def _is_born(text: str) -> bool:
    return text == NO_VERSION or is_version(text)


def _detail(body: bytes) -> str:
    try:
        problem = from_json(body)
    except ValueError:
        return ""
    return _shown(problem.get("detail")) if isinstance(problem, dict) else ""


def _shown(detail: object) -> str:
    """What a service says for a person, as one line of bounded length."""
    text = detail if isinstance(detail, str) else ""
    return "".join(letter if letter.isprintable() else " " for letter in text[:_DETAIL_LIMIT]).strip()


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 6 else None  # noqa: PLR2004 - a date, or over a week
