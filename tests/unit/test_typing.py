"""How long typing is shown for one call is the channel's own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from shared.channels.api import Api
from shared.domain import Connection
from shared.orchestrator.typing import AT_ONCE, Typing
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
    async with Typing().shown(channel, CONNECTION, "1", "wamid.1", clock):
        await asyncio.wait_for(channel.again.wait(), 5)

    assert set(channel.shown) == {"wamid.1"}
    assert set(clock.slept) == {20.0}


class Stuck(Api):
    """Answers nothing until it is let."""

    typing_seconds = 1.0

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def typing(self, connection: Connection, conversation: str, message: str = "") -> None:
        self.asked += 1
        await self.answers.wait()


async def test_a_channel_that_answers_slowly_is_not_flooded_with_it() -> None:
    channel, typing, clock = Stuck(), Typing(), FakeClock(manual=True)
    async with AsyncExitStack() as stack:
        for number in range(3 * AT_ONCE):
            await stack.enter_async_context(typing.shown(channel, CONNECTION, str(number), "", clock))
        await asyncio.sleep(0)
        assert channel.asked == AT_ONCE
        channel.answers.set()
        await asyncio.sleep(0.01)
        clock.advance(1.0)
        await asyncio.sleep(0.01)
        assert channel.asked == 4 * AT_ONCE, "there is room again for all, one after the other"
