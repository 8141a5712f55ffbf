"""The bus in memory: every wake is delivered until it is acknowledged, one at a time per session, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count

from shared.domain import SessionKey, Wake
from tests.chaos.simulation.faults import Faults
from tests.chaos.simulation.history import History

FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0


class Broker:
    """Pushes as Pub/Sub does: what is not acknowledged within `deadline` seconds is pushed once more, while the first
    push may still go on."""

    def __init__(
        self, push: Callable[[Wake], Awaitable[bool]], faults: Faults, history: History, deadline: float
    ) -> None:
        self._push = push
        self._faults = faults
        self._history = history
        self._deadline = deadline
        self._ids = count(1)
        self._queues: dict[SessionKey, deque[Wake]] = {}
        self._drains: dict[SessionKey, asyncio.Task[None]] = {}
        self._pushes: set[asyncio.Task[bool]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to deliver, and no push is under way."""
        return not self._drains and not self._pushes

    def publish(self, key: SessionKey) -> None:
        """Take one more wake; a fault may lose it."""
        wake = Wake(key=key, id=f"w{next(self._ids)}")
        if self._faults.strikes("wake_lost", self._faults.rates.wake_lost):
            self._history.note(f"wake {wake.id} is lost")
            return
        self._history.note(f"wake {wake.id} for {key.session[:4]}")
        self._queues.setdefault(key, deque()).append(wake)
        if key not in self._drains:
            self._drains[key] = asyncio.create_task(self._drain(key))

    async def _drain(self, key: SessionKey) -> None:
        queue = self._queues[key]
        while queue:
            await self._deliver(queue[0])
            wake = queue.popleft()
            if self._faults.strikes("wake_doubled", self._faults.rates.wake_doubled):
                queue.append(wake)
        del self._drains[key]

    async def _deliver(self, wake: Wake) -> None:
        backoff = FIRST_BACKOFF
        while True:
            push = self._begin(wake)
            if self._faults.strikes("wake_doubled", self._faults.rates.wake_doubled):
                self._begin(wake)
            await asyncio.wait({push}, timeout=self._deadline)
            if push.done() and push.result():
                return
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, LAST_BACKOFF)

    def _begin(self, wake: Wake) -> asyncio.Task[bool]:
        push = asyncio.create_task(self._answered(wake))
        self._pushes.add(push)
        push.add_done_callback(self._pushes.discard)
        return push

    async def _answered(self, wake: Wake) -> bool:
        return await self._push(wake)
