"""Every change of a session, as pure functions from session to session.

They are applied to the freshly read document inside the compare-and-swap, and applied again when it was lost: none of
them may look at anything but its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from shared.codec import encode
from shared.domain import CONTEXT_BYTES, Delivery, Entry, Outcome, Result, StepKind
from shared.sessions.document import SERVICE, Lease, Run, Seen, Session, Step, Wait, message_of
from shared.sessions.transcript import transcript, trim

STALLS_ALLOWED = 5
WATCHED_FOR = timedelta(seconds=60)
"""How long one watch entry keeps a console's view up to date."""


class Work(Enum):
    """What a session asks of whoever looks at it."""

    NOTHING = "nothing"
    WAITING = "waiting"
    """For a verdict or a time; nobody needs to hold it."""
    HELD = "held"
    """By a live lease; its holder will see the inbox at its next commit. Also for the holder's own wake while a step
    that must not be repeated may still be running."""
    READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """Who wants to drive a session, and from when until when."""

    holder: str
    wake: str
    now: datetime
    until: datetime


def work(session: Session, *, wake: str, now: datetime) -> Work:
    """What there is to do for the holder of this wake."""
    lease = session.lease
    if lease is not None and lease.until > now and (lease.wake != wake or _once_is_open(session)):
        return Work.HELD
    if lease is not None or session.outbox:  # a lease that its holder did not give back is still due
        return Work.READY
    if session.run is None:
        return Work.READY if any(entry.kind != "watch" for entry in session.inbox.values()) else Work.NOTHING
    if session.run.wait is None or session.run.wait.until <= now:
        return Work.READY
    verdicts = any(entry.kind == "verdict" for entry in session.inbox.values())
    return Work.READY if verdicts else Work.WAITING


def _once_is_open(session: Session) -> bool:
    return session.run is not None and any(step.result is None for step in session.run.steps)


def due(session: Session, now: datetime) -> datetime | None:
    """When the tick must look at it if nobody else does; None when nothing is left to do."""
    if session.lease is not None:
        return session.lease.until
    if session.run is not None and session.run.wait is not None and session.run.wait.until > now:
        return session.run.wait.until
    return now if session.run is not None or session.inbox or session.outbox else None


def claim(session: Session, who: Claimant, plan: str) -> Session:
    """The session with this claimant's lease, verdicts applied, and a run where there is a message for one.

    `plan` is what a new run gets; a run that exists keeps its own. The caller has found it `READY`.
    """
    session = replace(session, epoch=session.epoch + 1, lease=Lease(holder=who.holder, wake=who.wake, until=who.until))
    if session.run is not None:
        run = session.run
        progressed = any(step.attempt == run.attempt for step in run.steps)
        stalls = 0 if progressed or run.wait is not None else run.stalls + 1
        session = replace(session, run=replace(run, attempt=run.attempt + 1, stalls=stalls))
    return take(session, who.now, plan)


def take(session: Session, now: datetime, plan: str) -> Session:
    """The session with its inbox looked at: verdicts applied and, if no run is active, a new one for the messages."""
    session = judge(session, now)
    return start(session, now, plan) if session.run is None else session


def absorb(session: Session) -> Session:
    """The session with what its inbox says of who watches taken in; every commit does this."""
    watches = [entry.received_at for entry in session.inbox.values() if entry.kind == "watch"]
    if not watches:
        return session
    inbox = {entry_id: entry for entry_id, entry in session.inbox.items() if entry.kind != "watch"}
    return replace(session, inbox=inbox, watched_until=max(watches) + WATCHED_FOR)


def start(session: Session, now: datetime, plan: str) -> Session:
    """A run for the messages that wait in the inbox, in the channel's order; unchanged when none does."""
    inbox = drop_seen(session)
    messages = sorted(
        (entry for entry in inbox.values() if entry.kind == "message"),
        key=lambda entry: (entry.order, entry.received_at, entry.id),
    )
    if not messages:
        return replace(session, inbox=inbox)
    number = session.runs + 1
    fresh = tuple(seen for seen in session.seen if now - seen.at < seen.seen_for)
    return replace(
        session,
        inbox={entry_id: entry for entry_id, entry in inbox.items() if entry.kind != "message"},
        runs=number,
        run=Run(
            number=number,
            plan=plan,
            inputs=tuple(message_of(entry, sequence) for sequence, entry in enumerate(messages, session.sequence + 1)),
            first_sequence=session.sequence + 1,
            started_at=now,
        ),
        seen=fresh + tuple(Seen(id=entry.id, run=number, at=now, seen_for=entry.seen_for) for entry in messages),
        sequence=session.sequence + len(messages),
        last_order=max(session.last_order, messages[-1].order),
        late=session.late + sum(entry.order < session.last_order for entry in messages),
    )


def drop_seen(session: Session) -> Mapping[str, Entry]:
    """The inbox without what a run has already taken."""
    seen = {seen.id for seen in session.seen}
    return {entry_id: entry for entry_id, entry in session.inbox.items() if entry_id not in seen}


def judge(session: Session, now: datetime) -> Session:
    """Apply the verdicts in the inbox, first come first: one that fits ends the wait, every other tap is answered."""
    session = replace(session, inbox=drop_seen(session))
    verdicts = sorted(
        (entry for entry in session.inbox.values() if entry.kind == "verdict"),
        key=lambda entry: (entry.received_at, entry.order),
    )
    for entry in verdicts:
        session = _verdict(session, entry, now)
    wait = session.run.wait if session.run is not None else None
    if wait is not None and wait.until <= now:
        session = _time_out(session, wait, now)
    return session


def _verdict(session: Session, entry: Entry, now: datetime) -> Session:
    session = replace(session, inbox={key: value for key, value in session.inbox.items() if key != entry.id})
    if entry.tap:  # a tap that the channel brings again must not be answered that it came too late
        known = Seen(id=entry.id, run=session.runs, at=now, seen_for=entry.seen_for)
        session = replace(session, seen=(*session.seen, known))
    run = session.run
    wait = run.wait if run is not None else None
    if run is None or wait is None or not _answers(entry, wait):
        return _answer_tap(session, entry, "This was already decided, or its time is over.")
    if not _may_judge(entry, wait, run):
        return _answer_tap(session, entry, "You may not decide this.")
    return _settle(
        session, wait, approved=entry.approved, by=entry.contact.name or entry.contact.id, now=now, tap=entry.tap
    )


def _answers(entry: Entry, wait: Wait) -> bool:
    return wait.kind == "approval" and wait.id == entry.token and wait.until > entry.received_at


def _may_judge(entry: Entry, wait: Wait, run: Run) -> bool:
    """A callback has proved itself by its token; a tap counts only from somebody that the rule names."""
    if entry.contact == SERVICE:
        return True
    wrote = {message.contact.id for message in run.inputs if message.contact is not None}
    return entry.contact.id in wait.approvers or ("contact" in wait.approvers and entry.contact.id in wrote)


def _answer_tap(session: Session, entry: Entry, text: str) -> Session:
    if not entry.tap:
        return session
    return replace(session, outbox=(*session.outbox, Delivery(id=f"tap/{entry.id}", text=text, tap=entry.tap)))


def _time_out(session: Session, wait: Wait, now: datetime) -> Session:
    if wait.kind == "timer":
        return _end_wait(session, wait, "tool", {"waited_until": wait.until.isoformat()}, now)
    return _settle(session, wait, approved=False, by="deadline", now=now, tap="")


def _end_wait(session: Session, wait: Wait, kind: StepKind, result: object, now: datetime) -> Session:
    """The run goes on, with the result of the step that it waited for."""
    step = Step(
        key=wait.step,
        kind=kind,
        name=wait.call.name,
        result=encode(result).decode(),
        attempt=_run(session).attempt,
        started_at=now,
        ended_at=now,
    )
    session = record(session, step)
    return replace(session, run=replace(_run(session), wait=None, waits=(*_run(session).waits, wait)))


def _settle(session: Session, wait: Wait, *, approved: bool, by: str, now: datetime, tap: str) -> Session:
    session = _end_wait(session, wait, "approval", Verdict(approved=approved, by=by), now)
    run, word = _run(session), "Approved" if approved else "Denied"
    settled = Delivery(
        id=f"{run.number}/{wait.step}/settled",
        text=f"{word} ({wait.call.name}), by {by}.",
        replaces=wait.provider_id,
        tap=tap,
    )
    pending = tuple(delivery for delivery in session.outbox if delivery.id != wait.prompt)  # nobody is asked any more
    return replace(session, outbox=(*pending, settled) if wait.provider_id or tap else pending)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an approval ended; stored as the result of its step."""

    approved: bool
    by: str
    """The name or id of who decided; `deadline` when nobody did in time."""


def record(session: Session, step: Step) -> Session:
    """The journal with this step; a step that has the same key (its intent) is replaced and keeps its place."""
    run = _run(session)
    earlier = next((known for known in run.steps if known.key == step.key), None)
    if earlier is not None:
        step = replace(step, sequence=earlier.sequence)
        steps = tuple(step if known.key == step.key else known for known in run.steps)
        return replace(session, run=replace(run, steps=steps))
    step = replace(step, sequence=session.sequence + 1)
    return replace(session, run=replace(run, steps=(*run.steps, step)), sequence=step.sequence)


def suspend(session: Session, wait: Wait, *prompts: Delivery) -> Session:
    """The run waits, and asks by these deliveries."""
    wait = replace(wait, sequence=session.sequence + 1)
    return replace(
        session,
        run=replace(_run(session), wait=wait),
        outbox=(*session.outbox, *prompts),
        sequence=wait.sequence,
    )


def respond(session: Session, *, outcome: Outcome, reply: str, parts: tuple[str, ...], reason: str = "") -> Session:
    """The run has its reply, which lies in the outbox in as many parts as the channel needs."""
    run = _run(session)
    results = tuple(
        Result(
            key=session.key,
            conversation=session.conversation,
            run=run.number,
            message=message.id,
            url=message.callback_url,
            outcome=outcome,
            reason=reason,
        )
        for message in run.inputs
        if message.callback_url
    )
    parts = parts or ("",) * bool(results)  # who waits for a result is told, even when there is nothing to say
    replies = tuple(
        Delivery(id=f"{run.number}/reply/{number}", text=part, results=results if number == len(parts) else ())
        for number, part in enumerate(parts, start=1)
    )
    sequence = session.sequence + 1
    return replace(
        session,
        run=replace(run, outcome=outcome, reply=reply, reason=reason, reply_sequence=sequence),
        outbox=(*session.outbox, *replies),
        sequence=sequence,
    )


def mark(session: Session, delivery: Delivery, now: datetime) -> Session:
    """The outbox without this delivery, and its run with what became of it."""
    session = replace(session, outbox=tuple(known for known in session.outbox if known.id != delivery.id))
    run = session.run
    if run is None:
        return session
    session = replace(session, run=replace(run, deliveries=(*run.deliveries, delivery)))
    wait = run.wait
    if wait is None or wait.prompt != delivery.id:
        return session
    if delivery.status == "refused":  # nobody was asked, so nobody will answer
        return _end_wait(session, wait, "approval", Verdict(approved=False, by="nobody: it could not be asked"), now)
    return replace(session, run=replace(_run(session), wait=replace(wait, provider_id=delivery.provider_id)))


def finish(session: Session, now: datetime) -> Session:
    """The session without its run, which goes to the archive."""
    run = replace(_run(session), ended_at=now)
    context = trim((*session.context, *run.inputs, *transcript(run)), CONTEXT_BYTES)
    return replace(session, run=None, finished=run, context=context, usage=session.usage + run.usage)


def release(session: Session) -> Session:
    """Nobody holds it any more."""
    return replace(session, lease=None)


def _run(session: Session) -> Run:
    if session.run is None:
        raise AssertionError("no run is active: only its holder records, suspends and responds")
    return session.run
