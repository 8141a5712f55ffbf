"""Turns, so many at a time, and what they cost the server."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import aiohttp

from benchmarks.servers import Serving

WARM_UP = 20


@dataclass(frozen=True, slots=True)
class Load:
    """One measurement."""

    turns: int
    seconds: float
    cpu: float

    @property
    def per_second(self) -> float:
        """Turns."""
        return self.turns / self.seconds

    @property
    def cpu_ms(self) -> float:
        """A turn, in milliseconds of the server's processor time."""
        return self.cpu / self.turns * 1e3


async def load(serving: Serving, turns: int, at_a_time: int, warm_up: int = WARM_UP) -> Load:
    """So many turns, each in a session of its own, after some that do not count."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120)) as http:
        await _many(serving, http, warm_up, at_a_time)
        before, begun = serving.used(), time.monotonic()
        await _many(serving, http, turns, at_a_time)
        seconds = time.monotonic() - begun
        return Load(turns, seconds, serving.used().since(before))


async def _many(serving: Serving, http: aiohttp.ClientSession, turns: int, at_a_time: int) -> None:
    left = iter(range(turns))

    async def one_after_another() -> None:
        for _ in left:
            await serving.turn(http)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_a_time):
            group.create_task(one_after_another())
