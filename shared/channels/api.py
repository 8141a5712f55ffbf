"""The channels whose readers come for the answer: callers of an invoke read the run, the web client its view."""

from __future__ import annotations

from shared.domain import Connection, Delivery


class Api:
    """Takes every delivery and sends nothing."""

    text_limit = 1_000_000
    typing_seconds = 60.0

    async def send(self, connection: Connection, conversation: str, delivery: Delivery) -> str:
        """Nothing to send: the archived run carries the text."""
        return delivery.id

    async def typing(self, connection: Connection, conversation: str, message: str = "") -> None:
        """Nothing to show: events say what happens."""

    async def settle(self, connection: Connection, conversation: str, delivery: Delivery) -> None:
        """No buttons were sent, so none are left."""
