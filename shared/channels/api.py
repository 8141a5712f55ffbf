"""The channel of callers who invoke an agent over HTTPS: they read their answer from the run, nothing is sent."""

from __future__ import annotations

from shared.domain import Connection, Delivery


class Api:
    """Takes every delivery; the run that has it is what the caller is given."""

    text_limit = 1_000_000

    async def send(self, connection: Connection, conversation: str, delivery: Delivery) -> str:
        """Nothing to send: the archived run carries the text."""
        return delivery.id

    async def typing(self, connection: Connection, conversation: str) -> None:
        """Nothing to show: events say what happens."""

    async def settle(self, connection: Connection, conversation: str, delivery: Delivery) -> None:
        """No buttons were sent, so none are left."""
