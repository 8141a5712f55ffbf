"""The chat page in a real browser, and what it needs to be served and to sign in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.conftest import left_out
from tests.e2e.processes import ROOT
from tests.engines import Engine, Missing, free_port

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

WEB = ROOT / "web"
PHONE, DESKTOP = (360, 740), (1280, 800)
_OFFLINE = ("ERR_INTERNET_DISCONNECTED", "transport errored")
"""What the browser and Firestore's SDK say of a network that is gone."""
_SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class AuthEmulator(Engine):
    """Firebase Auth for one project: whoever asks gets an account, and its ID tokens are unsigned."""

    name = "Firebase Auth emulator"

    def __init__(self, project: str) -> None:
        super().__init__()
        self.project = project

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        firebase = shutil.which("firebase")
        if firebase is None:
            raise Missing("firebase, of the npm package firebase-tools")
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="engine-"))
        listening = {name: {"host": "127.0.0.1", "port": free_port()} for name in ("hub", "logging")}
        auth = {"host": "127.0.0.1", "port": self.port}
        emulators = {"auth": auth, **listening, "ui": {"enabled": False}, "singleProjectMode": True}
        (self._folder / "firebase.json").write_text(json.dumps({"emulators": emulators}))
        self._launch(firebase, "emulators:start", "--only", "auth", "--project", self.project)
        return self

    def _ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://{self.host}/", timeout=2) as answer:
            return bool(answer.status == 200)
        return False


class Hosting:
    """The built page as Firebase Hosting serves it: files, and the one route that the page asks of its own origin."""

    def __init__(self) -> None:
        self.api = ""
        """Where the control plane is."""
        files = Mount("/", StaticFiles(directory=built(), html=True))
        self.app = Starlette(routes=[Route("/v1/client-config", self._client_config), files])

    async def _client_config(self, _: Request) -> Response:
        async with httpx.AsyncClient(base_url=self.api) as http:
            answer = await http.get("/v1/client-config")
        return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])


def built() -> Path:
    """The folder of the page as it is now, built from its sources where that is possible."""
    npm, page = shutil.which("npm"), WEB / "dist"
    if npm and (WEB / "node_modules").exists():
        subprocess.run((npm, "run", "--silent", "build"), cwd=WEB, check=True, capture_output=True, timeout=120)
    if not (page / "index.html").exists():
        left_out("built page", "web/dist, or Node and web/node_modules to build it")
    return page


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window, until the end of the block."""
    from playwright.async_api import async_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        left_out("browser", "chromium or google-chrome")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_SWITCHES)
        yield browser
        await browser.close()


class Chat:
    """The page, as a contact sees and uses it."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.context = context
        self.page = page
        self.errors: list[str] = []
        """What the page complained of, except that the network was gone while the test had taken it away."""
        self._offline = False
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    @classmethod
    async def open(cls, browser: Browser, url: str, *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> Chat:
        """A visit by somebody who was never here before."""
        context = await browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
        )
        chat = cls(context, await context.new_page())
        await chat.page.goto(url)
        return chat

    async def write(self, text: str) -> None:
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")

    async def lose_network(self) -> None:
        self._offline = True
        await self.context.set_offline(offline=True)

    async def regain_network(self) -> None:
        await self.context.set_offline(offline=False)

    async def sees(self, *texts: str | re.Pattern[str]) -> None:
        """Returns once these are the messages in the page, in this order, and nothing more is on its way."""
        from playwright.async_api import expect

        await expect(self.page.locator(".message > .text")).to_have_text(texts, timeout=20_000)
        await expect(self.page.locator(".growing, .sending, .unsent")).to_have_count(0, timeout=20_000)

    def _console(self, message: ConsoleMessage) -> None:
        ours = self._offline and any(sign in message.text for sign in _OFFLINE)
        if message.type in ("error", "warning") and not ours:
            self.errors.append(f"{message.type}: {message.text}")
