"""Invoke: a caller hands in a message and waits for the run that answers it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from shared.codec import decode
from shared.domain import Entry, SessionKey, Wake
from shared.errors import Fenced, StoreDown
from shared.orchestrator.drive import Driver
from shared.sessions.accept import put
from shared.sessions.actor import Listener
from shared.sessions.document import Run, Session, read
from shared.sessions.pages import whole
from shared.sessions.seen import run_of
from shared.store import Archive

Driving = asyncio.Task[Session | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoked:
    """How far the message has come."""

    session: SessionKey
    run: Run | None
    """Over, or waiting for a verdict; None when there is no answer yet. A message that came during a wait stands
    behind the run that waits: then it is that run."""


class Invoker:
    """Drives the session of an invoked message itself when it is free, and watches it when it is busy."""

    def __init__(self, driver: Driver, archive: Archive) -> None:
        self._driver = driver
        self._archive = archive
        self._process = driver.clock.new_id()
        self._tasks: dict[tuple[SessionKey, str], Driving] = {}

    async def invoke(self, key: SessionKey, entry: Entry, *, patience: float) -> Invoked:
        """Return when the run with this entry is over or waits, or after `patience` seconds.

        The same entry again returns the same run. When the caller goes away the run goes on. Raises `Retryable`:
        call again with the same entry.
        """
        task = await self.begin(key, entry)
        try:
            async with asyncio.timeout(patience):
                run = await self.outcome(task, key, entry.id)
        except TimeoutError:
            run = None
        return Invoked(session=key, run=run)

    async def begin(self, key: SessionKey, entry: Entry, listener: Listener | None = None) -> Driving:
        """Put the entry into its session and drive that, apart from whoever asked; `listener` is told what happens.

        For an entry that this process drives already it is that same task, and the listener is told nothing.
        """
        driver = self._driver
        await put(driver.store, driver.files, driver.clock, driver.pace, key, entry)
        task = self._tasks.get((key, entry.id))
        if task is None:
            # A wake takes over from its own holder at once: only this process knows that that one is gone.
            wake = Wake(key=key, id=f"invoke-{self._process}-{entry.id}")
            driving = driver.drive(wake, only=entry.id, listener=listener)
            task = self._tasks[key, entry.id] = asyncio.create_task(driving)
            task.add_done_callback(lambda _: self._tasks.pop((key, entry.id)))
        return task

    async def outcome(self, task: Driving, key: SessionKey, message_id: str) -> Run:
        """The run that took the message, once it is over or waits; whoever drives it."""
        try:
            session = await asyncio.shield(task)
        except Fenced:
            session = None
        return await self._run(key, session, message_id) or await self._watch(key, message_id)

    async def _watch(self, key: SessionKey, message_id: str) -> Run:
        async with aclosing(self._driver.store.watch(key)) as changes:
            async for stored in changes:
                if run := await self._run(key, read(key, stored), message_id):
                    return run
        raise StoreDown(f"session {key.session} can no longer be watched")

    async def _run(self, key: SessionKey, session: Session | None, message_id: str) -> Run | None:
        """The run that took the message if it is over; else the active run if that waits for somebody."""
        if session is None:
            return None
        number = await run_of(self._driver.store, session, message_id)
        run = session.run
        if number is not None and (run is None or run.number != number):
            body = await self._archive.run(key, number)
            return await whole(self._driver.store, key, decode(Run, body)) if body is not None else None
        if run is None:
            return None
        waits = run.parked and session.lease is None
        return run if waits or run.rejected(message_id) else None
