"""Replies on their way: sends what the session's outbox holds, in order, and records what became of each."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from shared.channels import Channel
from shared.clock import Clock
from shared.domain import Connection, Delivery, DeliveryStatus
from shared.errors import NotSent, Refused, Retryable, SendUnknown
from shared.sessions.actor import Actor
from shared.sessions.transitions import mark

logger = logging.getLogger(__name__)
ATTEMPTS = 6
LONGEST_SLEEP = 60.0
"""Seconds: a longer flood control is left to the next wake."""


async def deliver(actor: Actor, channel: Channel, connection: Connection, clock: Clock) -> None:
    """Send everything that is pending, in order. What became of the last one shares the caller's next commit.

    Raises `Retryable` when the channel does not take a delivery for now; it stays in the outbox.
    """
    while actor.session.outbox:
        first, *rest = actor.session.outbox
        try:
            done = await actor.keep(_send(actor, channel, connection, clock, first))
        except Retryable:
            await actor.commit()  # the reply must outlive this attempt, or the next one would make another
            raise
        actor.hold(partial(mark, delivery=done, now=clock.now()))
        if rest:
            await actor.commit()


async def _send(actor: Actor, channel: Channel, connection: Connection, clock: Clock, delivery: Delivery) -> Delivery:
    """The delivery with its final status: sent, refused, or unknown, which is never repeated."""
    conversation = actor.session.conversation
    settles = bool(delivery.tap or delivery.replaces)
    for attempt in range(1, ATTEMPTS + 1):
        delivery = replace(delivery, attempts=delivery.attempts + 1)
        try:
            if settles:
                await channel.settle(connection, conversation, delivery)
                return replace(delivery, status="sent")
            provider_id = await channel.send(connection, conversation, delivery)
            return replace(delivery, status="sent", provider_id=provider_id)
        except NotSent as error:
            if attempt == ATTEMPTS or error.retry_after > LONGEST_SLEEP:
                if settles:  # the verdict stands without it: the run must not wait for it
                    return replace(delivery, status="refused", reason=str(error))
                raise Retryable(f"delivery {delivery.id}: {error}") from error
            await clock.sleep(error.retry_after)
        except (Refused, SendUnknown) as error:
            status: DeliveryStatus = "refused" if isinstance(error, Refused) else "unknown"
            logger.warning("delivery %s", status, extra={"fields": {"delivery": delivery.id, "reason": str(error)}})
            return replace(delivery, status=status, reason=str(error))
    raise AssertionError("the last attempt returns or raises")
