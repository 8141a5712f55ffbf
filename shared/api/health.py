"""Is this instance ready, and what of its parts works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from fastapi import APIRouter
from starlette.responses import Response

from shared.api.http import json_response
from shared.api.principals import Operator
from shared.domain import JsonObject
from shared.errors import StoreDown
from shared.wiring import Parts, parts

router = APIRouter(tags=["health"])
PATIENCE_SECONDS = 5.0


@router.get("/health")
async def health() -> dict[str, str]:
    """200 once requests are answered."""
    return {"status": "ok"}


@router.get("/health/detailed")
async def health_detailed(principal: Operator) -> Response:
    """Each part with whether it works and how long it took in milliseconds; 503 when one does not."""
    here = parts()
    checks = _checks(here, principal.tenant)
    states = await asyncio.gather(*(_state(check) for check in checks.values()))
    found = dict(zip(checks, states, strict=True))
    healthy = all(state["ok"] for state in states)
    unreadable = await _unreadable(here, principal.tenant)
    body = {"status": "ok" if healthy else "degraded", "parts": found, "unreadable_updates": unreadable}
    return json_response(200 if healthy else 503, body)


async def _unreadable(here: Parts, tenant: str) -> int | None:
    """How many updates were kept aside as unreadable, 100 standing for more; None when the store does not say."""
    try:
        return len(await here.store.list(f"tenants/{tenant}/unreadable", limit=100))
    except StoreDown:
        return None


def _checks(here: Parts, tenant: str) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "sessions": lambda: here.store.sessions(tenant, limit=1),
        "bus": here.bus.check,
        "configuration": lambda: here.repository.agents(tenant),
    }


async def _state(check: Callable[[], Awaitable[object]]) -> JsonObject:
    begun = perf_counter()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await check()
    except Exception as error:  # noqa: BLE001  whatever is wrong with a part is the answer here
        return {"ok": False, "error": type(error).__name__}
    return {"ok": True, "milliseconds": round((perf_counter() - begun) * 1000, 1)}
