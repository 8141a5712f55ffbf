"""What channels have in common: the port through which a run sends. Adapters are siblings named for their channel.

Verifying and parsing what comes in differ by channel in shape and stand in the adapters themselves.
"""

from __future__ import annotations

from typing import Protocol

from shared.domain import Connection, Delivery


class Channel(Protocol):
    """Sends on one channel. Every method makes at most one call to the channel and never repeats it by itself."""

    text_limit: int
    """Characters that one delivery can carry at most."""

    async def send(self, connection: Connection, conversation: str, delivery: Delivery) -> str:
        """Send and return the channel's id of the message, empty for a channel that has none.

        Raises `NotSent` (may be repeated after its `retry_after`), `Refused` (never will be delivered) or
        `SendUnknown` (may have been delivered).
        """

    async def typing(self, connection: Connection, conversation: str) -> None:
        """Show that the agent is at work, for about five seconds. Raises `SendError`; nothing depends on it."""

    async def settle(self, connection: Connection, conversation: str, delivery: Delivery) -> None:
        """Answer the tap `delivery.tap` and replace the message `delivery.replaces` by its text, without buttons.

        Either may be empty: then that half is left out. Safe to repeat. Raises `SendError`; the decision stands
        whether or not this succeeds.
        """
