"""A run that waits for a time: it holds nothing, only time ends it, and it goes on where it was."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from shared.domain import JsonObject, ModelReply, ModelRequest, Rule, WaitRequest
from shared.errors import Gone
from shared.llm import OnText
from shared.llm.scripted import Scripted
from shared.sessions.callback import verdict as by_callback
from shared.sessions.document import Wait
from shared.sessions.events import events
from shared.sessions.projection import project
from shared.tools import ToolContext, ToolError
from shared.tools.timers import wait_until
from tests.clock import NOON, FakeClock
from tests.stage import PLAN, PointedStore, Stage, calls, says, tool

HOUR = timedelta(hours=1)
CONTEXT = ToolContext(tenant="acme", session="s", idempotency_key="k")


def waits(**arguments: object) -> ModelReply:
    return calls("wait_until", arguments=arguments or {"seconds": 3600})


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Its model waits for an hour, then answers."""
    store = PointedStore(tmp_path / "sessions.db")
    stage = Stage(store, FakeClock(), [waits(), says("Here I am again"), says("And yes")])
    stage.tools["wait_until"] = wait_until(stage.clock)
    stage.publish(replace(PLAN, tools=(tool("wait_until", "keyed"),)))
    yield stage
    await store.aclose()


async def waiting(stage: Stage) -> Wait:
    """The wait of a run that holds nothing but that."""
    session = await stage.session()
    assert session.run is not None
    assert session.run.wait is not None
    assert (session.lease, session.outbox, stage.bus.queue) == (None, (), [])
    return session.run.wait


async def test_a_run_waits_and_goes_on_when_the_tick_finds_it(stage: Stage) -> None:
    await stage.say("Come back in an hour")
    await stage.pump()
    wait = await waiting(stage)
    assert (wait.kind, wait.until, wait.step, wait.call.name) == ("timer", NOON + HOUR, "tool-1.0", "wait_until")
    assert await stage.tick(3599) == 0
    assert stage.channel.texts == []
    assert await stage.tick(1) == 1
    assert stage.channel.texts == ["Here I am again"]
    result = {"waited_until": (NOON + HOUR).isoformat()}
    assert json.loads(stage.script.history[-1].messages[-1].text) == result
    run = await stage.run()
    assert [(step.key, step.kind) for step in run.steps] == [
        ("model-1", "model"),
        ("tool-1.0", "tool"),
        ("model-2", "model"),
    ]
    assert [event.sequence for event in events(run)] == [1, 2, 3, 4, 5, 6]
    assert await stage.is_quiet()


async def test_a_message_during_the_wait_stays_in_the_inbox_until_the_model_is_asked_next(stage: Stage) -> None:
    await stage.say("Come back in an hour")
    await stage.pump()
    await stage.say("Really?", order=2)
    await stage.pump()
    await waiting(stage)
    assert [entry.text for entry in (await stage.session()).inbox.values()] == ["Really?"]
    await stage.tick(3600)
    assert [said.text for said in stage.script.history[-1].messages if said.role == "contact"][-1] == "Really?"
    assert stage.channel.texts == ["Here I am again"]
    assert await stage.is_quiet()


class Steady(Scripted):
    """Waits for an hour, then answers, however often it is asked."""

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        return says("Here I am again") if request.messages[-1].role == "tool" else waits()


async def story(stage: Stage, *at: int) -> None:
    """Wait and answer, with the process killed at these points."""
    stage.conversation, stage.script, stage.faults.at = f"killed at {at}", Steady(), set(at)
    await stage.say("Come back in an hour")
    await stage.pump()
    wait = await waiting(stage)
    await stage.tick((wait.until - stage.clock.now()).total_seconds() + 60)
    run = await stage.run()
    assert (run.reply, [ended.id for ended in run.waits]) == ("Here I am again", [wait.id])
    assert [step.key for step in run.steps] == ["model-1", "tool-1.0", "model-2"]
    assert await stage.is_quiet()


async def test_a_process_killed_anywhere_waits_once_and_answers(stage: Stage) -> None:
    await story(stage)
    points = len(stage.faults.passed)
    assert points > 15
    for at in range(points):
        stage.faults.passed.clear()
        await story(stage, at)


async def test_nothing_but_time_ends_it(stage: Stage) -> None:
    await stage.say("Come back in an hour")
    await stage.pump()
    wait = await waiting(stage)
    await stage.tap(approved=True, token=wait.id)
    await stage.pump()
    assert await waiting(stage) == wait
    assert [told.text for told in stage.channel.settled] == ["This was already decided, or its time is over."]
    with pytest.raises(Gone, match="waits for a time"):
        await by_callback(stage.store, stage.key, wait.id, approved=True, now=stage.clock.now())


async def test_readers_see_what_it_waits_for_and_nobody_may_approve_it(stage: Stage) -> None:
    await stage.say("Come back in an hour")
    await stage.pump()
    session = await stage.session()
    for audience in ("contact", "operator"):
        shown = project(session, audience)["wait"]
        assert (shown["kind"], shown["approve"], shown["until"]) == ("timer", False, (NOON + HOUR).isoformat())
    assert session.run is not None
    last = list(events(session.run))[-1]
    assert (last.kind, last.data["kind"], last.data["approve"]) == ("wait", "timer", False)


async def test_a_rule_may_forbid_it(stage: Stage) -> None:
    stage.publish(replace(PLAN, tools=(tool("wait_until", "keyed"),), rules=(Rule(tool="*", decision="deny"),)))
    await stage.say("Come back in an hour")
    await stage.pump()
    assert stage.channel.texts == ["Here I am again"]


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        ({"seconds": 1}, timedelta(seconds=1)),
        ({"seconds": 90.5}, timedelta(seconds=90.5)),
        ({"seconds": 2_592_000}, timedelta(days=30)),
        ({"until": "2026-11-20T14:00:00+01:00"}, HOUR),
        ({"until": "2026-11-20T13:00:00Z"}, HOUR),
    ],
)
async def test_a_time_is_given_in_seconds_or_with_its_offset(arguments: JsonObject, after: timedelta) -> None:
    assert await wait_until(FakeClock())(arguments, CONTEXT) == WaitRequest(until=NOON + after)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "until: give a time with its offset"),
        ({"until": 7}, "until: give a time"),
        ({"until": "tomorrow"}, "until: give a time"),
        ({"until": "2026-11-20T13:00:00"}, "until: give a time with its offset"),
        (
            {"until": "2026-11-20T12:00:00Z"},
            "until: choose a time from 1 second to 30 days ahead; it is 2026-11-20T12:00",
        ),
        ({"until": "2026-12-20T12:00:01Z"}, "until: choose a time from 1 second"),
        ({"seconds": 0}, "seconds: choose a time from 1 second"),
        ({"seconds": -1}, "seconds: give a number"),
        ({"seconds": 2_592_001}, "seconds: give a number from 1 to 2592000"),
        ({"seconds": 1e400}, "seconds: give a number"),
        ({"seconds": True}, "seconds: give a number"),
        ({"seconds": "60"}, "seconds: give a number"),
    ],
)
async def test_another_time_is_refused_naming_the_field(arguments: JsonObject, problem: str) -> None:
    with pytest.raises(ToolError, match=problem):
        await wait_until(FakeClock())(arguments, CONTEXT)
