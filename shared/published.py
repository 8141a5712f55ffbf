"""The published configuration as the functions read it: plans, connections, apps, API keys, by path and cached.

`shared.config.publishing` writes these documents; nothing here knows the database that they come from.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from shared import codec
from shared.clock import Clock
from shared.domain import Connection, ExecutionPlan
from shared.errors import Blocked, NotFound
from shared.store import Documents

CACHE_SECONDS = 10
"""How long a process may serve a connection or an API key after it changed."""

CACHED_DOCUMENTS = 1_000
CACHED_PLANS = 200

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}")

Value = TypeVar("Value")


def plan_path(tenant: str, sha: str) -> str:
    return f"tenants/{tenant}/plans/{sha}"


def connection_path(id: str) -> str:  # noqa: A002  the glossary's word
    return f"connections/{id}"


def app_path(id: str) -> str:  # noqa: A002  the glossary's word
    return f"apps/{id}"


def number_path(app: str, number: str) -> str:
    """Where the id of the connection stands that has this number of this app."""
    return f"apps/{app}/numbers/{number}"


def api_key_path(id: str) -> str:  # noqa: A002  the glossary's word
    return f"api_keys/{id}"


def member_path(tenant: str, uid: str) -> str:
    """Where firestore.rules look whether the user with this Firebase uid may see the tenant's consoles."""
    return f"tenants/{tenant}/members/{uid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A Meta app: one callback address for all numbers connected through it, of any tenant."""

    id: str
    tenant: str
    """Who owns it and may change it."""
    secrets: dict[str, str] = field(default_factory=dict)
    """Name to ciphertext: `app_secret` signs what Meta posts, `verify_token` is asked for by its handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A published API key: what a caller presents is `rk_<id>_<secret>`; only the secret's hash is kept."""

    id: str
    tenant: str
    secret_sha256: str
    role: Literal["invoker", "operator"] = "invoker"
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The document at `member_path`; that it is there is what counts for firestore.rules."""

    role: Literal["operator"]


class Published:
    """What is published, at most `CACHE_SECONDS` old; that something is not there is remembered as long.

    Plans never change, so they are kept for ever (the `CACHED_PLANS` used last). Every method may raise `StoreDown`.
    """

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock
        self._recent: OrderedDict[str, tuple[datetime, Any]] = OrderedDict()
        self._plans: OrderedDict[str, ExecutionPlan] = OrderedDict()

    async def connection(self, id: str) -> Connection:  # noqa: A002  the glossary's word
        """The connection, also a disabled one. Raises `NotFound`."""
        found = await self._read(connection_path(id), Connection) if _ID.fullmatch(id) else None
        if found is None:
            raise NotFound("no such connection: check its id in the address")
        return found

    async def app(self, id: str) -> App:  # noqa: A002  the glossary's word
        """The Meta app. Raises `NotFound`."""
        found = await self._read(app_path(id), App) if _ID.fullmatch(id) else None
        if found is None:
            raise NotFound("no such app: check its id in the address")
        return found

    async def number(self, app: str, number: str) -> Connection | None:
        """The connection, also a disabled one, with this number of this app; None when there is none."""
        path = number_path(app, number)
        connection = await self._read(path, str) if _ID.fullmatch(app) and _ID.fullmatch(number) else None
        found = await self._read(connection_path(connection), Connection) if connection else None
        # The two documents are written one after the other: only together do they say that it is so.
        return found if found is not None and (found.app, found.number) == (app, number) else None

    async def plan(self, tenant: str, sha: str) -> ExecutionPlan:
        """The tenant's plan of that hash. Raises `Blocked` when it is not published."""
        path = plan_path(tenant, sha)
        plan = self._plans.get(path)
        if plan is None:
            body = await self._documents.get(path)
            if body is None:
                raise Blocked(f"plan {sha} of tenant {tenant} is not published: save its agent again")
            plan = codec.decode(ExecutionPlan, body)
        _remember(self._plans, path, plan, CACHED_PLANS)
        return plan

    async def api_key(self, id: str) -> ApiKey | None:  # noqa: A002  the glossary's word
        """The API key, also a disabled one; None when there is none."""
        return await self._read(api_key_path(id), ApiKey) if _ID.fullmatch(id) else None

    async def _read(self, path: str, shape: type[Value]) -> Value | None:
        now = self._clock.now()
        found: Value | None
        until, found = self._recent.get(path, (now, None))
        if until <= now:
            body = await self._documents.get(path)
            found = None if body is None else codec.decode(shape, body)
            until = now + timedelta(seconds=CACHE_SECONDS)
        _remember(self._recent, path, (until, found), CACHED_DOCUMENTS)
        return found


def _remember(cache: OrderedDict[str, Value], path: str, value: Value, limit: int) -> None:
    cache[path] = value
    cache.move_to_end(path)
    if len(cache) > limit:
        cache.popitem(last=False)
