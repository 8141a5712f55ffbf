"""Results of the embedded bus: written down, then posted by tasks of this process until they are taken or given up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from shared.clock import Clock
from shared.codec import decode, encode
from shared.domain import Result
from shared.errors import BusDown, Retryable, StoreDown
from shared.store import Documents

Handler = Callable[[Result], Awaitable[None]]

ATTEMPTS = 8
FIRST_BACKOFF_SECONDS = 0.2
LAST_BACKOFF_SECONDS = 10.0
KEPT = "results"
"""Where they lie while they are on their way."""

_log = logging.getLogger(__name__)


class LocalResults:
    """Gives each result to `handler`, at most `ATTEMPTS` times with growing pauses, and after that to `dead`.

    A result that a killed process left is taken up by `resume`, and counts from one again. Used from one event loop.
    """

    def __init__(self, documents: Documents, handler: Handler, dead: Handler, clock: Clock) -> None:
        self._documents = documents
        self._handler = handler
        self._dead = dead
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def put(self, result: Result) -> None:
        """Return once the result is written down. Raises `BusDown`."""
        try:
            await self._documents.put(f"{KEPT}/{result.id}", encode(result))
        except StoreDown as error:
            raise BusDown("the result could not be written down") from error
        self._begin(result)

    async def resume(self) -> None:
        """Take up what is written down and not on its way. Raises `StoreDown`."""
        for _, body in await self._documents.list(KEPT):
            self._begin(decode(Result, body))

    async def idle(self) -> None:
        """Return once nothing is on its way."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def aclose(self) -> None:
        """Cancel what is on its way, as the end of the process would."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def _begin(self, result: Result) -> None:
        if result.id not in self._tasks:
            task = self._tasks[result.id] = asyncio.create_task(self._tell(result), name=f"result {result.id}")
            task.add_done_callback(lambda _: self._tasks.pop(result.id, None))

    async def _tell(self, result: Result) -> None:
        path = f"{KEPT}/{result.id}"
        try:
            if await self._documents.get(path) is None:
                return  # it was taken while `resume` still saw it
            if not await self._taken(result):
                await self._dead(result)
            await self._documents.delete(path)
        except StoreDown as error:
            _log.warning("result %s is taken up again later: %s", result.id, error)

    async def _taken(self, result: Result) -> bool:
        backoff = FIRST_BACKOFF_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._handler(result)
            except Retryable as error:
                _log.info("result %s comes again: %s", result.id, error)
            except Exception:  # noqa: BLE001  a mistake with one result must not lose it
                _log.exception("result %s failed", result.id)
            else:
                return True
            if attempt < ATTEMPTS:
                await self._clock.sleep(backoff)
                backoff = min(2 * backoff, LAST_BACKOFF_SECONDS)
        return False
