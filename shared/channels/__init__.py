"""What channels have in common: the port through which a run sends. Adapters are siblings named for their channel.

Verifying and parsing what comes in differ by channel in shape and stand in the adapters themselves.
"""

from __future__ import annotations

from typing import Literal, Protocol

from shared.domain import Connection, Delivery

Resend = Literal["harmless", "receipt", "counted"]
"""What becomes of a delivery whose sending was cut, so that it may have been sent. `harmless`: it is sent again, and no
reader can tell. `receipt`: the provider's receipt says whether it was taken, so that is waited for. `counted`: nothing
can tell, so it is sent once more and counted as one that the contact may have seen twice."""


class Channel(Protocol):
    """Sends on one channel. No method repeats by itself what may have been done."""

    text_limit: int
    """Characters that one delivery can carry at most."""
    typing_seconds: float
    """How long one `typing` is shown, less what a call takes."""
    resend: Resend
    """What a crash in the middle of `send` calls for."""
    fetched: bool
    """Readers come for the reply, which is there once it is stored; only results that callers asked for are sent."""

    async def send(self, connection: Connection, conversation: str, delivery: Delivery) -> str:
        """Send and return the channel's id of the message, empty for a channel that has none.

        Raises `NotSent` (may be repeated after its `retry_after`), `Refused` (never will be delivered) or
        `SendUnknown` (may have been delivered).
        """

    async def typing(self, connection: Connection, conversation: str, message: str = "") -> None:
        """Show that the agent is at work, for `typing_seconds`. Raises `SendError`; nothing depends on it.

        `message` is the channel's id (`Message.provider_id`) of the message that is being answered; a channel that
        has read marks marks it as read.
        """

    async def settle(self, connection: Connection, conversation: str, delivery: Delivery) -> None:
        """Answer the tap `delivery.tap` and replace the message `delivery.replaces` by its text, without buttons.

        Either may be empty: then that half is left out. Safe to repeat, except that a channel which cannot edit
        sends the text instead. Raises `SendError`; the verdict stands whether or not this succeeds.
        """
