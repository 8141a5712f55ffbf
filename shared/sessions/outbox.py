"""Replies on their way: sends what the session's outbox holds, in order, and records what became of each.

A delivery is marked as `sending` by the commit before its call, and that commit is one that is made anyway. So whoever
takes over after a crash knows which delivery may have been sent, and does what its channel allows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from shared.channels import Channel
from shared.clock import Clock
from shared.domain import Connection, Delivery
from shared.errors import NotSent, Refused, Retryable, SendUnknown
from shared.sessions.actor import Actor
from shared.sessions.transitions import mark, postponed, put_off

logger = logging.getLogger(__name__)
ATTEMPTS = 6
"""Calls in a row before a delivery is put off."""
LONGEST_SLEEP = 60.0
"""Seconds: a longer flood control holds no process; the tick goes on with it."""
GIVEN_UP = timedelta(hours=24)
"""How long a channel may refuse to take a delivery for now."""
REPEATS = 2
"""How often a delivery is sent again for want of a receipt, before nobody will ever know."""
RECEIPT_SECONDS = 30.0
"""How long a receipt is waited for before a delivery whose sending was cut is sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """Sends for one attempt at a session."""

    actor: Actor
    channel: Channel
    connection: Connection
    clock: Clock

    async def deliver(self) -> None:
        """Send everything that may be sent now, in order. What became of the last one shares the caller's next commit.

        What the channel does not take for now stays, and everything behind it, with the time of the next try.
        """
        while self.actor.session.outbox and not postponed(self.actor.session, self.clock.now()):
            head = self.actor.session.outbox[0]
            if head.status == "pending":  # a commit marks it, or takes it away with what it would have answered
                await self.actor.commit()
                continue
            head = await self._ready(head)
            done = await self.actor.keep(self._send(head)) if head.status == "sending" else head
            if done.not_before is not None:
                await self.actor.commit(partial(put_off, delivery=done))
                continue
            self.actor.hold(partial(mark, delivery=done, now=self.clock.now()))
            if self.actor.session.outbox:
                await self.actor.commit()

    async def _ready(self, head: Delivery) -> Delivery:
        """The delivery, stored as being sent by this attempt; or as unknown, while its receipt is waited for."""
        epoch = self.actor.session.epoch
        if head.status == "sending" and head.epoch == epoch and head.not_before is None:
            return head
        if head.not_before is None and self.channel.resend == "receipt" and not _is_settling(head):
            return replace(head, status="unknown", not_before=self._after(RECEIPT_SECONDS))
        cut = head.status == "unknown" or (head.not_before is None and not self._harmless(head))
        if cut:
            logger.warning(
                "delivery is sent again", extra={"fields": {"delivery": head.id, "channel": self.connection.channel}}
            )
        again = replace(head, status="sending", epoch=epoch, not_before=None, repeated=head.repeated + cut)
        await self.actor.commit(partial(put_off, delivery=again))
        return again

    async def _send(self, delivery: Delivery) -> Delivery:
        """The delivery with what became of it: sent, refused or unknown, or put off until `not_before`."""
        conversation = self.actor.session.conversation
        for attempt in range(1, ATTEMPTS + 1):
            delivery = replace(delivery, attempts=delivery.attempts + 1)
            try:
                if _is_settling(delivery):
                    await self.channel.settle(self.connection, conversation, delivery)
                    return replace(delivery, status="sent")
                provider_id = await self.channel.send(self.connection, conversation, delivery)
                return replace(delivery, status="sent", provider_id=provider_id)
            except (NotSent, Retryable) as error:
                seconds = error.retry_after if isinstance(error, NotSent) else 1.0
                if attempt == ATTEMPTS or seconds > LONGEST_SLEEP:
                    return self._put_off(delivery, seconds, str(error))
                await self.clock.sleep(seconds)
            except Refused as error:
                return self._over(replace(delivery, status="refused", reason=str(error)))
            except SendUnknown as error:
                unknown = self._over(replace(delivery, status="unknown", reason=str(error)))
                waits = self.channel.resend == "receipt" and delivery.repeated < REPEATS
                return replace(unknown, not_before=self._after(RECEIPT_SECONDS)) if waits else unknown
        raise AssertionError("the last attempt returns or raises")

    def _put_off(self, delivery: Delivery, seconds: float, reason: str) -> Delivery:
        """Tried again later and later; the verdict on an approval stands without its mark in the chat."""
        since = delivery.first_tried or self.clock.now()
        delivery = replace(delivery, first_tried=since, reason=reason)
        if _is_settling(delivery) or self.clock.now() - since > GIVEN_UP:
            return self._over(replace(delivery, status="refused"))
        pause = max(seconds, 5.0 * 2 ** min(delivery.attempts // ATTEMPTS, 10))
        logger.warning("delivery put off", extra={"fields": {"delivery": delivery.id, "reason": reason}})
        return replace(delivery, not_before=self._after(min(pause, 3_600.0)))

    def _over(self, delivery: Delivery) -> Delivery:
        fields = {"delivery": delivery.id, "reason": delivery.reason}
        logger.warning("delivery %s", delivery.status, extra={"fields": fields})
        return delivery

    def _harmless(self, delivery: Delivery) -> bool:
        """Whether nobody can see that it is sent twice: an edit makes the same of a message each time."""
        return self.channel.resend == "harmless" or (self.channel.resend == "counted" and _is_settling(delivery))

    def _after(self, seconds: float) -> datetime:
        return self.clock.now() + timedelta(seconds=seconds)


def _is_settling(delivery: Delivery) -> bool:
    return bool(delivery.tap or delivery.replaces)
