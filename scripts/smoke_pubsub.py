"""How Pub/Sub repeats a push that is refused: the pauses between the attempts, as the receiver's log has them."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from scripts.smoke import Row, Target, result_of

WATCHED_SECONDS = 45
LOGGED_SECONDS = 60
"""How long Cloud Logging may take until it shows a request."""


async def backoff(target: Target) -> list[Row]:
    """Pauses between the first attempts: at least 1 s, growing, and the first three done within 45 s.

    A topic and a subscription of its own push to `run_agent` without a token, so every push is refused with 401.
    """
    if target.pubsub_emulator:
        return [Row(check="backoff", result="not measured", values={"reason": "the emulator repeats every second"})]
    name = f"smoke-{secrets.token_hex(6)}"
    async with asyncio.timeout(WATCHED_SECONDS + LOGGED_SECONDS + 60):
        await refused(target, name, f"{target.urls['run_agent']}/wakes?{name}", WATCHED_SECONDS)
        await asyncio.sleep(LOGGED_SECONDS)
        return [judge(pauses(await _attempts(target, name)))]


async def refused(target: Target, name: str, endpoint: str, seconds: float) -> None:
    """Push one message to an endpoint that refuses it, for so long; topic and subscription are removed again."""
    topic = f"projects/{target.project}/topics/{name}"
    await target.pubsub("PUT", f"/topics/{name}", {})
    try:
        await target.pubsub("PUT", f"/subscriptions/{name}", subscription(topic, endpoint))
        message = {"data": base64.b64encode(b"smoke").decode()}
        await target.pubsub("POST", f"/topics/{name}:publish", {"messages": [message]})
        await asyncio.sleep(seconds)
        await target.pubsub("DELETE", f"/subscriptions/{name}")
    finally:
        await target.pubsub("DELETE", f"/topics/{name}")


def subscription(topic: str, endpoint: str) -> dict[str, object]:
    """The retry policy of terraform/pubsub.tf."""
    return {
        "topic": topic,
        "pushConfig": {"pushEndpoint": endpoint},
        "retryPolicy": {"minimumBackoff": "1s", "maximumBackoff": "600s"},
        "ackDeadlineSeconds": 10,
    }


async def _attempts(target: Target, name: str) -> list[datetime]:
    wanted = f'resource.type="cloud_run_revision" AND httpRequest.requestUrl:"{name}"'
    body = {"resourceNames": [f"projects/{target.project}"], "filter": wanted, "orderBy": "timestamp asc"}
    found = await target.google("POST", "https://logging.googleapis.com/v2/entries:list", body)
    return [datetime.fromisoformat(entry["timestamp"]) for entry in found.get("entries", [])]


def pauses(attempts: Sequence[datetime]) -> list[float]:
    """Seconds from each attempt to the next one."""
    return [round((later - earlier).total_seconds(), 3) for earlier, later in pairwise(attempts)]


def judge(seconds: Sequence[float]) -> Row:
    """Best effort allows some spread around 1 s; a fixed pause, or one of ten seconds, means: no policy is in force."""
    good = len(seconds) >= 3 and 0.8 <= seconds[0] <= 5.0 and seconds[-1] > seconds[0]
    return Row(check="backoff", result=result_of(good), values={"pauses": list(seconds)})
