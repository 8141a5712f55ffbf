"""How long typing is shown for one call is the channel's own."""

from __future__ import annotations

import asyncio

from shared.channels.api import Api
from shared.domain import Connection
from shared.orchestrator.typing import typing
from tests.clock import FakeClock

CONNECTION = Connection(id="line", tenant="demo", channel="whatsapp", agent="shop", plan="0" * 64)


class Slow(Api):
    """Shows typing for twenty seconds; remembers which message it was shown for."""

    typing_seconds = 20.0

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.again = asyncio.Event()

    async def typing(self, connection: Connection, conversation: str, message: str = "") -> None:
        self.shown.append(message)
        if len(self.shown) == 3:
            self.again.set()


async def test_it_is_shown_again_at_the_channels_pace_for_the_message_that_is_answered() -> None:
    channel, clock = Slow(), FakeClock()
    async with typing(channel, CONNECTION, "1", "wamid.1", clock):
        await asyncio.wait_for(channel.again.wait(), 5)

    assert set(channel.shown) == {"wamid.1"}
    assert set(clock.slept) == {20.0}
