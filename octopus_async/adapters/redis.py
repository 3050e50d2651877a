"""Redis and Valkey through redis-py: versions compared by scripts in the server, pipelined batches, clusters.

A cache, and no more: what a server acknowledges it may lose (it writes to disk a second later, and to its
replicas after it has answered), so that it is never the one place where a record lives.
"""

from __future__ import annotations

import math
import re
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from redis.exceptions import RedisError

from octopus_async.adapters._redis_cluster import Address, Alone, Cluster, Servers, together
from octopus_async.adapters._redis_errors import Answered
from octopus_async.adapters._redis_form import FILL, LEASE, STORE, Form, Lease, lease_on, padded
from octopus_async.adapters._redis_node import Command, Login, Node, Reply, called
from octopus_async.adapters._sql import tls as encryption
from octopus_async.backend import Answer, Capabilities
from octopus_async.cachevalue import EMPTY, Cell, cell_of, record_of
from octopus_async.errors import BackendFailed, BackendRefused, ConfigurationError, Unavailable
from octopus_async.record import (
    APPLIED,
    Key,
    Kind,
    Miss,
    Mode,
    Operation,
    Outcome,
    Record,
    Status,
    failed,
)
from octopus_async.schema import Schema
from octopus_async.url import BackendURL

DEFAULT_PORT = 6379
DEFAULT_TTL = 300.0
DEFAULT_CONNECTIONS = 4
DEFAULT_CONNECT_TIMEOUT = 1.0
DEFAULT_ITEM_LIMIT = 1024**2
DEFAULT_PREFIX = "octopus:"
_PROBES = 16
"""Keys of a probe of a cluster: likely there is one on every node."""
_LEAST_ITEM_LIMIT = 16 * 1024
_LONGEST_TTL = 10 * 365 * 24 * 3600.0
_PREFIX = re.compile(r"[!-~]{0,100}")
_ENCRYPTED = ("rediss", "valkeys")
_OF_CACHES = {Kind.INVALIDATE: "invalidate", Kind.RETRACT: "retract"}


class RedisAdapter:
    """A cache on a Redis or Valkey server, or on a cluster of them.

    While a node of a cluster is down, operations on its keys are unavailable, and reads of them answer None
    (a miss without a lease). The breaker is not to close the others for that: a call raises, and its errors
    count, only while no node answers.

    Parameters:
        servers: host and port of the server, or of nodes of the cluster; the port is 6379 where it is None.
        user: who logs in, where the server has users.
        password: never shown.
        database: the number of the database; a cluster has none but 0.
        cluster: whether the servers are nodes of a cluster.
        ttl: seconds, at least 0.01, after which a value is forgotten.
        connections: the most connections to each server.
        connect_timeout: seconds that connecting may take, the login included.
        item_limit: the longest value, in bytes; a record that is longer is invalidated instead.
        prefix: starts every key, so that applications can share servers; printable ASCII.
        tls: how to encrypt; None for not at all.
        name: the name by which strategies call it.
    """

    def __init__(  # noqa: PLR0913 - the options of its URL, each by name
        self,
        servers: Sequence[tuple[str, int | None]],
        *,
        user: str = "",
        password: str = "",
        database: int = 0,
        cluster: bool = False,
        ttl: float = DEFAULT_TTL,
        connections: int = DEFAULT_CONNECTIONS,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        item_limit: int = DEFAULT_ITEM_LIMIT,
        prefix: str = DEFAULT_PREFIX,
        tls: ssl.SSLContext | None = None,
        name: str = "redis",
    ) -> None:
        if len(servers) != 1 and not (cluster and servers):
            raise ConfigurationError(f"{name}: one server, or with cluster=true nodes of a cluster")
        if cluster and database:
            raise ConfigurationError(f"{name}: a cluster has no database but 0")
        if not 0.01 <= ttl <= _LONGEST_TTL or connections < 1 or not 0 < connect_timeout < math.inf:  # noqa: PLR2004 - Redis counts milliseconds
            raise ConfigurationError(f"{name}: ttl is 0.01 s to ten years, connections at least one")
        if item_limit < _LEAST_ITEM_LIMIT or _PREFIX.fullmatch(prefix) is None:
            raise ConfigurationError(
                f"{name}: item_limit is at least 16 KiB, prefix up to 100 printable ASCII"
            )
        self._name = name
        self._addresses = [(host, port or DEFAULT_PORT) for host, port in servers]
        self._cluster = cluster
        self._connections = connections
        self._login = Login(user, password, database, tls, connect_timeout, item_limit)
        self._form = Form(prefix, ttl, item_limit)
        self._servers: Servers | None = None
        half = max(1, connections // 2)
        self._capabilities = Capabilities(
            durable=False, read_concurrency=half, write_concurrency=half, ttl=ttl
        )

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "redis") -> Self:
        """Make one of ``redis://user:password@host:6379/0?ttl=300``, or ``rediss://`` for TLS.

        ``?cluster=true`` for a cluster, of which several nodes may be named. Raises `ConfigurationError`.
        """
        url.check_options(
            "cluster", "ttl", "connections", "connect_timeout", "item_limit", "prefix", *encryption.OPTIONS
        )
        if url.path and not (url.path.isascii() and url.path.isdigit() and len(url.path) <= 4):  # noqa: PLR2004 - no server has more
            raise ConfigurationError(f"{url}: what follows the host is the number of a database")
        return cls(
            url.hosts or [("localhost", None)],
            user=url.user,
            password=url.password,
            database=int(url.path or 0),
            cluster=url.flag("cluster", default=False),
            ttl=url.number("ttl", DEFAULT_TTL),
            connections=url.integer("connections", DEFAULT_CONNECTIONS),
            connect_timeout=url.number("connect_timeout", DEFAULT_CONNECT_TIMEOUT),
            item_limit=url.size("item_limit", DEFAULT_ITEM_LIMIT),
            prefix=url.text("prefix", DEFAULT_PREFIX),
            tls=_context_of(url),
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
        if self._servers is None:
            self._servers = self._make_servers()
        await self.ping()

    def _make_servers(self) -> Servers:
        if not self._cluster:
            return Alone(self._make_node(self._addresses[0]))
        return Cluster(self._addresses, self._make_node, backend=self._name, timeout=self._login.timeout)

    def _make_node(self, address: Address) -> Node:
        host, port = address
        return Node(host, port, login=self._login, connections=self._connections, backend=self._name)

    async def close(self) -> None:
        """Abort every connection, those in use too."""
        servers, self._servers = self._servers, None
        if servers is not None:
            await servers.close()

    async def prepare(self, schema: Schema, *, create: bool) -> None:  # noqa: ARG002 - nothing to create
        """Learn the model's fingerprint: values of another one are misses."""
        self._form.fingerprints[schema.model] = schema.fingerprint

    async def ping(self) -> None:
        """Have a server answer. Raises `Unavailable` if none does."""
        servers = self._opened()
        await servers.open()
        replies = await together([node.exchange([("PING",)]) for node in servers.nodes])
        errors = [
            node.refused(reply) if isinstance(reply, RedisError) else reply
            for node, (reply,) in zip(servers.nodes, replies, strict=True)
        ]
        _raise_if_all_failed(errors)

    async def probe(self) -> None:
        """Store reserved keys by the script and read them back. Raises `Unavailable` if no server can."""
        servers = self._opened()
        await servers.open()
        keys = [Key("!probe", secrets.token_hex(8)) for _ in range(_PROBES if self._cluster else 1)]
        markers = {self._form.wire_key(key): self._form.encode(key, EMPTY) for key in keys}
        life = self._form.lease_life
        replies = await servers.exchange(
            [
                (wire, called(STORE, wire, "invalidate", padded(""), "", marker, life))
                for wire, marker in markers.items()
            ]
        )
        _raise_if_all_failed(replies)
        found = await servers.get(list(markers))
        _raise_if_all_failed(found)
        if not set(found) & set(markers.values()):
            msg = f"{self._name}: a value that was stored could not be read back"
            raise BackendFailed(msg, backend=self._name, sent=False)

    async def read(self, keys: Sequence[Key]) -> list[Answer]:
        """Look up keys; None for those of a node that is down. Raises `Unavailable` if all are."""
        servers = self._opened()
        wires = [self._form.wire_key(key) for key in keys]
        values = await servers.get(wires)
        missing = [place for place, value in enumerate(values) if value is None]
        leases = await servers.exchange(
            [(wires[place], self._leasing(keys[place], wires[place])) for place in missing]
        )
        for place, value in zip(missing, leases, strict=True):
            # A server that is full or a replica can still be read.
            values[place] = None if isinstance(value, Answered) else value
        self._raise_if_failing(servers, values)
        return [self._answer(key, value) for key, value in zip(keys, values, strict=True)]

    def _leasing(self, key: Key, wire: bytes) -> Command:
        return called(LEASE, wire, self._form.encode(key, EMPTY), self._form.lease_life)

    def _answer(self, key: Key, value: Reply) -> Answer:
        if isinstance(value, Unavailable):
            return None
        if not isinstance(value, bytes):
            return Miss(None)
        cell = self._form.decode(key, value)
        try:
            if not cell.marker:
                return record_of(key, cell)
        except ValueError:
            pass  # its fields are no fields: it is to be written anew
        return Miss(lease_on(value, cell))

    async def peek(self, keys: Sequence[Key]) -> list[Record | None]:
        """Look up keys without leaving leases; else as `read`."""
        servers = self._opened()
        values = await servers.get([self._form.wire_key(key) for key in keys])
        self._raise_if_failing(servers, values)
        answers = [self._answer(key, value) for key, value in zip(keys, values, strict=True)]
        return [answer if isinstance(answer, Record) else None for answer in answers]

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:  # noqa: ARG002 - see below
        """Apply operations by their versions alone, whatever the mode. Raises `Unavailable` if all fail."""
        servers = self._opened()
        replies = await servers.exchange([self._storing(operation) for operation in operations])
        outcomes = [self._outcome(reply) for reply in replies]
        errors = [outcome.error for outcome in outcomes if isinstance(outcome.error, Unavailable)]
        if not servers.failing:
            for error in errors:
                error.alive = True
        elif len(errors) == len(outcomes) and len({outcome.status for outcome in outcomes}) == 1:
            raise errors[0]
        return outcomes

    def _storing(self, operation: Operation) -> tuple[bytes, Command]:
        form, wire = self._form, self._form.wire_key(operation.key)
        what, life = _OF_CACHES.get(operation.kind, "write"), form.life
        cell = Cell(operation.version, operation.born, operation.payload)
        if operation.kind is Kind.INVALIDATE:
            cell = Cell(operation.version, marker=True)
        elif operation.kind is Kind.RETRACT:
            cell, life = EMPTY, form.lease_life
        value = form.encode(operation.key, cell)
        return wire, called(STORE, wire, what, padded(operation.version), padded(operation.born), value, life)

    def _outcome(self, reply: Reply) -> Outcome:
        if isinstance(reply, Unavailable):
            return failed(reply)
        if not isinstance(reply, bytes):
            return failed(
                BackendFailed(f"{self._name}: a script gave what it never gives", backend=self._name)
            )
        if reply:
            return Outcome(Status.SUPERSEDED, stored=reply.decode("ascii", "replace").rstrip(" "))
        return APPLIED

    async def fill(self, items: Sequence[tuple[Record, Miss]]) -> None:
        """Store each record whose lease still holds, and that is not below the lease's floor."""
        servers = self._opened()
        commands = []
        for record, miss in items:
            cell = cell_of(record)
            if cell is None or not isinstance(miss.lease, Lease) or record.version < miss.lease.floor:
                continue
            wire, value = self._form.wire_key(record.key), self._form.encode(record.key, cell)
            commands.append((wire, called(FILL, wire, miss.lease.digest, value, self._form.life)))
        self._raise_if_failing(servers, await servers.exchange(commands))

    def _opened(self) -> Servers:
        if self._servers is None:
            raise BackendRefused(f"{self._name} is not open", backend=self._name)
        return self._servers

    @staticmethod
    def _raise_if_failing(servers: Servers, replies: Sequence[object]) -> None:
        errors = [reply for reply in replies if isinstance(reply, Unavailable)]
        if errors and servers.failing:
            raise errors[0]


def _context_of(url: BackendURL) -> ssl.SSLContext | None:
    if url.scheme not in _ENCRYPTED:
        return encryption.context_of(url)
    context = encryption.context_of(replace(url, options={"tls": "verify", **url.options}))
    if context is None:
        raise ConfigurationError(f"{url}: is encrypted, and tls=off says that it is not")
    return context


def _raise_if_all_failed(results: Sequence[object]) -> None:
    errors = [result for result in results if isinstance(result, Unavailable)]
    if errors and len(errors) == len(results):
        raise errors[0]
