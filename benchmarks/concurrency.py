"""A thousand sessions at once on one `run_agent`, whose model thinks for a second before each answer."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from benchmarks.figures import Figure
from benchmarks.processes import model as model_command
from benchmarks.processes import others, running
from benchmarks.project import Project, Telegram
from tests.engines import free_port

SESSIONS = 1_000
MODEL_SECONDS = 1.0
CALLS = 2
CHATS = 2_000_000


async def figures(project: Project, telegram: Telegram) -> list[Figure]:
    """Messages wait in their sessions; their wakes are posted straight to the one process, all at once. The time that
    95 % of them took, against the longer of what the models take and what the process has to do."""
    command, url = model_command(free_port(), MODEL_SECONDS)
    with running(command, url, {}, project.folder, cores=others()):
        here = project.with_model(url)
        first, *chats = [CHATS + number for number in range(SESSIONS + 1)]
        await _say(here, [first, *chats])
        with here.running("run_agent") as (address, server):
            await _woken(here, telegram, address, [first])  # litellm is imported, and everything connected
            before = server.used()
            took = await _woken(here, telegram, address, chats)
            cpu = server.used().since(before) / SESSIONS
    least = max(CALLS * MODEL_SECONDS, SESSIONS * cpu)
    p95 = sorted(took)[int(SESSIONS * 0.95)]
    against = f"models {CALLS * MODEL_SECONDS:g} s, {SESSIONS:,} times {cpu * 1e3:.2f} ms of CPU: {least:.2f} s"
    return [
        Figure(
            figure=f"concurrency, {SESSIONS:,} sessions, p95",
            value=p95,
            unit="s",
            against=against,
            ratio=p95 / least,
            ceiling=1.5,
        )
    ]


async def _say(project: Project, chats: list[int]) -> None:
    path, headers = project.webhook
    left = iter(chats)
    with project.running("ingest") as (url, _):
        async with aiohttp.ClientSession() as http:

            async def one_after_another() -> None:
                for chat in left:
                    async with http.post(f"{url}{path}", json=project.update(chat), headers=headers) as taken:
                        assert taken.status == 200, await taken.text()

            await asyncio.gather(*(one_after_another() for _ in range(16)))


async def _woken(project: Project, telegram: Telegram, url: str, chats: list[int]) -> list[float]:
    """Seconds from the first wake to each reply."""
    begun = time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(300)) as http:

        async def wake(chat: int) -> float:
            async with http.post(f"{url}/wakes", json=project.wake(chat)) as answer:
                assert answer.status == 204, await answer.text()
            await telegram.until(chat)
            return time.monotonic() - begun

        return await asyncio.gather(*map(wake, chats))
