"""The web client: what it posts, as inbox entries. What it is shown is its view; nothing is sent to it.

A user's conversation on a connection is one thread; the session's id follows from the verified user, so nobody can
name another's.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.channels.reading import stops
from shared.domain import Connection, Contact, Entry, JsonObject, Principal, SessionKey, digest, session_key
from shared.errors import BadRequest, NotFound

Body = TypeVar("Body", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    connection: str = Field(min_length=1, max_length=100)
    thread: str = Field(default="main", pattern=r"^[A-Za-z0-9_-]{1,64}$")


class Posted(_Body):
    """A message."""

    id: str = Field(min_length=8, max_length=100)
    """Made by the client, so that the same message posted again is the same message."""
    text: str = Field(min_length=1, max_length=16_384)


class Judged(_Body):
    """A verdict on an approval."""

    wait: str = Field(min_length=1, max_length=100)
    approved: bool


def read_posted(body: JsonObject) -> Posted:
    """The message in a request's body. Raises `BadRequest`, naming the field."""
    return _read(Posted, body)


def read_judged(body: JsonObject) -> Judged:
    """The verdict in a request's body. Raises `BadRequest`, naming the field."""
    return _read(Judged, body)


def web_session(connection: Connection, caller: Principal, thread: str) -> SessionKey:
    """The session of that caller's thread. Raises `NotFound` for a connection not for the web, or of another tenant."""
    if connection.channel != "web" or caller.tenant not in ("", connection.tenant):
        raise NotFound("connection: not one for the web client; use the one that /v1/client-config names")
    return session_key(connection.tenant, connection.id, f"{caller.id}/{thread}")


def message_entry(posted: Posted, connection: Connection, user: str, now: datetime) -> Entry:
    """The inbox entry of a message, or of a stop where the text is `/stop` alone."""
    return Entry(
        id=digest(connection.id, user, posted.id),
        kind="stop" if stops(posted.text) else "message",
        connection=connection.id,
        conversation=f"{user}/{posted.thread}",
        order=int(now.timestamp() * 1_000_000),
        received_at=now,
        contact=Contact(id=user),
        text=posted.text,
        provider_id=posted.id,
        viewer=user,
    )


def verdict_entry(judged: Judged, connection: Connection, user: str, now: datetime) -> Entry:
    """The inbox entry of a verdict; whether this user may decide is for the session to say."""
    return Entry(
        id=digest(connection.id, user, judged.wait, str(judged.approved)),
        kind="verdict",
        connection=connection.id,
        conversation=f"{user}/{judged.thread}",
        order=0,
        received_at=now,
        contact=Contact(id=user),
        token=judged.wait,
        approved=judged.approved,
        viewer=user,
    )


def _read(shape: type[Body], body: JsonObject) -> Body:
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BadRequest(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from None
