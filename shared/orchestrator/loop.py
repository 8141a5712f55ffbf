"""The loop. A new feature becomes a step, a tool, a node or a policy; this page stays one screen."""

from __future__ import annotations

from functools import partial
from itertools import count

from shared import policy
from shared.domain import JsonObject, ModelReply, ModelRequest, ToolCall, WaitRequest
from shared.errors import ModelFailed
from shared.llm.arguments import malformed
from shared.llm.route import Route
from shared.sessions.running import Running
from shared.sessions.transcript import model_step, tool_step
from shared.tools import Toolbox, ToolContext

UNKNOWN: JsonObject = {"error": "the outcome is unknown: it may or may not have happened, and was not tried again"}


async def answer(running: Running, route: Route, toolbox: Toolbox) -> str:
    """The agent's reply to the run's inputs.

    Raises `ModelFailed` or `BudgetSpent` when there is none, and `Suspended` when the run waits for a person or a time.
    """
    tool_calls = count()
    for turn in count(1):
        reply = await running.step(
            model_step(turn),
            ModelReply,
            partial(_ask, running, route, model_step(turn)),
            kind="model",
            name=running.plan.models[0],
        )
        if not reply.tool_calls:
            if not reply.text.strip():
                raise ModelFailed(f"{reply.model}: answered neither with text nor with a tool call")
            return reply.text
        for index, call in enumerate(reply.tool_calls):
            policy.check_tool_call(running.plan.budget, next(tool_calls))
            await _use(running, toolbox, call, tool_step(turn, index))
    raise AssertionError("the budget ends every run")


async def _ask(running: Running, route: Route, step: str) -> ModelReply:
    plan, run = running.plan, running.run
    policy.check_model_call(plan.budget, sum(step.kind == "model" for step in run.steps), run.usage)
    request = ModelRequest(
        model=plan.models[0], instructions=plan.instructions, messages=running.messages, tools=plan.tools
    )
    async with running.growing(step) as text:
        if text is None:
            return await route.complete(plan.models, request)
        return await route.complete(plan.models, request, text.append, text.reset)


async def _use(running: Running, toolbox: Toolbox, call: ToolCall, key: str) -> None:
    """One tool call: decided by the policy, by a person if the policy says so, then carried out, once."""
    refusal = await _refusal(running, call, f"approve-{key}")
    spec = running.plan.tool(call.name)
    if refusal is not None or spec is None:
        await running.step(key, dict, partial(_give, refusal or {}), kind="tool", name=call.name, repeat="pure")
        return
    context = ToolContext(
        tenant=running.plan.tenant, session=running.session, idempotency_key=running.idempotency_key(key)
    )

    async def effect() -> JsonObject:
        result = await toolbox.use(spec, call.arguments, context)
        return await running.sleep(key, call, result.until) if isinstance(result, WaitRequest) else result

    await running.step(key, dict, effect, kind="tool", name=call.name, repeat=spec.effect, unknown=UNKNOWN)


async def _refusal(running: Running, call: ToolCall, key: str) -> JsonObject | None:
    """What the model is told instead of a result; None when the call may be carried out."""
    if (written := malformed(call)) is not None:
        return {"error": "the arguments are not a JSON object; write them again", "written": written}
    rule = policy.decide(running.plan, call)
    if rule.decision == "deny":
        return {"denied": True, "reason": rule.reason or "not allowed"}
    if rule.decision == "ask":
        verdict = await running.approval(key, call, rule)
        if not verdict.approved:
            return {"denied": True, "reason": f"not approved by {verdict.by}"}
    return None


async def _give(result: JsonObject) -> JsonObject:
    return result
