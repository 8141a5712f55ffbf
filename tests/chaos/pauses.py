"""Processes that stop in mid-work for longer than Pub/Sub waits, and then go on as if nothing had happened; pushes that
come twice."""

from __future__ import annotations

import asyncio

from tests.chaos.fleet import Fleet, Shape
from tests.chaos.parts import Control
from tests.chaos.random_kills import talking
from tests.chaos.report import Report
from tests.chaos.suite import Job, Size, baseline, keep, look_for_crashes, look_into, settle

STOPS: dict[Size, int] = {"ci": 10, "demand": 100}
ACK_SECONDS = 10
LEAST, MOST = 11.0, 14.0
TOGETHER = 3
"""How many processes are stopped at once."""
DUPLICATES = 0.15
SHAPE = Shape(
    workers={"ingest": 1, "run_agent": 6, "callbacks": 1},
    ack_seconds=ACK_SECONDS,
    limit=ACK_SECONDS + 0.5,
)


async def run(job: Job) -> list[Report]:
    """The suite."""
    report = Report("pauses", job.seed)
    await pausing(job, report, SHAPE, STOPS[job.size])
    return [report]


async def pausing(job: Job, report: Report, shape: Shape, stops: int, duplicates: float = DUPLICATES) -> None:
    """People write for as long as it takes to stop so many processes."""
    control: Control = shape.control
    async with Fleet(job.ground, f"pauses{job.seed}{control.replace('_', '')}", job.seed, shape) as fleet:
        if not control:
            await baseline(fleet, report)
        fleet.balancer.duplicates = duplicates
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(talking(fleet, enough))
            await _stop_all(fleet, stops)
            enough.set()
        fleet.balancer.duplicates = 0.0
        await settle(fleet, report, 20.0 if control else 60.0)
        await look_into(fleet, report)
    report.add(fleet.world.history, {"stop", "duplicate"})
    look_for_crashes(fleet.folder, report)
    keep(job, fleet, report)


async def _stop_all(fleet: Fleet, stops: int) -> None:
    left = iter(range(stops))

    async def one_after_another() -> None:
        for _ in left:
            await _stop_one(fleet)
            await asyncio.sleep(fleet.random.uniform(0.2, 1.0))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(TOGETHER, stops)):
            group.create_task(one_after_another())


async def _stop_one(fleet: Fleet) -> None:
    """Stop a process that is at work."""
    while True:
        busy = [worker for worker in fleet.workers if worker.sessions and worker.function == "run_agent"]
        busy = [worker for worker in busy if not worker.stopped]
        if busy:
            await fleet.stop(fleet.random.choice(busy), fleet.random.uniform(LEAST, MOST))
            return
        await asyncio.sleep(0.01)
