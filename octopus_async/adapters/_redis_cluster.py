"""Which server has a key: one for all of them, or the nodes of a cluster by their hash slots."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError

from octopus_async.adapters._redis_node import Command, Node, Reply
from octopus_async.errors import BackendFailed, Unavailable

T = TypeVar("T")
Address = tuple[str, int]

_SLOTS = 16384
_REDIRECTIONS = 5
_REFRESH_SECONDS = 0.5
"""At least so long after a map was asked for in vain, nobody asks again."""


class Servers(Protocol):
    """One server, or several that share the keys."""

    @property
    def failing(self) -> bool:
        """Whether nobody answers, as far as is known; of one server alone it is always assumed."""
        ...

    @property
    def nodes(self) -> Sequence[Node]:
        """All servers that are known to hold keys."""
        ...

    async def open(self) -> None:
        """Find out who there is. Raises `Unavailable`."""
        ...

    async def close(self) -> None:
        """Abort every connection, those in use too."""
        ...

    async def get(self, wires: Sequence[bytes]) -> list[Reply]:
        """What is stored for keys; None for nothing. Never raises `Unavailable`."""
        ...

    async def exchange(self, commands: Sequence[tuple[bytes, Command]]) -> list[Reply]:
        """Send commands, each to its key's server, and give their replies. Never raises `Unavailable`."""
        ...


class Alone:
    """One server that has all keys."""

    failing = True

    def __init__(self, node: Node) -> None:
        self._node = node
        self.nodes: Sequence[Node] = (node,)

    async def open(self) -> None:
        """See `Servers`."""

    async def close(self) -> None:
        """See `Servers`."""
        self._node.abort()
        await asyncio.sleep(0)

    async def get(self, wires: Sequence[bytes]) -> list[Reply]:
        """See `Servers`."""
        if not wires:
            return []
        (found,) = _translated(self._node, await self._node.exchange([("MGET", *wires)]))
        return found if isinstance(found, list) else [found] * len(wires)

    async def exchange(self, commands: Sequence[tuple[bytes, Command]]) -> list[Reply]:
        """See `Servers`."""
        return _translated(self._node, await self._node.exchange([command for _, command in commands]))


class Cluster:
    """The nodes of a Redis Cluster.

    The map of slots is asked for at the beginning, when a node says that it is out of date, and when a
    node does not answer: its replica may have taken over. Until then its keys are unavailable, and the
    others are not.

    Parameters:
        seeds: nodes to ask for the map.
        connect: makes a node of an address.
        backend: the backend's name.
        timeout: seconds that a node may take to give the map.
    """

    def __init__(
        self, seeds: Sequence[Address], connect: Callable[[Address], Node], *, backend: str, timeout: float
    ) -> None:
        self._seeds = seeds
        self._make = connect
        self._backend = backend
        self._timeout = timeout
        self._nodes: dict[Address, Node] = {}
        self._slots: list[Node | None] = [None] * _SLOTS
        self._in_doubt = True
        self._not_before = 0.0
        self._refreshing = asyncio.Lock()

    @property
    def nodes(self) -> Sequence[Node]:
        """See `Servers`."""
        masters = {node for node in self._slots if node is not None}
        return [node for node in self._nodes.values() if node in masters]

    @property
    def failing(self) -> bool:
        """See `Servers`."""
        return all(node.failing for node in self.nodes)

    async def open(self) -> None:
        """See `Servers`."""
        self._not_before = 0.0
        error = await self._refresh()
        if error is not None:
            raise error

    async def close(self) -> None:
        """See `Servers`."""
        nodes, self._nodes = self._nodes, {}
        self._slots = [None] * _SLOTS
        for node in nodes.values():
            node.abort()
        await asyncio.sleep(0)

    async def get(self, wires: Sequence[bytes]) -> list[Reply]:
        """See `Servers`."""
        # Of what is no text MGET gives nothing, where GET gives an error.
        replies = await self.exchange([(wire, ("MGET", wire)) for wire in wires])
        return [reply[0] if isinstance(reply, list) else reply for reply in replies]

    async def exchange(self, commands: Sequence[tuple[bytes, Command]]) -> list[Reply]:
        """See `Servers`."""
        replies: list[Reply] = [None] * len(commands)
        left = list(range(len(commands)))
        for _ in range(_REDIRECTIONS):
            lost = await self._refresh() if self._in_doubt else None
            left = await self._round(commands, left, replies, lost)
            if not left:
                return replies
        for place in left:
            replies[place] = self._failed("its keys are moved again and again")
        return replies

    async def _round(
        self,
        commands: Sequence[tuple[bytes, Command]],
        places: Sequence[int],
        replies: list[Reply],
        lost: Unavailable | None,
    ) -> list[int]:
        """Send commands to where their keys are; gives those that have moved."""
        groups: dict[Node | None, list[int]] = defaultdict(list)
        for place in places:
            groups[self._slots[key_slot(commands[place][0])]].append(place)
        for place in groups.pop(None, []):
            replies[place] = lost or self._failed("no node has the slot of a key")
            self._in_doubt = True
        calls = [
            self._ask(node, [commands[place][1] for place in group])
            for node, group in groups.items()
            if node is not None
        ]
        moved = []
        for group, answers in zip(groups.values(), await together(calls), strict=True):
            for place, answer in zip(group, answers, strict=True):
                replies[place] = answer
                if isinstance(answer, MovedError):
                    moved.append(place)
        return moved

    async def _ask(self, node: Node, commands: Sequence[Command]) -> list[Reply]:
        try:
            replies = await node.exchange(commands)
        except BaseException:
            self._in_doubt = True  # it was too slow for somebody
            raise
        for place, reply in enumerate(replies):
            if isinstance(reply, MovedError):
                self._slots[reply.slot_id] = self._named(reply, node)
            elif isinstance(reply, AskError):  # its slot is on its way, and it has gone ahead
                target = self._named(reply, node)
                replies[place] = (await target.exchange([("ASKING",), commands[place]]))[1]
            if isinstance(reply, MovedError | ClusterDownError | Unavailable):
                self._in_doubt = True
        translated = _translated(node, replies)
        return [
            reply if isinstance(reply, MovedError) else ours
            for reply, ours in zip(replies, translated, strict=True)
        ]

    def _named(self, redirection: AskError, source: Node) -> Node:
        # A node that does not know another's name leaves it out: it is the one that we know it by.
        return self._node_at((redirection.host or source.address[0], redirection.port))

    async def _refresh(self) -> Unavailable | None:
        """Ask for the map of slots, one node after the other; gives why there is none."""
        async with self._refreshing:
            loop = asyncio.get_running_loop()
            error = self._failed("no node gave the map of slots a moment ago")
            if not self._in_doubt or loop.time() < self._not_before:
                return None if any(self._slots) else error
            known = sorted(self._nodes.values(), key=lambda node: node.failing)
            others = [self._node_at(seed) for seed in self._seeds if seed not in self._nodes]
            self._not_before = loop.time() + _REFRESH_SECONDS
            for node in (*known, *others):
                try:
                    async with asyncio.timeout(self._timeout):
                        (reply,) = await node.exchange([("CLUSTER", "SLOTS")])
                    self._learn(node, reply)
                except TimeoutError:
                    error = self._failed("a node did not give the map of slots in time")
                except Unavailable as failure:
                    error = failure
                else:
                    return None
            return error

    def _learn(self, source: Node, reply: Reply) -> None:
        if isinstance(reply, Unavailable):
            raise reply
        if isinstance(reply, RedisError):
            raise source.refused(reply)
        try:
            slots = self._read_map(source, reply)
        except (TypeError, ValueError, IndexError, UnicodeDecodeError):
            raise self._failed("a node gave a map of slots that cannot be understood") from None
        if not any(slots):
            raise self._failed("no node has any slot yet")
        self._slots = slots
        self._in_doubt = False
        gone = [node for node in self._nodes.values() if node not in slots and node is not source]
        for node in gone:
            del self._nodes[node.address]
            node.abort()

    def _read_map(self, source: Node, reply: Any) -> list[Node | None]:  # noqa: ANN401 - what the server says
        slots: list[Node | None] = [None] * _SLOTS
        for first, last, (host, port, *_), *_ in reply:
            # A node that does not know its own name leaves it out.
            node = self._node_at((host.decode() or source.address[0], int(port)))
            slots[first : last + 1] = [node] * (last + 1 - first)
        if len(slots) != _SLOTS:
            raise ValueError(len(slots))
        return slots

    def _node_at(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = self._make(address)
        return self._nodes[address]

    def _failed(self, reason: str) -> Unavailable:
        return BackendFailed(f"{self._backend}: {reason}", backend=self._backend, sent=False)


def _translated(node: Node, replies: list[Reply]) -> list[Reply]:
    """Replies with the server's errors in terms of ours."""
    return [node.refused(reply) if isinstance(reply, RedisError) else reply for reply in replies]


async def together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of calls that go on at the same time; if one fails, the others are cancelled."""
    if len(calls) == 1:
        return [await calls[0]]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]
