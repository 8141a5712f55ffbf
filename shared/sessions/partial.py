"""The text of a model call while it grows, for whoever watches: never stored in the session, never replayed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from shared.clock import Clock
from shared.errors import StoreDown
from shared.sessions.actor import Actor
from shared.sessions.projection import PartialText

logger = logging.getLogger(__name__)


class Growing:
    """One model call's text so far."""

    def __init__(self, actor: Actor, step: str, attempt: int) -> None:
        self.partial = PartialText(step=step, attempt=attempt, text="")
        self._actor = actor

    def append(self, piece: str) -> None:
        """The model gave one more piece."""
        offset = len(self.partial.text)
        self.partial = replace(self.partial, text=self.partial.text + piece)
        if self._actor.listener is not None:
            self._actor.listener.grew(self.partial, offset)

    def reset(self) -> None:
        """The model call failed; what it gave so far does not count, and the next begins anew."""
        self.partial = replace(self.partial, text="")
        if self._actor.listener is not None:
            self._actor.listener.grew(self.partial, 0)


@asynccontextmanager
async def growing(actor: Actor, clock: Clock, step: str, attempt: int) -> AsyncIterator[Growing | None]:
    """Shows the text of a model call in the session's views, at most once each `pace.partial` seconds, for as long as
    the block runs; None when nobody watches, and the call need not be streamed."""
    if not actor.watched:
        yield None
        return
    text = Growing(actor, step, attempt)
    task = asyncio.create_task(_show(actor, clock, text))
    try:
        yield text
    finally:
        task.cancel()
        await asyncio.wait({task})  # a write under way must not come after the commit that replaces it


async def _show(actor: Actor, clock: Clock, growing: Growing) -> None:
    shown = ""
    while True:
        await clock.sleep(actor.pace.partial)
        if growing.partial.text != shown:
            shown = growing.partial.text
            try:
                await actor.show(growing.partial)
            except StoreDown as error:
                logger.info("partial text is not shown", extra={"fields": {"reason": str(error)}})
