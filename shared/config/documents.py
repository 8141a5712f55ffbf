"""What the functions are to read, built from the rows inside the transaction that changed them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import codec
from shared.config import tables
from shared.config.drafts import AgentDraft
from shared.domain import Connection, ExecutionPlan, ToolSpec
from shared.errors import BadRequest, TooLarge
from shared.published import (
    ApiKey,
    App,
    Membership,
    api_key_path,
    app_path,
    connection_path,
    member_path,
    number_path,
    plan_path,
)

DOCUMENT_BYTES = 900_000
"""The largest document that is published; Firestore takes 1 MiB with everything that it adds."""

SAME_IN_PLAN = ("instructions", "models", "rules", "budget", "texts", "queueing")
"""Fields that a draft, a version and a plan all have, with the same meaning."""


def publish_agent(db: Session, agent: tables.Agent) -> None:
    """Write the agent's plan to the outbox, then every connection that leads to it."""
    _publish_plan(db, agent)
    leading_here = select(tables.Connection).where(
        tables.Connection.tenant_id == agent.tenant_id, tables.Connection.agent_id == agent.id
    )
    for row in db.scalars(leading_here.order_by(tables.Connection.id)):
        _publish_leading(db, row)


def publish_connection(db: Session, row: tables.Connection) -> None:
    """Write the connection to the outbox, before it the plan that it names, after it the way to it from its number."""
    # The plan of an agent that nobody touched has another hash as soon as a release adds a field to it.
    _publish_plan(db, db.get_one(tables.Agent, (row.tenant_id, row.agent_id)))
    _publish_leading(db, row)


def _publish_plan(db: Session, agent: tables.Agent) -> None:
    plan = _plan(db, agent)
    path = plan_path(agent.tenant_id, codec.fingerprint(plan))
    waiting = select(tables.PublishOutbox.id).where(tables.PublishOutbox.path == path)
    if db.scalar(waiting.limit(1)) is None:  # a second row would take the first one's place, behind what names it
        _enqueue(db, agent.tenant_id, path, codec.encode(plan))


def _publish_leading(db: Session, row: tables.Connection) -> None:
    _enqueue(db, row.tenant_id, connection_path(row.id), _connection(db, row))
    if row.app_id and row.number:
        _enqueue(db, row.tenant_id, number_path(row.app_id, row.number), codec.encode(row.id))


def withdraw_number(db: Session, row: tables.Connection) -> None:
    """Write to the outbox that the connection's number, if it has one, leads nowhere."""
    if row.app_id and row.number:
        _enqueue(db, row.tenant_id, number_path(row.app_id, row.number), None)


def publish_app(db: Session, row: tables.App) -> None:
    _enqueue(db, row.tenant_id, app_path(row.id), _app(db, row))


def publish_api_key(db: Session, row: tables.ApiKey) -> None:
    _enqueue(db, row.tenant_id, api_key_path(row.id), _api_key(row))


def publish_user(db: Session, row: tables.User) -> None:
    _enqueue(db, row.tenant_id, member_path(row.tenant_id, row.uid), _membership(row))


def withdraw_user(db: Session, row: tables.User) -> None:
    """Write to the outbox that the tenant has no such user."""
    _enqueue(db, row.tenant_id, member_path(row.tenant_id, row.uid), None)


def publish_all(db: Session, tenant: str) -> None:
    """Write all that the tenant has to the outbox."""
    for agent in db.scalars(select(tables.Agent).where(tables.Agent.tenant_id == tenant).order_by(tables.Agent.id)):
        publish_agent(db, agent)
    for app in db.scalars(select(tables.App).where(tables.App.tenant_id == tenant).order_by(tables.App.id)):
        publish_app(db, app)
    for key in db.scalars(select(tables.ApiKey).where(tables.ApiKey.tenant_id == tenant).order_by(tables.ApiKey.id)):
        publish_api_key(db, key)
    for user in db.scalars(select(tables.User).where(tables.User.tenant_id == tenant).order_by(tables.User.uid)):
        publish_user(db, user)


def publish_again(db: Session, tenant: str, path: str, written: bytes | None) -> None:
    """If the document at `path` should no longer be what was `written`, write what it should be to the outbox.

    A plan never changes: its path is the hash of its content.
    """
    collection, _, name = path.partition("/")
    truth = written
    if collection == "connections":
        connection = db.get(tables.Connection, name)
        truth = _connection(db, connection) if connection else None
        if connection and truth != written:
            _publish_plan(db, db.get_one(tables.Agent, (connection.tenant_id, connection.agent_id)))
    elif collection == "apps":
        truth = _under_apps(db, name)
    elif collection == "api_keys":
        key = db.get(tables.ApiKey, name)
        truth = _api_key(key) if key else None
    elif path.startswith(members := member_path(tenant, "")):
        user = db.get(tables.User, (tenant, path.removeprefix(members)))
        truth = _membership(user) if user else None
    if truth != written:
        _enqueue(db, tenant, path, truth)


def _under_apps(db: Session, name: str) -> bytes | None:
    """What `apps/<name>` should be: an app's document, or a number's."""
    app, _, number = name.partition("/numbers/")
    if not number:
        row = db.get(tables.App, app)
        return _app(db, row) if row else None
    where = (tables.Connection.app_id == app, tables.Connection.number == number)
    connection = db.scalar(select(tables.Connection.id).where(*where))
    return codec.encode(connection) if connection else None


def version_of(db: Session, agent: tables.Agent) -> tables.AgentVersion:
    return db.get_one(tables.AgentVersion, (agent.tenant_id, agent.id, agent.version))


def draft_of(db: Session, agent: tables.Agent) -> AgentDraft:
    """The draft that would make the agent's current version."""
    version = version_of(db, agent)
    same = {name: getattr(version, name) for name in SAME_IN_PLAN}
    return AgentDraft(id=agent.id, name=agent.name, tools=version.tools, **same)


def tools_of(db: Session, tenant: str, names: tuple[str, ...]) -> tuple[ToolSpec, ...]:
    """The tenant's tools of these names, in this order. Raises `BadRequest` naming those that it does not have."""
    rows = db.scalars(select(tables.Tool).where(tables.Tool.tenant_id == tenant, tables.Tool.name.in_(names)))
    found = {row.name: spec_of(row) for row in rows}
    if missing := ", ".join(name for name in names if name not in found):
        raise BadRequest(f"tools: this tenant has no {missing[:200]}: put it first, or leave it out")
    return tuple(found[name] for name in names)


def spec_of(row: tables.Tool) -> ToolSpec:
    return ToolSpec(
        name=row.name,
        description=row.description,
        parameters=row.parameters,
        effect=row.effect,
        implementation=row.implementation,
        timeout_seconds=row.timeout_seconds,
    )


def _plan(db: Session, agent: tables.Agent) -> ExecutionPlan:
    version = version_of(db, agent)
    return ExecutionPlan(
        tenant=agent.tenant_id,
        agent=agent.id,
        agent_version=agent.version,
        tools=tools_of(db, agent.tenant_id, version.tools),
        **{name: getattr(version, name) for name in SAME_IN_PLAN},
    )


def _connection(db: Session, row: tables.Connection) -> bytes:
    agent = db.get_one(tables.Agent, (row.tenant_id, row.agent_id))
    return codec.encode(
        Connection(
            id=row.id,
            tenant=row.tenant_id,
            channel=row.channel,
            agent=row.agent_id,
            plan=codec.fingerprint(_plan(db, agent)),
            enabled=row.enabled,
            secrets=_secrets(db, row.tenant_id, row.id),
            api_root=row.api_root,
            app=row.app_id or "",
            number=row.number or "",
        )
    )


def _app(db: Session, row: tables.App) -> bytes:
    return codec.encode(App(id=row.id, tenant=row.tenant_id, secrets=_secrets(db, row.tenant_id, row.id)))


def _secrets(db: Session, tenant: str, owner: str) -> dict[str, str]:
    """Name to ciphertext of the secrets named `<owner>/<name>`."""
    prefix = f"{owner}/"
    secrets = db.scalars(
        select(tables.Secret)
        .where(tables.Secret.tenant_id == tenant, tables.Secret.name.startswith(prefix, autoescape=True))
        .order_by(tables.Secret.name)
    )
    return {secret.name.removeprefix(prefix): secret.ciphertext for secret in secrets}


def _api_key(row: tables.ApiKey) -> bytes:
    return codec.encode(
        ApiKey(id=row.id, tenant=row.tenant_id, secret_sha256=row.secret_sha256, role=row.role, enabled=row.enabled)
    )


def _membership(row: tables.User) -> bytes:
    return codec.encode(Membership(role=row.role))


def _enqueue(db: Session, tenant: str, path: str, body: bytes | None) -> None:
    if body is not None and len(body) > DOCUMENT_BYTES:
        raise TooLarge(
            f"{path} would have {len(body)} bytes, {DOCUMENT_BYTES} is the limit: shorten the instructions or the tools"
        )
    db.add(tables.PublishOutbox(tenant_id=tenant, path=path, body=body))
    db.flush()  # one by one, so that their ids stand in this order
