"""What all suites do alike: measure the system while it is whole, wait until it is quiet, look for crashes, report."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from shared.domain import SessionKey
from tests.chaos.archive import archive_violations, dead_runs, read_runs
from tests.chaos.fleet import Fleet, Ground, read_commits
from tests.chaos.invariants import set_aside
from tests.chaos.patience import patiently
from tests.chaos.plans import TENANT
from tests.chaos.report import Report

Size = Literal["ci", "demand"]
QUIET_SECONDS = 60.0
BASELINE_TURNS = 10
MOST_WRITES = 2 + 1 + 4
"""For a turn of two model calls and one tool call: k + t + 4."""
_CRASH = re.compile(r"^(?:\S+ (?:ERROR|CRITICAL)\b|Traceback ).*", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a suite is asked to do."""

    ground: Ground
    seed: int
    size: Size
    log: Path
    """Where a history with violations is kept."""


async def baseline(fleet: Fleet, report: Report) -> None:
    """I10: what a turn costs that nothing goes wrong in."""
    fleet.ticking = False  # a tick between a message and its wake reads for nothing
    await fleet.contacts.say("900")  # what is published is in every cache by now, or nearly
    chats = [str(901 + number) for number in range(BASELINE_TURNS)]
    for chat in chats:
        name = await fleet.contacts.say(chat, "k=2 t=1 e=keyed")
        if not await fleet.world.until(lambda name=name: name in fleet.world.answered, QUIET_SECONDS):  # type: ignore[misc]
            report.violate([("not_answered", f"{name} within {QUIET_SECONDS:g} s, with nothing wrong")])
    await asyncio.sleep(0.3)  # the last commit follows the reply
    fleet.ticking = True
    sessions = {fleet.contacts.key(chat).session for chat in chats}
    commits = [commit for commit in read_commits(fleet.folder) if commit.session in sessions]
    report.writes_per_turn = sum(commit.writes for commit in commits) / BASELINE_TURNS
    report.reads_per_turn = sum(commit.reads for commit in commits) / BASELINE_TURNS
    if report.writes_per_turn > MOST_WRITES:
        report.violate([("writes", f"{report.writes_per_turn} a turn, more than {MOST_WRITES}")])


async def settle(fleet: Fleet, report: Report, limit: float = QUIET_SECONDS) -> None:
    """I8: once nothing is done to it any more, everything is answered and nothing is due."""
    world = fleet.world
    accepted = [event.message for event in world.history.accepted]
    over = world.answered, world.apologies
    await world.until(lambda: all(name in over[0] or name.partition(".")[0] in over[1] for name in accepted), limit)
    excused = set_aside(world.history)
    missing = [name for name in accepted if name not in world.answered and name not in excused]
    if missing:
        report.violate([("not_answered", f"{name} within {limit:g} s") for name in missing])
        return
    for _ in range(40):
        left = await patiently(lambda: due(fleet))
        if not left:
            return
        await asyncio.sleep(0.25)
    report.violate([("not_quiet", f"{session} is due for ever") for session in left])


async def look_into(fleet: Fleet, report: Report, otherwise: frozenset[str] = frozenset()) -> None:
    """I1 and I9 by the project's own records: the archive, and what was set aside."""
    accepted = fleet.world.history.by_chat()
    for session, chat in fleet.contacts.chats.items():
        if chat in accepted:
            key = SessionKey(TENANT, session)
            runs = await patiently(lambda chat=chat, key=key: read_runs(fleet.store, chat, key))  # type: ignore[misc]
            names = [event.message for event in accepted[chat].accepted]
            report.violate(archive_violations(runs, names, otherwise))
            report.repeated += sum(run.repeated for run in runs)
    expected = {name.partition(".")[0] for name in otherwise}
    for chat, number in await patiently(lambda: dead_runs(fleet.store, TENANT)):
        if chat not in expected:
            report.violate([("dead_run", f"chat {chat}: run {number} was set aside")])


async def due(fleet: Fleet) -> list[str]:
    """The sessions that are due at any time."""
    found = fleet.store.due(datetime.now(UTC) + timedelta(days=9))
    return [key.session async for key in found]


def look_for_crashes(folder: Path, report: Report) -> None:
    """Nothing that a process says is an error that nobody expected."""
    for path in sorted(folder.glob("*.log")):
        for found in _CRASH.findall(path.read_text(errors="replace")):
            report.violate([("crash_log", f"{path.name}: {found[:300]}")])


def keep(job: Job, fleet: Fleet, report: Report) -> None:
    """Put away what is needed to look into what went wrong."""
    if report.ok:
        return
    folder = job.log / f"{report.suite}-{report.seed}-{fleet.name}"
    shutil.copytree(fleet.folder, folder, dirs_exist_ok=True)
    fleet.world.history.save(folder / "history.jsonl")
    lines = [json.dumps({**asdict(push), "chats": fleet.chats([push.session])}) for push in fleet.balancer.pushes]
    (folder / "pushes.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "violations.txt").write_text("\n".join(report.seen) + "\n")


def chosen(sizes: Mapping[Size, int], size: Size) -> int:
    """How many of something, at this size."""
    return sizes[size]
