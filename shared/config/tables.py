"""The tables of the configuration, on SQLite and Postgres alike.

Every key carries the tenant, so the database itself refuses a row that points at another tenant's. Three ids stand
alone, because a webhook and a caller bring nothing else: a connection's, an app's and an API key's. A change here needs
a revision in `migrations/versions`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, TypeVar

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    func,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared import codec
from shared.domain import Budget, ChannelName, Effect, JsonObject, Queueing, Rule, Texts

KeyRole = Literal["invoker", "operator"]
UserRole = Literal["operator"]

Value = TypeVar("Value")


class Encoded(TypeDecorator[Value], Generic[Value]):
    """A value of the domain as the JSON text of `shared.codec`: what an older release wrote can still be read."""

    impl = Text
    cache_ok = True

    def __init__(self, shape: type[Value]) -> None:
        super().__init__()
        self.shape = shape

    def process_bind_param(self, value: Value | None, dialect: Dialect) -> str | None:
        return None if value is None else codec.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Value | None:
        return None if value is None else codec.decode(self.shape, value)


class Base(DeclarativeBase):
    # Named constraints can be changed by a later migration on every database.
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        ChannelName: String,
        Effect: String,
        KeyRole: String,
        UserRole: String,
        JsonObject: Encoded(dict[str, Any]),
        tuple[str, ...]: Encoded(tuple[str, ...]),
        tuple[Rule, ...]: Encoded(tuple[Rule, ...]),
        Budget: Encoded(Budget),
        Texts: Encoded(Texts),
        Queueing: Encoded(Queueing),
    }


class Tenant(Base):
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Agent(Base):
    __tablename__ = "agents"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int]
    """The current one. No foreign key: versions point at their agent, and a circle cannot be made on SQLite."""


class AgentVersion(Base):
    """Written once and never changed."""

    __tablename__ = "agent_versions"
    __table_args__ = (ForeignKeyConstraint(["tenant_id", "agent_id"], ["agents.tenant_id", "agents.id"]),)

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    instructions: Mapped[str] = mapped_column(Text)
    models: Mapped[tuple[str, ...]]
    tools: Mapped[tuple[str, ...]]
    """Names: the plan holds the tools as they are when it is published."""
    rules: Mapped[tuple[Rule, ...]]
    budget: Mapped[Budget]
    texts: Mapped[Texts]
    queueing: Mapped[Queueing]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Tool(Base):
    __tablename__ = "tools"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(Text)
    parameters: Mapped[JsonObject]
    effect: Mapped[Effect]
    implementation: Mapped[str]
    timeout_seconds: Mapped[float]


class App(Base):
    """A Meta app; its secrets are named `<app>/app_secret` and `<app>/verify_token`."""

    __tablename__ = "apps"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    shared: Mapped[bool]
    """Whether other tenants may connect their numbers to it."""


class Connection(Base):
    __tablename__ = "connections"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "agent_id"], ["agents.tenant_id", "agents.id"]),
        Index(None, "tenant_id", "agent_id"),
        Index(None, "app_id", "number", unique=True),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    channel: Mapped[ChannelName]
    agent_id: Mapped[str]
    enabled: Mapped[bool]
    api_root: Mapped[str]
    settings: Mapped[JsonObject]
    """What only this channel knows; kept for the console, not published."""
    app_id: Mapped[str | None]
    """No foreign key: SQLite cannot add one to a table that is there, and apps are never removed."""
    number: Mapped[str | None]


class Secret(Base):
    __tablename__ = "secrets"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    ciphertext: Mapped[str] = mapped_column(Text)


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    secret_sha256: Mapped[str]
    role: Mapped[KeyRole]
    enabled: Mapped[bool]


class User(Base):
    __tablename__ = "users"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    uid: Mapped[str] = mapped_column(primary_key=True)
    """Firebase's, of the project that the console signs in with."""
    role: Mapped[UserRole]


class PublishOutbox(Base):
    """Documents that are still to be published, written in the transaction that changed what they show."""

    __tablename__ = "publish_outbox"
    # Without AUTOINCREMENT SQLite gives the id of a deleted row again, and a slow publisher would delete the new one.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    tenant_id: Mapped[str]
    path: Mapped[str]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """None: the document is to be deleted."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
