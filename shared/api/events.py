"""The events of a session, as server-sent events, for operators and for the web contact whose session it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from shared.api.follow import Text, live
from shared.api.principals import Caller
from shared.api.sessions import SessionId, load_session
from shared.channels.web import web_session
from shared.domain import Contact, Entry, JsonObject, SessionKey
from shared.errors import Forbidden, NotFound, Retryable
from shared.sessions.accept import pending
from shared.sessions.document import Session
from shared.sessions.events import Event
from shared.sessions.projection import Audience, console_view, contact_view
from shared.sessions.transitions import WATCHED_FOR
from shared.wiring import parts

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who reads which session, and as what."""

    key: SessionKey
    audience: Audience
    view: str
    """Path of the view that has its partial text."""


async def _reader(
    caller: Caller,
    session: SessionId,
    connection: Annotated[str, Query(description="the web connection, for a signed-in contact")] = "",
    thread: Annotated[str, Query(description="the contact's thread, as in POST /v1/sessions")] = "main",
) -> Reader:
    """A dependency, because a stream has its status before its generator begins.

    A contact may wait for the first event of a thread that has no message yet: that it is theirs, its id says.
    """
    if caller.role == "invoker":
        raise Forbidden(f"API key {caller.id}: reading events needs the role operator")
    web = await parts().published.connection(connection) if connection or not caller.tenant else None
    tenant = caller.tenant or (web.tenant if web is not None else "")
    key = SessionKey(tenant, session)
    if web is not None and web_session(web, caller, thread) == key:
        return Reader(key=key, audience="contact", view=contact_view(tenant, caller.id, session))
    await load_session(key)
    if caller.role != "operator":
        raise NotFound(f"session: there is none with id {session}")
    return Reader(key=key, audience="operator", view=console_view(key))


@router.get("/{session}/events", response_class=EventSourceResponse)
async def stream_events(
    reader: Annotated[Reader, Depends(_reader)], last_event_id: Annotated[int, Header(ge=0)] = 0
) -> AsyncIterator[ServerSentEvent]:
    """What happened after `Last-Event-ID`, then each event as it happens, and the text of an answer while it grows.

    `message`, `step`, `wait` and `text` have a number and are replayed; `text.reset` and `text.delta` are not. The
    stream ends before the service would cut it, or when a part fails: come again with the number that you saw last.
    """
    here = parts()
    running = _watching(reader.key) if reader.audience == "operator" else None
    try:
        async with asyncio.timeout(here.settings.stream_seconds):
            async with aclosing(live(here.store, reader.key, last_event_id, reader.view, running)) as followed:
                async for item in followed:
                    yield sent(item, reader.audience)
    except TimeoutError:
        return
    except Retryable as error:
        logger.warning("events cut", extra={"fields": {"reason": str(error)}})


def sent(item: Event | Text, audience: Audience) -> ServerSentEvent:
    """The item as its reader gets it."""
    if isinstance(item, Text):
        data: JsonObject = {"run": item.run, "step": item.step, "attempt": item.attempt, "text": item.text}
        if item.reset:
            return ServerSentEvent(event="text.reset", data=data)
        return ServerSentEvent(event="text.delta", data={**data, "offset": item.offset})
    return ServerSentEvent(id=str(item.sequence), event=item.kind, data={"run": item.run, **item.seen_by(audience)})


def _watching(key: SessionKey) -> Callable[[Session], Awaitable[None]]:
    """Keeps the console's view alive while a run is active: an idle session costs nothing to watch."""
    here = parts()
    again = here.clock.now()

    async def running(session: Session) -> None:
        nonlocal again
        now = here.clock.now()
        if now < again:  # saying so changes the session as well, and would be heard here
            return
        again = now + WATCHED_FOR / 2
        entry = Entry(
            id="watch",
            kind="watch",
            connection=session.connection,
            conversation=session.conversation,
            order=0,
            received_at=now,
            contact=Contact(id="console"),
        )
        await here.store.append(key, {entry.id: pending(entry)}, None)

    return running
