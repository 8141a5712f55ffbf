"""A network that loses requests and answers between the functions and their store and bus; an emulator that stops."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import replace

from tests.chaos.chance import chance
from tests.chaos.fleet import Fleet, Shape
from tests.chaos.history import Fault
from tests.chaos.proxy import Proxy, before
from tests.chaos.random_kills import talking
from tests.chaos.report import Report
from tests.chaos.suite import Job, Size, baseline, keep, look_for_crashes, look_into, settle
from tests.engines import Engine

CUTS: dict[Size, int] = {"ci": 100, "demand": 500}
STOPS: dict[Size, int] = {"ci": 1, "demand": 5}
"""Of each emulator."""
CHANCE = 0.01
STOPPED_SECONDS = 5.0
LIMIT_SECONDS = 1800.0


async def run(job: Job) -> list[Report]:
    """The suite."""
    report = Report("network", job.seed)
    await cutting(job, report, Shape(), CUTS[job.size], STOPS[job.size])
    return [report]


async def cutting(
    job: Job, report: Report, shape: Shape, cuts: int, stops: int, rate: float = CHANCE, *, answers_only: bool = False
) -> None:
    """People write until so many connections were cut, and each emulator was stopped so often."""
    control, ground = shape.control, job.ground
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(before(Proxy(host, chance(job.seed + place), answers_only=answers_only)))
            for place, host in enumerate((ground.firestore.host, ground.pubsub.host))
        ]
        shape = replace(shape, firestore=proxies[0].address, pubsub=proxies[1].address)
        name = f"network{job.seed}{control.replace('_', '')}"
        fleet = await stack.enter_async_context(Fleet(ground, name, job.seed, shape))
        if not control:
            await baseline(fleet, report)
        for proxy, whose in zip(proxies, ("firestore", "pubsub"), strict=True):
            proxy.chance, proxy.cut = rate, lambda what, whose=whose: _note(fleet, f"{whose} {what}")
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(talking(fleet, enough))
            for _ in range(stops):
                for engine in (ground.firestore, ground.pubsub):
                    await asyncio.sleep(3.0)
                    await _stop(fleet, engine)
            await _until_cut(fleet, cuts, report)
            enough.set()
        for proxy in proxies:
            proxy.chance = 0.0
        await settle(fleet, report, 30.0 if control else 60.0)
        await look_into(fleet, report)
    report.add(fleet.world.history, {"cut", "emulator"})
    look_for_crashes(fleet.folder, report)
    keep(job, fleet, report)


def _note(fleet: Fleet, what: str) -> None:
    fleet.world.history.faults.append(Fault(at=time.monotonic(), kind="cut", what=what))


async def _until_cut(fleet: Fleet, cuts: int, report: Report) -> None:
    history = fleet.world.history
    if not await fleet.world.until(lambda: sum(f.kind == "cut" for f in history.faults) >= cuts, LIMIT_SECONDS):
        report.violate([("too_slow", f"fewer than {cuts} cuts in {LIMIT_SECONDS:g} s")])


async def _stop(fleet: Fleet, engine: Engine) -> None:
    """An emulator has no time for anybody."""
    process = engine._process
    if process is None:
        return  # one that ran before us is not ours to stop
    at = time.monotonic()
    fleet.world.history.faults.append(Fault(at=at, kind="emulator", what=engine.name, until=at + STOPPED_SECONDS))
    os.kill(process.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(STOPPED_SECONDS)
    finally:
        os.kill(process.pid, signal.SIGCONT)
