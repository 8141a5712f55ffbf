"""What no machine changes: Firestore's operations of a turn, and how what a run costs grows with the runs before it."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, compared
from benchmarks.project import Project
from shared.config.demo import CONNECTION
from shared.domain import Effect, SessionKey, Wake
from shared.published import CACHE_SECONDS, Published
from shared.store.firestore import FirestoreStore
from shared.store.sqlite import SqliteStore
from tests.clock import FakeClock
from tests.house import House, Model, looks_up, says
from tests.stage import PLAN, tool

CALLS, TOOLS = 2, 1
"""Of the model, and of tools, a turn."""
TURNS = 10
WINDOWS, TURNS_A_SECOND = 6, 10
"""Of the cache's time, and how busy the instance is in them."""
RUNS = 1_000
WINDOW = 22
"""Runs that a figure of growth is the mean or the median of: twice as many as fill what a model is given from where it
was last cut."""
QUESTION, ANSWER = "x" * 1_500, "y" * 3_000
"""So long that the conversation which a model is given is full by the tenth run."""


class CountedFirestore(FirestoreStore):
    """Counts what the client asks of Firestore: `writes` and `reads`, as they are billed."""

    def __init__(self, project: str) -> None:
        super().__init__(project)
        self.counts: Counter[str] = Counter()

    @cached_property
    def _client(self) -> Any:
        client: Any = super()._client
        client._firestore_api_internal = _Counting(client._firestore_api, self.counts)  # noqa: SLF001  no public way
        return client


class _Counting:
    def __init__(self, api: Any, counts: Counter[str]) -> None:
        self._api = api
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    async def commit(self, request: dict[str, Any], **more: Any) -> Any:
        self._counts["writes"] += len(request["writes"])
        return await self._api.commit(request=request, **more)

    async def batch_get_documents(self, request: dict[str, Any], **more: Any) -> Any:
        self._counts["reads"] += len(request["documents"])
        return await self._api.batch_get_documents(request=request, **more)


async def operations(project: Project, folder: Path) -> list[Figure]:
    """Writes and reads of a turn whose tool may be repeated with its key, and of one whose tool changes nothing; and
    of the configuration."""
    found = await _configuration(project.name)
    ceilings: dict[Effect, int] = {"keyed": CALLS + TOOLS + 4, "pure": CALLS + 4}
    for effect, writes in ceilings.items():
        counted = await _turns(project.name, folder, effect)
        found += [
            Figure(
                figure=f"Firestore writes per turn, {CALLS} model calls, {TOOLS} tool call ({effect})",
                value=counted["writes"] / TURNS,
                unit="writes",
                ceiling=writes,
            ),
            Figure(
                figure=f"Firestore reads per turn ({effect})", value=counted["reads"] / TURNS, unit="reads", ceiling=1
            ),
        ]
    return found


async def _configuration(project: str) -> list[Figure]:
    """Of the published configuration: what one instance reads that drives turns without a pause."""
    store, clock = CountedFirestore(project), FakeClock()
    published = Published(store, clock)
    for _ in range(WINDOWS * CACHE_SECONDS * TURNS_A_SECOND):
        connection = await published.connection(CONNECTION)
        await published.plan(connection.tenant, connection.plan)
        clock.advance(1 / TURNS_A_SECOND)
    reads = store.counts["reads"]
    await store.aclose()
    name = f"configuration reads, one instance and {CACHE_SECONDS} s with {TURNS_A_SECOND} turns a second"
    return [Figure(figure=name, value=reads / WINDOWS, unit="reads")]


async def _turns(project: str, folder: Path, effect: Effect) -> Counter[str]:
    store = CountedFirestore(project)
    plan = replace(PLAN, agent=effect, tools=(tool("lookup_order", effect),))
    total: Counter[str] = Counter()
    for number in range(TURNS):
        house = House(store, folder / f"blobs-{effect}-{number}", plan, Model(looks_up))
        house.key = replace(house.key, session=f"{number:032x}", tenant=f"bench-{effect}")
        before = Counter(store.counts)
        await house.say(1, "Where is my order?")
        await house.driver.drive(Wake(key=house.key, id="w"))
        total += store.counts - before
    await store.aclose()
    return total


@dataclass(frozen=True, slots=True)
class _Cost:
    cpu: float
    bytes: int
    operations: int


async def growth(folder: Path) -> list[Figure]:
    """Of the embedded store: operations, bytes written and processor time of a run, late in a session and early."""
    store = SqliteStore(folder / "growth.db")
    house = House(store, folder / "blobs-growth", replace(PLAN, tools=()), Model(lambda _: says(ANSWER)))
    young, old = House.key, replace(House.key, session=f"{RUNS:032x}")
    for number in range(1, RUNS - WINDOW // 2):
        await _run(house, old, number)
    for number in range(1, 11):
        await _run(house, young, number)
    early, late = [], []
    gc.collect()
    gc.disable()  # what this process keeps of a thousand runs is none of a server's
    for number in range(WINDOW):  # in turn, as the machine is not as fast at all times
        early.append(await _run(house, young, 11 + number))
        late.append(await _run(house, old, RUNS - WINDOW // 2 + number))
    gc.enable()
    await store.aclose()
    figures = [
        ("operations", "operations", _mean([c.operations for c in early]), _mean([c.operations for c in late])),
        ("bytes", "KB", _mean([c.bytes for c in early]) / 1e3, _mean([c.bytes for c in late]) / 1e3),
        ("CPU", "ms", median(c.cpu for c in early) * 1e3, median(c.cpu for c in late) * 1e3),
    ]
    return [
        compared(f"growth, {name} of run {RUNS:,}", unit, last, first, "run 10", 1.1)
        for name, unit, first, last in figures
    ]


async def _run(house: House, key: SessionKey, number: int) -> _Cost:
    house.key = key
    calls, size, began = house.store.calls.total(), house.store.bytes, time.process_time()
    await house.say(number, QUESTION)
    await house.drive()
    house.clock.advance(60)
    return _Cost(time.process_time() - began, house.store.bytes - size, house.store.calls.total() - calls)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
