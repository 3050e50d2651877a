"""A unit of work on its way to a backend: answered by its deadline, whether or not the backend is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from octopus_async.record import Outcome

Work: TypeAlias = "Awaitable[Sequence[Outcome]]"
Begun: TypeAlias = Callable[[Work], Work]


class UnitCall:
    """A call that goes on when nobody waits for it any more, unless it was not sent by then.

    Parameters:
        size: how many operations there are.
        deadline: a moment of the loop's clock.
        make: makes the call; passes what sends it through the function that it is given.
        late: the outcome of each operation at the deadline; is told whether it had been sent.

    Attributes:
        future: its outcomes.
        task: the call itself.
    """

    def __init__(
        self,
        size: int,
        deadline: float,
        make: Callable[[Begun], Coroutine[Any, Any, Sequence[Outcome]]],
        late: Callable[[bool], Outcome],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Sequence[Outcome]] = loop.create_future()
        self._size = size
        self._make = make
        self._late = late
        self._sent = False
        self._timer = loop.call_at(deadline, self._expire)
        self.task = loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            self._settle(await self._make(self._begun))
        finally:
            self._settle([self._late(self._sent)] * self._size)
            self._timer.cancel()

    def _begun(self, work: Work) -> Work:
        self._sent = True
        return work

    def _expire(self) -> None:
        self._settle([self._late(self._sent)] * self._size)
        if not self._sent:
            self.task.cancel()

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        if not self.future.done():
            self.future.set_result(outcomes)
