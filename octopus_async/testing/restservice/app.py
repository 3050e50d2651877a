"""The protocol's other side: an ASGI application without a framework."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qs, unquote_to_bytes

from pydantic_core import to_json

from octopus_async.cachevalue import decode_fields
from octopus_async.clock import is_version
from octopus_async.errors import DuplicateRecord, RecordNotFound, StaleRecord
from octopus_async.record import NO_VERSION, Key, Kind, Mode, Operation, Outcome, Record, Status
from octopus_async.testing.restservice.store import Store

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_PROTOCOL = "1"
_MOST_BYTES = 16 * 1024**2
_MOST_AT_ONCE = 1000
_STATUSES = {
    "applied": 200,
    "superseded": 412,
    "stale": 412,
    "duplicate": 409,
    "not-found": 404,
    "refused": 422,
}
_WORDS = {DuplicateRecord: "duplicate", RecordNotFound: "not-found", StaleRecord: "stale"}
_OF_RECORDS = (Kind.CREATE, Kind.UPDATE, Kind.DELETE)


class Request(NamedTuple):
    """A request, its path below the base in decoded segments."""

    method: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Reply(NamedTuple):
    """What is answered."""

    status: int
    outcome: str = ""
    document: object = None
    tag: str | None = None
    born: str = NO_VERSION


class _Refused(Exception):
    """A request that is none of the protocol's."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.reply = Reply(status, document={"detail": detail})


class RestService:
    """Serves a store.

    Parameters:
        store: where the records are.
        base: the path below which they are served, such as ``/records``.
    """

    def __init__(self, store: Store, base: str = "/records") -> None:
        self._store = store
        self._base = base

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI 3 has it."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            reply = self._reply(await self._read(scope, receive))
        except _Refused as refused:
            reply = refused.reply
        except sqlite3.Error:
            reply = Reply(503, "unavailable", {"detail": "the store is unwell"})
        await _send(reply, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                self._store.close()
                return

    async def _read(self, scope: Mapping[str, Any], receive: Receive) -> Request:
        headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > _MOST_BYTES:
                raise _Refused(413, "the request is too large")
            if not message.get("more_body"):
                break
        return Request(
            scope["method"],
            self._segments(scope["raw_path"].partition(b"?")[0]),
            {name: texts[0] for name, texts in query.items()},
            headers,
            bytes(body),
        )

    def _segments(self, raw_path: bytes) -> tuple[str, ...]:
        base = self._base.encode()
        # Split before decoding: a slash within an id is %2F.
        if raw_path != base and not raw_path.startswith(base + b"/"):
            raise _Refused(404, "there is nothing here")
        try:
            return tuple(unquote_to_bytes(part).decode() for part in raw_path[len(base) :].split(b"/")[1:])
        except UnicodeDecodeError:
            raise _Refused(400, "a path is UTF-8") from None

    def _reply(self, request: Request) -> Reply:
        if request.headers.get("octopus-protocol") != _PROTOCOL:
            # A form on somebody's web page can't send this header.
            raise _Refused(400, "the header Octopus-Protocol is missing, or of another version")
        match request.method, request.segments:
            case "GET", ():
                reply = Reply(200, document={"octopus": 1, "features": ["bulk", "scan"]})
            case "PUT", ("-probe",):
                self._store.probe()
                reply = Reply(200, "applied")
            case "PUT", ("-apply",):
                reply = self._apply_bulk(request)
            case "POST", ("-read",):
                reply = self._read_bulk(request)
            case "GET", ("-scan",):
                reply = self._scan(request)
            case _, (model,):
                reply = self._model(request, model)
            case "GET", (model, key_id):
                reply = self._found(Key(model, key_id))
            case (("PUT" | "DELETE"), (model, key_id)):
                reply = self._apply(request, Key(model, key_id))
            case _:
                raise _Refused(405, "there is no such request")
        return reply

    # --- models

    def _model(self, request: Request, model: str) -> Reply:
        if request.method == "PUT":
            self._store.add_model(model, to_json(_object(request.body)))
            return Reply(201, "applied")
        if request.method != "GET":
            raise _Refused(405, "a model can be asked for and added")
        self._check_known(model)
        return Reply(200, document={"model": model})

    def _check_known(self, model: str) -> None:
        if not self._store.knows(model):
            refused = _Refused(404, "there is no such model")
            refused.reply = refused.reply._replace(outcome="unknown-model")
            raise refused

    # --- one record

    def _found(self, key: Key) -> Reply:
        self._check_known(key.model)
        record = self._store.read(key)
        if record is None:
            return Reply(404, "absent")
        if record.fields is None:
            return Reply(410, "absent", tag=record.version, born=record.born)
        return Reply(200, document=record.fields, tag=record.version, born=record.born)

    def _apply(self, request: Request, key: Key) -> Reply:
        self._check_known(key.model)
        headers = request.headers
        kind, mode = _kind(headers.get("octopus-kind")), _mode(headers.get("octopus-mode"))
        if (kind is Kind.DELETE) != (request.method == "DELETE"):
            raise _Refused(400, "DELETE is for deletes, PUT for the others")
        condition = headers.get("if-match", "*")
        operation = _operation(
            kind,
            key,
            {
                "version": headers.get("idempotency-key", "").strip('"'),
                "born": headers.get("octopus-born", NO_VERSION),
                "if_version": None if condition == "*" else condition.strip('"'),
            },
            None if kind is Kind.DELETE else _object(request.body),
        )
        (outcome,) = self._store.apply([operation], mode)
        word = _word(outcome)
        tag = operation.version if word == "applied" else outcome.stored
        document = None if outcome.error is None else {"detail": str(outcome.error)}
        return Reply(_STATUSES[word], word, document, tag)

    # --- many

    def _apply_bulk(self, request: Request) -> Reply:
        table = _object(request.body)
        rows = _rows(table.get("operations"))
        known = {str(row.get("model")): self._store.knows(str(row.get("model"))) for row in rows}
        operations = [_bulk_operation(row) for row in rows]
        applied = iter(
            self._store.apply([it for it in operations if known[it.key.model]], _mode(table.get("mode")))
        )
        outcomes = [
            _shown(next(applied)) if known[it.key.model] else {"outcome": "unknown-model"}
            for it in operations
        ]
        return Reply(200, document={"outcomes": outcomes})

    def _read_bulk(self, request: Request) -> Reply:
        keys = _object(request.body).get("keys")
        if not isinstance(keys, list) or len(keys) > _MOST_AT_ONCE:
            raise _Refused(400, f"keys are a list of at most {_MOST_AT_ONCE}")
        try:
            wanted = [Key(str(model), str(key_id)) for model, key_id in keys]
        except (TypeError, ValueError):
            raise _Refused(400, "a key is a model and an id") from None
        for model in sorted({key.model for key in wanted}):
            self._check_known(model)
        found = [self._store.read(key) for key in wanted]
        return Reply(200, document={"records": [record and _listed(record) for record in found]})

    def _scan(self, request: Request) -> Reply:
        query = request.query
        model, limit = query.get("model", ""), query.get("limit", "")
        if not limit.isascii() or not limit.isdigit() or not int(limit[:9]) > 0:
            raise _Refused(400, "limit is a number")
        self._check_known(model)
        beyond = query.get("beyond", ""), query.get("beyond_id", "")
        page = self._store.scan(model, query.get("after", ""), min(int(limit[:9]), _MOST_AT_ONCE), beyond)
        return Reply(200, document={"records": [_listed(record) for record in page]})


def _object(body: bytes) -> dict[str, Any]:
    try:
        return decode_fields(body)
    except ValueError:
        raise _Refused(400, "the body is no JSON object") from None


def _rows(rows: object) -> Sequence[Mapping[str, Any]]:
    if (
        not isinstance(rows, list)
        or len(rows) > _MOST_AT_ONCE
        or not all(isinstance(row, dict) for row in rows)
    ):
        raise _Refused(400, f"operations are a list of at most {_MOST_AT_ONCE} objects")
    return rows


def _kind(text: object) -> Kind:
    for kind in _OF_RECORDS:
        if kind.value == text:
            return kind
    raise _Refused(400, "the kind is create, update or delete")


def _mode(text: object) -> Mode:
    for mode in Mode:
        if mode.value == text:
            return mode
    raise _Refused(400, "the mode is live, replay, mirror or mend")


def _bulk_operation(row: Mapping[str, Any]) -> Operation:
    model, key_id, fields = row.get("model"), row.get("id"), row.get("fields")
    if not isinstance(model, str) or not isinstance(key_id, str) or not isinstance(fields, dict | None):
        raise _Refused(400, "an operation has a model, an id, and fields")
    return _operation(_kind(row.get("kind")), Key(model, key_id), row, fields)


def _operation(kind: Kind, key: Key, row: Mapping[str, Any], fields: dict[str, Any] | None) -> Operation:
    version, born, wanted = row.get("version"), row.get("born"), row.get("if_version")
    if not is_version(version) or not (born == NO_VERSION or is_version(born)):
        raise _Refused(400, "version and born are versions")
    if wanted is not None and wanted != NO_VERSION and not is_version(wanted):
        raise _Refused(400, "the condition is a version")
    if (fields is None) != (kind is Kind.DELETE):
        raise _Refused(400, "a delete has no fields, anything else has")
    payload = None if fields is None else to_json(fields)
    return Operation(kind, key, str(version), str(born), fields, payload, wanted)


def _word(outcome: Outcome) -> str:
    if outcome.status in (Status.APPLIED, Status.SUPERSEDED):
        word: str = outcome.status.value
        return word
    for kind, word in _WORDS.items():
        if isinstance(outcome.error, kind):
            return word
    return "refused"


def _shown(outcome: Outcome) -> dict[str, object]:
    detail = None if outcome.error is None else str(outcome.error)
    return {"outcome": _word(outcome), "stored": outcome.stored, "detail": detail}


def _listed(record: Record) -> dict[str, object]:
    return {"id": record.key.id, "version": record.version, "born": record.born, "fields": record.fields}


async def _send(reply: Reply, send: Send) -> None:
    body = b"" if reply.document is None else to_json(reply.document)
    headers = [
        (b"octopus-protocol", _PROTOCOL.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if body:
        kind = b"application/json" if reply.status < 400 else b"application/problem+json"  # noqa: PLR2004 - errors begin there
        headers.append((b"content-type", kind))
    if reply.outcome:
        headers.append((b"octopus-outcome", reply.outcome.encode()))
    if reply.tag is not None:
        headers.append((b"etag", f'"{reply.tag}"'.encode()))
    if reply.born:
        headers.append((b"octopus-born", reply.born.encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
