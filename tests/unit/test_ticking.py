from __future__ import annotations

import asyncio

from shared.cli.embedded import ticking
from shared.errors import StoreDown
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
