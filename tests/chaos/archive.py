"""What cannot be seen from outside: which run took which message, as the archive has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shared.codec import decode
from shared.domain import SessionKey
from shared.sessions import dead
from shared.sessions.document import Run
from shared.store import Archive, Documents
from tests.chaos import script
from tests.chaos.invariants import Violation

PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One archived run, in short."""

    chat: str
    number: int
    outcome: str
    messages: tuple[str, ...]
    repeated: int = 0
    """Deliveries that it sent again without knowing whether that was needed."""


async def read_runs(archive: Archive, chat: str, key: SessionKey) -> list[Kept]:
    """The session's runs, the first one first."""
    found: list[Kept] = []
    before: int | None = None
    while bodies := await archive.runs(key, before=before, limit=PAGE):
        runs = [decode(Run, body) for body in bodies]
        found += [_kept(chat, run) for run in runs]
        before = runs[-1].number
    return found[::-1]


def archive_violations(
    runs: Iterable[Kept], accepted: Iterable[str], otherwise: frozenset[str] = frozenset()
) -> Iterator[Violation]:
    """I1, by the project's own record: each accepted message is in exactly one run of its session, runs are numbered
    without a gap, and each was answered unless its messages end `otherwise`."""
    kept = list(runs)
    times = Counter(name for run in kept for name in run.messages)
    for name in accepted:
        if times[name] != 1:
            yield "not_in_one_run", f"{name} is in {times[name]} archived runs"
    last: dict[str, int] = {}
    for run in kept:
        if run.number != last.get(run.chat, 0) + 1:
            yield "gap_in_archive", f"chat {run.chat}: run {run.number} behind {last.get(run.chat, 0)}"
        last[run.chat] = run.number
        if run.outcome != "answered" and not otherwise.intersection(run.messages):
            yield "ended_badly", f"chat {run.chat}: run {run.number} ended as {run.outcome}"


async def dead_runs(documents: Documents, tenant: str) -> list[tuple[str, int]]:
    """Conversation and number of the runs that were set aside."""
    return [(found.conversation, found.number) for found in await dead.dead_runs(documents, tenant, 1000)]


def _kept(chat: str, run: Run) -> Kept:
    messages = [*run.inputs, *(arrival.message for arrival in run.arrivals if not arrival.rejected)]
    return Kept(
        chat=chat,
        number=run.number,
        outcome=run.outcome or "",
        messages=tuple(name for message in messages for name in script.ids(message.text)[:1]),
        repeated=sum(delivery.repeated for delivery in run.deliveries),
    )
