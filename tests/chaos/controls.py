"""Mistakes made on purpose, each of which a suite must find: a suite that finds nothing proves nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from tests.chaos import network, pauses, random_kills
from tests.chaos.fleet import Shape
from tests.chaos.parts import Control
from tests.chaos.report import Report
from tests.chaos.suite import Job

Suite = Callable[[Job, Report, Control], Awaitable[None]]


async def run(job: Job) -> list[Report]:
    """One report for each."""
    reports = []
    for control, suite in CONTROLS.items():
        report = Report(f"control:{control}", job.seed, control=True)
        await suite(job, report, control)
        reports.append(report)
    return reports


async def _pauses(job: Job, report: Report, control: Control) -> None:
    await pauses.pausing(job, report, replace(pauses.SHAPE, control=control), stops=3, duplicates=0.3)


async def _kills(job: Job, report: Report, control: Control) -> None:
    await random_kills.killing_for(job, report, Shape(control=control), TURNS[control])


async def _network(job: Job, report: Report, control: Control) -> None:
    await network.cutting(job, report, Shape(control=control), cuts=60, stops=0, rate=0.05, answers_only=True)


TURNS: dict[Control, int] = {"no_seen": 60, "early_answer": 150, "early_ack": 80}
"""Enough of them that a mistake of that kind shows several times."""
CONTROLS: dict[Control, Suite] = {
    "no_swap": _pauses,
    "no_seen": _kills,
    "early_answer": _kills,
    "early_ack": _kills,
    "no_nonce": _network,
}
