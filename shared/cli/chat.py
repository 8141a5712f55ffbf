"""`recado chat`: one message to the demo agent, its steps as they happen, its answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from shared.cli.client import Client, ServerError, checked, show
from shared.cli.dev import HOST, listen
from shared.cli.door import Door
from shared.cli.embedded import AGENT, TENANT, Dispatcher, prepare, read_key
from shared.domain import api_connection, session_key
from shared.observability import configure
from shared.settings import Settings
from shared.wiring import parts


async def chat(settings: Settings, text: str, *, session: str, as_json: bool, url: str) -> int:
    """Say it, print what happens, ask on a terminal when the run waits for an approval; 0 when the agent answered."""
    async with _client(settings, url) as client:
        key = session_key(TENANT, api_connection(TENANT, AGENT), session)
        seen = await client.sequence(key.session)
        body = {"input": text, "session": session}
        asked = asyncio.create_task(client.request("POST", f"/v1/agents/{AGENT}/invoke", json=body))
        shown = asyncio.create_task(show(client, key.session, seen, as_json=as_json))
        try:
            await asyncio.wait({asked, shown}, return_when=asyncio.FIRST_COMPLETED)
            answer = checked(await asked)
            if answer["status"] == "running":
                return 1
            last = await client.sequence(key.session)
            seen = await shown if last > seen else last - 1  # nothing new: an earlier run waits, to be shown again
            while seen < last:
                seen = await show(client, key.session, seen, as_json=as_json)
        finally:
            shown.cancel()
        if answer["status"] == "waiting":
            await _decide(client, key.session, url or f"http://{HOST}:{settings.port}")
            await show(client, key.session, seen, as_json=as_json)
        return 0


async def _decide(client: Client, session: str, url: str) -> None:
    """Let whoever sits at the terminal decide. Raises `ServerError`, which says how to at `url`, when nobody does."""
    found = await client.get(f"/v1/sessions/{session}")
    if found is None or found["wait"] is None:
        return  # somebody else was faster
    wait = found["wait"]
    start = "" if url == client.url else "start `recado dev`, then: "
    if wait["kind"] in ("timer", "operator"):
        raise ServerError(f"the run waits until {wait['until']}, {wait['kind']}; see {url}/v1/sessions/{session}")
    if wait["kind"] == "callback":
        bring = f"""{start}curl -d '{{"result": {{}}}}' {url}{wait["callback"]}"""
        raise ServerError(f"the run waits for a callback until {wait['until']}; to bring it: {bring}")
    if not sys.stdin.isatty():
        decide = f"""{start}curl -d '{{"approved": true}}' {url}{wait["callback"]}"""
        raise ServerError(f"the run waits for an approval until {wait['until']}; to approve: {decide}")
    answer = await asyncio.to_thread(input, "  Approve? [y/N] ")
    approved = answer.strip().lower() in ("y", "yes")
    checked(await client.request("POST", wait["callback"], json={"approved": approved}))


@asynccontextmanager
async def _client(settings: Settings, url: str) -> AsyncIterator[Client]:
    """A client of the server at `url`, or of one that lives as long as the block does."""
    if url:
        client = Client(url, read_key(settings))
        try:
            yield client
        finally:
            await client.aclose()
        return
    configure(settings)
    here = parts()
    with listen(0) as listener:
        api_key = await prepare(here, f"http://{HOST}:{settings.port}")
        config = uvicorn.Config(
            Door(Dispatcher(), here, api_key),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        client = Client(f"http://{HOST}:{listener.getsockname()[1]}", api_key)
        try:
            yield client
        finally:
            await client.aclose()
            server.should_exit = True
            await serving
            await here.aclose()
