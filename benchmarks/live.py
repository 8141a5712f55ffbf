"""From a write to the store until somebody who follows the session knows: in a browser by Firestore's listener, and by
server-sent events; each against a bare listener that is told of a bare write in the same run."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx

from benchmarks.figures import Figure, compared
from benchmarks.processes import ROOT
from benchmarks.project import Project
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
PAUSE_SECONDS = 0.1
"""Between writes, so that each is seen by itself."""
USER = "bench-user"
KEY = replace(House.key, tenant=TENANT)
VIEW = contact_view(TENANT, USER, KEY.session)
BARE = "bench/bare"
BODY = b"x" * 2_000
"""About as long as a view."""
LIBRARY = WEB / "node_modules/firebase"
RULES = ROOT / "firestore.rules"
GSTATIC = "https://www.gstatic.com/firebasejs"
"""From where, with their version, the library's modules import each other; the page gets what web/ has installed."""
_PAGE = """<script type="module">
import {initializeApp} from "GSTATIC/firebase-app.js";
import {connectFirestoreEmulator, doc, getFirestore, onSnapshot} from "GSTATIC/firebase-firestore.js";
const {project, host, port, user, view, bare} = SETTINGS;
const store = getFirestore(initializeApp({projectId: project, apiKey: "none"}));
connectFirestoreEmulator(store, host, port, {mockUserToken: {sub: user}});
const now = () => (performance.timeOrigin + performance.now()) / 1000;
const follow = (path, name, number) =>
  onSnapshot(doc(store, path), {includeMetadataChanges: true}, (found) => {
    if (!found.metadata.fromCache) seen(name, found.exists() ? number(found) : 0, now());
  });
follow(view, "view", (found) => JSON.parse(new TextDecoder().decode(found.get("body").toUint8Array())).sequence);
follow(bare, "bare", (found) => found.get("number"));
</script>"""


class Noticed:
    """When something was written and when it was first seen, in seconds of the wall clock."""

    def __init__(self) -> None:
        self.written: dict[int, float] = {}
        self.at: dict[tuple[str, int], float] = {}

    def write(self, number: int) -> None:
        """That number is on its way."""
        self.written.setdefault(number, time.time())

    def see(self, who: str, number: int, at: float | None = None) -> None:
        """Somebody knows of it."""
        self.at.setdefault((who, number), at or time.time())

    def waits(self, who: str) -> list[float]:
        """Milliseconds from each write to its being seen, of those that `who` saw."""
        return [
            (self.at[who, number] - begun) * 1e3 for number, begun in self.written.items() if (who, number) in self.at
        ]


class TimedStore(FirestoreStore):
    """Notes when each number of events is written."""

    def __init__(self, project: str, seen: Noticed) -> None:
        super().__init__(project)
        self._seen = seen

    async def commit(self, key: SessionKey, version: object, *, state: bytes, **more: Any) -> object:
        self._seen.write(read_state(state).sequence)
        return await super().commit(key, version, state=state, **more)


class Pausing(Model):
    """Looks an order up and answers. Before each answer there is one bare write, and quiet before and after it."""

    def __init__(self, write_bare: Callable[[], Awaitable[None]]) -> None:
        super().__init__(looks_up)
        self._write_bare = write_bare

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        await asyncio.sleep(PAUSE_SECONDS)
        await self._write_bare()
        await asyncio.sleep(PAUSE_SECONDS)
        return self.script(request)


async def figures(project: Project) -> list[Figure]:
    """Both ways to follow, of the same writes."""
    ours, bare = Noticed(), Noticed()
    await _readable(project)
    async with AsyncExitStack() as stack:
        url, _ = stack.enter_context(project.running("api"))
        await stack.enter_async_context(_listening(project, bare))
        browser = await stack.enter_async_context(chromium())
        await _open(browser, project, ours, bare)
        await _write(project, url, ours, bare)
    browsed, told = ("live update, browser", "live update, server-sent event")
    return [
        _figure(browsed, ours.waits("view"), bare.waits("browser"), "a bare listener in the browser"),
        _figure(told, ours.waits("event"), bare.waits("client"), "a bare listener in Python"),
    ]


def _figure(name: str, ours: list[float], bare: list[float], against: str) -> Figure:
    assert min(len(ours), len(bare)) >= TURNS, f"{name}: {len(ours)} and {len(bare)} writes were seen"
    return compared(name, "ms", median(ours), median(bare), against, 1.3)


async def _readable(project: Project) -> None:
    """The project's own rules, and the bare document may be read."""
    *lines, database, service = RULES.read_text().rstrip().splitlines()
    opened = "    match /bench/{any} { allow read: if true; }"
    content = "\n".join([*lines, opened, database, service])
    async with httpx.AsyncClient() as http:
        address = f"http://{project.firestore}/emulator/v1/projects/{project.name}:securityRules"
        rules = {"rules": {"files": [{"name": "firestore.rules", "content": content}]}}
        (await http.put(address, json=rules)).raise_for_status()


@asynccontextmanager
async def _listening(project: Project, bare: Noticed) -> AsyncIterator[None]:
    """Google's listener in Python, in a process of its own as ours is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, ROOT / "benchmarks/hello/listener.py", project.name, BARE, stdout=asyncio.subprocess.PIPE
    )

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            number, at = json.loads(line)
            bare.see("client", number, at)

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        await reading


async def _open(browser: Browser, project: Project, ours: Noticed, bare: Noticed) -> None:
    """The browser listens to the contact's view as the chat page does, and to the bare document."""
    missing, listens = {"view", "bare"}, asyncio.Event()
    page = await browser.new_page()

    def seen(name: str, number: int, at: float) -> None:
        missing.discard(name)
        if not missing:
            listens.set()
        (ours if name == "view" else bare).see("view" if name == "view" else "browser", number, at)

    async def library(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        await route.fulfill(path=LIBRARY / name, content_type="text/javascript")

    version = json.loads((LIBRARY / "package.json").read_text())["version"]
    host, _, port = project.firestore.partition(":")
    settings = {"project": project.name, "host": host, "port": int(port), "user": USER, "view": VIEW, "bare": BARE}
    content = _PAGE.replace("SETTINGS", json.dumps(settings)).replace("GSTATIC", f"{GSTATIC}/{version}")
    await page.expose_function("seen", seen)
    await page.route(f"{GSTATIC}/**", library)

    async def handle(_: Request) -> Reply:
        return Reply(200, content.encode(), "text/html")

    async with serving(handle) as address, asyncio.timeout(30):
        await page.goto(address)
        await listens.wait()


async def _write(project: Project, url: str, ours: Noticed, bare: Noticed) -> None:
    """Turns of a session that its contact watches, with bare writes between the turns' own."""
    from google.cloud.firestore import AsyncClient

    store, numbers = TimedStore(project.name, ours), count(1)
    client = AsyncClient(project=project.name)
    document = client.document(BARE)

    async def write_bare() -> None:
        number = next(numbers)
        bare.write(number)
        await document.set({"number": number, "body": BODY})

    tools = (tool("lookup_order", "keyed"),)
    house = House(store, project.folder / "blobs-live", replace(PLAN, tools=tools), Pausing(write_bare))
    house.key = KEY
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as http:
        reading = None
        for number in range(1, TURNS + WARM_UP + 1):
            await house.say(number, "Where is my order?", viewer=USER)
            await house.drive()
            if reading is None:
                reading = asyncio.create_task(_read(http, project, url, ours))
                await asyncio.sleep(1)
            if number == WARM_UP:
                ours.written.clear()
                bare.written.clear()
        await asyncio.sleep(1)
        assert reading is not None
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    client.close()  # type: ignore[no-untyped-call]
    await store.aclose()


async def _read(http: aiohttp.ClientSession, project: Project, url: str, ours: Noticed) -> None:
    """An operator's stream of the session's events."""
    headers = {"Authorization": f"Bearer {project.api_key}"}
    async with http.get(f"{url}/v1/sessions/{KEY.session}/events", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if line.startswith(b"id:"):
                ours.see("event", int(line[3:]))
