"""Shows the contact that the agent is at work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.channels import Channel
from shared.clock import Clock
from shared.domain import Connection
from shared.errors import SendError

logger = logging.getLogger(__name__)


AT_ONCE = 10
"""Calls under way for a whole process. A bot has about 30 calls a second for everything
(https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this), and replies need them: a thousand
runs that showed typing would wait for each other, and the replies for them."""


class Typing:
    """What one process shows."""

    def __init__(self) -> None:
        self._under_way = 0

    @asynccontextmanager
    async def shown(
        self, channel: Channel, connection: Connection, conversation: str, message: str, clock: Clock
    ) -> AsyncIterator[None]:
        """Typing is shown for as long as the block runs; nothing in the block waits for it or fails with it. With
        `AT_ONCE` calls under way it is left out until the next time."""
        task = asyncio.create_task(self._refresh(channel, connection, conversation, message, clock))
        try:
            yield
        finally:
            task.cancel()

    async def _refresh(
        self, channel: Channel, connection: Connection, conversation: str, message: str, clock: Clock
    ) -> None:
        try:
            while True:
                if self._under_way < AT_ONCE:
                    await self._call(channel, connection, conversation, message)
                await clock.sleep(channel.typing_seconds)
        except SendError as error:
            logger.info("typing is not shown", extra={"fields": {"reason": str(error)}})

    async def _call(self, channel: Channel, connection: Connection, conversation: str, message: str) -> None:
        self._under_way += 1
        try:
            await channel.typing(connection, conversation, message)
        finally:
            self._under_way -= 1
