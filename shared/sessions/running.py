"""What the orchestrator may do with a claimed run: take steps that happen once, and wait."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NoReturn, TypeVar

from shared.clock import Clock
from shared.codec import decode, encode
from shared.domain import (
    Button,
    Delivery,
    Effect,
    ExecutionPlan,
    Message,
    ModelReply,
    Rule,
    StepKind,
    ToolCall,
)
from shared.errors import SliceOver, Suspended
from shared.observability import bind
from shared.sessions.actor import Actor
from shared.sessions.document import Run, Step, Wait
from shared.sessions.partial import Growing, growing
from shared.sessions.transcript import transcript
from shared.sessions.transitions import Verdict, record, suspend

Result = TypeVar("Result")
ARGUMENTS_SHOWN = 800
"""Characters of a call's arguments that its approval shows: with its buttons it must be one message on any channel
(WhatsApp: 1,024)."""


class Running:
    """One attempt at one run, until `end`. Any method raises `Fenced` when another process took the session over."""

    def __init__(self, actor: Actor, clock: Clock, plan: ExecutionPlan, end: datetime) -> None:
        self.plan = plan
        self._actor = actor
        self._clock = clock
        self._end = end

    @property
    def session(self) -> str:
        """The session's id."""
        return self._actor.key.session

    @property
    def run(self) -> Run:
        """The run as it stands, with the steps of this attempt."""
        run = self._actor.session.run
        assert run is not None
        return run

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, as a model is given it: earlier runs, this run's inputs, what it did since."""
        return (*self._actor.session.context, *self.run.inputs, *transcript(self.run))

    def idempotency_key(self, step: str) -> str:
        """The same for every attempt at this step, different for every other step of any session."""
        return f"{self.session}-{self.run.number}-{step}"

    async def step(
        self,
        key: str,
        shape: type[Result],
        effect: Callable[[], Coroutine[Any, Any, Result]],
        *,
        kind: StepKind,
        name: str,
        repeat: Effect = "keyed",
        unknown: Result | None = None,
    ) -> Result:
        """The effect's result, stored once and returned ever after, always as it was stored.

        `repeat` says what a crash between effect and record allows. `pure`: run it again; its record shares the next
        commit. `keyed`: run it again with the same idempotency key. `once`: never; an intent is written first, and
        an attempt that finds only the intent records and returns `unknown`. Raises `SliceOver` instead of beginning
        an effect when this attempt's time is used up.
        """
        found = self._find(key)
        if found is not None and found.result is not None:
            return decode(shape, found.result)
        if self._clock.now() >= self._end:
            raise SliceOver
        step = Step(key=key, kind=kind, name=name, attempt=self.run.attempt, started_at=self._clock.now())
        if found is not None and unknown is not None:
            result = unknown
        else:
            if repeat == "once":
                await self._actor.commit(partial(record, step=step))
            with bind(step=key):
                result = await self._actor.keep(effect())
        stored = encode(result)
        step = replace(step, result=stored.decode(), ended_at=self._clock.now())
        if isinstance(result, ModelReply):  # the route may have fallen back to another model than the first
            step = replace(step, name=result.model, usage=result.usage)
        if repeat == "pure":
            self._actor.hold(partial(record, step=step))
        else:
            await self._actor.commit(partial(record, step=step))
        return decode(shape, stored)

    def growing(self, step: str) -> AbstractAsyncContextManager[Growing | None]:
        """Where the text of a model call is shown while it grows; None when nobody watches."""
        return growing(self._actor, self._clock, step, self.run.attempt)

    async def approval(self, key: str, call: ToolCall, rule: Rule) -> Verdict:
        """The verdict on this call; suspends the run until then, by raising `Suspended`.

        Nothing decided within the plan's `approval_seconds` counts as denied, by `deadline`.
        """
        found = self._find(key)
        if found is not None and found.result is not None:
            return decode(Verdict, found.result)
        wait = Wait(
            id=self._clock.new_id(),
            step=key,
            call=call,
            approvers=rule.approvers,
            until=self._clock.now() + timedelta(seconds=self.plan.budget.approval_seconds),
            prompt=f"{self.run.number}/{key}",
        )
        buttons = (
            Button(label="Approve", data=f"a:{wait.id}:y"),
            Button(label="Deny", data=f"a:{wait.id}:n"),
        )
        arguments = ", ".join(f"{name}: {value}" for name, value in call.arguments.items())
        if len(arguments) > ARGUMENTS_SHOWN:
            arguments = f"{arguments[:ARGUMENTS_SHOWN]} …"
        prompt = Delivery(id=wait.prompt, text=f"May I do this? {call.name} ({arguments})", buttons=buttons)
        await self._actor.commit(lambda session: suspend(session, wait, prompt))
        raise Suspended

    async def sleep(self, key: str, call: ToolCall, until: datetime) -> NoReturn:
        """Suspend the run, by raising `Suspended`; at `until` step `key` has a result and the run goes on."""
        wait = Wait(id=self._clock.new_id(), kind="timer", step=key, call=call, until=until)
        await self._actor.commit(partial(suspend, wait=wait))
        raise Suspended

    def _find(self, key: str) -> Step | None:
        return next((step for step in self.run.steps if step.key == key), None)
