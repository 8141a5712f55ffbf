"""Every crash point in turn: the process is killed before and after each call of a port, and its wake comes again."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from shared.channels.split import LEAST_LIMIT
from shared.codec import encode
from shared.domain import Effect, JsonObject, ModelReply, ModelRequest, Wake
from shared.llm import OnText
from shared.llm.scripted import Scripted
from shared.orchestrator.loop import UNKNOWN
from shared.sessions.events import events
from shared.store.sqlite import SqliteStore
from shared.tools import Tool, ToolContext, ToolResult
from tests.clock import NOON, FakeClock
from tests.stage import ASKING, PLAN, PointedStore, Stage, message, tool


class Witness(Scripted):
    """The demo model, which also sees to it that no recorded step is executed again."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.executed: list[str] = []
        self.again: list[str] = []
        """Steps that were executed although their result was recorded."""
        self.meanwhile = ""
        """A message that comes in while the model thinks for the first time."""
        for name, use in stage.tools.items():
            stage.tools[name] = self._witnessed(use)

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        since = [said.role for said in reversed(request.messages)]
        await self._executes(f"model-{1 + since[: since.index('contact')].count('agent')}")
        if self.meanwhile:
            entry = replace(message(9, self.meanwhile), conversation=self.stage.conversation)
            self.meanwhile = ""
            await SqliteStore.append(self.stage.store, self.stage.key, {entry.id: encode(entry)}, NOON)
            self.stage.bus.queue.append(Wake(key=self.stage.key, id="meanwhile"))
        return await super().complete(request, on_text)

    def _witnessed(self, use: Tool) -> Tool:
        async def witnessed(arguments: JsonObject, context: ToolContext) -> ToolResult:
            await self._executes(context.idempotency_key.split("-", 2)[2])
            return await use(arguments, context)

        return witnessed

    async def _executes(self, key: str) -> None:
        self.executed.append(key)
        recorded = {step.key for step in (await self.stage.unfinished()).steps if step.result is not None}
        if key in recorded:
            self.again.append(key)


async def greeted(stage: Stage) -> None:
    """One model call, and a reply in two parts."""
    stage.channel.text_limit = LEAST_LIMIT
    await stage.say("Hello")
    await stage.pump()


async def looked_up(stage: Stage) -> None:
    """The channel brings the message once more after it was answered."""
    for _ in range(2):
        await stage.say("Where is order 1042?")
        await stage.pump()


async def refunded(stage: Stage, effect: Effect = "once") -> None:
    stage.publish(replace(PLAN, tools=(tool("refund_order", effect),)))
    await stage.say("Refund order 1042")
    await stage.pump()


async def refunded_by_key(stage: Stage) -> None:
    await refunded(stage, "keyed")


async def approved(stage: Stage) -> None:
    stage.publish(ASKING)
    await stage.say("Refund order 1042")
    await stage.pump()
    await stage.tap(approved=True)
    await stage.pump()


async def interrupted(stage: Stage) -> None:
    """A second message comes while the model answers the first."""
    witness = stage.script
    assert isinstance(witness, Witness)
    witness.meanwhile = "Where is order 1041?"
    await looked_up(stage)


@dataclass(frozen=True)
class Story:
    tell: Callable[[Stage], Awaitable[None]]
    inputs: list[str]
    """The text of each run's only message."""
    sends: int
    refunds: int = 0


STORIES = [
    Story(greeted, ["Hello"], sends=2),
    Story(looked_up, ["Where is order 1042?"], sends=1),
    Story(refunded, ["Refund order 1042"], sends=1, refunds=1),
    Story(refunded_by_key, ["Refund order 1042"], sends=1, refunds=1),
    Story(approved, ["Refund order 1042"], sends=2, refunds=1),
    Story(interrupted, ["Where is order 1042?", "Where is order 1041?"], sends=2),
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PointedStore]:
    store = PointedStore(tmp_path / "sessions.db")
    yield store
    await store.aclose()


async def told(store: PointedStore, story: Story, *at: int) -> Stage:
    """The story's stage at its end, with the process killed at these points."""
    stage = Stage(store, FakeClock(), None)
    stage.conversation = f"{story.tell.__name__} {at}"
    stage.script = Witness(stage)
    stage.faults.at = set(at)
    await story.tell(stage)
    return stage


async def check(stage: Stage, story: Story) -> None:
    """What must hold however often the process was killed."""
    assert await stage.is_quiet()
    session = await stage.session()
    runs = [await stage.run(number) for number in range(1, session.runs + 1)]
    assert [[given.text for given in run.inputs] for run in runs] == [[text] for text in story.inputs]
    assert {run.outcome for run in runs} == {"answered"}
    assert [event.sequence for run in runs for event in events(run)] == list(range(1, session.sequence + 1))
    assert isinstance(stage.script, Witness)
    assert stage.script.again == []
    seen = {(sent.id, sent.text) for sent in stage.channel.sent}
    assert len(seen) == len({sent.id for sent in stage.channel.sent}) == story.sends
    for run in runs:
        assert "".join(sent.text for sent in stage.channel.sent if sent.id.startswith(f"{run.number}/reply/"))
    refunds = [key for key in stage.used if key.endswith("tool-1.0")] if story.refunds else []
    assert len(set(refunds)) <= story.refunds
    if any(step.result == encode(UNKNOWN).decode() for run in runs for step in run.steps):
        assert len(refunds) <= 1
    elif story.refunds:
        assert refunds


def repeated(stage: Stage) -> int:
    """How many deliveries the contact saw more than once."""
    return sum(count - 1 for count in Counter(sent.id for sent in stage.channel.sent).values())


def window(points: list[str], at: int) -> bool:
    """Whether this point lies between a send and the commit that says so."""
    return points[at] == "after send" or points[at - 1 : at + 1] == ["after send", "before commit"]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.tell.__name__)
async def test_a_crash_anywhere_changes_nothing_but_a_send_in_its_window(store: PointedStore, story: Story) -> None:
    calm = await told(store, story)
    await check(calm, story)
    points = calm.faults.passed
    assert repeated(calm) == 0
    assert sum(window(points, at) for at in range(len(points))) == 2 * story.sends
    for at in range(len(points)):
        stage = await told(store, story, at)
        await check(stage, story)
        assert repeated(stage) == window(points, at), f"killed at {at}, {points[at]}"


@pytest.mark.parametrize("gap", [1, 2, 3, 5, 8])
async def test_a_second_crash_during_the_recovery_changes_no_more(store: PointedStore, gap: int) -> None:
    story = next(story for story in STORIES if story.tell is approved)
    for at in range(len((await told(store, story)).faults.passed)):
        stage = await told(store, story, at, at + gap)
        await check(stage, story)
        assert repeated(stage) <= 2
