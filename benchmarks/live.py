"""From a write to the store until somebody who follows the session knows: in a browser by Firestore's listener, and by
server-sent events; each against a bare listener that is told of the same write."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.figures import Figure, compared
from benchmarks.processes import ROOT
from benchmarks.project import Project
from shared.clock import SystemClock
from shared.config.demo import TENANT
from shared.domain import ModelReply, ModelRequest, SessionKey
from shared.llm import OnText
from shared.sessions.document import read_state
from shared.sessions.projection import contact_view
from shared.store.firestore import FirestoreStore
from tests.chaos.http import Reply, Request, serving
from tests.e2e.browser import WEB, chromium
from tests.house import House, Model, looks_up
from tests.stage import PLAN, tool

if TYPE_CHECKING:
    from playwright.async_api import Browser, Route

TURNS = 30
WARM_UP = 5
PAUSE_SECONDS = 0.15
"""Before each of the model's answers, so that each write is seen by itself."""
STARTED_SECONDS = 2.0
"""After which whoever follows is there."""
USER = "bench-user"
KEY = replace(House.key, tenant=TENANT)
VIEW = contact_view(TENANT, USER, KEY.session)
HELLO = ROOT / "benchmarks/hello"
LIBRARY = WEB / "node_modules/firebase"
GSTATIC = "https://www.gstatic.com/firebasejs"
"""From where, with their version, the library's modules import each other; the page gets what web/ has installed."""
_PAGE = """<script type="module">
import {initializeApp} from "GSTATIC/firebase-app.js";
import {connectFirestoreEmulator, doc, getFirestore, onSnapshot} from "GSTATIC/firebase-firestore.js";
const {project, host, port, user, view} = SETTINGS;
const now = () => (performance.timeOrigin + performance.now()) / 1000;
const number = (found) =>
  found.exists() ? JSON.parse(new TextDecoder().decode(found.get("body").toUint8Array())).sequence : 0;
const opened = (name) => {
  const store = getFirestore(initializeApp({projectId: project, apiKey: "none"}, name));
  connectFirestoreEmulator(store, host, port, {mockUserToken: {sub: user}});
  return doc(store, view);
};
onSnapshot(opened("bare"), (found) => {
  const at = now();
  seen("bare", number(found), at);
});
onSnapshot(opened("page"), {includeMetadataChanges: true}, (found) => {
  if (!found.metadata.fromCache) seen("page", number(found), now());
});
</script>"""


class Noticed:
    """When each number of events was written and when somebody first knew, in seconds of the wall clock."""

    def __init__(self) -> None:
        self.written: dict[int, float] = {}
        self.at: dict[tuple[str, int], float] = {}

    def see(self, who: str, number: int, at: float) -> None:
        """Somebody knows of it."""
        self.at.setdefault((who, number), at)

    def waits(self, who: str) -> list[float]:
        """Milliseconds from each write to its being seen, of those that `who` saw."""
        found = {number: self.at.get((who, number)) for number in self.written}
        return [(at - self.written[number]) * 1e3 for number, at in found.items() if at is not None]


class TimedStore(FirestoreStore):
    """Notes when each number of events is written to the session, and when to its contact's view."""

    def __init__(self, project: str, events: Noticed, views: Noticed) -> None:
        super().__init__(project)
        self._events = events
        self._views = views

    async def commit(self, key: SessionKey, version: object, *, state: bytes, **more: Any) -> object:
        number = read_state(state).sequence
        self._events.written.setdefault(number, time.time())
        if VIEW in more["documents"]:
            self._views.written.setdefault(number, time.time())
        return await super().commit(key, version, state=state, **more)


class Pausing(Model):
    """Looks an order up and answers, each after a pause."""

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        await asyncio.sleep(PAUSE_SECONDS)
        return self.script(request)


async def figures(project: Project) -> list[Figure]:
    """Both ways to follow, of the same turns."""
    events, views = Noticed(), Noticed()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # no processor time is measured here, and many follow
    try:
        async with AsyncExitStack() as stack:
            url, _ = stack.enter_context(project.running("api"))
            browser = await stack.enter_async_context(chromium())
            await _open(browser, project, views)
            await _write(project, url, events, views)
    finally:
        os.sched_setaffinity(0, cores)
    return [
        _figure("live update, browser", views.waits("page"), views.waits("bare"), "a bare listener in the browser"),
        _figure(
            "live update, server-sent event", events.waits("client"), events.waits("bare"), "a bare listener in Python"
        ),
    ]


def _figure(name: str, ours: list[float], bare: list[float], against: str) -> Figure:
    assert min(len(ours), len(bare)) >= TURNS, f"{name}: {len(ours)} and {len(bare)} writes were seen"
    return compared(name, "ms", median(ours), median(bare), against, 1.3)


async def _open(browser: Browser, project: Project, views: Noticed) -> None:
    """The browser listens to the contact's view as the chat page does, and once more as simply as can be."""
    missing, listens = {"page", "bare"}, asyncio.Event()
    page = await browser.new_page()

    def seen(name: str, number: int, at: float) -> None:
        missing.discard(name)
        if not missing:
            listens.set()
        views.see(name, number, at)

    async def library(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        await route.fulfill(path=LIBRARY / name, content_type="text/javascript")

    version = json.loads((LIBRARY / "package.json").read_text())["version"]
    host, _, port = project.firestore.partition(":")
    settings = {"project": project.name, "host": host, "port": int(port), "user": USER, "view": VIEW}
    content = _PAGE.replace("SETTINGS", json.dumps(settings)).replace("GSTATIC", f"{GSTATIC}/{version}")
    await page.expose_function("seen", seen)
    await page.route(f"{GSTATIC}/**", library)

    async def handle(_: Request) -> Reply:
        return Reply(200, content.encode(), "text/html")

    async with serving(handle) as address, asyncio.timeout(30):
        await _in_force(project)
        await page.goto(address)
        await listens.wait()


async def _in_force(project: Project) -> None:
    """The project's own rules."""
    rules = {"rules": {"files": [{"name": "firestore.rules", "content": (ROOT / "firestore.rules").read_text()}]}}
    async with httpx.AsyncClient() as http:
        address = f"http://{project.firestore}/emulator/v1/projects/{project.name}:securityRules"
        (await http.put(address, json=rules)).raise_for_status()


@asynccontextmanager
async def _following(events: Noticed, who: str, script: Path, *arguments: str) -> AsyncIterator[None]:
    """A process that says which number of events it was told of when."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, *arguments, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            number, at = json.loads(line)
            events.see(who, number, at)

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        await reading


async def _write(project: Project, url: str, events: Noticed, views: Noticed) -> None:
    """Turns of a session that its contact watches, and from the first on an operator and a bare listener."""
    store, tools = TimedStore(project.name, events, views), (tool("lookup_order", "keyed"),)
    plan = replace(PLAN, tools=tools)
    house = House(store, project.folder / "blobs-live", plan, Pausing(looks_up), SystemClock())
    house.key = KEY
    path = f"tenants/{KEY.tenant}/sessions/{KEY.session}"
    async with AsyncExitStack() as stack:
        for number in range(1, TURNS + WARM_UP + 1):
            await house.say(number, "Where is my order?", viewer=USER)
            await house.drive()
            if number == 1:
                stream = f"{url}/v1/sessions/{KEY.session}/events"
                bare = _following(events, "bare", HELLO / "listener.py", project.name, path)
                await stack.enter_async_context(bare)
                await stack.enter_async_context(
                    _following(events, "client", HELLO / "reader.py", stream, project.api_key)
                )
                await asyncio.sleep(STARTED_SECONDS)
            if number == WARM_UP:
                events.written.clear()
                views.written.clear()
        await asyncio.sleep(1)
    await store.aclose()
