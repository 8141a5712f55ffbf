"""CPU of a turn, and turns a second on one core: the embedded server against peers that promise less."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import servers
from benchmarks.figures import Figure, compared, paired
from benchmarks.load import Load, load
from benchmarks.peers import HERE
from benchmarks.processes import MEASURED
from benchmarks.servers import Serving, model_environment

TURNS = 200
ROUNDS = 3
"""Fresh servers of each kind, in turn."""
AT_ONCE = 16
Serve = Callable[[str, Path], AbstractContextManager[Serving]]
Loads = dict[int, Load]
Measure = Callable[[Loads], float]


async def figures(model: str, folder: Path) -> list[Figure]:
    """Ours against agno; google-adk and the bare loops beside it."""
    ours: list[Loads] = []
    through: list[Loads] = []
    agno: list[Loads] = []
    for _ in range(ROUNDS):
        ours.append(await _served(servers.embedded, model, folder))
        through.append(await _served(partial(servers.embedded, through_litellm=True), model, folder))
        agno.append(await _served(servers.agno, model, folder))
    adk = await _served(servers.adk, model, folder)
    found = [
        _against(f"CPU per turn, embedded, {AT_ONCE} at a time", "ms", ours, agno, _cpu(AT_ONCE), 0.8),
        _against("CPU per turn, embedded, 1 at a time", "ms", ours, agno, _cpu(1), None),
        _against(
            f"CPU per turn, embedded, {AT_ONCE} at a time, through litellm", "ms", through, agno, _cpu(AT_ONCE), 0.8
        ),
        _against(f"turns per second on one core, {AT_ONCE} at a time", "turns/s", ours, agno, _rate, 0.75, more=True),
    ]
    mine = median(map(_cpu(AT_ONCE), ours))
    others = {f"{servers.name_of('adk')} served": adk[AT_ONCE].cpu_ms}
    others |= {f"raw {name} loop": await _raw(name, model) for name in ("litellm", "httpx")}
    return found + [
        compared(f"CPU per turn, embedded, beside {name}", "ms", mine, value, name, None)
        for name, value in others.items()
    ]


async def _served(serve: Serve, model: str, folder: Path) -> Loads:
    with serve(model, folder) as serving:
        return {at_once: await load(serving, TURNS, at_once) for at_once in (1, AT_ONCE)}


def _cpu(at_once: int) -> Measure:
    return lambda loads: loads[at_once].cpu_ms


def _rate(loads: Loads) -> float:
    return loads[AT_ONCE].per_second


def _against(
    figure: str, unit: str, ours: list[Loads], theirs: list[Loads], measure: Measure, ceiling: float | None,
    *, more: bool = False,
) -> Figure:  # fmt: skip
    against = f"{servers.name_of('agno')} served"
    return paired(figure, unit, [*map(measure, ours)], [*map(measure, theirs)], against, ceiling, more=more)


async def _raw(name: str, model: str) -> float:
    """Milliseconds a turn of the loop that keeps nothing."""
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(MEASURED), sys.executable, HERE / "raw.py", name,
        env=os.environ | model_environment(model), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, f"{name} ended with {process.returncode}"
    return float(json.loads(said)["cpu_ms_per_turn"])
