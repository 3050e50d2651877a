"""Records at a base URL, through aiohttp: the protocol of `docs/backends/rest.md`.

A record is a resource, and its version its ETag. Every condition is checked by the service, in one atomic
step, so an operation may be sent twice, late or out of order.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Self, TypeVar
from urllib.parse import quote, urlencode

from pydantic_core import to_json

from octopus_async.adapters import _rest_protocol as protocol
from octopus_async.adapters._rest_client import AnswerTooLarge, RestClient
from octopus_async.adapters._rest_endpoint import Endpoint, endpoint_of
from octopus_async.adapters._rest_protocol import Answer, Malformed
from octopus_async.backend import Capabilities
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    InvalidRecord,
    OperationNotSupported,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.record import NOT_TAKEN, Key, Kind, Mode, Operation, Outcome, Record, failed, rejected
from octopus_async.schema import Schema
from octopus_async.url import BackendURL

T = TypeVar("T")
R = TypeVar("R")

_BATCH = 100
_BATCH_BYTES = 1024**2


class RestAdapter:
    """A service that keeps records, and applies operations conditionally.

    Parameters:
        endpoint: where it is.
        bulk: whether it takes many operations, and gives many records, in one request.
        scan: whether it lists its records.
        name: the name by which strategies call it.
    """

    def __init__(
        self, endpoint: Endpoint, *, bulk: bool = False, scan: bool = False, name: str = "rest"
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._wanted = frozenset(word for word, is_wanted in (("bulk", bulk), ("scan", scan)) if is_wanted)
        self._bulk = bulk
        self._client: RestClient | None = None
        half = max(1, endpoint.connections // 2)
        self._capabilities = Capabilities(
            durable=True,
            read_batch=_BATCH,
            write_batch=_BATCH,
            batch_bytes=_BATCH_BYTES,
            read_concurrency=half,
            write_concurrency=half,
            scan=scan,
        )

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "rest") -> Self:
        """Make one of ``rest+https://user:password@host/base?bulk=true&scan=true``.

        Options: ``connections``, ``timeout``, ``token`` (sent as a bearer), ``bulk``, ``scan``, ``allow``
        (networks beside the public addresses), ``max_answer``, and files ``tls_ca``, ``tls_cert``,
        ``tls_key``.

        Raises `ConfigurationError`.
        """
        bulk, scan = url.flag("bulk", default=False), url.flag("scan", default=False)
        return cls(endpoint_of(url), bulk=bulk, scan=scan, name=name)

    @property
    def name(self) -> str:
        """The name by which strategies, receipts and messages call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    async def open(self) -> None:
        """Ask the service what it can. Raises `Unavailable`."""
        client = self._client = self._client or RestClient(self._endpoint, self._name)
        try:
            await self.ping()
        except BaseException:
            self._client = None
            await asyncio.shield(client.close())
            raise

    async def close(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.shield(client.close())

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Ask whether the service knows the model, and with ``create`` have it take it."""
        path = f"/{quote(schema.model, safe='')}"
        answer = await self._ask("GET", path)
        if answer.outcome == "unknown-model" and create:
            answer = await self._ask("PUT", path, body=protocol.described(schema))
            if answer.speaks and answer.status in (403, 405):
                problem = f"does not let clients add the model {schema.model}: add it at the service"
                raise SchemaMismatch(f"{self._name} {problem}", backend=self._name)
        if not (answer.speaks and answer.status in (200, 201, 204)):
            raise protocol.failure_of(answer, schema.model, self._name)

    async def ping(self) -> None:
        """Ask the service what it can. Raises `Unavailable`."""
        missing = self._wanted - self._parsed(await self._ask("GET", ""), protocol.features_in)
        if missing:
            problem = f"the service does not offer {', '.join(sorted(missing))}: leave that option out"
            raise BackendFailed(f"{self._name}: {problem}", backend=self._name, sent=False)

    async def probe(self) -> None:
        """Have the service write to a reserved place. Raises `Unavailable`."""
        answer = await self._ask("PUT", "/-probe", body=b"{}")
        if answer.outcome != "applied":
            raise protocol.failure_of(answer, "", self._name)

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        """Look up keys, tombstones included. Raises `Unavailable`."""
        self._check_open()
        if not self._bulk or len(keys) < 2:  # noqa: PLR2004 - one is no bulk
            return await self._each(keys, self._read_one)
        body = to_json({"keys": keys})
        try:
            answer = await self._ask("POST", "/-read", body=body, bounded=False)
        except AnswerTooLarge:
            return await self._each(keys, self._read_one)
        return self._parsed(answer, lambda answer: protocol.records_in(answer, keys), keys[0].model)

    async def peek(self, keys: Sequence[Key]) -> list[Record | None]:
        """As `read`."""
        return await self.read(keys)

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        """Apply operations, in order where they share a key; each of them is atomic, their batch is not."""
        self._check_open()
        if self._bulk and len(operations) > 1:
            outcomes = await self._apply_bulk(operations, mode)
        else:
            outcomes = await self._apply_singly(operations, mode)
        errors = [outcome.error for outcome in outcomes if outcome.status in NOT_TAKEN]
        alike = len({outcome.status for outcome in outcomes}) == 1
        if errors and alike and isinstance(errors[0], Unavailable):
            raise errors[0]
        return outcomes

    async def scan(
        self, model: str, *, after: str = "", batch: int = 500, beyond: Record | None = None
    ) -> AsyncIterator[Record]:
        """All of a model's records, tombstones too, of versions above ``after``, oldest first."""
        if not self._capabilities.scan:
            raise OperationNotSupported(
                f"{self._name} was not told that its service lists records: scan=true"
            )
        while True:
            query = {"model": model, "after": after, "limit": str(batch)}
            if beyond is not None:
                query |= {"beyond": beyond.version, "beyond_id": beyond.key.id}
            answer = await self._ask("GET", f"/-scan?{urlencode(query)}")
            page = self._parsed(answer, lambda answer: protocol.page_in(answer, model), model)
            for record in page:
                yield record
            if not page:
                return
            beyond = page[-1]

    # --- one by one

    async def _read_one(self, key: Key) -> Record | None:
        path = protocol.path_of(key)
        if path is None:
            return None  # nor can it have been written
        answer = await self._ask("GET", path)
        return self._parsed(answer, lambda answer: protocol.record_in(answer, key), key.model)

    async def _apply_singly(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        places: dict[Key, list[int]] = defaultdict(list)
        for place, operation in enumerate(operations):
            places[operation.key].append(place)
        outcomes: dict[int, Outcome] = {}
        unwell: list[Unavailable] = []

        async def apply(group: Sequence[int]) -> None:
            for place in group:
                outcomes[place] = await self._apply_one(operations[place], mode, unwell)

        await self._each(list(places.values()), apply)
        return [outcomes[place] for place in range(len(operations))]

    async def _apply_one(self, operation: Operation, mode: Mode, unwell: list[Unavailable]) -> Outcome:
        """Apply an operation; not even tried after one of its batch found nobody, or a service under load."""
        refusal = self._refusal(operation)
        if refusal is not None:
            return refusal
        if unwell:
            problem = f"{self._name}: left out after: {unwell[0]}"
            return failed(BackendFailed(problem, backend=self._name, sent=False))
        method = "DELETE" if operation.kind is Kind.DELETE else "PUT"
        path, headers = protocol.path_of(operation.key) or "", protocol.headers_of(operation, mode)
        try:
            answer = await self._ask(method, path, body=operation.payload, headers=headers)
        except Unavailable as error:
            unwell.append(error)
            return failed(error)
        outcome = protocol.outcome_in(answer, operation, self._name)
        if isinstance(outcome.error, Unavailable) and outcome.error.retry_after is not None:
            unwell.append(outcome.error)
        return outcome

    async def _each(self, items: Sequence[T], call: Callable[[T], Awaitable[R]]) -> list[R]:
        """Make a call for each, as many at once as there are connections; the first error ends all."""
        if len(items) == 1:
            return [await call(items[0])]
        results: dict[int, R] = {}
        waiting = iter(enumerate(items))

        async def work() -> None:
            for place, item in waiting:
                results[place] = await call(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(len(items), self._endpoint.connections)):
                    group.create_task(work())
        except* Unavailable as errors:
            raise _first(errors) from None
        return [results[place] for place in range(len(items))]

    # --- all at once

    async def _apply_bulk(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        refusals = [self._refusal(operation) for operation in operations]
        sent = [it for it, refusal in zip(operations, refusals, strict=True) if refusal is None]
        outcomes = iter(await self._send_bulk(sent, mode) if sent else ())
        return [refusal or next(outcomes) for refusal in refusals]

    async def _send_bulk(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        # PUT, which the client may repeat: each of them has its version.
        answer = await self._ask("PUT", "/-apply", body=protocol.bulk_body(operations, mode))
        return self._parsed(
            answer,
            lambda answer: protocol.bulk_outcomes(answer, operations, self._name),
            operations[0].key.model,
        )

    def _refusal(self, operation: Operation) -> Outcome | None:
        """The outcome of what can't be sent."""
        if operation.kind in (Kind.INVALIDATE, Kind.RETRACT):
            return rejected(OperationNotSupported(f"{self._name} is durable: it forgets nothing"))
        if protocol.path_of(operation.key) is None:
            return rejected(InvalidRecord(f"{self._name}: no URL can name {operation.key}"))
        return None

    # --- requests

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        bounded: bool = True,
    ) -> Answer:
        client = self._check_open()
        try:
            return await client.ask(method, path, body=body, headers=headers)
        except AnswerTooLarge:
            if not bounded:
                raise
            problem = f"an answer over the {self._endpoint.max_answer} bytes of max_answer"
            raise BackendFailed(f"{self._name}: {problem}", backend=self._name) from None

    def _parsed(self, answer: Answer, parse: Callable[[Answer], R], model: str = "") -> R:
        try:
            return parse(answer)
        except Malformed as problem:
            raise protocol.failure_of(answer, model, self._name, str(problem)) from None

    def _check_open(self) -> RestClient:
        if self._client is None:
            raise BackendRefused(f"{self._name} is not open", backend=self._name)
        return self._client


def _first(errors: BaseExceptionGroup[Unavailable]) -> Unavailable:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
