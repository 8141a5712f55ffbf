"""What the orchestrator may do with a claimed run: take steps that happen once, hear what came in, and wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar

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
    WaitRequest,
)
from shared.errors import Cancelled, SliceOver, Suspended
from shared.observability import bind
from shared.sessions.actor import Actor, Change, Cut
from shared.sessions.arrivals import Taking, arrive, drop_seen, has_room, news, overtakes, stop_entries
from shared.sessions.document import Run, Session, Step, Wait
from shared.sessions.journal import record
from shared.sessions.partial import Growing, growing
from shared.sessions.transcript import model_step, transcript
from shared.sessions.waits import Verdict, outside_wait, supersede, suspend

Result = TypeVar("Result")
Respond = Callable[[str], Change]
"""The change by which a text becomes the run's reply."""
ARGUMENTS_SHOWN = 800
"""Characters of a call's arguments that its approval shows: with its buttons it must be one message on any channel
(WhatsApp: 1,024)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effectful(Generic[Result]):
    """An effect, and what a crash between it and its record allows.

    `pure`: run it again; its record shares the next commit. `keyed`: run it again with the same idempotency key.
    `once`: never; an intent is written first, and an attempt that finds only the intent records what `look_up` finds,
    else `unknown`.
    """

    run: Callable[[], Coroutine[Any, Any, Result]]
    repeat: Effect = "keyed"
    seconds: float = 60.0
    """How long it may take."""
    unknown: Result | None = None
    look_up: Callable[[], Coroutine[Any, Any, Result | None]] | None = None
    """What came of an earlier execution; None when that cannot be found out."""


class Running:
    """One attempt at one run, until `end`. Any method raises `Fenced` when another process took the session over."""

    def __init__(
        self, actor: Actor, clock: Clock, plan: ExecutionPlan, end: datetime, deliver: Callable[[], Awaitable[None]]
    ) -> None:
        self.plan = plan
        self._actor = actor
        self._clock = clock
        self._end = end
        self._deliver = deliver

    @property
    def session(self) -> Session:
        """The session as it stands, with what this attempt holds back."""
        return self._actor.session

    @property
    def run(self) -> Run:
        """The run as it stands, with the steps of this attempt."""
        run = self._actor.session.run
        assert run is not None
        return run

    @property
    def instructions(self) -> str:
        """What the model is told before the conversation, with what of it is told in short."""
        if not self.session.summary:
            return self.plan.instructions
        return f"{self.plan.instructions}\n\nWhat was said before, in short:\n{self.session.summary}"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, as a model is given it: earlier runs, this run's inputs, what it did since. What
        `session.summary` stands for is left out."""
        return (*self._actor.session.context, *self.run.inputs, *transcript(self.run))

    def idempotency_key(self, step: str) -> str:
        """The same for every attempt at this step, different for every other step of any session."""
        return f"{self._actor.key.session}-{self.run.number}-{step}"

    def result(self, key: str, shape: type[Result]) -> Result | None:
        """The recorded result of a step, if it has one."""
        found = self.run.step(key)
        return decode(shape, found.result) if found is not None and found.result is not None else None

    async def step(
        self,
        key: str,
        shape: type[Result],
        effect: Effectful[Result],
        *,
        kind: StepKind,
        name: str,
        then: Callable[[Result], Change] | None = None,
    ) -> Result:
        """The effect's result, stored once and returned ever after, always as it was stored.

        What `then` makes of it is changed in the same commit. Raises `SliceOver` instead of beginning an effect when
        this attempt's time is used up, `Suspended` when the step waits for something, and `Cancelled` when somebody
        asked to stop before it began or while it could still be given up.
        """
        recorded = self.result(key, shape)
        if recorded is not None:
            return recorded
        self._may_begin(key)
        await self._deliver()  # a contact that is told to wait must not wait for that
        step = Step(key=key, kind=kind, name=name, attempt=self.run.attempt, started_at=self._clock.now())
        result = await self._carry_out(step, effect)
        stored = encode(result)
        step = replace(step, result=stored.decode(), ended_at=self._clock.now())
        if isinstance(result, ModelReply):  # the route may have fallen back to another model than the first
            step = replace(step, name=result.model, usage=result.usage)
        self._actor.hold(partial(record, step=step))
        if then is not None:
            self._actor.hold(then(result))
        if effect.repeat != "pure":
            await self._actor.commit()
        return decode(shape, stored)

    async def ask(
        self, turn: int, call: Callable[[], Coroutine[Any, Any, ModelReply]], respond: Respond
    ) -> ModelReply | None:
        """The model's reply of that turn, stored once; one that ends the run makes `respond(text)` part of the same
        commit. That is the caller's next: the one that sends the reply or, where it is fetched, ends the run.

        None when a newer message came before the reply counted, and the agent is to be asked again for both. Raises
        as `step` does.
        """
        key = model_step(turn)
        recorded = self.run.step(key)
        if recorded is None:
            self._may_begin(key)
            await self._deliver()
            begun = self._clock.now()
            try:
                with bind(step=key):
                    reply = await self._keep("model", Effectful(run=call), asking=True)
            except Cut:
                return None
            step = Step(
                key=key,
                kind="model",
                name=reply.model,  # the route may have fallen back to another model than the first
                attempt=self.run.attempt,
                started_at=begun,
                ended_at=self._clock.now(),
                result=encode(reply).decode(),
                usage=reply.usage,
            )
            self._actor.hold(partial(_replied, step=step, reply=reply, respond=respond))
            if self.run.outcome is None:
                await self._actor.commit()
            recorded = self.run.step(key)
        assert recorded is not None
        assert recorded.result is not None
        return None if recorded.dropped else decode(ModelReply, recorded.result)

    async def hear(self, turn: int) -> None:
        """Look at what came in before the model is asked for that turn: those messages become part of the run, or are
        turned away, as the agent's queue mode says. Raises `Cancelled` when somebody asked to stop."""
        if not self.session.inbox or self.run.step(model_step(turn)) is not None:
            return
        taking = await self._taking()
        self._stop_if_asked(taking)
        mode = self.run.queue_mode
        ids = frozenset(news(self.session, taking))
        if ids and (self.overtaken or (mode == "reject" and has_room(self.run))):
            change = partial(arrive, ids=ids, taking=taking, after=turn - 1, rejected=mode == "reject")
            self._actor.hold(change)

    async def hear_parked(self) -> None:
        """Look at what came in while the run waits: a message is turned away or, if it interrupts, ends the waits.

        Raises `Suspended` when the run still waits after that, and `Cancelled` when somebody asked to stop."""
        taking = await self._taking()
        self._stop_if_asked(taking)
        mode = self.run.queue_mode
        ids = frozenset(news(self.session, taking)) if has_room(self.run) else frozenset()
        if ids and mode == "reject":
            self._actor.hold(partial(arrive, ids=ids, taking=taking, after=0, rejected=True))
        if ids and mode == "interrupt":
            self._actor.hold(partial(supersede, now=taking.now, by="a newer message"))
        if self.run.parked:
            raise Suspended

    @property
    def overtaken(self) -> bool:
        """Whether a message came that the model shall see before it does anything more."""
        return self.run.queue_mode in ("steer", "interrupt") and overtakes(self.session)

    def growing(self, step: str) -> AbstractContextManager[Growing | None]:
        """Where the text of a model call is shown while it grows; None when nobody watches."""
        return growing(self._actor, step, self.run.attempt)

    async def approval(self, key: str, call: ToolCall, rule: Rule) -> Verdict:
        """The verdict on this call; suspends the run until then, by raising `Suspended`.

        Nothing decided within the plan's `approval_seconds` counts as denied, by `deadline`.
        """
        verdict = self.result(key, Verdict)
        if verdict is not None:
            return verdict
        self._may_begin(key)
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

    async def wait(self, key: str, call: ToolCall, request: WaitRequest) -> NoReturn:
        """Suspend the run, by raising `Suspended`; once what was asked for is there, or its time is over, step `key`
        has a result and the run goes on."""
        timer = request.kind == "timer"
        wait = Wait(
            id=self._clock.new_id() if timer else outside_wait(self.run.number, key),
            kind=request.kind,
            step=key,
            call=call,
            until=request.until,
            question=request.question,
        )
        await self._actor.commit(partial(suspend, wait=wait))
        raise Suspended

    def _may_begin(self, key: str) -> None:
        if any(wait.step == key for wait in self.run.open):
            raise Suspended
        if any(entry.kind == "stop" for entry in self.session.inbox.values()):
            self._stop_if_asked(Taking(now=self._clock.now()))
        if self._clock.now() >= self._end:
            raise SliceOver

    async def _taking(self) -> Taking:
        """With what messages are taken from the inbox now; what the channel only brought again leaves it, or it would
        count as a newer message for ever."""
        taking = await self._actor.taking("", self.plan.queueing, self.plan.texts)
        self._actor.hold(partial(drop_seen, prepared=taking.prepared))
        return taking

    def _stop_if_asked(self, taking: Taking) -> None:
        stops = stop_entries(self.session, taking.prepared)
        if stops:
            by = stops[-1].contact.name or stops[-1].contact.id
            raise Cancelled(f"stopped by {by}")

    async def _carry_out(self, step: Step, effect: Effectful[Result]) -> Result:
        """What the effect gives now or, of one that must not be repeated, what is known of its earlier execution."""
        if effect.repeat == "once" and self.run.step(step.key) is not None:
            found = await self._actor.keep(effect.look_up()) if effect.look_up is not None else None
            result = found if found is not None else effect.unknown
            assert result is not None
            return result
        if effect.repeat == "once":
            until = step.started_at + timedelta(seconds=effect.seconds)
            await self._actor.commit(partial(record, step=replace(step, until=until)))
        with bind(step=step.key):
            return await self._keep(step.kind, effect)

    async def _keep(self, kind: StepKind, effect: Effectful[Result], *, asking: bool = False) -> Result:
        """The effect's result. A model call and a pure tool are given up when somebody asks to stop, and the agent's
        own turn also for a newer message that interrupts; what may have changed something is waited for."""

        def pointless(session: Session) -> bool:
            if stop_entries(session):
                return kind == "model" or effect.repeat == "pure"
            return asking and self.run.queue_mode == "interrupt" and self.overtaken

        try:
            return await self._actor.keep(effect.run(), pointless)
        except Cut:
            self._stop_if_asked(Taking(now=self._clock.now()))
            raise


def _replied(session: Session, step: Step, reply: ModelReply, respond: Respond) -> Session:
    """The journal with the model's reply. One that an interrupting message overtook is dropped; one that ends the run
    has its answer on the way."""
    run = session.run
    assert run is not None
    if run.queue_mode == "interrupt" and overtakes(session):
        return record(session, replace(step, dropped=True))
    session = record(session, step)
    if reply.tool_calls or not reply.text.strip():
        return session
    return respond(reply.text)(session)
