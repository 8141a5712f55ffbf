"""Runs that were set aside because they made no progress, as operators read them and put them back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query

from shared.api.principals import Operator
from shared.domain import Message
from shared.sessions import dead
from shared.sessions.document import Step
from shared.wiring import parts

router = APIRouter(prefix="/v1/dead-runs", tags=["dead runs"])
DeadRunId = Annotated[
    str, Path(pattern="^[0-9a-f]{32}-[1-9][0-9]{0,9}$", description="the session's id, a hyphen, the run's number")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRunSummary:
    """A run that was set aside, in short."""

    id: str
    session: str
    connection: str
    conversation: str
    run: str
    """Address of the archived run, which has all its steps."""
    messages: int
    """How many messages nobody answered for that."""
    reason: str
    at: datetime
    requeued_at: datetime | None
    """When its messages were put back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRunDetail(DeadRunSummary):
    """A run that was set aside, with what it was given and what it did."""

    plan: str
    """SHA-256 of its plan."""
    inputs: tuple[Message, ...]
    steps: tuple[Step, ...]
    """What it recorded last; results are cut."""


@router.get("")
async def list_dead_runs(principal: Operator, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[DeadRunSummary]:
    """The tenant's runs that were set aside, the newest first."""
    return [_summary(found) for found in await dead.dead_runs(parts().store, principal.tenant, limit)]


@router.get("/{id}")
async def get_dead_run(principal: Operator, id: DeadRunId) -> DeadRunDetail:  # noqa: A002  the glossary's word
    """All that is known of one of them."""
    found = await dead.dead_run(parts().store, principal.tenant, id)
    return DeadRunDetail(
        **{name: getattr(_summary(found), name) for name in DeadRunSummary.__dataclass_fields__},
        plan=found.plan,
        inputs=found.inputs,
        steps=found.steps,
    )


@router.post("/{id}/requeue", status_code=202)
async def requeue_dead_run(principal: Operator, id: DeadRunId) -> DeadRunSummary:  # noqa: A002  the glossary's word
    """Put its messages into their session again, to be answered by a new run; 410 when that was done already."""
    here = parts()
    return _summary(
        await dead.requeue(here.store, here.accept, principal.tenant, id, now=here.clock.now(), expiry=here.pace.expiry)
    )


def _summary(found: dead.DeadRun) -> DeadRunSummary:
    return DeadRunSummary(
        id=found.id,
        session=found.session,
        connection=found.connection,
        conversation=found.conversation,
        run=f"/v1/sessions/{found.session}/runs/{found.number}",
        messages=len(found.inputs),
        reason=found.reason,
        at=found.at,
        requeued_at=found.requeued_at,
    )
