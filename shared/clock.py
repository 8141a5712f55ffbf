"""Time and ids: the only place that reads the clock or makes a random id, so that tests can decide both."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the code above asks of time and chance."""

    def now(self) -> datetime:
        """The present, in UTC."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""

    def new_id(self) -> str:
        """24 hexadecimal characters that were never given before."""


class SystemClock:
    """The machine's clock and random source."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def new_id(self) -> str:
        return secrets.token_hex(12)
