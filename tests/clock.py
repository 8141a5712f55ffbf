"""A clock that tests decide."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class FakeClock:
    """`Clock` without waiting; ids count from 1.

    A sleep lets every other task run and then moves time by itself; with `manual` it lasts until `advance` has moved
    time far enough, which suits code that sleeps in a loop beside real work.
    """

    def __init__(self, now: datetime = NOON, *, manual: bool = False) -> None:
        self._now = now
        self._manual = manual
        self._ids = 0
        self._sleepers: list[tuple[datetime, asyncio.Event]] = []
        self.slept: list[float] = []
        """Every sleep so far, in seconds, in the order in which they began."""

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self._now + timedelta(seconds=seconds)
        if self._manual and seconds > 0:
            over = asyncio.Event()
            self._sleepers.append((until, over))
            await over.wait()
        else:
            await asyncio.sleep(0)
            self._now = max(self._now, until)

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._ids:024x}"

    def advance(self, seconds: float) -> None:
        """Move time and end the sleeps that are over by then."""
        self._now += timedelta(seconds=seconds)
        for until, over in self._sleepers:
            if until <= self._now:
                over.set()
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].is_set()]
