"""How the harness itself deals with a machine that has no time for it: it tries again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.errors import StoreDown

Value = TypeVar("Value")
PATIENCE_SECONDS = 120.0


async def patiently(call: Callable[[], Awaitable[Value]]) -> Value:
    """What it gives, once the store answers. Raises `StoreDown` after two minutes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await call()
        except StoreDown:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(1.0)
