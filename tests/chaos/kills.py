"""A process killed at every point: before and after every call of a port, in every function, in every story."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

from tests.chaos.chance import chance
from tests.chaos.fleet import Fleet, Shape
from tests.chaos.history import ModelCall
from tests.chaos.report import Report
from tests.chaos.script import Options
from tests.chaos.stories import STALLS, STORIES, Scene, Stuck
from tests.chaos.suite import Job, Size, baseline, keep, look_for_crashes, look_into

LANES = 12
REPEATS: dict[Size, int] = {"ci": 1, "demand": 10}
PAIRS: dict[Size, int] = {"ci": 0, "demand": 400}
LONG = frozenset({"whatsapp", "stalled"})
"""Stories that may wait: told first, so that nobody waits for them at the end."""
SHAPE = Shape(
    workers={"ingest": 1, "run_agent": 1, "callbacks": 1},
    topics=1,
    lease_seconds=6,
    named=True,
    tick_seconds=0.8,
    ticks_when_idle=True,
)


@dataclass(frozen=True, slots=True)
class Task:
    """A story, and where processes of one function die in it: the first at `point`, the next at `second`."""

    story: str
    function: str = ""
    point: str = ""
    second: str = ""


@dataclass
class Lane:
    """One process of each function, and one story at a time."""

    fleet: Fleet
    report: Report
    otherwise: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._chats = count(1)
        self._stalls = 0
        self._stalled_at = ""
        self.fleet.world.asked = self._asked

    async def tell(self, task: Task) -> None:
        """Tell it, and wait until nothing is left to do."""
        fleet = self.fleet
        scene = Scene(fleet, str(next(self._chats)))
        self._stalls, self._stalled_at = 0, ""
        if (task.story, task.function) == ("stalled", "run_agent"):
            self._stalled_at = task.point
        if task.function:
            if not self._stalled_at:
                fleet.arms[task.function] = task.point
            if task.second:
                fleet.then[task.function] = task.second
            await fleet.replace(await fleet.worker(task.function))
        try:
            async with asyncio.timeout(120):
                await STORIES[task.story](scene)
                await scene.quiet()
        except (Stuck, TimeoutError) as error:
            where = f"{task.story}, {task.function} killed {task.point} {task.second}"
            self.report.violate([("stuck", f"{where}: {error or 'two minutes'}")])
        finally:
            fleet.arms.clear()
            fleet.then.clear()
            self.otherwise |= scene.otherwise

    async def points(self, story: str) -> list[Task]:
        """Every point that the processes pass while it is told and nothing happens."""
        functions = tuple(self.fleet.shape.workers)
        for function in functions:
            await self.fleet.replace(
                await self.fleet.worker(function)
            )  # new ones: what they have not read yet they read in the story
        await self.tell(Task(story))
        return [
            Task(story, function, name)
            for function in functions
            for name in read_points(self.fleet, (await self.fleet.worker(function)).name)
        ]

    async def _asked(self, call: ModelCall, options: Options) -> None:
        if options.stalls and self._stalls < STALLS:
            self._stalls += 1
            if self._stalls == STALLS and self._stalled_at:
                self.fleet.arms["run_agent"] = self._stalled_at
            worker = next((worker for worker in self.fleet.workers if worker.name == call.worker), None)
            if worker is not None:
                await self.fleet.kill(worker, "by the model that it asked")


def read_points(fleet: Fleet, worker: str) -> list[str]:
    """The points that a process has passed, in order."""
    path = fleet.folder / f"{worker}.journal"
    lines = (json.loads(line) for line in path.read_text().splitlines()) if path.exists() else ()
    return [fields["point"] for fields in lines if "point" in fields]


async def run(job: Job) -> list[Report]:
    """The suite."""
    report = Report("kills", job.seed)
    async with AsyncExitStack() as stack:
        fleets = [
            await stack.enter_async_context(Fleet(job.ground, f"kills{job.seed}-{lane}", job.seed + lane, SHAPE))
            for lane in range(LANES)
        ]
        lanes = [Lane(fleet, report) for fleet in fleets]
        await baseline(fleets[0], report)
        points = await _all(lanes, [Task(name) for name in STORIES], explore=True)
        random = chance(job.seed)
        tasks = [*points * REPEATS[job.size], *_pairs(points, PAIRS[job.size], random)]
        random.shuffle(tasks)
        tasks.sort(key=lambda task: task.story not in LONG)
        await _all(lanes, tasks)
        for lane in lanes:
            await look_into(lane.fleet, report, frozenset(lane.otherwise))
    for lane in lanes:
        report.add(lane.fleet.world.history, {"kill"}, frozenset(lane.otherwise))
        look_for_crashes(lane.fleet.folder, report)
    report.check_recovery()
    for lane in lanes:
        keep(job, lane.fleet, report)
    return [report]


async def _all(lanes: list[Lane], tasks: list[Task], *, explore: bool = False) -> list[Task]:
    """Let the lanes do them all; when they explore, the points that they found."""
    left, found = iter(tasks), []

    async def work(lane: Lane) -> None:
        for task in left:
            if explore:
                found.extend(await lane.points(task.story))
            else:
                await lane.tell(task)

    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(work(lane))
    return found


def _pairs(points: list[Task], number: int, random: Random) -> Iterator[Task]:
    """Points at which a process dies, each with one at which the next does while it recovers."""
    for _ in range(number):
        task = random.choice(points)
        others = [other for other in points if (other.story, other.function) == (task.story, task.function)]
        yield replace(task, second=random.choice(others).point)
