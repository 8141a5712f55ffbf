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


@asynccontextmanager
async def typing(
    channel: Channel, connection: Connection, conversation: str, message: str, clock: Clock
) -> AsyncIterator[None]:
    """Typing is shown for as long as the block runs; nothing in the block waits for it or fails with it."""
    task = asyncio.create_task(_refresh(channel, connection, conversation, message, clock))
    try:
        yield
    finally:
        task.cancel()


async def _refresh(channel: Channel, connection: Connection, conversation: str, message: str, clock: Clock) -> None:
    try:
        while True:
            await channel.typing(connection, conversation, message)
            await clock.sleep(channel.typing_seconds)
    except SendError as error:
        logger.info("typing is not shown", extra={"fields": {"reason": str(error)}})
