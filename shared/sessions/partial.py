"""The text of a model call while it grows, for whoever watches: never stored in the session, never replayed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from shared.sessions.actor import Actor
from shared.sessions.projection import PartialText


class Growing:
    """One model call's text so far."""

    def __init__(self, actor: Actor, step: str, attempt: int) -> None:
        self.partial = PartialText(step=step, attempt=attempt, text="")
        self._actor = actor

    def append(self, piece: str) -> None:
        """The model gave one more piece."""
        offset = len(self.partial.text)
        self.partial = replace(self.partial, text=self.partial.text + piece)
        self._actor.grew(self.partial, offset)

    def reset(self) -> None:
        """The model call failed; what it gave so far does not count, and the next begins anew."""
        self.partial = replace(self.partial, text="")
        self._actor.grew(self.partial, 0)


@contextmanager
def growing(actor: Actor, step: str, attempt: int) -> Iterator[Growing | None]:
    """Shows the text of a model call to the listener and in the session's views, for as long as the block runs; None
    when nobody watches, and the call need not be streamed."""
    if not actor.watched:
        yield None
        return
    try:
        yield Growing(actor, step, attempt)
    finally:
        actor.outgrown()
