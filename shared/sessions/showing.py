"""When the views of a session are written: seldom while somebody holds it, and with the commit that lets it go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from shared.clock import Clock
from shared.errors import StoreDown
from shared.sessions.document import Session
from shared.sessions.projection import PartialText, console_watches, is_viewed, views
from shared.store import Documents

logger = logging.getLogger(__name__)


class Showing:
    """The views that one attempt at a session writes (docs/adr/0004-views-are-written-once-a-second.md).

    From the claim on, and from each time that they were written, `seconds` pass before they are written again: by the
    next commit or, if there was something new and none came, between two. The commit that lets the session go carries
    them in any case.
    """

    def __init__(
        self, documents: Documents, clock: Clock, seconds: float, stored: Callable[[], Session | None]
    ) -> None:
        self.text: PartialText | None = None
        """Of the model call under way."""
        self._documents = documents
        self._clock = clock
        self._seconds = seconds
        self._stored = stored
        self._written: dict[str, bytes] = {}
        self._since: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()  # of two writes at once the older could be the later to arrive

    @asynccontextmanager
    async def carried(self, session: Session) -> AsyncIterator[dict[str, bytes]]:
        """The views that a commit of this session carries; they count as written unless the block raises."""
        held = session.lease is not None
        if held and (self._lock.locked() or self._left() > 0):
            yield {}
            self._later(session)
            return
        async with self._lock:
            shown = self._views(session)
            if held and shown == self._written:
                shown = {}
            if not held:
                self._cancel()  # before the commit: one whose answer is lost may be the last
            yield shown
            if shown:
                self._wrote(shown)

    def grew(self, partial: PartialText) -> None:
        """The text of a model call has come this far."""
        self.text = partial
        session = self._stored()
        if session is not None:
            self._later(session)

    async def write(self) -> None:
        """Write the views of what is stored as far as is known, now. Raises `StoreDown`."""
        await self._put(self._current())

    async def stop(self) -> None:
        """Nothing is written by itself any more, and nothing is under way."""
        async with self._lock:
            self._cancel()

    def _later(self, session: Session) -> None:
        if self._task is not None:
            if not self._task.done():
                return
            self._task.result()  # what went wrong there goes wrong here
        if is_viewed(session, self._clock.now()):
            self._task = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        """Write what is new, as often as may be, until nothing is."""
        try:
            while True:
                if (left := self._left()) > 0:
                    await self._clock.sleep(left)
                async with self._lock:
                    if self._left() > 0:  # a commit carried them meanwhile
                        continue
                    shown = self._current()
                    if shown == self._written:
                        return
                    await self._put(shown)
        except StoreDown as error:
            logger.info("the views are not written", extra={"fields": {"reason": str(error)}})

    def _left(self) -> float:
        """Seconds until they may be written again."""
        now = self._clock.now()
        self._since = min(self._since or now, now)  # a clock that was set back must not hold them up
        return self._seconds - (now - self._since).total_seconds()

    async def _put(self, shown: dict[str, bytes]) -> None:
        for path, body in shown.items():
            await self._documents.put(path, body)
        self._wrote(shown)

    def _current(self) -> dict[str, bytes]:
        session = self._stored()
        return self._views(session) if session is not None else {}

    def _views(self, session: Session) -> dict[str, bytes]:
        return views(session, watched=console_watches(session, self._clock.now()), partial=self.text)

    def _wrote(self, shown: dict[str, bytes]) -> None:
        self._written = shown
        self._since = self._clock.now()

    def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None and not task.cancel() and not task.cancelled():
            task.result()
