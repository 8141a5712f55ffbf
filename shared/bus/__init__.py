"""How one process tells another to look at a session, or at a receipt or a result: the port of `pubsub` and `local`."""

from __future__ import annotations

from typing import Protocol

from shared.domain import Receipt, Result, SessionKey


class Bus(Protocol):
    """Publishes wakes, receipts and results. The truth is the session document: a wake carries nothing but its key."""

    async def wake(self, key: SessionKey) -> None:
        """Return once the wake is durable: it will be delivered at least once, in order within a session.

        Raises `BusDown` when that cannot be had within a few seconds; the tick finds the session all the same.
        """

    async def receipt(self, receipt: Receipt) -> None:
        """Return once the receipt is durable: it will be delivered at least once, in any order.

        Raises `BusDown` when that cannot be had within a few seconds: the provider has to report again.
        """

    async def result(self, result: Result) -> None:
        """Return once the result is durable: it will be posted to its address at least once, or be found dead.

        Raises `BusDown` when that cannot be had within a few seconds.
        """

    async def check(self) -> None:
        """Return when wakes can be published as far as one can tell without publishing one; raises `BusDown`."""
