"""CPU of a turn on Google's emulators: from the webhook to the reply that was sent, over all functions' processes."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from statistics import median

import aiohttp

from benchmarks import servers
from benchmarks.figures import Figure, compared
from benchmarks.load import load
from benchmarks.project import Project, Telegram
from benchmarks.servers import Serving

TURNS = 200
ROUNDS = 3
AT_ONCE = 16


async def figures(project: Project, telegram: Telegram, model: str) -> list[Figure]:
    """Against agno served, which promises nothing about crashes; fresh processes of both in turn."""
    ours, theirs = [], []
    for number in range(ROUNDS):
        ours.append(await _functions(project, telegram, 1_000_000 * (number + 1)))
        with servers.agno(model, project.folder) as agno:
            theirs.append((await load(agno, TURNS, AT_ONCE)).cpu_ms)
    ratio = median(one / other for one, other in zip(ours, theirs, strict=True))
    name = f"CPU per turn, Firestore and Pub/Sub emulators, {AT_ONCE} at a time"
    against = f"{servers.name_of('agno')} served"
    return [compared(name, "ms", median(ours), median(theirs), against, 1.75, ratio=ratio)]


async def _functions(project: Project, telegram: Telegram, first_chat: int) -> float:
    """Milliseconds a turn."""
    with ExitStack() as stack:
        started = {name: stack.enter_context(project.running(name)) for name in ("ingest", "run_agent", "callbacks")}
        stack.enter_context(project.pushed_to("wakes", f"{started['run_agent'][0]}/wakes"))
        path, headers = project.webhook
        webhook, chats = f"{started['ingest'][0]}{path}", count(first_chat)

        async def turn(http: aiohttp.ClientSession) -> None:
            chat = next(chats)
            async with http.post(webhook, json=project.update(chat), headers=headers) as taken:
                assert taken.status == 200, await taken.text()
            await telegram.until(chat)

        serving = Serving(tuple(server for _, server in started.values()), turn)
        return (await load(serving, TURNS, AT_ONCE)).cpu_ms
