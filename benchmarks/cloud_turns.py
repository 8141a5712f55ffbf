"""CPU of a turn on Google's emulators: from the webhook to the reply that was sent, over all functions' processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

import aiohttp

from benchmarks import servers
from benchmarks.figures import Figure, paired
from benchmarks.load import WARM_UP, load
from benchmarks.project import Project, Telegram
from benchmarks.servers import QUESTION, Serving

TURNS = 200
ROUNDS = 3
AT_ONCE = 16
Ask = Callable[[aiohttp.ClientSession, str, int], Awaitable[None]]
"""Ask at `ingest`, whose address it is given, with the turn's number, and return once that is answered."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What turns took."""

    cpu_ms: Mapping[str, float]
    """A turn, by function."""

    @property
    def total(self) -> float:
        """Of all functions."""
        return sum(self.cpu_ms.values())


async def figures(project: Project, telegram: Telegram, model: str) -> list[Figure]:
    """Against agno served, which promises nothing about crashes; fresh processes of both in turn."""
    ours, through, theirs = [], [], []
    ask, by_litellm = asked(project, telegram), project.with_model(model, through_litellm=True)
    for number in range(ROUNDS):
        first = 1_000_000 * (number + 1)
        ours.append((await measured(project, ask, first)).total)
        through.append((await measured(by_litellm, ask, first + 500_000)).total)
        with servers.agno(model, project.folder) as agno:
            theirs.append((await load(agno, TURNS, AT_ONCE)).cpu_ms)
    name = f"CPU per turn, Firestore and Pub/Sub emulators, {AT_ONCE} at a time"
    against = f"{servers.name_of('agno')} served"
    return [
        paired(name, "ms", ours, theirs, against, 1.75),
        paired(f"{name}, through litellm", "ms", through, theirs, against, None),
    ]


def asked(project: Project, telegram: Telegram, question: str = QUESTION) -> Ask:
    """On Telegram, from its webhook to the sent reply."""
    path, headers = project.webhook

    async def ask(http: aiohttp.ClientSession, ingest: str, number: int) -> None:
        async with http.post(f"{ingest}{path}", json=project.update(number, question), headers=headers) as taken:
            assert taken.status == 200, await taken.text()
        await telegram.until(number)

    return ask


async def measured(project: Project, ask: Ask, first: int, turns: int = TURNS) -> Turns:
    """What a turn takes each of the functions, fresh processes of them; turns are numbered from `first` on."""
    with ExitStack() as stack:
        started = {name: stack.enter_context(project.running(name)) for name in ("ingest", "run_agent", "callbacks")}
        stack.enter_context(project.pushed_to("wakes", f"{started['run_agent'][0]}/wakes"))
        ingest, numbers = started["ingest"][0], count(first)

        async def turn(http: aiohttp.ClientSession) -> None:
            await ask(http, ingest, next(numbers))

        functions = {name: server for name, (_, server) in started.items()}
        serving = Serving(tuple(functions.values()), turn)
        await load(serving, WARM_UP, AT_ONCE, warm_up=0)
        before = {name: server.used() for name, server in functions.items()}
        await load(serving, turns, AT_ONCE, warm_up=0)
        return Turns({name: server.used().since(before[name]) / turns * 1e3 for name, server in functions.items()})
