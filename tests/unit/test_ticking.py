from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime

import pytest

from shared.cli.embedded import ticking
from shared.domain import SessionKey
from shared.errors import BusDown, StoreDown
from shared.settings import Settings
from shared.wiring import Parts


class OnceDown(Parts):
    """Parts whose store does not answer the first tick."""

    def __init__(self) -> None:
        super().__init__(Settings())
        self.ticks = 0
        self.again = asyncio.Event()

    async def wake_due(self) -> int:
        self.ticks += 1
        if self.ticks == 1:
            raise StoreDown("it does not answer")
        self.again.set()
        return 0


async def test_the_tick_goes_on_after_the_store_was_down() -> None:
    here = OnceDown()
    async with ticking(here):
        await asyncio.wait_for(here.again.wait(), 10)


class Due:
    """A store in which so many sessions are due."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def due(self, before: datetime) -> AsyncGenerator[SessionKey]:
        for number in range(self._count):
            yield SessionKey("demo", str(number))


class Wakes:
    """A bus that notes what it is asked to wake, and does not take some of it."""

    def __init__(self, *refused: str) -> None:
        self.asked: list[str] = []
        self.most = 0
        """How many wakes were on their way at once."""
        self._now = 0
        self._refused = refused

    async def wake(self, key: SessionKey) -> None:
        self.asked.append(key.session)
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        if key.session in self._refused:
            raise BusDown(f"not {key.session}")


def ticking_with(due: int, bus: Wakes) -> Parts:
    here = Parts(Settings(project="demo"))
    here.__dict__.update(store=Due(due), bus=bus)
    return here


@pytest.mark.parametrize("due", [0, 1, 100, 250])
async def test_the_tick_wakes_all_that_is_due_a_hundred_at_a_time(due: int) -> None:
    bus = Wakes()

    assert await ticking_with(due, bus).wake_due() == due
    assert bus.asked == [str(number) for number in range(due)]
    assert bus.most == min(due, 100)


async def test_a_wake_that_fails_hides_no_other_and_is_raised_at_the_end() -> None:
    bus = Wakes("249", "3")
    with pytest.raises(BusDown, match="not 3"):
        await ticking_with(250, bus).wake_due()

    assert len(bus.asked) == 250
