"""The built-in tool by which an agent comes back later."""

from __future__ import annotations

from datetime import datetime, timedelta

from shared.clock import Clock
from shared.domain import JsonObject, WaitRequest
from shared.tools import Tool, ToolContext, ToolError

LEAST, MOST = timedelta(seconds=1), timedelta(days=30)


def wait_until(clock: Clock) -> Tool:
    """The tool `builtin:wait_until`: the run goes on `seconds` from now, or at the ISO 8601 time `until`, which has an
    offset. Both lie between a second and 30 days ahead; a model that does not know the time gives `seconds`."""

    async def tool(arguments: JsonObject, context: ToolContext) -> WaitRequest:
        now = clock.now()
        if "seconds" in arguments:
            field, until = "seconds", now + _seconds(arguments["seconds"])
        else:
            field, until = "until", _time(arguments.get("until"))
        if not LEAST <= until - now <= MOST:
            raise ToolError(f"{field}: choose a time from 1 second to 30 days ahead; it is {now.isoformat()} now")
        return WaitRequest(until=until)

    return tool


def _seconds(value: object) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST.total_seconds():
        raise ToolError("seconds: give a number from 1 to 2592000 (30 days)")
    return timedelta(seconds=value)


def _time(value: object) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ToolError("until: give a time with its offset, such as 2026-11-24T09:00:00+01:00, or else seconds")
    return time
