"""The loop. A new feature becomes a step, a tool, a node or a policy; this page stays one screen."""

from __future__ import annotations

from functools import partial

from shared import policy
from shared.domain import ModelReply, ModelRequest
from shared.errors import ModelFailed
from shared.llm.route import Route
from shared.orchestrator.room import make_room
from shared.orchestrator.use import use_all
from shared.sessions.running import Respond, Running
from shared.sessions.transcript import model_step
from shared.tools import Toolbox


async def answer(running: Running, route: Route, toolbox: Toolbox, respond: Respond) -> str:
    """The agent's reply to the run's inputs, which `respond` has put on its way.

    Raises `ModelFailed`, `BudgetSpent` or `Cancelled` when there is none, and `Suspended` when the run waits.
    """
    turn = running.run.moved.turns + 1
    while True:
        await make_room(running, route, turn)
        await running.hear(turn)
        reply = await running.ask(turn, partial(_ask, running, route, model_step(turn)), respond)
        if reply is not None and reply.tool_calls:
            await use_all(running, toolbox, reply.tool_calls, turn)
        elif reply is not None:
            if not reply.text.strip():
                raise ModelFailed(f"{reply.model}: answered neither with text nor with a tool call")
            return reply.text
        turn += running.run.step(model_step(turn)) is not None


async def _ask(running: Running, route: Route, step: str) -> ModelReply:
    plan, run = running.plan, running.run
    calls = run.moved.model_calls + sum(step.kind == "model" for step in run.steps)
    policy.check_model_call(plan.budget, calls, run.usage)
    request = ModelRequest(
        model=plan.models[0],
        instructions=running.instructions,
        messages=running.messages,
        tools=plan.tools,
    )
    with running.growing(step) as text:
        if text is None:
            return await route.complete(plan.models, request)
        return await route.complete(plan.models, request, text.append, text.reset)
