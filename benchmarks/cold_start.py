"""From starting a function to its first real answer, and what it keeps in memory then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks import model
from benchmarks.figures import Figure, compared
from benchmarks.processes import MEASURED, ROOT, begin
from benchmarks.project import Project, first_answer, function, source
from shared.auth import callback_token
from shared.config.demo import TENANT
from shared.domain import SessionKey, digest
from shared.sessions.waits import outside_wait
from tests.chaos.http import Reply, Request, serving
from tests.engines import free_port

STARTS = 11
AGENT_STARTS = 5
"""Those that load litellm take seconds."""
HELLO = ROOT / "benchmarks/hello"


@dataclass(frozen=True, slots=True)
class Start:
    """One start."""

    seconds: float
    memory: float
    """Resident megabytes after the first answer."""


First = Callable[[str], Awaitable[None]]


CHATS = 500_000
"""The first chat of this benchmark."""


async def figures(project: Project) -> list[Figure]:
    """Cold starts and memory of all four functions; each round starts every one of them once."""
    kinds = _kinds(project)
    starts: dict[str, list[Start]] = {name: [] for name in kinds}
    for number in range(STARTS + 1):
        for name, (path, first) in kinds.items():
            start = await _start(project, name, path, first)
            starts[name] += [start] if number else []  # the first one compiles, and fills the system's caches
    hello = starts["hello"]
    return [
        _cold("ingest", starts["ingest"], hello, "hello-world", 3.0),
        _cold("bare Google clients", starts["bare"], hello, "hello-world", None),
        _cold("callbacks", starts["callbacks"], hello, "hello-world", 3.0),
        _cold("api", starts["api"], hello, "hello-world", 4.0),
        _memory("ingest", starts["ingest"], hello),
        _memory("callbacks", starts["callbacks"], hello),
        *await _run_agent(project),
    ]


def _kinds(project: Project) -> dict[str, tuple[Path, First]]:
    """Each function's source, and how its first real answer is had."""
    webhook, headers = project.webhook
    chats = count(CHATS)
    token = callback_token.issue(project.box, SessionKey(TENANT, digest("bench")), outside_wait(1, "tool-1.1"))
    operator = {"Authorization": f"Bearer {project.api_key}"}

    async def message(url: str) -> None:
        await _post(f"{url}{webhook}", project.update(next(chats)), headers)

    return {
        "hello": (HELLO / "main.py", _answered("/")),
        "bare": (HELLO / "bare.py", _answered("/")),
        "ingest": (source("ingest"), message),
        "callbacks": (source("callbacks"), _answered(f"/v1/callbacks/{token}", (202, 410))),
        "api": (source("api"), _answered("/v1/sessions", (200,), operator, "GET")),
    }


def _memory(name: str, starts: list[Start], others: list[Start]) -> Figure:
    value, other = (median(start.memory for start in some) for some in (starts, others))
    return compared(f"memory, {name}", "MB", value, other, "hello-world", 2.5)


def _cold(name: str, starts: list[Start], others: list[Start], against: str, ceiling: float | None) -> Figure:
    value, other = (median(start.seconds for start in some) for some in (starts, others))
    return compared(f"cold start, {name}", "s", value, other, against, ceiling)


def _answered(
    path: str, settled: tuple[int, ...] = (200,), headers: Mapping[str, str] | None = None, method: str = "POST"
) -> First:
    async def first(url: str) -> None:
        status, body = await first_answer(f"{url}{path}", {"result": {}}, headers or {}, method=method)
        assert status in settled, (status, body[:300])

    return first


async def _post(url: str, body: object, headers: Mapping[str, str]) -> None:
    status, said = await first_answer(url, body, headers)
    assert status == 200, said[:300]
    assert b'"accepted"' in said, said[:300]


async def _start(project: Project, name: str, path: Path, first: First, more: Mapping[str, str] | None = None) -> Start:
    port = free_port()
    begun = time.monotonic()
    environment = {**project.environment, **(more or {})}
    server = begin(function(name, path, port), environment, project.folder, cores=[MEASURED])
    try:
        await first(f"http://127.0.0.1:{port}")
        return Start(time.monotonic() - begun, server.used().memory)
    finally:
        server.stop()


async def _run_agent(project: Project) -> list[Figure]:
    """Until the model is asked, with a wake waiting, directly and through litellm; against hello-world that imports
    litellm."""
    asked = asyncio.Event()

    async def handle(request: Request) -> Reply:
        asked.set()
        return model.answer(request)

    async with serving(handle) as address:
        hello, ours, through = [], [], []
        own, by_litellm = (project.with_model(f"{address}/", through_litellm=way) for way in (False, True))
        litellm, chats = {"BENCH_IMPORT": "litellm"}, count(CHATS + 1_000)
        for _ in range(AGENT_STARTS + 1):
            ours.append(await _woken(own, next(chats), asked))
            through.append(await _woken(by_litellm, next(chats), asked))
            hello.append(await _start(project, "hello", HELLO / "main.py", _answered("/"), litellm))
    return [
        _cold("run_agent", ours[1:], hello[1:], "hello-world with litellm", 1.25),
        _cold("run_agent, through litellm", through[1:], hello[1:], "hello-world with litellm", None),
    ]


async def _woken(project: Project, chat: int, asked: asyncio.Event) -> Start:
    """A message waits for its run, and a push for whoever serves, until the model is asked."""
    asked.clear()
    path, headers = project.webhook
    with project.running("ingest") as (url, _):
        await _post(f"{url}{path}", project.update(chat), headers)
    port = free_port()
    begun = time.monotonic()
    command = function("run_agent", source("run_agent"), port)
    server = begin(command, project.environment, project.folder, cores=[MEASURED])
    try:
        push = asyncio.create_task(first_answer(f"http://127.0.0.1:{port}/wakes", project.wake(chat), {}))
        async with asyncio.timeout(60):
            await asked.wait()
        found = Start(time.monotonic() - begun, server.used().memory)
        await push
        return found
    finally:
        server.stop()
