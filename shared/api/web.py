"""What the web client asks before it speaks: how it is set up, and which session is its user's."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Body

from shared.api.principals import Caller
from shared.channels.web import web_session
from shared.domain import JsonObject
from shared.sessions.projection import contact_view
from shared.wiring import parts

router = APIRouter(tags=["web client"])
FUNCTIONS = ("ingest", "run_agent", "callbacks", "api")


@router.get("/v1/client-config")
async def client_config() -> JsonObject:
    """Where the functions are, which connection to talk to, and whether Firebase brings the live updates.

    Public: it holds nothing that the page does not show.
    """
    settings = parts().settings
    connection = await parts().published.connection(settings.web_connection)
    addresses = json.loads(settings.addresses or "{}")
    return {
        "tenant": connection.tenant,
        "connection": connection.id,
        "live": "firestore" if settings.firebase else "events",
        "addresses": {name: addresses.get(name, "") for name in FUNCTIONS},
        "firebase": json.loads(settings.firebase) if settings.firebase else None,
    }


@router.post("/v1/sessions")
async def open_session(
    caller: Caller,
    connection: Annotated[str, Body(min_length=1, max_length=100)],
    thread: Annotated[str, Body(pattern="^[A-Za-z0-9_-]{1,64}$")] = "main",
) -> JsonObject:
    """The session of this user's thread and the path of its view. Writes nothing: a message makes the session."""
    found = await parts().published.connection(connection)
    key = web_session(found, caller, thread)
    return {"session": key.session, "view": contact_view(key.tenant, caller.id, key.session)}
