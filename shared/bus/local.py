"""The embedded bus: wakes are delivered by tasks of this process.

Nothing is written down. A wake is durable all the same, because the session document is due since before the wake was
asked for: after a crash the tick finds it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from shared.bus.local_results import LocalResults
from shared.clock import Clock
from shared.domain import Receipt, Result, SessionKey, Wake
from shared.errors import BusDown, Retryable

Handler = Callable[[Wake], Awaitable[None]]
ReceiptHandler = Callable[[Receipt], Awaitable[None]]

FIRST_BACKOFF_SECONDS = 0.2
LAST_BACKOFF_SECONDS = 10.0

_log = logging.getLogger(__name__)


class LocalBus:
    """`Bus` that calls `handler`, as Pub/Sub's push would, from at most `sessions` tasks at once, one per session.

    A receipt goes to `receipts` while its publisher waits: nothing else would make it durable. A result is written
    down by `results` first.

    A handler that raises `Retryable` gets the same wake again, id and all, after 0.2 s doubling to 10 s; after any
    other error, which is logged, the session is left to the tick. A wake that waits behind one in flight stands for
    every further wake of its session. Used from one event loop.
    """

    def __init__(
        self,
        handler: Handler,
        clock: Clock,
        sessions: int = 64,
        receipts: ReceiptHandler | None = None,
        results: LocalResults | None = None,
    ) -> None:
        self._handler = handler
        self._receipts = receipts
        self._results = results
        self._clock = clock
        self._slots = asyncio.Semaphore(sessions)
        self._queued: dict[SessionKey, Wake] = {}
        self._tasks: dict[SessionKey, asyncio.Task[None]] = {}
        self._closed = False

    async def wake(self, key: SessionKey) -> None:
        if self._closed:
            raise BusDown("the bus is closed: the tick will find the session")
        if key not in self._queued:
            self._queued[key] = Wake(key=key, id=self._clock.new_id())
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._drain(key), name=f"wakes of {key.session}")

    async def receipt(self, receipt: Receipt) -> None:
        await self.check()
        if self._receipts is None:
            raise BusDown("nobody takes receipts here")
        try:
            await self._receipts(receipt)
        except Retryable as error:
            raise BusDown(f"the receipt was not taken: {error}") from error

    async def result(self, result: Result) -> None:
        await self.check()
        if self._results is None:
            raise BusDown("nobody posts results here")
        await self._results.put(result)

    async def check(self) -> None:
        if self._closed:
            raise BusDown("the bus is closed")

    async def idle(self) -> None:
        """Return once no wake is queued or in flight; a wake that waits for its redelivery counts as in flight."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def aclose(self) -> None:
        """Take no more wakes and cancel what is in flight, as the end of the process would."""
        self._closed = True
        if self._results is not None:
            await self._results.aclose()
        self._queued.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()  # one that was cancelled before it began took nothing away itself

    async def _drain(self, key: SessionKey) -> None:
        try:
            while key in self._queued:
                await self._deliver(key)
        finally:
            del self._tasks[key]

    async def _deliver(self, key: SessionKey) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        wake: Wake | None = None
        while True:
            async with self._slots:
                wake = wake or self._queued.pop(key)
                try:
                    await self._handler(wake)
                except Retryable as error:
                    _log.info("wake %s of session %s comes again: %s", wake.id, key.session, type(error).__name__)
                except Exception:  # noqa: BLE001  # a mistake in one session must not stop the others
                    _log.exception("wake %s of session %s failed", wake.id, key.session)
                    return
                else:
                    return
            await self._clock.sleep(backoff)
            backoff = min(2 * backoff, LAST_BACKOFF_SECONDS)
