"""Runs that made no progress and were set aside: what is known of each, and how an operator puts it back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from shared.codec import decode, encode
from shared.domain import Contact, Entry, Message, SessionKey, digest
from shared.errors import Gone, NotFound
from shared.sessions.document import Run, Session, Step, read
from shared.store import Documents, SessionStore

LATEST = 200
"""Among how many dead runs of a tenant the newest are looked for."""
RESULT_SHOWN = 2_000
"""Characters of a step's result that are kept here; the archived run has it whole."""


class Accept(Protocol):
    """How entries get into a session, durably, with a wake."""

    def __call__(self, key: SessionKey, *entries: Entry) -> Awaitable[None]: ...


class Store(SessionStore, Documents, Protocol):
    """Sessions, and the dead runs beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRun:
    """All that is known of a run that was set aside."""

    tenant: str
    session: str
    connection: str
    conversation: str
    plan: str
    """SHA-256 of its plan."""
    number: int
    inputs: tuple[Message, ...]
    """What contacts wrote to it: what it began with, and what came while it was at work."""
    steps: tuple[Step, ...]
    """What it recorded last, in short; the archived run has all of it."""
    reason: str
    at: datetime
    requeued_at: datetime | None = None

    @property
    def id(self) -> str:
        """Names it within its tenant."""
        return f"{self.session}-{self.number}"

    @property
    def key(self) -> SessionKey:
        """Its session."""
        return SessionKey(self.tenant, self.session)


def path(key: SessionKey, number: int) -> str:
    """Where the dead run lies."""
    return f"{_collection(key.tenant)}/{key.session}-{number}"


def of(session: Session, run: Run, reason: str, at: datetime) -> DeadRun:
    """What is set aside of a run of this session."""
    came = tuple(arrival.message for arrival in run.arrivals if not arrival.rejected)
    return DeadRun(
        tenant=session.tenant,
        session=session.id,
        connection=session.connection,
        conversation=session.conversation,
        plan=run.plan,
        number=run.number,
        inputs=(*run.inputs, *came),
        steps=tuple(replace(step, result=step.result and step.result[:RESULT_SHOWN]) for step in run.steps),
        reason=reason,
        at=at,
    )


async def dead_runs(documents: Documents, tenant: str, limit: int) -> Sequence[DeadRun]:
    """At most `limit` dead runs of the tenant, the newest first. Raises `StoreDown`."""
    found = [decode(DeadRun, body) for _, body in await documents.list(_collection(tenant), limit=LATEST)]
    return sorted(found, key=lambda dead: dead.at, reverse=True)[:limit]


async def dead_run(documents: Documents, tenant: str, id: str) -> DeadRun:  # noqa: A002  the glossary's word
    """One dead run. Raises `NotFound`, and `StoreDown`."""
    body = await documents.get(f"{_collection(tenant)}/{id}")
    if body is None:
        raise NotFound(f"dead run: this tenant has none with id {id}")
    return decode(DeadRun, body)


async def requeue(
    store: Store,
    accept: Accept,
    tenant: str,
    id: str,  # noqa: A002  the glossary's word
    *,
    now: datetime,
    expiry: Callable[[datetime], datetime],
) -> DeadRun:
    """Put what contacts wrote to the dead run into its session again, behind everything that was answered since.

    Raises `NotFound`, `Gone` when that was done already, and `Retryable`: again, the same messages are the same.
    """
    dead = await dead_run(store, tenant, id)
    if dead.requeued_at is not None:
        raise Gone(f"dead run: it was put back at {dead.requeued_at.isoformat()}; see what became of its session")
    stored = await store.load(dead.key)
    session = read(dead.key, stored)
    await accept(dead.key, *entries(dead, session, now))
    dead = replace(dead, requeued_at=now)
    await store.put(path(dead.key, dead.number), encode(dead), expiry(now))
    return dead


def entries(dead: DeadRun, session: Session | None, now: datetime) -> tuple[Entry, ...]:
    """The dead run's messages as new ones, in their order."""
    return tuple(
        Entry(
            id=digest("requeue", dead.session, str(dead.number), message.id),
            kind="message",
            connection=dead.connection,
            conversation=dead.conversation,
            order=session.last_order if session is not None else 0,  # not before it: that would be counted as late
            received_at=now + timedelta(microseconds=place),
            contact=message.contact or Contact(id="unknown"),
            text=message.text,
            provider_id=message.provider_id,
            viewer=session.viewer if session is not None else "",
            posted_by=message.posted_by,
            callback_url=message.callback_url,
        )
        for place, message in enumerate(dead.inputs)
    )


def _collection(tenant: str) -> str:
    return f"tenants/{tenant}/dead_runs"
