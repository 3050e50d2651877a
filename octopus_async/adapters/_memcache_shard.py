"""One server's part of the cache: what a batch of reads, operations or fills does there."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from octopus_async.adapters._memcache_form import Form
from octopus_async.adapters._memcache_pool import Server
from octopus_async.adapters._memcache_replies import SERVER_ERROR, STORED, TOO_LARGE, Item
from octopus_async.backend import Answer
from octopus_async.cachevalue import EMPTY, Cell, cell_of, record_of, settle
from octopus_async.errors import Unavailable
from octopus_async.record import Key, Kind, Miss, Operation, Outcome, Record, failed

_LEASE_LIFE = 10.0
_ROUNDS = 16


class Lease(NamedTuple):
    """What a miss hands out: the token of the marker that the record may replace."""

    shard: Shard
    token: bytes
    floor: str


class _Change:
    """The operations of one key in a batch, folded into one conditional store.

    A create is taken to meet nothing: `add` says whether it did. Others have to look first.
    """

    def __init__(self, wire: bytes, key: Key, form: Form) -> None:
        self.wire = wire
        self.key = key
        self.operations: list[Operation] = []
        self.outcomes: list[Outcome] = []
        self.ready = False
        self._form = form
        self._before: Cell | None = None
        self._after: Cell | None = None
        self._token = b""
        self._too_large = False

    @property
    def is_done(self) -> bool:
        """Whether what is stored stands."""
        return self.ready and self._after is self._before

    def start(self) -> None:
        """Fold over nothing if that is likely what is stored."""
        if self.operations[0].kind is Kind.CREATE:
            self.fold(None)

    def fold(self, item: Item | None) -> None:
        """Settle the operations, one after the other, over what is stored."""
        self._before = cell = None if item is None else self._form.decode(self.key, item)
        self._token = b"" if item is None else item.token
        self.outcomes = []
        for operation in self.operations:
            outcome, cell = settle(operation, cell)
            self.outcomes.append(outcome)
        self._after = cell
        self.ready = True

    def fail(self, error: Unavailable) -> None:
        """Report ``error`` for every operation."""
        self.outcomes = [failed(error)] * len(self.operations)

    def shrink(self) -> bool:
        """Store a marker instead, unless that was tried already."""
        was_large, self._too_large = self._too_large, True
        return not was_large

    def command(self) -> bytes:
        """Store the last cell if what was folded over still stands."""
        cell, form = self._after or EMPTY, self._form
        value = form.encode(self.key, cell)
        if self._too_large or not form.fits(self.wire, value):
            value = form.encode(self.key, Cell(cell.version, marker=True))
        life = _LEASE_LIFE if cell == EMPTY else form.ttl
        return form.store(b"cas" if self._token else b"add", self.wire, value, life, self._token)


class Shard:
    """A server as a part of the cache."""

    def __init__(self, server: Server, form: Form) -> None:
        self._server = server
        self._form = form
        self.ping = server.version
        self.close = server.close
        self.seed = blake2b(server.address.encode()).digest()

    @property
    def failing(self) -> bool:
        """Whether the server's last call failed."""
        return self._server.failing

    async def probe(self) -> None:
        """Store a key of its own and read it back. Raises `Unavailable`."""
        nonce = secrets.token_hex(8).encode()
        wire = self._form.prefix.encode() + b"!probe-" + nonce
        command = self._form.store(b"set", wire, nonce, _LEASE_LIFE)
        done = await self._server.exchange([command], [wire])
        if done.error is not None:
            raise done.error
        if done.replies != [STORED] or wire not in done.items or done.items[wire].data != nonce:
            raise self._server.failed("a value that was stored could not be read back")

    async def read(self, keys: Sequence[Key], *, leasing: bool = True) -> dict[Key, Answer]:
        """Look up keys, and with ``leasing`` leave a lease for each that is missing. Raises `Unavailable`."""
        wires = {self._form.wire_key(key): key for key in keys}
        found: dict[Key, Answer] = {}
        done = await self._server.exchange([], list(wires))
        self._take(done.items, wires, found)
        missing = [wire for wire in wires if wire not in done.items]
        if missing and leasing and done.error is None:
            form = self._form
            adds = [
                form.store(b"add", wire, form.encode(wires[wire], EMPTY), _LEASE_LIFE) for wire in missing
            ]
            done = await self._server.exchange(adds, missing)
            self._take(done.items, wires, found)
        if done.error is not None:
            raise done.error
        return found

    def _take(self, items: dict[bytes, Item], wires: dict[bytes, Key], found: dict[Key, Answer]) -> None:
        for wire, item in items.items():
            key = wires[wire]
            cell = self._form.decode(key, item)
            try:
                if not cell.marker:
                    found[key] = record_of(key, cell)
                    continue
            except ValueError:
                pass  # its fields are no fields: it is to be written anew
            found[key] = Miss(Lease(self, item.token, cell.version))

    async def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Apply operations by their versions; never raises `Unavailable`."""
        changes: dict[Key, _Change] = {}
        places = []
        for operation in operations:
            key = operation.key
            change = changes.get(key)
            if change is None:
                change = changes[key] = _Change(self._form.wire_key(key), key, self._form)
            places.append((change, len(change.operations)))
            change.operations.append(operation)
        for change in changes.values():
            change.start()
        await self._carry_out(list(changes.values()))
        return [change.outcomes[place] for change, place in places]

    async def fill(self, items: Sequence[tuple[Record, Lease]]) -> None:
        """Store each record whose lease still holds. Raises `Unavailable`."""
        commands = []
        for record, lease in items:
            cell = cell_of(record)
            if cell is None or record.version < lease.floor:
                continue
            wire, value = self._form.wire_key(record.key), self._form.encode(record.key, cell)
            if self._form.fits(wire, value):
                commands.append(self._form.store(b"cas", wire, value, self._form.ttl, lease.token))
        done = await self._server.exchange(commands)
        if done.error is not None:
            raise done.error

    async def _carry_out(self, changes: list[_Change]) -> None:
        for _ in range(_ROUNDS):
            if not changes:
                return
            changes = await self._round(changes)
        for change in changes:
            change.fail(self._server.failed(f"{change.key} was changed by others again and again"))

    async def _round(self, changes: list[_Change]) -> list[_Change]:
        ready = [change for change in changes if change.ready]
        unread = [change for change in changes if not change.ready]
        done = await self._server.exchange(
            [change.command() for change in ready], [change.wire for change in unread]
        )
        if done.error is not None:
            for change in ready[len(done.replies) :]:
                change.fail(done.error)
            for change in unread:
                change.fail(self._server.failed(str(done.error)))
            unread = []
        for change in unread:
            change.fold(done.items.get(change.wire))
        answered = zip(ready, done.replies, strict=False)
        retried = [change for change, reply in answered if self._has_lost(change, reply)]
        return retried + [change for change in unread if not change.is_done]

    def _has_lost(self, change: _Change, reply: bytes) -> bool:
        if reply == STORED:
            return False
        if reply == TOO_LARGE and change.shrink():
            return True
        if reply.startswith(SERVER_ERROR):
            change.fail(self._server.failed(reply.decode("ascii", "replace")))
            return False
        change.ready = False
        return True
