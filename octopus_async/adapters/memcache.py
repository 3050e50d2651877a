"""memcached through aiomcache: several servers, pipelined batches, compare-and-swap by version.

A key lives on one server, found by rendezvous hashing (Thaler and Ravishankar, 1998). A server that
is down is not replaced, so none comes back with values that others have moved past meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, TypeVar

from octopus_async.adapters._memcache_form import Form
from octopus_async.adapters._memcache_pool import Connecting, Server
from octopus_async.adapters._memcache_shard import Lease, Shard
from octopus_async.adapters._sql import tls as encryption
from octopus_async.backend import Answer, Capabilities
from octopus_async.errors import BackendRefused, ConfigurationError, Unavailable
from octopus_async.record import Key, Miss, Mode, Operation, Outcome, Record
from octopus_async.schema import Schema
from octopus_async.url import BackendURL

DEFAULT_PORT = 11211
DEFAULT_TTL = 300.0
DEFAULT_CONNECTIONS = 4
DEFAULT_CONNECT_TIMEOUT = 1.0
DEFAULT_TIMEOUT = 0.25
"""Half of what a cache's call may take by default: the primary is to be asked in the other half."""
DEFAULT_ITEM_LIMIT = 1024**2 - 1024
"""A server's default is 1 MiB for an item with its headers."""
DEFAULT_PREFIX = "octopus:"
_PREFIX = re.compile(r"[!-~]{0,100}")

T = TypeVar("T")


class MemcacheAdapter:
    """A cache on one or more memcached servers.

    While a server is down, operations on its keys are unavailable, and reads of them answer None
    (a miss without a lease). The breaker is not to close the others for that: a call raises, and
    its errors count, only while no server answers.

    Parameters:
        servers: host and port of each; the port is 11211 where it is None.
        ttl: seconds, at least 1, after which a value is forgotten.
        connections: the most connections to each server.
        connect_timeout: seconds.
        timeout: seconds that one of several servers may take to answer: then it is down, and left alone
            for a second. A single server's calls are timed by the guard.
        item_limit: the longest key and value together, in bytes, that the servers take (their
            option ``-I``, less 1 KiB); a record that is longer is invalidated instead.
        prefix: starts every key, so that applications can share servers; printable ASCII.
        tls: how to encrypt; None for not at all.
        name: the name by which strategies call it.
        wall: seconds since 1970, for expiries of over 30 days.
    """

    def __init__(  # noqa: PLR0913 - the options of its URL, each by name
        self,
        servers: Sequence[tuple[str, int | None]],
        *,
        ttl: float = DEFAULT_TTL,
        connections: int = DEFAULT_CONNECTIONS,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
        item_limit: int = DEFAULT_ITEM_LIMIT,
        prefix: str = DEFAULT_PREFIX,
        tls: ssl.SSLContext | None = None,
        name: str = "memcache",
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not servers or len(set(servers)) != len(servers):
            raise ConfigurationError(f"{name}: servers have to be given, and each of them once")
        if not 1 <= ttl < math.inf or connections < 1 or min(connect_timeout, timeout) <= 0:
            raise ConfigurationError(
                f"{name}: ttl is at least a second, connections at least one, timeouts are positive"
            )
        if _PREFIX.fullmatch(prefix) is None:
            raise ConfigurationError(f"{name}: a prefix is up to 100 printable ASCII characters")
        self._name = name
        self._servers = [(host, port or DEFAULT_PORT) for host, port in servers]
        several = timeout if len(self._servers) > 1 else None
        self._connecting = Connecting(connections, connect_timeout, several, tls)
        self._form = Form(prefix, ttl, item_limit, wall)
        self._shards: tuple[Shard, ...] = ()
        half = max(1, connections // 2)
        self._capabilities = Capabilities(
            durable=False, read_concurrency=half, write_concurrency=half, ttl=ttl
        )

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "memcache") -> MemcacheAdapter:
        """Make one of ``memcache://host:port,host:port?ttl=300``. Raises `ConfigurationError`."""
        url.check_options(
            "ttl", "connections", "connect_timeout", "timeout", "item_limit", "prefix", *encryption.OPTIONS
        )
        return cls(
            url.hosts,
            ttl=url.number("ttl", DEFAULT_TTL),
            connections=url.integer("connections", DEFAULT_CONNECTIONS),
            connect_timeout=url.number("connect_timeout", DEFAULT_CONNECT_TIMEOUT),
            timeout=url.number("timeout", DEFAULT_TIMEOUT),
            item_limit=url.size("item_limit", DEFAULT_ITEM_LIMIT),
            prefix=url.text("prefix", DEFAULT_PREFIX),
            tls=encryption.context_of(url),
            name=name,
        )

    @property
    def name(self) -> str:
        """The name by which strategies, receipts and messages call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    async def open(self) -> None:
        """Connect. Raises `Unavailable` if no server answers; it works once one does."""
        self._shards = self._shards or tuple(self._make_shard(host, port) for host, port in self._servers)
        await self.ping()

    def _make_shard(self, host: str, port: int) -> Shard:
        server = Server(host, port, self._connecting, self._form.item_limit, self._name)
        return Shard(server, self._form)

    async def close(self) -> None:
        """Abort every connection, those in use too."""
        shards, self._shards = self._shards, ()
        for shard in shards:
            await shard.close()

    async def prepare(self, schema: Schema, *, create: bool) -> None:  # noqa: ARG002 - nothing to create
        """Learn the model's fingerprint: values of another one are misses."""
        self._form.fingerprints[schema.model] = schema.fingerprint

    async def ping(self) -> None:
        """Ask the servers for their versions. Raises `Unavailable` if none answers."""
        self._check_open()
        _raise_if_all_failed(await _together([_caught(shard.ping()) for shard in self._shards]))

    async def probe(self) -> None:
        """Store a reserved key and read it back. Raises `Unavailable` if no server can."""
        self._check_open()
        _raise_if_all_failed(await _together([_caught(shard.probe()) for shard in self._shards]))

    async def read(self, keys: Sequence[Key]) -> list[Answer]:
        """Look up keys; None for those of a server that is down. Raises `Unavailable` if all are."""
        self._check_open()
        if len(self._shards) == 1:
            found = await self._shards[0].read(keys)
        else:
            found = await self._read_shards(keys)
        return [found.get(key) for key in keys]

    async def _read_shards(self, keys: Sequence[Key], *, leasing: bool = True) -> dict[Key, Answer]:
        groups: dict[Shard, list[Key]] = defaultdict(list)
        for key in keys:
            groups[self._locate(key)].append(key)
        reads = [_caught(shard.read(group, leasing=leasing)) for shard, group in groups.items()]
        results = await _together(reads)
        if self._all_fail:
            _raise_if_all_failed(results)
        found: dict[Key, Answer] = {}
        for result in results:
            if not isinstance(result, Unavailable):
                found.update(result)
        return found

    async def peek(self, keys: Sequence[Key]) -> list[Record | None]:
        """Look up keys without leaving leases; else as `read`."""
        self._check_open()
        found = await self._read_shards(keys, leasing=False)
        answers = [found.get(key) for key in keys]
        return [answer if isinstance(answer, Record) else None for answer in answers]

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:  # noqa: ARG002 - see below
        """Apply operations by their versions alone, whatever the mode. Raises `Unavailable` if all fail."""
        self._check_open()
        if len(self._shards) == 1:
            outcomes = await self._shards[0].apply(operations)
        else:
            outcomes = await self._apply_to_shards(operations)
        first = outcomes[0].error if outcomes else None
        if (
            isinstance(first, Unavailable)
            and not first.alive
            and len({outcome.status for outcome in outcomes}) == 1
        ):
            raise first
        return outcomes

    async def _apply_to_shards(self, operations: Sequence[Operation]) -> list[Outcome]:
        places: dict[Shard, list[int]] = defaultdict(list)
        for place, operation in enumerate(operations):
            places[self._locate(operation.key)].append(place)
        results = await _together(
            [shard.apply([operations[place] for place in group]) for shard, group in places.items()]
        )
        if not self._all_fail:
            for shard, result in zip(places, results, strict=True):
                if shard.failing:
                    _spare_breaker(result)
        outcomes = dict(zip(chain(*places.values()), chain(*results), strict=True))
        return [outcomes[place] for place in range(len(operations))]

    async def fill(self, items: Sequence[tuple[Record, Miss]]) -> None:
        """Store each record whose lease still holds, and that is not below the lease's floor."""
        self._check_open()
        groups: dict[Shard, list[tuple[Record, Lease]]] = defaultdict(list)
        for record, miss in items:
            if isinstance(miss.lease, Lease) and miss.lease.shard in self._shards:
                groups[miss.lease.shard].append((record, miss.lease))
        fills = [_caught(shard.fill(group)) for shard, group in groups.items()]
        results = await _together(fills)
        if self._all_fail:
            _raise_if_all_failed(results)

    @property
    def _all_fail(self) -> bool:
        return all(shard.failing for shard in self._shards)

    def _locate(self, key: Key) -> Shard:
        text = f"{key.model}:{key.id}".encode()
        return max(self._shards, key=lambda shard: blake2b(text, key=shard.seed).digest())

    def _check_open(self) -> None:
        if not self._shards:
            raise BackendRefused(f"{self._name} is not open", backend=self._name)


async def _together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    if len(calls) == 1:
        return [await calls[0]]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]


async def _caught(call: Coroutine[Any, Any, T]) -> T | Unavailable:
    try:
        return await call
    except Unavailable as error:
        return error


def _spare_breaker(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome.error, Unavailable):
            outcome.error.alive = True


def _raise_if_all_failed(results: Sequence[object]) -> None:
    errors = [result for result in results if isinstance(result, Unavailable)]
    if errors and len(errors) == len(results):
        raise errors[0]
