"""How one process tells another to look at a session: the port that `pubsub` and `local` implement."""

from __future__ import annotations

from typing import Protocol

from shared.domain import SessionKey


class Bus(Protocol):
    """Publishes wakes. The truth is the session document: a wake carries nothing but the session's key."""

    async def wake(self, key: SessionKey) -> None:
        """Return once the wake is durable: it will be delivered at least once, in order within a session.

        Raises `BusDown` when that cannot be had within a few seconds; the tick finds the session all the same.
        """

    async def check(self) -> None:
        """Return when wakes can be published as far as one can tell without publishing one; raises `BusDown`."""
