"""Processes killed at any moment, while people write in bursts and channels repeat themselves."""

from __future__ import annotations

import asyncio
from random import Random

from tests.chaos import invariants
from tests.chaos.chance import chance
from tests.chaos.contacts import Contacts
from tests.chaos.fleet import Fleet, Shape
from tests.chaos.parts import Control
from tests.chaos.report import Report
from tests.chaos.suite import Job, Size, baseline, keep, look_for_crashes, look_into, settle

TURNS: dict[Size, int] = {"ci": 500, "demand": 10_000}
PEOPLE = 16
CONNECTIONS = ("bot", "followup", "collect", "interrupt", "patient")
"""How the agents take messages that come in quick succession."""
WEIGHTS = {"run_agent": 8, "ingest": 3, "callbacks": 1}
DUPLICATES = 0.2
LIMIT_SECONDS = 5400.0
"""On an idle machine of two cores ten thousand turns take a quarter of an hour."""


async def run(job: Job) -> list[Report]:
    """The suite."""
    report = Report("random", job.seed)
    await killing_for(job, report, Shape(), TURNS[job.size])
    return [report]


async def killing_for(job: Job, report: Report, shape: Shape, turns: int) -> None:
    """People write until so many turns are over, and processes die."""
    control: Control = shape.control
    async with Fleet(job.ground, f"random{job.seed}{control.replace('_', '')}", job.seed, shape) as fleet:
        if not control:
            await baseline(fleet, report)
        enough = asyncio.Event()
        killer = asyncio.create_task(killing(fleet))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(talking(fleet, enough))
                group.create_task(_until_answered(fleet, turns, enough, report))
        finally:
            killer.cancel()
        await settle(fleet, report, 10.0 if control else 60.0)
        excused = invariants.set_aside(fleet.world.history)
        await look_into(fleet, report, excused)
    report.add(fleet.world.history, {"kill"}, excused)
    report.check_recovery()
    look_for_crashes(fleet.folder, report)
    keep(job, fleet, report)


async def killing(fleet: Fleet, least: float = 0.2, most: float = 0.8) -> None:
    """Kill some process, time and again."""
    while True:
        await asyncio.sleep(fleet.random.uniform(least, most))
        workers = fleet.workers
        weights = [WEIGHTS[worker.function] for worker in workers]
        if workers:
            await fleet.kill(fleet.random.choices(workers, weights)[0], "at random")


async def talking(fleet: Fleet, enough: asyncio.Event, people: int = PEOPLE) -> None:
    """Let people write until it is enough."""
    async with asyncio.TaskGroup() as group:
        for chat, connection in fleet.people(people, CONNECTIONS):
            group.create_task(_person(fleet, chat, connection, chance(fleet.random.random()), enough))


async def _until_answered(fleet: Fleet, turns: int, enough: asyncio.Event, report: Report) -> None:
    replies = fleet.world.replies
    if not await fleet.world.until(lambda: len(replies) >= turns, LIMIT_SECONDS):
        report.violate([("too_slow", f"{len(replies)} turns in {LIMIT_SECONDS:g} s, not {turns}")])
    enough.set()


async def _person(fleet: Fleet, chat: str, connection: str, random: Random, enough: asyncio.Event) -> None:
    """Bursts of one to three messages; the next one often before everything is answered."""
    contacts, world = fleet.contacts, fleet.world
    async with asyncio.TaskGroup() as group:
        while not enough.is_set():
            names: set[str] = set()
            for _ in range(random.randint(1, 3)):
                options = f"k={random.randint(1, 3)} t={random.randint(1, 2)} e={random.choice(KINDS)}"
                names.add(await contacts.say(chat, options, connection))
                if random.random() < DUPLICATES:
                    group.create_task(_repeat(contacts, random))
                await asyncio.sleep(random.uniform(0.0, 0.3))
            if random.random() < 0.7:
                await world.until(lambda names=names: enough.is_set() or world.answered.keys() >= names, 60.0)  # type: ignore[misc]
            await asyncio.sleep(random.uniform(0.0, 0.5))


KINDS = ("keyed", "once,keyed", "pure", "pure,keyed")


async def _repeat(contacts: Contacts, random: Random) -> None:
    """A channel brings one of the last messages again."""
    webhook = random.choice(contacts.posted[-60:])
    await asyncio.sleep(random.uniform(0.0, 3.0))
    await contacts.post(webhook)
