"""`recado user`: who may watch a tenant's sessions in a browser."""

from __future__ import annotations

from shared.config.publishing import publish
from shared.settings import Settings
from shared.wiring import Parts


async def user(settings: Settings, action: str, uid: str, *, tenant: str) -> int:
    """`add` or `remove` the tenant's user with that Firebase uid, and publish it."""
    here = Parts(settings)
    try:
        change = here.repository.put_user if action == "add" else here.repository.remove_user
        await change(tenant, uid)
        await publish(here.repository, here.store)
        return 0
    finally:
        await here.aclose()
