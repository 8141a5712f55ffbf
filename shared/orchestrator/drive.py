"""Drives one session for one wake: claim it, answer, deliver, go on with what came in meanwhile, let it go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from shared.bus import Bus
from shared.channels import Channel
from shared.channels.split import split
from shared.clock import Clock
from shared.domain import ChannelName, Connection, Delivery, ExecutionPlan, Outcome, Texts, Wake
from shared.errors import Blocked, Cancelled, Fenced, NotFound, PlatformError, Retryable, SliceOver, Stalled, Suspended
from shared.files import Files
from shared.llm.route import Route
from shared.observability import bind
from shared.orchestrator.loop import answer
from shared.orchestrator.typing import Typing
from shared.published import Published
from shared.sessions.actor import Actor, Change, Listener, Store
from shared.sessions.arrivals import Taking, cancel, pause
from shared.sessions.document import Run, Session
from shared.sessions.journal import active, close_intents
from shared.sessions.outbox import Outbox
from shared.sessions.pace import Pace
from shared.sessions.running import Running
from shared.sessions.transcript import turn_of
from shared.sessions.transitions import (
    STALLS_ALLOWED,
    Work,
    finish,
    mark,
    park,
    postponed,
    release,
    respond,
    stalled,
    take,
    work,
)
from shared.sessions.waits import supersede
from shared.tools import Toolbox

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Everything that driving a session needs."""

    store: Store
    files: Files
    bus: Bus
    published: Published
    route: Route
    toolbox: Toolbox
    channels: Mapping[ChannelName, Channel]
    clock: Clock
    pace: Pace
    slice_seconds: float
    typing: Typing = field(default_factory=Typing)

    async def drive(self, wake: Wake, *, only: str = "", listener: Listener | None = None) -> Session | None:
        """Do all that the session asks for now, and return it as it was left; None when there is no such session.

        With `only`, a message id, stop after the run that took that message. Returning means that the wake may be
        acknowledged: the document says who acts next, which may be another process that took over meanwhile. Raises
        `Retryable` when the bus should bring the wake again.
        """
        actor = Actor(self.store, self.files, self.clock, wake.key, self.pace, listener)
        with bind(tenant=wake.key.tenant, session=wake.key.session):
            if not await actor.load():
                return None
            try:
                connection = await self.published.connection(actor.session.connection)
            except NotFound:
                logger.exception("the session's connection is no longer published")  # nothing can be sent on it
                return actor.session
            plan = await self._plan(connection)
            found = await actor.claim(wake, connection.plan, plan.queueing, plan.texts)
            lease = actor.session.lease
            if found is Work.HELD and lease is not None and lease.wake == wake.id:
                raise Retryable(f"session {wake.key.session}: a step that must not be repeated may still be running")
            if found is Work.READY:
                await self._attempt(actor, connection, plan, only)
            return actor.session

    async def _attempt(self, actor: Actor, connection: Connection, plan: ExecutionPlan, only: str) -> None:
        try:
            await _Attempt(self, actor, connection, plan, only).work()
        except Fenced as error:
            # Who took over answers for the session now, and the tick if that one dies. Were the wake brought again, it
            # would take over in its turn, and no long step would ever come to its end.
            logger.info("fenced", extra={"fields": {"reason": str(error)}})
            await actor.show_anew()  # what this attempt showed may have come after the other's last commit
        finally:
            await actor.stop_showing()

    async def _plan(self, connection: Connection) -> ExecutionPlan:
        """The connection's plan; one that is not published gives an empty one, and its run will be blocked."""
        try:
            return await self.published.plan(connection.tenant, connection.plan)
        except Blocked:
            return ExecutionPlan(
                tenant=connection.tenant, agent=connection.agent, agent_version=0, instructions="", models=()
            )


class _Attempt:
    """One process's work on one session, from claim to release."""

    def __init__(self, driver: Driver, actor: Actor, connection: Connection, plan: ExecutionPlan, only: str) -> None:
        self.driver = driver
        self.actor = actor
        self.connection = connection
        self.plan = plan
        """What a new run gets."""
        self.only = only
        self.channel = driver.channels[connection.channel]
        self.outbox = Outbox(actor=actor, channel=self.channel, connection=connection, clock=driver.clock)
        self.end = driver.clock.now() + timedelta(seconds=driver.slice_seconds)
        self._sending = asyncio.Lock()

    async def work(self) -> None:
        """Run after run until nothing is left, the run waits, or the slice is over; then let the session go."""
        while self.actor.session.lease is not None:
            self._give_up()
            await self._deliver()  # what an earlier attempt left, answers to taps, the question of an approval
            run = self.actor.session.run
            if run is None:
                await self.actor.commit(release)
                break
            with bind(run=run.number):
                try:
                    await self._run(run)
                except Suspended:
                    await self._deliver()  # the question, if there is one
                    await self.actor.commit(partial(park, now=self.driver.clock.now()))
                except SliceOver:
                    await self.actor.commit(release)
        if work(self.actor.session, wake="", now=self.driver.clock.now()) is Work.READY:
            await self.driver.bus.wake(self.actor.key)

    async def _run(self, run: Run) -> None:
        """Answer, deliver, archive; in the last commit take what came in meanwhile, or let the session go."""
        if run.unwanted and run.outcome is None:
            self.actor.hold(self._reply("cancelled", "", "it came before a stop"))
        elif run.outcome is None:
            await self._answer(run)
        # Read before it is sent: nothing that may fail comes between a reply and the record of it.
        taking = await self.actor.taking(self.connection.plan, self.plan.queueing, self.plan.texts)
        await self._deliver()
        if self.actor.session.outbox:
            await self.actor.commit(release)
            return
        await self.actor.commit(partial(self._end_run, taking=taking))
        going_on = self.actor.session.run
        if going_on is None or going_on.number != run.number:
            logger.info("run finished")

    async def _answer(self, run: Run) -> None:
        plan: ExecutionPlan | None = None
        try:
            plan = await self._resolve(run)
            running = Running(self.actor, self.driver.clock, plan, self.end, self._deliver)
            if run.parked:
                await running.hear_parked()
            conversation, message = self.actor.session.conversation, run.inputs[-1].provider_id
            showing = self.driver.typing.shown(self.channel, self.connection, conversation, message, self.driver.clock)
            async with showing:
                reply = await answer(running, self.driver.route, self.driver.toolbox, partial(self._reply, "answered"))
            if running.run.outcome is None:  # an older release recorded the model's answer, and stopped before it
                await self.actor.commit(self._reply("answered", reply))
        except PlatformError as error:
            logger.warning("run %s", error.outcome, extra={"fields": {"reason": str(error)}})
            texts = plan.texts if plan is not None else Texts()
            taking = await self.actor.taking(run.plan, self.plan.queueing, texts)
            set_aside = isinstance(error, Stalled)
            change = self._reply(error.outcome, texts.of(error.outcome), str(error), set_aside=set_aside)
            await self.actor.commit(partial(_broken_off, taking=taking, by=error, reply=change))

    async def _resolve(self, run: Run) -> ExecutionPlan:
        if stalled(run):
            raise Stalled(f"{run.stalls} attempts in a row recorded nothing")
        if not self.connection.enabled:
            raise Blocked(f"connection {self.connection.id} is disabled")
        return await self.driver.published.plan(self.connection.tenant, run.plan)

    def _reply(self, outcome: Outcome, text: str, reason: str = "", *, set_aside: bool = False) -> Change:
        parts = split(text, self.channel.text_limit)
        return partial(
            respond,
            outcome=outcome,
            reply=text,
            parts=parts,
            reason=reason,
            set_aside=set_aside,
            fetched=self.channel.fetched,
        )

    async def _deliver(self) -> None:
        async with self._sending:  # tool calls side by side may each find something to send
            await self.outbox.deliver()

    def _give_up(self) -> None:
        """Send nothing more of a run that is stalled because of what it has to say: that brings every process down that
        tries. What the channel only put off is not that."""
        session = self.actor.session
        if session.run is not None and stalled(session.run) and session.outbox and not session.outbox[0].not_before:
            self.actor.hold(self._give_up_deliveries)

    def _give_up_deliveries(self, session: Session) -> Session:
        before, given_up = active(session), session.outbox
        reason = f"{STALLS_ALLOWED} attempts in a row could not send it"
        for delivery in given_up:
            session = mark(session, replace(delivery, status="refused", reason=reason), self.driver.clock.now())
        run = active(session)
        results = tuple(result for delivery in given_up for result in delivery.results)
        apology = Delivery(id=f"{run.number}/stalled", text=self.plan.texts.failed, results=results)
        says_more = run.outcome == "answered" and all(known.id != apology.id for known in run.deliveries)
        stalls = before.stalls if run.outcome is None else 0  # the apology may take as many
        run = replace(run, stalls=stalls, set_aside=True, reason=run.reason or reason)
        return replace(session, run=run, outbox=(apology,) if says_more else ())

    def _end_run(self, session: Session, taking: Taking) -> Session:
        now = self.driver.clock.now()
        if active(session).outcome is None:  # a newer message took the reply back
            return session
        taken = active(session).took(self.only)
        session = finish(session, now)
        if not taken and now < self.end and not pause(session, self.plan.queueing, now):
            session = take(session, taking)
        busy = session.run is not None or (session.outbox and not postponed(session, now))
        return session if busy else release(session)


def _broken_off(session: Session, taking: Taking, by: PlatformError, reply: Change) -> Session:
    """The run ends without an answer: nothing is waited for any more, and what was begun stays unknown."""
    if isinstance(by, Cancelled):
        run = active(session)
        turn = max((turn_of(step.key) for step in run.steps), default=run.moved.turns)
        session = cancel(session, taking, after=turn)
    session = supersede(session, taking.now, "a stop" if isinstance(by, Cancelled) else "the end of the run")
    return reply(close_intents(session))
