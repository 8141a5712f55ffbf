"""Writes a set of golden documents: `python -m tests.golden.make FOLDER`, once for each schema version.

Each file is one session in the middle of something, as this release stores it: the process was killed there. Later
releases must read and continue them (tests/unit/test_golden.py). A set that was released is never written again.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from shared.codec import encode
from shared.domain import JsonObject, WaitRequest
from shared.store.sqlite import SqliteStore
from shared.tools import ToolContext
from tests.clock import NOON, FakeClock
from tests.stage import ASKING, PLAN, Crash, PointedStore, Stage, tool

Scene = Callable[[Stage], Awaitable[None]]


async def idle(stage: Stage) -> None:
    """Two runs are over, and nothing is left to do."""
    await stage.say("Hello")
    await stage.pump()
    await stage.say("Where is order 1042?", order=2)
    await stage.pump()


async def only_written_to(stage: Stage) -> None:
    """Two messages wait; no run has ever claimed it."""
    await stage.say("Hello")
    await stage.say("Where is order 1042?", order=2)


async def waiting_for_an_approval(stage: Stage) -> None:
    stage.publish(ASKING)
    await stage.say("Refund order 1042")
    await stage.pump()


async def approved_but_not_looked_at(stage: Stage) -> None:
    await waiting_for_an_approval(stage)
    await stage.tap(approved=True)


async def waiting_for_a_time(stage: Stage) -> None:
    async def wait(arguments: JsonObject, context: ToolContext) -> WaitRequest:
        return WaitRequest(until=NOON + timedelta(hours=2))

    stage.tools["lookup_order"] = wait
    await stage.say("Where is order 1042?")
    await stage.pump()


async def killed_after_a_step(stage: Stage) -> None:
    """The model asked for a tool and got its result; it was about to be asked again."""
    stage.publish(replace(PLAN, tools=(tool("lookup_order", "keyed"),)))
    await _killed(stage, "Where is order 1042?", "before model", 2)


async def killed_in_a_once_tool(stage: Stage) -> None:
    """The intent is stored; the tool may have done its work."""
    await _killed(stage, "Refund order 1042", "after tool", 1)


async def killed_before_the_reply_was_marked(stage: Stage) -> None:
    """The model's answer is recorded, and may have been sent."""
    await _killed(stage, "Where is order 1042?", "after send", 1)


async def _killed(stage: Stage, text: str, point: str, times: int) -> None:
    await stage.say(text)
    stage.faults.stop_at(point, times)
    try:
        await stage.driver().drive(stage.bus.queue[0])
    except Crash:
        return
    raise AssertionError(f"{point} was not passed {times} times")


SCENES: tuple[Scene, ...] = (
    idle,
    only_written_to,
    waiting_for_an_approval,
    approved_but_not_looked_at,
    waiting_for_a_time,
    killed_after_a_step,
    killed_in_a_once_tool,
    killed_before_the_reply_was_marked,
)


async def document(store: PointedStore, scene: Scene) -> dict[str, Any]:
    """What lies in the store when the scene is over, as JSON."""
    stage = Stage(store, FakeClock(), None)
    stage.conversation = scene.__name__
    await scene(stage)
    stored = await SqliteStore.load(store, stage.key)
    assert stored is not None
    runs = await store.runs(stage.key)
    return {
        "state": json.loads(stored.state) if stored.state is not None else None,
        "inbox": {key: json.loads(body) for key, body in stored.inbox.items()},
        "runs": [json.loads(body) for body in reversed(runs)],
        "plans": {path: json.loads(body) for path, body in stage.documents.bodies.items() if "/plans/" in path},
        "connection": json.loads(stage.documents.bodies["connections/bot"]),
        "message": json.loads(encode(replace(_greeting(), conversation=scene.__name__))),
    }


def _greeting() -> Any:
    from tests.stage import message

    return message(50, "Hello again")


async def write(folder: Path) -> None:
    folder.mkdir(parents=True)  # noqa: ASYNC240  nothing else runs here
    with TemporaryDirectory() as scratch:
        store = PointedStore(Path(scratch) / "sessions.db")
        for scene in SCENES:
            text = json.dumps(await document(store, scene), indent=1, ensure_ascii=False)
            (folder / f"{scene.__name__}.json").write_text(text + "\n")
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
