"""The journal of a run: its steps in order, each once. Pure functions from session to session."""

from __future__ import annotations

from dataclasses import replace

from shared.codec import encode
from shared.sessions.document import UNKNOWN, Moved, Page, Run, Session, Step
from shared.sessions.transcript import turn_of

STEP_OVERHEAD_BYTES = 350
"""What a step takes in the document besides its result, about."""


def active(session: Session) -> Run:
    """The session's run. There is one: only its holder records, suspends and responds."""
    if session.run is None:
        raise AssertionError("no run is active")
    return session.run


def record(session: Session, step: Step) -> Session:
    """The journal with this step; a step that has the same key (its intent) is replaced and keeps its place.

    An intent has no event, so it takes no number: a reader who has seen a later one would never see its result.
    """
    run = active(session)
    earlier = run.step(step.key)
    number = session.sequence
    if earlier is not None and earlier.sequence == number:  # as older releases numbered intents
        step = replace(step, sequence=number)
    elif step.result is not None:
        number += 1
        step = replace(step, sequence=number)
    steps = (
        (*run.steps, step)
        if earlier is None
        else tuple(step if known.key == step.key else known for known in run.steps)
    )
    return replace(session, run=replace(run, steps=steps), sequence=number)


def close_intents(session: Session) -> Session:
    """The journal of a run that ends without an answer, in which every intent has a result: nobody goes on with it, so
    nobody will find out."""
    waiting = {wait.step for wait in active(session).open}
    for step in active(session).steps:
        if step.result is None and step.key not in waiting:
            session = record(session, replace(step, result=encode(UNKNOWN).decode()))
    return session


def size(run: Run) -> int:
    """Bytes that the run's record takes in the document, about."""
    steps = sum(STEP_OVERHEAD_BYTES + len(step.result or "") for step in run.steps)
    waits = sum(STEP_OVERHEAD_BYTES + len(str(wait.call.arguments)) for wait in run.waits)
    return steps + waits + sum(STEP_OVERHEAD_BYTES + len(delivery.text) for delivery in run.deliveries)


def condense(session: Session, *, summary: str, kept: int, turns: int) -> Session:
    """The session with `summary` standing for what was said before the last `kept` messages of the context, and for
    the run's first `turns` turns, whose steps and waits move into a page, and the deliveries so far with them."""
    run = active(session)
    leaving = tuple(step for step in run.steps if turn_of(step.key) <= turns)
    context = session.context[len(session.context) - kept :] if kept else ()
    session = replace(session, summary=summary, context=context)
    if not leaving or session.paged is not None:
        return session
    waits = tuple(wait for wait in run.waits if turn_of(wait.step) <= turns)
    moved = Moved(
        pages=run.moved.pages + 1,
        turns=turns,
        model_calls=run.moved.model_calls + sum(step.kind == "model" for step in leaving),
        tool_calls=run.moved.tool_calls + sum(step.kind == "tool" for step in leaving),
        usage=sum((step.usage for step in leaving), run.moved.usage),
    )
    run = replace(
        run,
        steps=tuple(step for step in run.steps if turn_of(step.key) > turns),
        waits=tuple(wait for wait in run.waits if turn_of(wait.step) > turns),
        deliveries=(),
        moved=moved,
    )
    return replace(session, run=run, paged=Page(steps=leaving, waits=waits, deliveries=active(session).deliveries))
