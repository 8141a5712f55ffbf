"""A run that waits for a time, in the embedded stack."""

from __future__ import annotations

from dataclasses import replace

from shared.auth import callback_token
from shared.config.publishing import publish
from shared.domain import ModelReply, SessionKey, ToolCall, ToolSpec
from shared.llm.scripted import Scripted
from shared.tools import Toolbox
from shared.tools.timers import wait_until
from shared.wiring import Parts
from tests.functions.conftest import TENANT, Stack, is_problem

WAIT = ToolSpec(name="wait_until", description="Come back.", parameters={}, implementation="builtin:wait_until")


async def waiting(stack: Stack) -> str:
    """The id of a session whose agent comes back in an hour."""
    (agent,) = await stack.here.repository.agents(TENANT)
    await stack.here.repository.put_tool(TENANT, WAIT)
    await stack.here.repository.put_agent(TENANT, replace(agent.draft, tools=(*agent.draft.tools, WAIT.name)))
    await publish(stack.here.repository, stack.here.store)
    toolbox = Toolbox({WAIT.implementation: wait_until(stack.clock)})
    stack.here.driver = replace(stack.here.driver, toolbox=toolbox)
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
    early = (await stack.http.post("/tick")).json()
    stack.clock.advance(3601)
    late = (await stack.http.post("/tick")).json()
    await stack.idle()

    assert (before["status"], early, late) == ("waiting", {"woken": 0}, {"woken": 1})
    assert before["wait"] == {
        "kind": "timer",
        "tool": "wait_until",
        "arguments": {"seconds": 3600},
        "until": "2026-11-20T13:00:00+00:00",
    }
    assert stack.shown() == ["Here I am again"]


async def test_no_callback_ends_a_wait_for_a_time(stack: Stack) -> None:
    session = await waiting(stack)
    found = await stack.session(session) if hasattr(stack, "session") else None
    assert found is None
