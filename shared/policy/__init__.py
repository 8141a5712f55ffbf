"""May this tool call be carried out, and may the run go on? Pure functions of the plan and of what was spent."""

from __future__ import annotations

from shared.domain import Budget, ExecutionPlan, Rule, ToolCall, Usage
from shared.errors import BudgetSpent

ALLOWED = Rule(tool="*", decision="allow")


def decide(plan: ExecutionPlan, call: ToolCall) -> Rule:
    """The rule that decides on this call: the first that names the tool or `*`; without one, allowed.

    A tool that the plan does not have is denied, whatever the rules say.
    """
    if plan.tool(call.name) is None:
        return Rule(tool=call.name, decision="deny", reason=f"this agent has no tool {call.name!r}")
    return next((rule for rule in plan.rules if rule.tool in (call.name, "*")), ALLOWED)


def check(budget: Budget, *, model_calls: int, tool_calls: int, usage: Usage) -> None:
    """Return if what a run used so far leaves room for one more model call; else raises `BudgetSpent`, naming the
    limit."""
    tokens = usage.input_tokens + usage.output_tokens
    for name, used, limit in (
        ("model_calls", model_calls, budget.model_calls),
        ("tool_calls", tool_calls, budget.tool_calls),
        ("tokens", tokens, budget.tokens),
        ("cost_nano_usd", usage.cost_nano_usd, budget.cost_nano_usd),
    ):
        if used >= limit:
            raise BudgetSpent(f"budget: {name} is {limit}, used {used}")
