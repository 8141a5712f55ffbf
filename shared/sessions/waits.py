"""How waits begin and end: verdicts, answers from outside, deadlines. Pure functions from session to session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from shared.codec import encode
from shared.domain import Delivery, Entry, JsonObject, StepKind
from shared.sessions.document import SERVICE, Run, Seen, Session, Step, Wait
from shared.sessions.journal import active, record
from shared.sessions.seen import note


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an approval ended; stored as the result of its step."""

    approved: bool
    by: str
    """The name or id of who decided; `deadline` when nobody did in time."""


def outside_wait(run: int, step: str) -> str:
    """Id of the wait of a tool call that is answered from outside: known before the tool begins, so that it can hand
    out the address of its callback, and an answer may come before the wait is stored."""
    return f"c{run}-{step.replace('.', '-')}"


def suspend(session: Session, wait: Wait, *prompts: Delivery) -> Session:
    """The run waits for one thing more, and asks by these deliveries."""
    run = active(session)
    wait = replace(wait, sequence=session.sequence + 1)
    steps = tuple(replace(step, until=None) if step.key == wait.step else step for step in run.steps)
    return replace(
        session,
        run=replace(run, open=(*run.open, wait), steps=steps),
        outbox=(*session.outbox, *prompts),
        sequence=wait.sequence,
    )


def judge(session: Session, now: datetime) -> Session:
    """Apply the verdicts and answers in the inbox, first come first, then the deadlines.

    One that fits ends its wait; every other tap is answered. An answer that fits no wait stays only while the run is
    at work, which may be about to wait for it.
    """
    entries = sorted(
        (entry for entry in session.inbox.values() if entry.kind in ("verdict", "answer")),
        key=lambda entry: (entry.received_at, entry.order),
    )
    for entry in entries:
        session = _verdict(session, entry, now) if entry.kind == "verdict" else _answer(session, entry, now)
    for wait in session.run.open if session.run is not None else ():
        if wait.until <= now:
            session = _time_out(session, wait, now)
    return session


def supersede(session: Session, now: datetime, by: str) -> Session:
    """End every open wait because something else counts more, such as `a newer message`."""
    for wait in active(session).open:
        if wait.kind == "approval":
            session = _settle(session, wait, approved=False, by=by, now=now, tap="")
        else:
            session = end_wait(session, wait, "tool", {"skipped": f"{by} came in"}, now)
    return session


def end_wait(session: Session, wait: Wait, kind: StepKind, result: object, now: datetime) -> Session:
    """The run goes on, with the result of the step that it waited for."""
    step = Step(
        key=wait.step,
        kind=kind,
        name=wait.call.name,
        result=encode(result).decode(),
        attempt=active(session).attempt,
        started_at=now,
        ended_at=now,
    )
    session = record(session, step)
    run = active(session)
    still = tuple(known for known in run.open if known.id != wait.id)
    return replace(session, run=replace(run, open=still, parked=False, waits=(*run.waits, wait)))


def _verdict(session: Session, entry: Entry, now: datetime) -> Session:
    again = session.run_of(entry.id) is not None
    session = without(session, (entry.id,))
    if again:
        return session
    if entry.tap:  # a tap that the channel brings again must not be answered that it came too late
        seen = Seen(id=entry.id, run=session.runs, at=now, seen_for=entry.seen_for)
        session = note(session, (seen,), now)
    wait = _open(session.run, entry)
    if session.run is None or wait is None or wait.kind != "approval":
        return _answer_tap(session, entry, "This was already decided, or its time is over.")
    if not _may_judge(entry, wait, session.run):
        return _answer_tap(session, entry, "You may not decide this.")
    return _settle(
        session,
        wait,
        approved=entry.approved,
        by=entry.posted_by or entry.contact.name or entry.contact.id,
        now=now,
        tap=entry.tap,
    )


def _answer(session: Session, entry: Entry, now: datetime) -> Session:
    wait = _open(session.run, entry)
    if wait is not None and wait.kind in ("callback", "operator") and entry.result is not None:
        return end_wait(without(session, (entry.id,)), wait, "tool", entry.result, now)
    about_to_wait = session.run is not None and not session.run.parked and session.run.outcome is None
    return session if about_to_wait else without(session, (entry.id,))


def _open(run: Run | None, entry: Entry) -> Wait | None:
    waits = run.open if run is not None else ()
    return next((wait for wait in waits if wait.id == entry.token and wait.until > entry.received_at), None)


def without(session: Session, ids: Iterable[str]) -> Session:
    """The session with these entries taken out of its inbox."""
    gone = set(ids)
    return replace(session, inbox={key: value for key, value in session.inbox.items() if key not in gone})


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
    if wait.kind == "approval":
        return _settle(session, wait, approved=False, by="deadline", now=now, tap="")
    until = wait.until.isoformat()
    results: dict[str, JsonObject] = {
        "timer": {"waited_until": until},
        "callback": {"error": f"no answer came until {until}; whether it was done is not known"},
        "operator": {"error": f"no operator answered until {until}"},
    }
    return end_wait(session, wait, "tool", results[wait.kind], now)


def _settle(session: Session, wait: Wait, *, approved: bool, by: str, now: datetime, tap: str) -> Session:
    session = end_wait(session, wait, "approval", Verdict(approved=approved, by=by), now)
    run, word = active(session), "Approved" if approved else "Denied"
    settled = Delivery(
        id=f"{run.number}/{wait.step}/settled",
        text=f"{word} ({wait.call.name}), by {by}.",
        replaces=wait.provider_id,
        tap=tap,
    )
    pending = tuple(delivery for delivery in session.outbox if delivery.id != wait.prompt)  # nobody is asked any more
    return replace(session, outbox=(*pending, settled) if wait.provider_id or tap else pending)
