"""The channels whose readers come for the answer: callers of an invoke read the run, the web client its view.

A caller who named an address is told there as well, by way of the bus."""

from __future__ import annotations

from dataclasses import replace

from shared.bus import Bus
from shared.channels import Resend
from shared.domain import Connection, Delivery


class Api:
    """Takes every delivery and sends nothing but the results that callers asked for."""

    text_limit = 1_000_000
    typing_seconds = 60.0
    resend: Resend = "harmless"
    fetched = True

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def send(self, connection: Connection, conversation: str, delivery: Delivery) -> str:
        """Hand the delivery's results to the bus; the archived run carries the text for everybody else.

        Raises `BusDown`: the run is not over before its results are durable. Again, it publishes them again.
        """
        for result in delivery.results:
            await self._bus.result(replace(result, text=delivery.text))
        return delivery.id

    async def typing(self, connection: Connection, conversation: str, message: str = "") -> None:
        """Nothing to show: events say what happens."""

    async def settle(self, connection: Connection, conversation: str, delivery: Delivery) -> None:
        """No buttons were sent, so none are left."""
