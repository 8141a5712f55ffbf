"""The embedded server, one process on SQLite, killed and started again: what was accepted is answered."""

from __future__ import annotations

import asyncio

from shared.store.sqlite import SqliteStore
from tests.chaos.balancer import EMBEDDED, Worker
from tests.chaos.fleet import Fleet, Shape
from tests.chaos.invariants import set_aside
from tests.chaos.plans import publish
from tests.chaos.random_kills import talking
from tests.chaos.report import Report
from tests.chaos.suite import Job, Size, baseline, keep, look_for_crashes, look_into, settle
from tests.engines import free_port

KILLS: dict[Size, int] = {"ci": 8, "demand": 100}
LEAST, MOST = 0.5, 3.0
PEOPLE = 8
SHAPE = Shape(workers={EMBEDDED: 1}, tick_seconds=3600.0)


class EmbeddedFleet(Fleet):
    """The same, in one process with nothing around it."""

    async def prepare(self) -> None:
        self.port = free_port()
        home = self.folder / "home"
        home.mkdir(mode=0o700)
        self.store = SqliteStore(home / "sessions.db")
        self._stack.push_async_callback(self.store.aclose)
        await publish(self.store, self.box, self.world_url)

    def environment(self) -> dict[str, str]:
        kept = ("RECADO_PLATFORM_KEY", "RECADO_HOME")
        cloud = {"GOOGLE_CLOUD_PROJECT": "", "FIRESTORE_EMULATOR_HOST": "", "PUBSUB_EMULATOR_HOST": ""}
        mine = {name: text for name, text in super().environment().items() if name in kept}
        return {**mine, **cloud, "PORT": str(self.port)}

    def driven_by(self, worker: Worker) -> tuple[str, ...]:
        """All who wait for an answer."""
        world = self.world
        waiting = (event.chat for event in world.history.accepted if event.message not in world.answered)
        return tuple(dict.fromkeys(waiting))


async def run(job: Job) -> list[Report]:
    """The suite."""
    report = Report("embedded", job.seed)
    async with EmbeddedFleet(job.ground, f"embedded{job.seed}", job.seed, SHAPE) as fleet:
        await _up(fleet)
        await baseline(fleet, report)
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(talking(fleet, enough, PEOPLE))
            for _ in range(KILLS[job.size]):
                await asyncio.sleep(fleet.random.uniform(LEAST, MOST))
                await _up(fleet)
                await fleet.kill(await fleet.worker(EMBEDDED), "with all that it had")
            enough.set()
        await settle(fleet, report)
        excused = set_aside(fleet.world.history)
        await look_into(fleet, report, excused)
    report.add(fleet.world.history, {"kill"}, excused)
    look_for_crashes(fleet.folder, report)
    keep(job, fleet, report)
    return [report]


async def _up(fleet: Fleet) -> None:
    """Return once it serves: one that is killed while it starts shows nothing."""
    for _ in range(400):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", fleet.port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError("the embedded server did not start within 20 s")
