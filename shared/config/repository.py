"""Changes of the configuration, each one a transaction that also writes what is to be published.

SQLAlchemy over pg8000 is synchronous, so each method runs in a thread; the interface is asynchronous. Changes of one
tenant follow each other (its row is locked), so the ids of the outbox stand in the order in which things became true.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TypeVar, get_args

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from shared.clock import Clock
from shared.config import documents, drafts, tables
from shared.config.database import open_engine
from shared.config.drafts import AgentDraft, ConnectionDraft
from shared.domain import ToolSpec, api_connection
from shared.errors import BadRequest, Conflict, NotFound, StoreDown

Result = TypeVar("Result")
Owned = TypeVar("Owned", tables.Connection, tables.ApiKey, tables.User)

_DOWN_STATES = ("08", "40", "53", "55", "57")  # no connection, rolled back, no room, locked, shutting down
_DOWN_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent as it stands: its current version, and the draft that would make the same again."""

    version: int
    draft: AgentDraft


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One row of the outbox: a document to be written, or with `body` None deleted."""

    id: int
    tenant: str
    path: str
    body: bytes | None


class ConfigRepository:
    """The configuration in the database at `database_url`, whose schema `migrate` has brought up to date.

    Every method raises `StoreDown` when the database does not answer within some seconds, and `Conflict` when another
    change came between. A change raises `NotFound` for a tenant that does not exist, and `BadRequest`
    naming field and fix for what cannot be; then nothing has changed.
    """

    def __init__(self, database_url: str, clock: Clock) -> None:
        self._database_url = database_url
        self._clock = clock

    async def aclose(self) -> None:
        """Close the connections; the next use opens new ones."""
        await asyncio.to_thread(self._engine.dispose)

    async def create_tenant(self, tenant: str, name: str = "") -> bool:
        """Make the tenant; False when it was there already, and then nothing changes."""
        drafts.check_tenant(tenant)

        def change(db: Session) -> bool:
            if db.get(tables.Tenant, tenant):
                return False
            db.add(tables.Tenant(id=tenant, name=name or tenant))
            return True

        return await self._transaction(change)

    async def put_tool(self, tenant: str, tool: ToolSpec) -> None:
        """Make or replace the tool; every agent that has it gets a new plan."""
        drafts.check_tool(tool)

        def change(db: Session) -> None:
            row = db.get(tables.Tool, (tenant, tool.name))
            if row and documents.spec_of(row) == tool:
                return
            db.merge(tables.Tool(tenant_id=tenant, **asdict(tool)))
            for agent in db.scalars(select(tables.Agent).where(tables.Agent.tenant_id == tenant)):
                if tool.name in documents.version_of(db, agent).tools:
                    documents.publish_agent(db, agent)

        await self._change(tenant, change)

    async def put_agent(self, tenant: str, draft: AgentDraft) -> int:
        """Make the agent, with its `api` connection, or give it a new version; the number of its current version.

        A draft that equals the current version makes no new one.
        """
        drafts.check_agent(draft)

        def change(db: Session) -> int:
            documents.tools_of(db, tenant, draft.tools)
            agent = db.get(tables.Agent, (tenant, draft.id)) or _new_agent(db, tenant, draft.id)
            agent.name = draft.name or draft.id
            if agent.version and documents.draft_of(db, agent) == replace(draft, name=agent.name):
                return agent.version
            agent.version += 1
            same = {name: getattr(draft, name) for name in documents.SAME_IN_PLAN}
            row = tables.AgentVersion(
                tenant_id=tenant, agent_id=agent.id, version=agent.version, tools=draft.tools, **same
            )
            db.add(row)
            db.flush()
            documents.publish_agent(db, agent)
            return agent.version

        return await self._change(tenant, change)

    async def put_app(self, tenant: str, app: str, *, shared: bool = False) -> None:
        """Make the Meta app, or change whether it is shared; it has the secrets `<app>/app_secret`, `/verify_token`.

        Connections of its own tenant may use it, and when it is `shared` those of every tenant: whoever shares it
        vouches that each connects its own numbers. Connections that are there stay when it is shared no more.
        """
        drafts.check_app(app)

        def change(db: Session) -> None:
            row = db.get(tables.App, app)
            if (row and row.tenant_id != tenant) or db.get(tables.Connection, app):  # they would share their secrets
                raise BadRequest(f"app: {app} is taken: choose another id")
            row = row or tables.App(id=app, tenant_id=tenant)
            row.shared = shared
            db.add(row)
            documents.publish_app(db, row)

        await self._change(tenant, change)

    async def put_connection(self, tenant: str, draft: ConnectionDraft) -> None:
        """Make the connection, enabled, or change where it leads; it has the secrets named `<connection>/<name>`."""
        drafts.check_connection(draft)

        def change(db: Session) -> None:
            if db.get(tables.Agent, (tenant, draft.agent)) is None:
                raise BadRequest(f"agent: {draft.agent[:100]!r} is no agent of this tenant: put it first")
            row = db.get(tables.Connection, draft.id)
            if (row and (row.tenant_id, row.channel) != (tenant, draft.channel)) or db.get(tables.App, draft.id):
                raise BadRequest(f"id: {draft.id} is taken: choose another")
            _check_number(db, tenant, draft)
            if row is None:
                row = tables.Connection(id=draft.id, tenant_id=tenant, channel=draft.channel, enabled=True)
                db.add(row)
            elif (row.app_id or "", row.number or "") != (draft.app, draft.number):
                documents.withdraw_number(db, row)
            row.agent_id, row.api_root, row.settings = draft.agent, draft.api_root, draft.settings
            row.app_id, row.number = draft.app or None, draft.number or None
            documents.publish_connection(db, row)

        await self._change(tenant, change)

    async def set_connection_enabled(self, tenant: str, connection: str, *, enabled: bool) -> None:
        """Let the connection take messages, or no more. Raises `NotFound`."""

        def change(db: Session) -> None:
            row = _owned(db.get(tables.Connection, connection), tenant)
            row.enabled = enabled
            documents.publish_connection(db, row)

        await self._change(tenant, change)

    async def put_secret(self, tenant: str, name: str, ciphertext: str) -> None:
        """Keep what `SecretBox.seal` made, bound to `<tenant>/<name>`.

        The secret `<id>/<name>` is published with the connection or app of that id of the same tenant, as `<name>`.
        """
        drafts.check_secret_name(name)

        def change(db: Session) -> None:
            db.merge(tables.Secret(tenant_id=tenant, name=name, ciphertext=ciphertext))
            owner = name.partition("/")[0]
            if (connection := db.get(tables.Connection, owner)) and connection.tenant_id == tenant:
                documents.publish_connection(db, connection)
            if (app := db.get(tables.App, owner)) and app.tenant_id == tenant:
                documents.publish_app(db, app)

        await self._change(tenant, change)

    async def create_api_key(self, tenant: str, role: tables.KeyRole = "invoker") -> str:
        """A new key, `rk_<id>_<secret>`. It cannot be had again: only the SHA-256 of its secret is kept."""
        if role not in get_args(tables.KeyRole):
            raise BadRequest(f"role is {role!r}: use one of {', '.join(get_args(tables.KeyRole))}")
        id_, secret = self._clock.new_id(), secrets.token_hex(32)

        def change(db: Session) -> None:
            sha256 = hashlib.sha256(secret.encode()).hexdigest()
            row = tables.ApiKey(id=id_, tenant_id=tenant, secret_sha256=sha256, role=role, enabled=True)
            db.add(row)
            documents.publish_api_key(db, row)

        await self._change(tenant, change)
        return f"rk_{id_}_{secret}"

    async def set_api_key_enabled(self, tenant: str, key: str, *, enabled: bool) -> None:
        """Accept the key with this id, or no more. Raises `NotFound`."""

        def change(db: Session) -> None:
            row = _owned(db.get(tables.ApiKey, key), tenant)
            row.enabled = enabled
            documents.publish_api_key(db, row)

        await self._change(tenant, change)

    async def put_user(self, tenant: str, uid: str) -> None:
        """Let whoever has this Firebase uid see the tenant's sessions in a browser, as an operator; safe to repeat."""
        drafts.check_uid(uid)

        def change(db: Session) -> None:
            documents.publish_user(db, db.merge(tables.User(tenant_id=tenant, uid=uid, role="operator")))

        await self._change(tenant, change)

    async def remove_user(self, tenant: str, uid: str) -> None:
        """Let them see nothing more of the tenant. Raises `NotFound`."""
        drafts.check_uid(uid)

        def change(db: Session) -> None:
            row = _owned(db.get(tables.User, (tenant, uid)), tenant)
            db.delete(row)
            documents.withdraw_user(db, row)

        await self._change(tenant, change)

    async def agents(self, tenant: str) -> Sequence[Agent]:
        """The tenant's agents, ordered by id."""
        query = select(tables.Agent).where(tables.Agent.tenant_id == tenant).order_by(tables.Agent.id)
        return await self._transaction(
            lambda db: [
                Agent(version=agent.version, draft=documents.draft_of(db, agent)) for agent in db.scalars(query)
            ]
        )

    async def republish(self, tenant: str) -> None:
        """Publish again all that the tenant has, where the published copy was lost or may be incomplete."""
        await self._change(tenant, lambda db: documents.publish_all(db, tenant))

    async def pending(self, limit: int = 100) -> Sequence[Pending]:
        """What is still to be published, the oldest first, and of each path only the newest.

        A plan stands before the connections that name it. For `publish` alone, as `published` is.
        """
        outbox = tables.PublishOutbox
        newest = select(func.max(outbox.id)).group_by(outbox.path)
        query = select(outbox).where(outbox.id.in_(newest)).order_by(outbox.id).limit(limit)
        return await self._transaction(
            lambda db: [
                Pending(id=row.id, tenant=row.tenant_id, path=row.path, body=row.body) for row in db.scalars(query)
            ]
        )

    async def published(self, done: Pending) -> None:
        """Take `done`, and what it took the place of, out of the outbox, after its document was written.

        When another publisher took it out meanwhile, the document may since have been written newer, and then older
        again by this late one: if it is not the truth any more, the truth goes to the end of the outbox.
        """
        outbox = tables.PublishOutbox

        def change(db: Session) -> None:
            if db.get(outbox, done.id) is None:
                documents.publish_again(db, done.tenant, done.path, done.body)
            else:
                db.execute(delete(outbox).where(outbox.path == done.path, outbox.id <= done.id))

        await self._change(done.tenant, change)

    @cached_property
    def _engine(self) -> Engine:
        return open_engine(self._database_url)

    async def _change(self, tenant: str, change: Callable[[Session], Result]) -> Result:
        def locked(db: Session) -> Result:
            if db.get(tables.Tenant, tenant, with_for_update=True) is None:
                raise NotFound(f"there is no tenant {tenant[:100]!r}: create it first")
            return change(db)

        return await self._transaction(locked)

    async def _transaction(self, work: Callable[[Session], Result]) -> Result:
        engine = self._engine

        def run() -> Result:
            try:
                with Session(engine) as db, db.begin():
                    return work(db)
            except (OSError, PoolTimeoutError) as error:  # pg8000 lets a socket's errors through
                raise StoreDown("the configuration database did not answer: try again") from error
            except DBAPIError as error:
                _raise_ours(error)
                raise

        return await asyncio.to_thread(run)


def _new_agent(db: Session, tenant: str, agent: str) -> tables.Agent:
    row = tables.Agent(tenant_id=tenant, id=agent, name=agent, version=0)
    db.add(row)
    db.flush()
    id_ = api_connection(tenant, agent)
    db.add(
        tables.Connection(
            id=id_, tenant_id=tenant, channel="api", agent_id=agent, enabled=True, api_root="", settings={}
        )
    )
    return row


def _check_number(db: Session, tenant: str, draft: ConnectionDraft) -> None:
    """Raise `BadRequest` unless the draft's app may be used by the tenant, and its number is nobody else's."""
    if not draft.app:
        return
    app = db.get(tables.App, draft.app)
    if app is None or (app.tenant_id != tenant and not app.shared):
        raise BadRequest(f"app: {draft.app} is no app of this tenant, nor a shared one: put it first")
    where = (tables.Connection.app_id == draft.app, tables.Connection.number == draft.number)
    if db.scalar(select(tables.Connection.id).where(*where, tables.Connection.id != draft.id)):
        raise BadRequest(f"number: {draft.number} is connected already: disconnect it there first")


def _owned(row: Owned | None, tenant: str) -> Owned:
    if row is None or row.tenant_id != tenant:
        raise NotFound("this tenant has nothing of that id: check it")
    return row


def _raise_ours(error: DBAPIError) -> None:
    """Raise what the error means to a caller; nothing when it is a mistake of our own.

    pg8000 raises no IntegrityError or OperationalError: it gives the SQLSTATE as field C of its first argument.
    """
    details = error.orig.args[0] if error.orig and error.orig.args else None
    state = details.get("C", "") if isinstance(details, dict) else ""
    if isinstance(error, IntegrityError) or state.startswith("23"):
        raise Conflict("another change of the configuration came first: try again") from error
    sqlite = getattr(error.orig, "sqlite_errorname", "")
    if isinstance(error, InterfaceError) or state[:2] in _DOWN_STATES or sqlite.startswith(_DOWN_SQLITE):
        raise StoreDown("the configuration database did not answer: try again") from error
