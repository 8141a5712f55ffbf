"""CPU of a turn, and turns a second on one core: the embedded server against peers that promise less."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from benchmarks import servers
from benchmarks.figures import Figure
from benchmarks.load import Load, load
from benchmarks.peers import HERE
from benchmarks.processes import MEASURED
from benchmarks.servers import Serving, model_environment

TURNS = 300
ROUNDS = 3
"""Fresh servers of each kind, in turn."""
AT_ONCE = 16
Serve = Callable[[str, Path], AbstractContextManager[Serving]]
Loads = dict[int, Load]


async def figures(model: str, folder: Path) -> list[Figure]:
    """Ours against agno; google-adk and the bare loops beside it."""
    ours: list[Loads] = []
    agno: list[Loads] = []
    for _ in range(ROUNDS):
        ours.append(await _served(servers.embedded, model, folder))
        agno.append(await _served(servers.agno, model, folder))
    adk = await _served(servers.adk, model, folder)
    found = [_cpu(ours, agno, AT_ONCE, 0.8), _cpu(ours, agno, 1, None), _rate(ours, agno, 0.75)]
    mine = median(each[AT_ONCE].cpu_ms for each in ours)
    others = {f"{servers.name_of('adk')} served": adk[AT_ONCE].cpu_ms}
    others |= {f"raw {name} loop": await _raw(name, model) for name in ("litellm", "httpx")}
    return found + [
        Figure(
            figure="CPU per turn, embedded, beside others",
            value=mine,
            unit="ms",
            against=f"{name}: {value:.2f} ms",
            ratio=mine / value,
        )
        for name, value in others.items()
    ]


async def _served(serve: Serve, model: str, folder: Path) -> Loads:
    with serve(model, folder) as serving:
        return {at_once: await load(serving, TURNS, at_once) for at_once in (1, AT_ONCE)}


def _cpu(ours: list[Loads], theirs: list[Loads], at_once: int, ceiling: float | None) -> Figure:
    other = median(each[at_once].cpu_ms for each in theirs)
    return Figure(
        figure=f"CPU per turn, embedded, {at_once} at a time",
        value=median(each[at_once].cpu_ms for each in ours),
        unit="ms",
        against=f"{servers.name_of('agno')} served: {other:.2f} ms",
        ratio=median(one[at_once].cpu_ms / two[at_once].cpu_ms for one, two in zip(ours, theirs, strict=True)),
        ceiling=ceiling,
    )


def _rate(ours: list[Loads], theirs: list[Loads], ceiling: float) -> Figure:
    other = median(each[AT_ONCE].per_second for each in theirs)
    return Figure(
        figure=f"turns per second on one core, {AT_ONCE} at a time",
        value=median(each[AT_ONCE].per_second for each in ours),
        unit="turns/s",
        against=f"{servers.name_of('agno')} served: {other:.0f} turns/s",
        ratio=median(two[AT_ONCE].per_second / one[AT_ONCE].per_second for one, two in zip(ours, theirs, strict=True)),
        ceiling=ceiling,
    )


async def _raw(name: str, model: str) -> float:
    """Milliseconds a turn of the loop that keeps nothing."""
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(MEASURED), sys.executable, HERE / "raw.py", name,
        env=os.environ | model_environment(model), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, f"{name} ended with {process.returncode}"
    return float(json.loads(said)["cpu_ms_per_turn"])
