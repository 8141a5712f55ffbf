"""Who drives a session, and how its run begins, answers and ends: pure functions from session to session.

They are applied to the freshly read document inside the compare-and-swap, and applied again when it was lost: none of
them may look at anything but its arguments. The others stand in arrivals.py, journal.py and waits.py.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from shared.domain import Delivery, Outcome, Result
from shared.sessions.arrivals import Taking, drop_seen, has_room, start
from shared.sessions.document import Lease, Run, Session
from shared.sessions.journal import active
from shared.sessions.transcript import transcript, trim
from shared.sessions.waits import Verdict, end_wait, judge, without

STALLS_ALLOWED = 5
WATCHED_FOR = timedelta(seconds=60)
"""How long one watch entry keeps a console's view up to date."""
CONTEXT_AT_MOST = 200_000
"""Bytes of earlier conversation, as stored, that a session keeps until a summary takes their place."""


class Work(Enum):
    """What a session asks of whoever looks at it."""

    NOTHING = "nothing"
    WAITING = "waiting"
    """For a verdict, an answer or a time; nobody needs to hold it."""
    HELD = "held"
    """By a live lease; its holder will see the inbox at its next commit. Also while a step that must not be repeated
    may still be running, whoever asks."""
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
    lease, run = session.lease, session.run
    if lease is not None:
        live = lease.until > now and lease.wake != wake
        return Work.HELD if live or _busy_until(session, lease) > now else Work.READY
    kinds = {entry.kind for entry in session.inbox.values()}
    later = postponed(session, now)
    ready = "receipt" in kinds or (bool(session.outbox) and not later)
    if run is None:
        ready = ready or session.more or bool(kinds - {"watch"})
        return Work.READY if ready else Work.WAITING if later else Work.NOTHING
    goes_on = not later if run.outcome is not None else not run.parked or _is_answered(run, kinds, now)
    return Work.READY if ready or goes_on else Work.WAITING


def _is_answered(run: Run, kinds: AbstractSet[str], now: datetime) -> bool:
    """Whether there is something to do for a run that waits."""
    heeds_messages = run.queue_mode in ("reject", "interrupt") and "message" in kinds and has_room(run)
    return heeds_messages or bool(kinds & {"verdict", "answer", "stop"}) or any(wait.until <= now for wait in run.open)


def due(session: Session, now: datetime) -> datetime | None:
    """When the tick must look at it if nobody else does; None when nothing is left to do."""
    if session.lease is not None:
        return max(session.lease.until, _busy_until(session, session.lease))
    found = work(session, wake="", now=now)
    if found is Work.NOTHING:
        return None
    if found is Work.READY:
        return now
    run = session.run
    times = [wait.until for wait in run.open] if run is not None and run.outcome is None else []
    times += [delivery.not_before for delivery in session.outbox[:1] if delivery.not_before is not None]
    return min(times)


def _busy_until(session: Session, lease: Lease) -> datetime:
    """Until when a step that must not be repeated may be running; the past when none may."""
    steps = session.run.steps if session.run is not None else ()
    intents = [step for step in steps if step.result is None]
    waiting = {wait.step for wait in session.run.open} if session.run is not None else set()
    times = [step.until or lease.until for step in intents if step.key not in waiting]
    return max(times, default=datetime.min.replace(tzinfo=lease.until.tzinfo))


def postponed(session: Session, now: datetime) -> bool:
    """Whether nothing of the outbox may be sent before a time that is still to come."""
    head = session.outbox[0] if session.outbox else None
    return head is not None and head.not_before is not None and head.not_before > now


def claim(session: Session, who: Claimant, taking: Taking) -> Session:
    """The session with this claimant's lease, verdicts applied, and a run where there is a message for one.

    The caller has found it `READY`.
    """
    session = replace(session, epoch=session.epoch + 1, lease=Lease(holder=who.holder, wake=who.wake, until=who.until))
    if session.run is not None:
        run = session.run
        put_off = run.outcome is not None and bool(session.outbox) and session.outbox[0].not_before is not None
        # The newer message is why an interrupted attempt has no step; elsewhere it takes nothing from the attempt.
        news = run.arrivals if run.queue_mode == "interrupt" else ()
        recorded = {step.attempt for step in run.steps} | {arrival.attempt for arrival in news}
        progressed = run.parked or put_off or run.attempt in recorded
        stalls = 0 if progressed else run.stalls + 1
        session = replace(session, run=replace(run, attempt=run.attempt + 1, stalls=stalls))
    return take(session, taking)


def take(session: Session, taking: Taking) -> Session:
    """The session with its inbox looked at: receipts, verdicts and answers applied and, if no run is active, a new one
    for the messages."""
    session = drop_seen(session, taking.prepared)
    session = judge(_receive(session, taking.now), taking.now)
    return start(session, taking) if session.run is None else session


def absorb(session: Session) -> Session:
    """The session with what its inbox says of who watches taken in; every commit does this."""
    watches = [entry.received_at for entry in session.inbox.values() if entry.kind == "watch"]
    if not watches:
        return session
    gone = [entry_id for entry_id, entry in session.inbox.items() if entry.kind == "watch"]
    return replace(without(session, gone), watched_until=max(watches) + WATCHED_FOR)


def intend(session: Session) -> Session:
    """The session whose next delivery is marked as being sent; every commit of a holder does this, so that whoever
    comes after a crash knows that it may have been."""
    if not session.outbox or session.outbox[0].status != "pending":
        return session
    head, *rest = session.outbox
    return replace(session, outbox=(replace(head, status="sending", epoch=session.epoch), *rest))


def respond(
    session: Session,
    *,
    outcome: Outcome,
    reply: str,
    parts: tuple[str, ...],
    reason: str = "",
    set_aside: bool = False,
    fetched: bool = False,
) -> Session:
    """The run has its reply, which lies in the outbox in as many parts as the channel needs; one that is `fetched` has
    been delivered by being stored, unless a caller is to be told a result."""
    run, results = active(session), _results(session, outcome, reason)
    parts = parts or ("",) * bool(results)  # who waits for a result is told, even when there is nothing to say
    replies = tuple(
        Delivery(id=f"{run.number}/reply/{number}", text=part, results=results if number == len(parts) else ())
        for number, part in enumerate(parts, start=1)
    )
    delivered: tuple[Delivery, ...] = ()
    if fetched and not results:
        delivered = tuple(replace(known, status="sent", attempts=1, provider_id=known.id) for known in replies)
        replies = ()
    sequence = session.sequence + 1
    return replace(
        session,
        run=replace(
            run,
            outcome=outcome,
            reply=reply,
            deliveries=(*run.deliveries, *delivered),
            reason=reason,
            reply_sequence=sequence,
            stalls=0,
            set_aside=run.set_aside or set_aside,
        ),
        outbox=(*session.outbox, *replies),
        sequence=sequence,
    )


def _results(session: Session, outcome: Outcome, reason: str) -> tuple[Result, ...]:
    """What callers of the run are to be told, without the reply."""
    run = active(session)
    messages = (*run.inputs, *(arrival.message for arrival in run.arrivals if not arrival.rejected))
    return tuple(
        Result(
            key=session.key,
            conversation=session.conversation,
            run=run.number,
            message=message.id,
            url=message.callback_url,
            outcome=outcome,
            reason=reason,
        )
        for message in messages
        if message.callback_url
    )


def put_off(session: Session, delivery: Delivery) -> Session:
    """The outbox with this delivery as it is now, still to be sent."""
    outbox = tuple(delivery if known.id == delivery.id else known for known in session.outbox)
    return replace(session, outbox=outbox)


def mark(session: Session, delivery: Delivery, now: datetime) -> Session:
    """The outbox without this delivery, and its run with what became of it."""
    session = replace(
        session,
        outbox=tuple(known for known in session.outbox if known.id != delivery.id),
        unknown=session.unknown + (delivery.status == "unknown"),
        repeated=session.repeated + delivery.repeated,
    )
    run = session.run
    if run is None:
        return session
    session = replace(session, run=replace(run, deliveries=(*run.deliveries, delivery), stalls=0))
    wait = next((wait for wait in run.open if wait.prompt == delivery.id), None)
    if wait is None:
        return session
    if delivery.status == "refused":  # nobody was asked, so nobody will answer
        return end_wait(session, wait, "approval", Verdict(approved=False, by="nobody: it could not be asked"), now)
    asked = tuple(replace(known, provider_id=delivery.provider_id) if known == wait else known for known in run.open)
    return replace(session, run=replace(active(session), open=asked))


def finish(session: Session, now: datetime) -> Session:
    """The session without its run, which goes to the archive."""
    run = replace(active(session), ended_at=now)
    context = trim((*session.context, *run.inputs, *transcript(run)), CONTEXT_AT_MOST, CONTEXT_AT_MOST)
    return replace(session, run=None, finished=run, context=context, usage=session.usage + run.usage)


def stalled(run: Run) -> bool:
    """Whether the run makes no progress any more, and is to be set aside."""
    return run.stalls >= STALLS_ALLOWED


def park(session: Session, now: datetime) -> Session:
    """The session let go because its run can do nothing before a wait is over; kept when one is over already, or when
    somebody is still to be told something."""
    run = active(session)
    session = judge(replace(session, run=replace(run, parked=bool(run.open))), now)
    if not active(session).parked or (session.outbox and not postponed(session, now)):
        return session
    return release(session)


def release(session: Session) -> Session:
    """Nobody holds it any more."""
    return replace(session, lease=None)


def _receive(session: Session, now: datetime) -> Session:
    """Apply what providers say of deliveries whose sending was cut: they were taken, or could not be delivered."""
    for entry in [entry for entry in session.inbox.values() if entry.kind == "receipt"]:
        session = without(session, (entry.id,))
        receipt = entry.receipt
        found = next((known for known in session.outbox if receipt is not None and known.id == receipt.delivery), None)
        if receipt is None or found is None or found.status not in ("sending", "unknown"):
            continue
        failed = receipt.status == "failed"
        done = replace(
            found, status="refused" if failed else "sent", provider_id=receipt.provider_id, reason=receipt.reason
        )
        session = mark(session, done, now)
    return session
