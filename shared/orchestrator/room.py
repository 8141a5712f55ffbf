"""Keeps a conversation within what a model is given at once: what is older is told in short."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

from shared.domain import Message, ModelReply, ModelRequest
from shared.errors import ModelFailed
from shared.llm.route import Route
from shared.sessions.document import Run
from shared.sessions.journal import condense, size
from shared.sessions.running import Effectful, Running
from shared.sessions.transcript import CONTEXT_BYTES, model_step, stored, total, transcript, trim, turn_of, turns_of

logger = logging.getLogger(__name__)
JOURNAL_BYTES = 150_000
"""What of a journal stays in the session's document, about."""
STORED_BYTES = 150_000
"""What of the conversation stays in the session's document, about: many short messages take more there than their text
says."""
SUMMARY_CHARACTERS = 6_000
TURNS_KEPT = 20
"""Turns of a long run that stay word for word at most."""
_ASK = (
    "Sum up the conversation so far for whoever goes on with it: who wants what, what was found out and done, with "
    "every number, name, date, promise and open question. Write plain sentences, at most 600 words, nothing else."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaving:
    """What a summary shall stand for."""

    messages: tuple[Message, ...]
    kept: int
    """Messages of the context that stay word for word."""
    turns: int
    """Turns of the run, from the first, whose steps move out."""


async def make_room(running: Running, route: Route, turn: int) -> None:
    """Return when what the model is given before that turn is within `CONTEXT_BYTES`, and the journal within
    `JOURNAL_BYTES`, both about: by a step that sums the oldest part up and moves its steps into a page."""
    if running.run.step(model_step(turn)) is not None:
        return
    leaving = _leaving(running, turn)
    if leaving is None:
        return
    await running.step(
        f"summary-{turn}",
        ModelReply,
        Effectful(run=partial(_summarise, running, route, leaving)),
        kind="model",
        name=running.plan.models[0],
        then=lambda reply: partial(condense, summary=reply.text, kept=leaving.kept, turns=leaving.turns),
    )


def _leaving(running: Running, turn: int) -> _Leaving | None:
    context, run, messages = running.session.context, running.run, running.messages
    short = total(messages) <= CONTEXT_BYTES and stored(messages) <= STORED_BYTES
    if short and size(run) <= JOURNAL_BYTES:
        return None
    kept = trim(context, CONTEXT_BYTES // 4, STORED_BYTES // 4)
    turns = run.moved.turns
    if size(run) > JOURNAL_BYTES or total(transcript(run)) > CONTEXT_BYTES // 2:
        turns = _turns_to_move(run, turn)
    older = context[: len(context) - len(kept)]
    said = turns_of(run, run.moved.turns, turns)  # what contacts wrote meanwhile stays word for word
    if not older and not said:
        return None  # what contacts wrote now is all there is, and stays
    return _Leaving(messages=(*older, *said), kept=len(kept), turns=turns)


def _turns_to_move(run: Run, turn: int) -> int:
    """All turns but the latest few, which together take at most a quarter of what there is room for."""
    kept = 0
    for step in reversed(run.steps):
        kept += len(step.result or "")
        if kept > CONTEXT_BYTES // 4 or turn_of(step.key) < turn - TURNS_KEPT:
            return min(turn_of(step.key), turn - 1)
    return run.moved.turns


async def _summarise(running: Running, route: Route, leaving: _Leaving) -> ModelReply:
    """The summary, or a plain note when no model gives one: a conversation must not end because it is long."""
    plan = running.plan
    ask = Message(role="contact", text=_ASK)
    request = ModelRequest(model=plan.models[0], instructions=running.instructions, messages=(*leaving.messages, ask))
    try:
        reply = await route.complete(plan.models, request)
        if not reply.text.strip():
            raise ModelFailed(f"{reply.model}: the summary is empty")  # noqa: TRY301  handled as the others are
    except ModelFailed as error:
        logger.warning("no summary", extra={"fields": {"reason": str(error)}})
        before = f"{running.session.summary}\n" if running.session.summary else ""
        reply = ModelReply(model=plan.models[0], text=f"{before}({len(leaving.messages)} messages are left out here.)")
    return replace(reply, text=reply.text[-SUMMARY_CHARACTERS:], tool_calls=())
