"""How large a session may become, on every store: floods of messages, runs of thousands of steps, thousands of runs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from shared.codec import decode
from shared.domain import (
    Budget,
    ModelReply,
    ModelRequest,
    Queueing,
    QueueMode,
    Rule,
)
from shared.errors import StoreDown
from shared.sessions.accept import put
from shared.sessions.arrivals import INPUT_BYTES
from shared.sessions.document import Run
from shared.sessions.events import events
from shared.sessions.transcript import CONTEXT_BYTES, total
from tests.contract.conftest import Store
from tests.house import House, Model, asks, says
from tests.stage import PACE, PLAN, message, tool

LONG = "x" * 4_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["collect", "steer"])
async def test_2000_long_messages_during_an_approval_are_all_answered(
    store: Store, tmp_path: Path, mode: QueueMode
) -> None:
    asking = replace(
        PLAN,
        rules=(Rule(tool="refund_order", decision="ask", approvers=("contact",)),),
        queueing=Queueing(mode=mode),
    )

    def script(request: ModelRequest) -> ModelReply:
        last = request.messages[-1]
        return asks("refund_order") if last.text == "Refund it" else says("Done.")

    house = House(store, tmp_path / "blobs", asking, Model(script))
    await house.say(1, "Refund it")
    session = await house.drive()
    wait = session.run.wait if session.run is not None else None
    assert wait is not None

    async def write(first: int) -> None:
        for order in range(first, 2_002, 4):
            for _ in range(5):  # as a channel that is answered 503 brings it again; a refusal for size would be raised
                with suppress(StoreDown):
                    await house.say(order, f"{order} {LONG}".ljust(4_096, "y"))
                    break

    await asyncio.gather(*(write(first) for first in range(2, 6)))
    tap = replace(message(3_000, ""), kind="verdict", token=wait.id, approved=True, received_at=house.clock.now())
    await put(house.store, house.files, house.clock, PACE, house.key, tap)
    session = await house.drive()

    assert session.run is None
    assert not session.inbox
    assert not session.more
    runs = [await house.run(number) for number in range(1, session.runs + 1)]
    said = [[*run.inputs, *(arrival.message for arrival in run.arrivals)] for run in runs]
    taken = [given.text.split()[0] for given in chain(*said)]
    assert taken == ["Refund", *(str(order) for order in range(2, 2_002))]  # each once, in the channel's order
    assert all(len(given.text) == 4_096 for given in chain(*said[1:]))
    assert all(run.outcome == "answered" for run in runs)
    assert all(total(run.inputs) <= INPUT_BYTES for run in runs)
    replies = [sent for sent in house.channel.sent if "/reply/" in sent.id]
    assert [sent.id for sent in replies] == [f"{number}/reply/1" for number in range(1, session.runs + 1)]
    assert house.model.largest < 2 * CONTEXT_BYTES + 3 * INPUT_BYTES


@pytest.mark.timeout(300)
async def test_a_run_of_5000_steps_is_archived_and_replayed(store: Store, tmp_path: Path) -> None:
    def script(request: ModelRequest) -> ModelReply:
        return says("Counted.") if house.model.asked > 2_500 else asks("lookup_order")

    budget = Budget(model_calls=10_000, tool_calls=10_000, tokens=10**9)
    plan = replace(PLAN, tools=(tool("lookup_order", "pure"),), budget=budget)
    house = House(store, tmp_path / "blobs", plan, Model(script))
    largest = 0

    async def watched() -> None:
        nonlocal largest
        while True:
            stored = await store.load(house.key)
            largest = max(largest, len(stored.state or b"") if stored is not None else 0)
            await asyncio.sleep(0.2)

    await house.say(1, "Count")
    watcher = asyncio.create_task(watched())
    session = await house.drive()
    watcher.cancel()
    assert session.runs == 1
    run = await house.run(1)
    assert run.outcome == "answered"
    body = await store.run(house.key, 1)
    assert body is not None
    assert decode(Run, body).moved.pages > 5
    assert len(run.steps) >= 5_001
    assert len({step.key for step in run.steps}) == len(run.steps)
    assert [event.sequence for event in events(run)] == list(range(1, session.sequence + 1))
    assert run.usage.input_tokens == sum(step.usage.input_tokens for step in run.steps)
    assert largest < 600_000
    assert house.model.largest < 2 * CONTEXT_BYTES


@pytest.mark.timeout(600)
async def test_a_session_of_2000_runs_costs_the_same_per_run_as_one_of_10(store: Store, tmp_path: Path) -> None:
    house = House(store, tmp_path / "blobs", replace(PLAN, tools=()), Model(lambda _: says("y" * 3_000)))
    costs: list[tuple[Counter[str], int, float]] = []
    for number in range(1, 2_001):
        before, size, began = Counter(house.store.calls), house.store.bytes, time.process_time()
        await house.say(number, "x" * 1_500)
        await house.drive()
        costs.append((house.store.calls - before, house.store.bytes - size, time.process_time() - began))
        house.clock.advance(40)  # 2,000 within a day: every id is still known
    early, late = costs[8:12], costs[-40:]
    operations = [sum(calls.total() for calls, _, _ in some) / len(some) for some in (early, late)]
    size = [sum(bytes_ for _, bytes_, _ in some) / len(some) for some in (early, late)]
    seconds = [min(spent for _, _, spent in some) for some in (early, late)]
    assert operations[1] <= operations[0] * 1.1
    assert size[1] <= size[0] * 1.3
    assert seconds[1] <= seconds[0] * 1.5
    await house.say(700, "x" * 1_500)  # the channel brings one again that 1,300 came after
    assert (await house.drive()).runs == 2_000
