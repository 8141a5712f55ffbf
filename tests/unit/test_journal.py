from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.domain import Effect, JsonObject, ModelReply, Queueing, Rule, Texts, ToolCall, Usage, Wake
from shared.errors import SliceOver, Suspended
from shared.sessions.actor import Actor
from shared.sessions.running import Effectful, Running
from shared.sessions.transitions import Work
from tests.clock import FakeClock
from tests.stage import ORDER_1042, PACE, PLAN, Crash, PointedStore, Stage, message, says

UNKNOWN: JsonObject = {"error": "unknown"}
SECONDS = 60.0
"""How long a step may take."""
CALL = ToolCall(id="c", name="refund_order", arguments=ORDER_1042)
ASK = Rule(tool="refund_order", decision="ask", approvers=("7",))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    store = PointedStore(tmp_path / "sessions.db")
    stage = Stage(store, FakeClock(), [])
    await stage.put(message(1))
    yield stage
    await store.aclose()


async def nothing_to_send() -> None:
    """No test here has anything in the outbox before its run is over."""


class Attempt:
    """One process at work on run 1; `done` has the keys of the effects that it executed."""

    def __init__(self, stage: Stage, actor: Actor, seconds: float) -> None:
        self.stage, self.actor = stage, actor
        end = stage.clock.now() + timedelta(seconds=seconds)
        self.running = Running(actor, stage.clock, PLAN, end, nothing_to_send)
        self.done: list[str] = []

    async def step(self, key: str, result: Any, repeat: Effect = "keyed", *, crash: bool = False) -> Any:
        async def effect() -> Any:
            self.done.append(self.running.idempotency_key(key))
            if crash:
                raise Crash
            return result

        unknown = UNKNOWN if repeat == "once" else None
        how = Effectful(run=effect, repeat=repeat, seconds=SECONDS, unknown=unknown)
        return await self.running.step(key, Any, how, kind="tool", name="t")

    @property
    def results(self) -> dict[str, str | None]:
        return {step.key: step.result for step in self.running.run.steps}


async def attempt(stage: Stage, seconds: float = 480.0) -> Attempt:
    actor = Actor(stage.store, stage.files, stage.clock, stage.key, PACE)
    assert await actor.load()
    assert await claim(actor) is Work.READY
    return Attempt(stage, actor, seconds)


async def claim(actor: Actor) -> Work:
    return await actor.claim(Wake(key=actor.key, id="w"), "plan", Queueing(debounce_seconds=0), Texts())


def commits(stage: Stage) -> int:
    """Commits so far, without the claims of `attempt`."""
    return stage.faults.passed.count("after commit")


async def stored(stage: Stage) -> dict[str, str | None]:
    run = (await stage.session()).run
    assert run is not None
    return {step.key: step.result for step in run.steps}


@pytest.mark.parametrize("repeat", ["pure", "keyed", "once"])
async def test_a_recorded_result_is_never_made_again(stage: Stage, repeat: Effect) -> None:
    first = await attempt(stage)
    assert await first.step("a", {"n": 1}, repeat) == {"n": 1}
    assert await first.step("a", {"n": 2}, repeat) == {"n": 1}
    await first.actor.commit()
    second = await attempt(stage)
    assert await second.step("a", {"n": 3}, repeat) == {"n": 1}
    assert (len(first.done), second.done) == (1, [])


async def test_a_step_returns_what_was_stored_also_the_first_time(stage: Stage) -> None:
    returned = await (await attempt(stage)).step("a", {"pair": (1, 2), "when": timedelta(seconds=90)})
    assert returned == {"pair": [1, 2], "when": "PT90S"}
    assert await (await attempt(stage)).step("a", {}) == returned


async def test_a_typed_result_comes_back_typed_with_its_usage_on_the_step(stage: Stage) -> None:
    here = await attempt(stage)

    async def ask() -> ModelReply:
        return says("Hello")

    reply = await here.running.step("model-1", ModelReply, Effectful(run=ask), kind="model", name="m")
    assert reply == says("Hello")
    assert here.running.run.usage == Usage(input_tokens=10, output_tokens=2, cost_nano_usd=5)


async def test_pure_steps_share_the_next_commit(stage: Stage) -> None:
    here = await attempt(stage)
    before = commits(stage)
    for number in range(5):
        await here.step(f"p{number}", number, "pure")
    assert commits(stage) == before
    assert await stored(stage) == {}
    await here.step("k", 5, "keyed")
    assert commits(stage) == before + 1
    assert await stored(stage) == {**{f"p{number}": str(number) for number in range(5)}, "k": "5"}


async def test_a_pure_step_that_no_commit_followed_runs_again_after_a_crash(stage: Stage) -> None:
    assert await (await attempt(stage)).step("a", 1, "pure") == 1
    assert await (await attempt(stage)).step("a", 2, "pure") == 2


async def test_a_keyed_step_that_was_cut_short_runs_again_with_the_same_key(stage: Stage) -> None:
    first = await attempt(stage)
    with pytest.raises(Crash):
        await first.step("a", 1, crash=True)
    second = await attempt(stage)
    assert await second.step("a", 2) == 2
    await second.step("b", 3)
    assert second.done[0] == first.done[0] == f"{stage.key.session}-1-a"
    assert second.done[1] != second.done[0]
    assert second.running.run.attempt == 2


async def test_a_once_step_writes_its_intent_before_it_begins(stage: Stage) -> None:
    here = await attempt(stage)
    before = commits(stage)
    with pytest.raises(Crash):
        await here.step("a", 1, "once", crash=True)
    assert commits(stage) == before + 1
    assert await stored(stage) == {"a": None}


async def test_a_once_step_that_was_cut_short_is_unknown_and_never_repeated(stage: Stage) -> None:
    with pytest.raises(Crash):
        await (await attempt(stage)).step("a", 1, "once", crash=True)
    for _ in range(2):
        stage.clock.advance(SECONDS)
        later = await attempt(stage)
        assert await later.step("a", 1, "once") == UNKNOWN
        assert later.done == []
    run = (await stage.session()).run
    assert run is not None
    assert [(step.key, step.sequence) for step in run.steps] == [("a", 2)]


async def test_while_a_once_step_may_still_run_not_even_its_own_wake_takes_over(stage: Stage) -> None:
    with pytest.raises(Crash):
        await (await attempt(stage)).step("a", 1, "once", crash=True)
    again = Actor(stage.store, stage.files, stage.clock, stage.key, PACE)
    await again.load()
    assert await claim(again) is Work.HELD


async def test_a_once_step_whose_intent_was_not_written_is_not_begun(stage: Stage) -> None:
    here = await attempt(stage)
    stage.faults.at = {len(stage.faults.passed)}
    with pytest.raises(Crash):
        await here.step("a", 1, "once")
    assert here.done == []
    stage.faults.restart()
    assert await (await attempt(stage)).step("a", 1, "once") == 1


async def test_no_effect_begins_after_the_end_of_the_slice(stage: Stage) -> None:
    here = await attempt(stage, seconds=60)
    stage.clock.advance(59)
    assert await here.step("a", 1) == 1
    stage.clock.advance(1)
    with pytest.raises(SliceOver):
        await here.step("b", 2)
    assert await here.step("a", 3) == 1, "what is recorded costs no time"
    assert len(here.done) == 1


async def test_an_effect_that_fails_records_nothing(stage: Stage) -> None:
    here = await attempt(stage)

    async def effect() -> JsonObject:
        raise LookupError

    with pytest.raises(LookupError):
        await here.running.step("a", dict, Effectful(run=effect), kind="tool", name="t")
    assert here.results == {}


async def test_an_approval_suspends_with_a_question_that_names_the_call(stage: Stage) -> None:
    here = await attempt(stage)
    await here.step("p", 1, "pure")
    with pytest.raises(Suspended):
        await here.running.approval("approve-a", CALL, ASK)
    session = await stage.session()
    assert session.run is not None
    wait = session.run.wait
    assert wait is not None
    assert (wait.step, wait.call, wait.approvers) == ("approve-a", CALL, ("7",))
    assert wait.until == stage.clock.now() + timedelta(seconds=PLAN.budget.approval_seconds)
    (question,) = session.outbox
    assert question.text == "May I do this? refund_order (order_id: 1042)"
    assert [button.data for button in question.buttons] == [f"a:{wait.id}:y", f"a:{wait.id}:n"]
    assert list(await stored(stage)) == ["p"]
