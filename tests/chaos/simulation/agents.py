"""Whom and what a simulation is about: an agent with every kind of tool, and the conversations with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.domain import (
    Budget,
    Connection,
    Contact,
    Delivery,
    Entry,
    ExecutionPlan,
    Queueing,
    Rule,
    SessionKey,
    ToolSpec,
)
from shared.sessions.pace import Pace
from tests.chaos.simulation.program import Program
from tests.chaos.simulation.world import EFFECTS, POISON

TENANT, MODEL = "acme", "scripted/chance"
PACE = Pace()
ANA, MAX = Contact(id="7", name="Ana"), Contact(id="66", name="Max")
"""Who writes, and somebody who may not decide anything."""
TICK_SECONDS = 60.0
QUIET_TICKS = 90
"""So many minutes in a row without a write, after the last fault, mean that nothing more will be done."""
MOST_TICKS = 1_800
"""And so many in all that it will never end."""
APPROVAL_SECONDS = 240
SAID = {"poison": POISON, "long": "long " * 600}
"""What else is said than a greeting."""
BURST = 40
"""Messages at once."""
PATIENCE_SECONDS = 120.0
"""How long a caller of an invoke waits."""


@dataclass(eq=False)
class Talk:
    """One conversation, seen from its contact."""

    key: SessionKey
    connection: Connection
    conversation: str
    orders: int = 0
    said: list[Entry] = field(default_factory=list)
    prompts: list[Delivery] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)


def plan_of(program: Program) -> ExecutionPlan:
    """What every agent of this program is."""
    tools = tuple(
        ToolSpec(name=name, description=name, parameters={}, effect=EFFECTS[name], implementation=f"builtin:{name}")
        for name in program.manner.tools
    )
    return ExecutionPlan(
        tenant=TENANT,
        agent="shop",
        agent_version=1,
        instructions="Be kind.",
        models=(MODEL,),
        tools=tools,
        rules=(
            Rule(tool="asked", decision="ask", approvers=("contact",)),
            Rule(tool="sure", decision="ask", approvers=("contact",)),
            Rule(tool="denied", decision="deny", reason="no"),
        ),
        budget=Budget(approval_seconds=APPROVAL_SECONDS, model_calls=6),
        queueing=Queueing(mode=program.mode, debounce_seconds=program.debounce),
    )
