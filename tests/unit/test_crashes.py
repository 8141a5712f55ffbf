"""Every crash point in turn: the process is killed before and after each call of a port, and its wake comes again."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.codec import encode
from shared.sessions.document import UNKNOWN, Run
from shared.sessions.events import events
from tests.clock import FakeClock
from tests.stage import PointedStore, Stage
from tests.stories import STORIES, Story, Witness, approved, approved_both

UNKNOWN_RESULT = encode(UNKNOWN).decode()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PointedStore]:
    store = PointedStore(tmp_path / "sessions.db")
    yield store
    await store.aclose()


async def told(store: PointedStore, story: Story, *at: int) -> Stage:
    """The story's stage at its end, with the process killed at these points."""
    stage = Stage(store, FakeClock(), None)
    stage.conversation = f"{story.name} {at}"
    stage.channel.resend, stage.channel.fetched = story.resend, story.fetched
    stage.script = witness = Witness(stage)
    stage.faults.at = set(at)
    await story.tell(stage, witness)
    return stage


async def check(stage: Stage, story: Story) -> None:
    """What must hold however often the process was killed."""
    assert await stage.is_quiet()
    session = await stage.session()
    runs = [await stage.run(number) for number in range(1, session.runs + 1)]
    assert [answered(run) for run in runs] == story.inputs
    assert {run.outcome for run in runs} == {story.outcome}
    assert [event.sequence for run in runs for event in events(run)] == list(range(1, session.sequence + 1))
    assert isinstance(stage.script, Witness)
    assert stage.script.again == []
    seen = {(sent.id, sent.text) for sent in stage.channel.sent}
    assert len(seen) == len({sent.id for sent in stage.channel.sent}) == story.sends
    for run in runs:
        delivered = [sent for sent in run.deliveries if sent.id.startswith(f"{run.number}/reply/")]
        assert "".join(sent.text for sent in delivered if sent.status == "sent")
        assert story.fetched or {(sent.id, sent.text) for sent in delivered} <= seen
    assert session.unknown == 0
    assert session.repeated >= (repeated(stage) if story.resend == "counted" else 0)
    if story.once:
        check_once(stage, runs, story)


def answered(run: Run) -> list[str]:
    came = [arrival.message for arrival in run.arrivals if not arrival.rejected]
    return [given.text for given in (*run.inputs, *came)]


def check_once(stage: Stage, runs: list[Run], story: Story) -> None:
    """Nothing was done twice, and what was not done for sure is not said to be done."""
    steps = {step.key: step for run in runs for step in run.steps if step.kind == "tool"}
    assert max(Counter(stage.used).values(), default=0) <= 1
    done = [key.split("-", 2)[2] for key in stage.used if steps[key.split("-", 2)[2]].name == "refund_order"]
    known = [key for key, step in steps.items() if step.name == "refund_order" and step.result != UNKNOWN_RESULT]
    assert set(known) <= set(done)
    assert len([step for step in steps.values() if step.name == "refund_order"]) == story.once


def repeated(stage: Stage) -> int:
    """How many deliveries the contact saw more than once."""
    return sum(count - 1 for count in Counter(sent.id for sent in stage.channel.sent).values())


def window(points: list[str], at: int) -> bool:
    """Whether this point lies between a send and the commit that says so."""
    since = next((points[place] for place in range(at, -1, -1) if points[place] in ("after send", "after commit")), "")
    return since == "after send"


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_a_crash_anywhere_changes_nothing_but_a_send_in_its_window(store: PointedStore, story: Story) -> None:
    calm = await told(store, story)
    await check(calm, story)
    points = calm.faults.passed
    assert (repeated(calm), (await calm.session()).repeated) == (0, 0)
    assert points.count("after send") == story.sends
    for at in range(len(points)):
        stage = await told(store, story, at)
        await check(stage, story)
        session = await stage.session()
        seen_again = window(stage.faults.passed, at) and story.resend != "receipt"
        assert repeated(stage) == seen_again, f"killed at {at}, {stage.faults.passed[at]}"
        assert session.repeated <= (story.resend != "harmless"), "what no reader can tell is not counted"


@pytest.mark.parametrize(
    ("tell", "gap"), [*((approved, gap) for gap in (1, 2, 3, 5, 8)), (approved_both, 1), (approved_both, 4)]
)
async def test_a_second_crash_during_the_recovery_changes_no_more(store: PointedStore, gap: int, tell: object) -> None:
    story = next(story for story in STORIES if story.tell is tell)
    for at in range(len((await told(store, story)).faults.passed)):
        stage = await told(store, story, at, at + gap)
        await check(stage, story)
        assert repeated(stage) <= 2
