"""Drives one session for one wake: claim it, answer, deliver, go on with what came in meanwhile, let it go."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from shared.bus import Bus
from shared.channels import Channel
from shared.channels.split import split
from shared.clock import Clock
from shared.domain import ChannelName, Connection, ExecutionPlan, Outcome, Texts, Wake
from shared.errors import Blocked, NotFound, PlatformError, Retryable, SliceOver, Stalled, Suspended
from shared.llm.route import Route
from shared.observability import bind
from shared.orchestrator.loop import answer
from shared.orchestrator.typing import typing
from shared.published import Published
from shared.sessions.actor import Actor, Change, Listener, Pace, Store
from shared.sessions.document import Run, Session
from shared.sessions.outbox import deliver
from shared.sessions.running import Running
from shared.sessions.transitions import STALLS_ALLOWED, Work, finish, release, respond, take, work
from shared.tools import Toolbox

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Everything that driving a session needs."""

    store: Store
    bus: Bus
    published: Published
    route: Route
    toolbox: Toolbox
    channels: Mapping[ChannelName, Channel]
    clock: Clock
    pace: Pace
    slice_seconds: float

    async def drive(self, wake: Wake, *, only: str = "", listener: Listener | None = None) -> Session | None:
        """Do all that the session asks for now, and return it as it was left; None when there is no such session.

        With `only`, a message id, stop after the run that took that message. Returning means that the wake may be
        acknowledged: the document says who acts next. Raises `Retryable` when the bus should bring the wake again,
        and `Fenced` when another process took over meanwhile.
        """
        actor = Actor(self.store, self.clock, wake.key, self.pace, listener)
        with bind(tenant=wake.key.tenant, session=wake.key.session):
            if not await actor.load():
                return None
            try:
                connection = await self.published.connection(actor.session.connection)
            except NotFound:
                logger.exception("the session's connection is no longer published")  # nothing can be sent on it
                return actor.session
            found = await actor.claim(wake, connection.plan)
            lease = actor.session.lease
            if found is Work.HELD and lease is not None and lease.wake == wake.id:
                raise Retryable(f"session {wake.key.session}: a step that must not be repeated may still be running")
            if found is Work.READY:
                await _Attempt(self, actor, connection, only).work()
            return actor.session


class _Attempt:
    """One process's work on one session, from claim to release."""

    def __init__(self, driver: Driver, actor: Actor, connection: Connection, only: str) -> None:
        self.driver = driver
        self.actor = actor
        self.connection = connection
        self.only = only
        self.channel = driver.channels[connection.channel]
        self.end = driver.clock.now() + timedelta(seconds=driver.slice_seconds)

    async def work(self) -> None:
        """Run after run until nothing is left, the run waits, or the slice is over; then let the session go."""
        while self.actor.session.lease is not None:
            await self._deliver()  # what an earlier attempt left, answers to taps, the question of an approval
            run = self.actor.session.run
            if run is None or run.wait is not None:
                await self.actor.commit(release)
                break
            with bind(run=run.number):
                try:
                    await self._run(run)
                except Suspended:
                    pass  # a question, if there is one, is in the outbox now
                except SliceOver:
                    await self.actor.commit(release)
        if work(self.actor.session, wake="", now=self.driver.clock.now()) is Work.READY:
            await self.driver.bus.wake(self.actor.key)

    async def _run(self, run: Run) -> None:
        """Answer, deliver, archive; in the last commit take what came in meanwhile, or let the session go."""
        if run.outcome is None:
            await self._answer(run)
        await self._deliver()
        await self.actor.commit(self._end_run)
        logger.info("run finished")

    async def _answer(self, run: Run) -> None:
        plan: ExecutionPlan | None = None
        try:
            plan = await self._resolve(run)
            running = Running(self.actor, self.driver.clock, plan, self.end)
            conversation, message = self.actor.session.conversation, run.inputs[-1].provider_id
            async with typing(self.channel, self.connection, conversation, message, self.driver.clock):
                reply = await answer(running, self.driver.route, self.driver.toolbox)
            self.actor.hold(self._reply("answered", reply, ""))
        except PlatformError as error:
            logger.warning("run %s", error.outcome, extra={"fields": {"reason": str(error)}})
            texts = plan.texts if plan is not None else Texts()
            # Committed before it is sent: unlike an answer, it cannot be had again from the journal.
            await self.actor.commit(self._reply(error.outcome, texts.of(error.outcome), str(error)))

    async def _resolve(self, run: Run) -> ExecutionPlan:
        if run.stalls >= STALLS_ALLOWED:
            raise Stalled(f"{run.stalls} attempts in a row recorded nothing")
        if not self.connection.enabled:
            raise Blocked(f"connection {self.connection.id} is disabled")
        return await self.driver.published.plan(self.connection.tenant, run.plan)

    def _reply(self, outcome: Outcome, text: str, reason: str) -> Change:
        parts = split(text, self.channel.text_limit)
        return partial(respond, outcome=outcome, reply=text, parts=parts, reason=reason)

    async def _deliver(self) -> None:
        await deliver(self.actor, self.channel, self.connection, self.driver.clock)

    def _end_run(self, session: Session) -> Session:
        now = self.driver.clock.now()
        taken = (
            bool(self.only) and session.run is not None and self.only in {message.id for message in session.run.inputs}
        )
        session = finish(session, now)
        if not taken and now < self.end:
            session = take(session, now, self.connection.plan)
        return session if session.run is not None or session.outbox else release(session)
