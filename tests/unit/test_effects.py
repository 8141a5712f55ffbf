"""What tools do, once: by their effect, side by side, after a crash in the middle, and when they take too long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.domain import Effect, JsonObject, ModelReply
from shared.errors import Retryable
from shared.orchestrator.use import AT_ONCE
from shared.sessions.document import UNKNOWN, Step
from shared.tools import ToolContext
from tests.clock import FakeClock
from tests.stage import ORDER_1042, PACE, PLAN, Crash, PointedStore, Stage, calls, says, tool

Play = Callable[..., Stage]
SECONDS = 60.0
FOUND: JsonObject = {"refunded": True, "reference": "found again"}


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose model gives these replies, one a call; its tools take names and effects of `tools`."""
    store = PointedStore(tmp_path / "sessions.db")

    def play(*replies: ModelReply | Exception, tools: dict[str, Effect] | None = None) -> Stage:
        stage = Stage(store, FakeClock(), replies)
        tools = tools or {"refund_order": "once"}
        stage.publish(replace(PLAN, tools=tuple(tool(name, effect) for name, effect in tools.items())))
        return stage

    yield play
    await store.aclose()


class Once:
    """A tool that is killed in the middle of its first executions, so many."""

    def __init__(self, stage: Stage, name: str, crashes: int = 1) -> None:
        self.keys: list[str] = []
        self.crashes = crashes
        stage.tools[name] = self

    async def __call__(self, arguments: JsonObject, context: ToolContext) -> JsonObject:
        self.keys.append(context.idempotency_key)
        if len(self.keys) <= self.crashes:
            raise Crash
        return {"execution": len(self.keys)}


def given(stage: Stage) -> list[JsonObject]:
    """The results that the model was given last."""
    return [json.loads(said.text) for said in stage.script.history[-1].messages if said.role == "tool"]


async def results(stage: Stage) -> dict[str, JsonObject | None]:
    """The tool steps that are stored."""
    steps: Iterable[Step] = (await stage.unfinished()).steps
    return {step.key: json.loads(step.result) if step.result else None for step in steps if step.kind == "tool"}


async def killed(stage: Stage, wake: str = "w") -> None:
    with pytest.raises(Crash):
        await stage.drive(wake)


@pytest.mark.parametrize("effect", ["pure", "keyed"])
async def test_a_call_that_was_cut_runs_again_with_the_same_key(play: Play, effect: Effect) -> None:
    stage = play(calls("t"), says("Done"), tools={"t": effect})
    use = Once(stage, "t")
    await stage.say("Hi")
    await killed(stage)
    await stage.drive()
    assert use.keys == [f"{stage.key.session}-1-tool-1.0"] * 2
    assert given(stage) == [{"execution": 2}]


async def test_a_call_that_must_not_be_repeated_is_unknown_to_the_model_once_it_is_surely_over(play: Play) -> None:
    stage = play(calls("t"), says("I am not sure"), tools={"t": "once"})
    use = Once(stage, "t")
    await stage.say("Hi")
    await killed(stage)
    stage.clock.advance(SECONDS)
    await stage.drive()
    assert (len(use.keys), given(stage)) == (1, [UNKNOWN])
    assert stage.channel.texts == ["I am not sure"]


@pytest.mark.parametrize("found", [FOUND, None], ids=["found", "not to be found out"])
async def test_the_tools_own_hook_looks_up_what_came_of_a_call_that_was_cut(
    play: Play, found: JsonObject | None
) -> None:
    stage = play(calls("t"), says("Done"), tools={"t": "once"})
    use, asked = Once(stage, "t"), []

    async def look_up(arguments: JsonObject, context: ToolContext) -> JsonObject | None:
        asked.append((arguments, context.idempotency_key))
        return found

    stage.look_ups["builtin:t"] = look_up
    await stage.say("Hi")
    await killed(stage)
    stage.clock.advance(SECONDS)
    await stage.drive()
    assert asked == [(ORDER_1042, use.keys[0])]
    assert (len(use.keys), given(stage)) == (1, [found or UNKNOWN])


async def test_a_look_up_that_fails_is_an_unknown_outcome(play: Play) -> None:
    stage = play(calls("t"), says("Done"), tools={"t": "once"})
    Once(stage, "t")

    async def look_up(arguments: JsonObject, context: ToolContext) -> JsonObject:
        raise ZeroDivisionError

    stage.look_ups["builtin:t"] = look_up
    await stage.say("Hi")
    await killed(stage)
    stage.clock.advance(SECONDS)
    await stage.drive()
    assert given(stage) == [UNKNOWN]


async def test_no_hook_is_asked_of_a_call_that_was_recorded(play: Play) -> None:
    stage = play(calls("t"), RuntimeError("killed"), says("Done"), tools={"t": "once"})
    use = Once(stage, "t", crashes=0)

    async def look_up(arguments: JsonObject, context: ToolContext) -> JsonObject:
        raise AssertionError("its result is recorded")

    stage.look_ups["builtin:t"] = look_up
    await stage.say("Hi")
    with pytest.raises(RuntimeError):
        await stage.drive()
    await stage.drive()
    assert (len(use.keys), given(stage)) == (1, [{"execution": 1}])


async def test_while_such_a_call_may_be_running_its_own_wake_comes_again_and_others_are_done(play: Play) -> None:
    stage = play(calls("t"), says("I am not sure"), tools={"t": "once"})
    Once(stage, "t")
    await stage.say("Hi")
    await killed(stage, "mine")
    for seconds in (0.0, PACE.lease + 1, SECONDS - PACE.lease - 2):
        stage.clock.advance(seconds)
        with pytest.raises(Retryable, match="may still be running"):
            await stage.drive("mine")
        left = await stage.drive("another")
        assert left is not None
        assert left.epoch == 1, "nobody took it over"
    assert await results(stage) == {"tool-1.0": None}
    assert await stage.due() == []
    assert await stage.tick(PACE.due) == 1
    assert stage.channel.texts == ["I am not sure"]
    assert await stage.is_quiet()


@pytest.mark.parametrize(
    ("effect", "told"),
    [("pure", "t gave no answer in 0.02 s"), ("once", "t gave no answer in 0.02 s: it may or may not have happened")],
)
async def test_a_tool_that_takes_too_long_is_given_up_and_the_model_told(play: Play, effect: Effect, told: str) -> None:
    stage = play(calls("t"), says("Too slow"))
    stage.publish(replace(PLAN, tools=(replace(tool("t", effect), timeout_seconds=0.02),)))
    over = asyncio.Event()

    async def endless(arguments: JsonObject, context: ToolContext) -> JsonObject:
        try:
            await asyncio.Event().wait()
        finally:
            over.set()
        return {}

    stage.tools["t"] = endless
    await stage.say("Hi")
    await asyncio.wait_for(stage.pump(), 10)
    assert over.is_set()
    assert given(stage) == [{"error": told}]
    assert stage.channel.texts == ["Too slow"]


class Gated:
    """Tools that run until a test lets each go; `running` has those that began, by their step."""

    def __init__(self, stage: Stage, *names: str) -> None:
        self.running: dict[str, asyncio.Event] = {}
        self.most = 0
        self.now = 0
        self.cancelled: list[str] = []
        self.executed: list[str] = []
        self._moved = asyncio.Event()
        for name in names:
            stage.tools[name] = self._use

    async def _use(self, arguments: JsonObject, context: ToolContext) -> JsonObject:
        key = context.idempotency_key.split("-", 2)[2]
        gate = self.running[key] = asyncio.Event()
        self.executed.append(key)
        self.now += 1
        self.most = max(self.most, self.now)
        self._moved.set()
        try:
            await asyncio.wait_for(gate.wait(), 10)
        except asyncio.CancelledError:
            self.cancelled.append(key)
            self._moved.set()
            raise
        finally:
            self.now -= 1
        return {"step": key}

    async def begun(self, count: int) -> None:
        await self.until(lambda: len(self.running) >= count)

    async def until(self, happened: Callable[[], bool]) -> None:
        while not happened():
            self._moved.clear()
            await asyncio.wait_for(self._moved.wait(), 10)

    def go(self, *keys: str) -> None:
        for key in keys or tuple(self.running):
            self.running[key].set()


async def until(stage: Stage, keys: set[str]) -> None:
    """Return once these results are stored."""

    async def stored() -> bool:
        return {key for key, result in (await results(stage)).items() if result is not None} == keys

    await stage.faults.until(stored)


@pytest.mark.parametrize("effect", ["keyed", "once"])
async def test_calls_are_recorded_as_they_end_and_a_crash_repeats_none_that_was(play: Play, effect: Effect) -> None:
    stage = play(calls("slow", "fast"), says("Done"), tools={"slow": effect, "fast": effect})
    gates = Gated(stage, "slow", "fast")
    await stage.say("Hi")
    driving = asyncio.create_task(stage.drive())
    await gates.begun(2)
    gates.go("tool-1.1")
    await until(stage, {"tool-1.1"})
    stage.faults.at = {len(stage.faults.passed)}
    gates.go("tool-1.0")
    with pytest.raises(Crash):
        await driving
    assert await results(stage) == {"tool-1.1": {"step": "tool-1.1"}} | ({"tool-1.0": None} if effect == "once" else {})
    stage.faults.restart()
    stage.clock.advance(SECONDS)
    again = asyncio.create_task(stage.drive())
    if effect == "keyed":
        await gates.begun(2)
        await gates.until(lambda: gates.executed.count("tool-1.0") == 2)
        gates.go("tool-1.0")
    await again
    assert gates.executed.count("tool-1.1") == 1
    slow = {"step": "tool-1.0"} if effect == "keyed" else UNKNOWN
    assert given(stage) == [slow, {"step": "tool-1.1"}], "in the order of the calls"


async def test_calls_that_end_during_a_commit_share_the_next(play: Play) -> None:
    stage = play(calls(*["t"] * 8), says("Done"), tools={"t": "keyed"})
    gates = Gated(stage, "t")
    await stage.say("Hi")
    driving = asyncio.create_task(stage.drive())
    await gates.begun(8)
    before = stage.faults.passed.count("after commit")
    gates.go()
    await driving
    assert stage.faults.passed.count("after commit") - before == 2 + 2, "two for eight tools, the reply, the end"
    assert len(given(stage)) == 8


async def test_intents_of_calls_that_begin_at_once_share_commits(play: Play) -> None:
    stage = play(calls(*["t"] * 8), says("Done"), tools={"t": "once"})
    gates = Gated(stage, "t")
    await stage.say("Hi")
    driving = asyncio.create_task(stage.drive())
    await gates.begun(8)
    assert stage.faults.passed.count("after commit") <= 2 + 2, "the claim, the model's reply, two for eight intents"
    gates.go()
    await driving
    assert len(gates.executed) == 8


async def test_no_more_than_eight_are_carried_out_at_once(play: Play) -> None:
    stage = play(calls(*["t"] * 20), says("Done"), tools={"t": "keyed"})
    gates = Gated(stage, "t")
    await stage.say("Hi")
    driving = asyncio.create_task(stage.drive())
    for count in range(AT_ONCE, 21):
        await gates.begun(count)
        gates.go(f"tool-1.{count - AT_ONCE}")
    gates.go()
    await driving
    assert (gates.most, len(gates.executed), len(given(stage))) == (AT_ONCE, 20, 20)


async def test_a_fence_found_by_one_call_cancels_the_others_at_once(play: Play) -> None:
    stage = play(calls("t", "t", "t"), says("Done"), tools={"t": "keyed"})
    gates = Gated(stage, "t")
    await stage.say("Hi")
    driving = asyncio.create_task(stage.drive("w"))
    await gates.begun(3)
    stage.clock.advance(PACE.lease)
    Once(stage, "t", crashes=0)
    await stage.drive("another")
    written = stage.faults.passed.count("after commit")
    gates.go("tool-1.1")
    await driving  # its wake is done: who took over answers for the session
    await gates.until(lambda: sorted(gates.cancelled) == ["tool-1.0", "tool-1.2"])
    assert stage.faults.passed.count("after commit") == written
    assert [step.attempt for step in (await stage.run()).steps] == [1, 2, 2, 2, 2]
    assert stage.channel.texts == ["Done"]


async def test_a_tool_with_a_mistake_beside_others_fails_alone(play: Play) -> None:
    stage = play(calls("bad", "good"), says("Half of it"), tools={"bad": "once", "good": "once"})

    async def bad(arguments: JsonObject, context: ToolContext) -> JsonObject:
        raise ZeroDivisionError

    stage.tools["bad"], good = bad, Once(stage, "good", crashes=0)
    await stage.say("Hi")
    await stage.pump()
    assert given(stage) == [{"error": "bad failed: ZeroDivisionError"}, {"execution": 1}]
    assert len(good.keys) == 1


async def test_a_call_that_must_be_tried_again_later_loses_nothing_of_those_beside_it(play: Play) -> None:
    stage = play(calls("down", "good"), says("Done"), tools={"down": "keyed", "good": "keyed"})
    good, tries = Once(stage, "good", crashes=0), []

    async def down(arguments: JsonObject, context: ToolContext) -> JsonObject:
        tries.append(context.idempotency_key)
        if len(tries) == 1:
            await stage.faults.passes("after commit", 3)  # the other is recorded
            raise Retryable("its store is down")
        return {"up": True}

    stage.tools["down"] = down
    await stage.say("Hi")
    with pytest.raises(Retryable, match="its store is down"):
        await stage.drive()
    await stage.drive()
    assert (len(good.keys), len(set(tries)), given(stage)) == (1, 1, [{"up": True}, {"execution": 1}])
