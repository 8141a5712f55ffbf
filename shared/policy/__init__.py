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


def check_model_call(budget: Budget, before: int, usage: Usage) -> None:
    """Return if one more model call is within the budget, after so many; raises `BudgetSpent`, naming the limit."""
    tokens = usage.input_tokens + usage.output_tokens
    for name, used, limit in (
        ("model_calls", before, budget.model_calls),
        ("tokens", tokens, budget.tokens),
        ("cost_nano_usd", usage.cost_nano_usd, budget.cost_nano_usd),
    ):
        _check(name, used, limit)


def check_tool_call(budget: Budget, before: int) -> None:
    """Return if one more tool call is within the budget, after so many; raises `BudgetSpent`, naming the limit."""
    _check("tool_calls", before, budget.tool_calls)


def _check(name: str, used: int, limit: int) -> None:
    if used >= limit:
        raise BudgetSpent(f"budget: {name} is {limit}, used {used}")
