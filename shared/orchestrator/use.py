"""The tool calls of one model reply: decided by the policy or a person, then carried out side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from shared import policy
from shared.domain import Effect, JsonObject, ToolCall, ToolSpec, WaitRequest
from shared.errors import BudgetSpent, Cancelled, Parked, Suspended
from shared.llm.arguments import malformed
from shared.sessions.document import UNKNOWN
from shared.sessions.journal import size
from shared.sessions.running import Effectful, Running
from shared.sessions.transcript import model_step, tool_step, turn_of
from shared.sessions.waits import outside_wait
from shared.tools import Toolbox, ToolContext

AT_ONCE = 8
"""Tool calls of one run that are carried out at the same time."""
RESULTS_BYTES = 200_000
"""Of the journal: results beyond it are left out, so that the document keeps its bounds within one turn."""
TOO_MUCH: JsonObject = {
    "error": "it was carried out, but the calls gave too much together to show; ask for less at once"
}
SKIPPED: JsonObject = {"skipped": "a newer message came in before this began; it was not carried out"}


async def use_all(running: Running, toolbox: Toolbox, calls: tuple[ToolCall, ...], turn: int) -> None:
    """Every call has a result when this returns; each is recorded as it ends.

    Raises `Suspended` when some of them wait and all others are done, and `BudgetSpent` at a call beyond the budget,
    once those before it are done.
    """
    earlier = running.run.moved.tool_calls + sum(_is_earlier_call(step.key, turn) for step in running.run.steps)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(index: int, call: ToolCall) -> None:
        async with slots:
            policy.check_tool_call(running.plan.budget, earlier + index)
            await _use(running, toolbox, call, tool_step(turn, index))

    await _all([one(index, call) for index, call in enumerate(calls)])


def _is_earlier_call(key: str, turn: int) -> bool:
    return key.startswith("tool-") and not key.startswith(f"tool-{turn}.")


async def _all(works: list[Coroutine[Any, Any, None]]) -> None:
    """Return when all are done. What ends this attempt cancels the others at once and is raised; what only ends one
    call, or the run, is raised when the others are done."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        for done in asyncio.as_completed(tasks):
            try:
                await done
            except (Parked, BudgetSpent, Cancelled):
                continue
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failures = [error for task in tasks if (error := task.exception()) is not None]
    # A run is parked only when nothing but waits is left.
    for failure in sorted(failures, key=lambda error: (isinstance(error, Suspended), isinstance(error, Parked))):
        raise failure


async def _use(running: Running, toolbox: Toolbox, call: ToolCall, key: str) -> None:
    spec = running.plan.tool(call.name)
    refusal = None if running.result(key, dict) is not None else await _refusal(running, call, key)
    if refusal is not None or spec is None:
        # That a call was skipped is stored before the model hears it: another attempt might carry it out.
        repeat: Effect = "keyed" if refusal is SKIPPED else "pure"
        effect = Effectful(run=partial(_give, refusal or {}), repeat=repeat)
    else:
        effect = _effect(running, toolbox, spec, call, key)
    await running.step(key, dict, effect, kind="tool", name=call.name)


def _effect(running: Running, toolbox: Toolbox, spec: ToolSpec, call: ToolCall, key: str) -> Effectful[JsonObject]:
    context = ToolContext(
        tenant=running.plan.tenant,
        session=running.session.id,
        idempotency_key=running.idempotency_key(key),
        callback=partial(toolbox.callback, running.session.key, outside_wait(running.run.number, key)),
    )

    async def run() -> JsonObject:
        result = await toolbox.use(spec, call.arguments, context)
        if isinstance(result, WaitRequest):
            return await running.wait(key, call, result)
        return result if size(running.run) < RESULTS_BYTES else TOO_MUCH

    async def look_up() -> JsonObject | None:
        return await toolbox.look_up(spec, call.arguments, context)

    return Effectful(run=run, repeat=spec.effect, seconds=spec.timeout_seconds, unknown=UNKNOWN, look_up=look_up)


async def _refusal(running: Running, call: ToolCall, key: str) -> JsonObject | None:
    """What the model is told instead of a result; None when the call may be carried out.

    A newer message that the model shall see first skips a call that has not begun, but none that a person approved.
    """
    if (written := malformed(call)) is not None:
        return {"error": "the arguments are not a JSON object; write them again", "written": written}
    rule = policy.decide(running.plan, call)
    if rule.decision == "deny":
        return {"denied": True, "reason": rule.reason or "not allowed"}
    asked = f"approve-{key}"
    begun = (
        running.run.step(key) is not None or running.run.step(asked) is not None or _may_have_run(running, call, key)
    )
    if running.overtaken and not begun and not any(wait.step in (key, asked) for wait in running.run.open):
        return SKIPPED
    if rule.decision == "ask":
        verdict = await running.approval(asked, call, rule)
        if not verdict.approved:
            return {"denied": True, "reason": f"not approved by {verdict.by}"}
    return None


def _may_have_run(running: Running, call: ToolCall, key: str) -> bool:
    """Whether an earlier attempt may have carried the call out and died before it said so: then it is made again, with
    the same key, rather than called not done."""
    spec, asked = running.plan.tool(call.name), running.run.step(model_step(turn_of(key)))
    earlier = asked is not None and asked.attempt < running.run.attempt
    return earlier and spec is not None and spec.effect != "pure"


async def _give(result: JsonObject) -> JsonObject:
    return result
