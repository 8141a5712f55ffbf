"""A run that waits for a time, in the embedded stack."""

from __future__ import annotations

from dataclasses import replace

from shared.auth import callback_token
from shared.config.demo import TENANT
from shared.config.publishing import publish
from shared.domain import ModelReply, SessionKey, ToolCall, ToolSpec
from shared.llm.scripted import Scripted
from shared.sessions.document import read
from shared.wiring import Parts
from tests.functions.conftest import Stack, is_problem

WAIT = ToolSpec(
    name="wait_until",
    description="Come back later.",
    parameters={"type": "object", "properties": {"seconds": {"type": "number"}}},
    implementation="builtin:wait_until",
)


async def waiting(stack: Stack) -> str:
    """The id of a session whose agent comes back in an hour."""
    (agent,) = await stack.here.repository.agents(TENANT)
    await stack.here.repository.put_tool(TENANT, WAIT)
    await stack.here.repository.put_agent(TENANT, replace(agent.draft, tools=(*agent.draft.tools, WAIT.name)))
    await publish(stack.here.repository, stack.here.store)
    other = Parts(stack.here.settings)
    other.clock = stack.clock
    stack.here.driver = replace(stack.here.driver, toolbox=other.driver.toolbox)  # a real one, as `wiring` makes it
    await other.aclose()
    call = ToolCall(id="c1", name=WAIT.name, arguments={"seconds": 3600})
    stack.model = Scripted(
        [
            ModelReply(model="scripted/demo", text="", tool_calls=(call,)),
            ModelReply(model="scripted/demo", text="Here I am again"),
        ]
    )
    return await stack.say("Come back in an hour")


async def test_the_tick_ends_a_wait_for_a_time(stack: Stack) -> None:
    session = await waiting(stack)
    before = (await stack.read(f"/v1/sessions/{session}")).json()
    early = await stack.here.wake_due()
    stack.clock.advance(3601)
    late = await stack.here.wake_due()
    await stack.idle()

    assert (before["status"], early, late) == ("waiting", 0, 1)
    assert before["waits"] == [before["wait"]]
    assert {name: before["wait"][name] for name in ("kind", "tool", "arguments", "until")} == {
        "kind": "timer",
        "tool": "wait_until",
        "arguments": {"seconds": 3600},
        "until": "2026-11-20T13:00:00+00:00",
    }
    assert stack.shown() == ["Here I am again"]


async def test_no_callback_ends_a_wait_for_a_time(stack: Stack) -> None:
    key = SessionKey(TENANT, await waiting(stack))
    stored = await stack.here.store.load(key)
    found = read(key, stored) if stored is not None else None
    assert found is not None
    assert found.run is not None
    assert found.run.wait is not None
    path = f"/v1/callbacks/{callback_token.issue(stack.here.box, key, found.run.wait.id)}"

    assert is_problem(await stack.http.post(path, json={"approved": True}), 410, "waits for a time")
    assert (await stack.read(f"/v1/sessions/{key.session}")).json()["status"] == "waiting"
