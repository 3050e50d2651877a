"""What has a server that may be away."""

from __future__ import annotations

import asyncio

import pytest

from octopus_async.backend import Adapter
from octopus_async.errors import Unavailable
from octopus_async.record import Status
from octopus_async.testing.contract.subject import Subject, descriptors, eventually
from octopus_async.testing.operations import fields_of


class ServerContract:
    """Of an adapter whose server may be away. Its fixture ``unreachable`` was not opened yet."""

    pytestmark = pytest.mark.asyncio

    async def test_opening_without_a_server_says_so(self, unreachable: Adapter) -> None:
        with pytest.raises(Unavailable) as caught:
            await unreachable.open()
        assert caught.value.sent is False
        assert unreachable.name in str(caught.value)
        await unreachable.close()

    async def test_opening_may_be_tried_again(self, unreachable: Adapter) -> None:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await unreachable.open()
        await unreachable.close()

    async def test_calls_without_a_server_are_unavailable(self, unreachable: Adapter) -> None:
        subject = Subject(unreachable)
        with pytest.raises(Unavailable):
            await unreachable.open()
        for call in (unreachable.ping, unreachable.probe, lambda: subject.read(subject.key())):
            with pytest.raises(Unavailable):
                await call()
        (outcome,) = await subject.apply(subject.create(subject.key(), fields_of()))
        assert outcome.status is Status.UNAVAILABLE
        await unreachable.close()

    async def test_trying_without_a_server_leaves_nothing_behind(self, unreachable: Adapter) -> None:
        before, tasks = descriptors(), asyncio.all_tasks()
        for _ in range(3):
            with pytest.raises(Unavailable):
                await unreachable.open()
        await unreachable.close()
        await eventually(lambda: descriptors() <= before and asyncio.all_tasks() <= tasks)
