"""The embedded stack: a migrated, seeded and published configuration, and all functions under one dispatcher."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from functions.api.main import app as api_app
from functions.callbacks.main import app as callbacks_app
from functions.ingest.main import app as ingest_app
from functions.run_agent.main import app as run_agent_app
from shared.cli.simulators.telegram import TelegramSimulator
from shared.cli.simulators.whatsapp import WhatsAppSimulator
from shared.config.database import migrate
from shared.config.demo import AGENT, TENANT, seed, seed_whatsapp
from shared.config.publishing import publish
from shared.errors import Retryable
from shared.settings import Settings, SettingsError
from shared.wiring import Parts

logger = logging.getLogger(__name__)
BOT_TOKEN = "1234567890:recado-simulated-telegram-bot-000000"  # noqa: S105 the simulator's own, opens nothing
WHATSAPP_TOKEN = "EAAsimulated0whatsapp0token"  # noqa: S105 likewise
WHATSAPP_APP_SECRET, WHATSAPP_VERIFY_TOKEN = "simulated-app-secret", "simulated-verify-token"
WHATSAPP_NUMBER = "106540352242922"
SIMULATOR = "/simulators/telegram"
WHATSAPP_SIMULATOR = "/simulators/whatsapp"
TICK_SECONDS = 1.0

__all__ = ["AGENT", "SIMULATOR", "TENANT", "WHATSAPP_SIMULATOR", "Dispatcher", "prepare", "read_key", "ticking"]


async def prepare(here: Parts, url: str) -> str:
    """Bring the configuration up to date, with the demo tenant in it, and return an operator's API key.

    `url` is where this process serves, so that the demo's connections reach their simulators. Safe to repeat.
    """
    settings = here.settings
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    await asyncio.to_thread(migrate, settings.config_url)
    await seed(
        here.repository,
        here.box,
        telegram_token=BOT_TOKEN,
        model=settings.model,
        telegram_api=f"{url}{SIMULATOR}",
    )
    await seed_whatsapp(
        here.repository,
        here.box,
        token=WHATSAPP_TOKEN,
        number=WHATSAPP_NUMBER,
        app_secret=WHATSAPP_APP_SECRET,
        verify_token=WHATSAPP_VERIFY_TOKEN,
        api=f"{url}{WHATSAPP_SIMULATOR}/v25.0",
    )
    path = _key_file(settings)
    if not path.exists():
        _write_private(path, await here.repository.create_api_key(TENANT, "operator"))
    await here.repository.republish(TENANT)  # the embedded store is a file that somebody may have removed
    await publish(here.repository, here.store)
    return path.read_text(encoding="utf-8")


def read_key(settings: Settings) -> str:
    """The operator's API key of the demo tenant. Raises `SettingsError` when `prepare` has not made one."""
    try:
        return _key_file(settings).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(f"RECADO_HOME: {settings.home} has no API key yet; start the server by: make dev") from None


def _key_file(settings: Settings) -> Path:
    return settings.home / "api-key"


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


PAGE = Path(__file__).parents[2] / "web" / "dist"
"""The built web client; not there before `scripts/build-page.sh` has run."""
_PAGE = re.compile(r"/$|/index\.html$|/assets/|/[\w.-]+\.(svg|ico|png|webmanifest)$")
_FUNCTIONS = (
    (re.compile(r"/telegram/|/whatsapp/|/v1/sessions/[^/]+/(messages|verdicts)$"), ingest_app),
    (re.compile(r"/v1/agents/|/wakes$"), run_agent_app),
    (re.compile(r"/v1/callbacks/|/tick$|/deliveries$|/results(/dead)?$"), callbacks_app),
)


class Dispatcher:
    """All four functions and the simulators behind one address."""

    def __init__(self) -> None:
        self.simulator = TelegramSimulator(BOT_TOKEN)
        self._page = StaticFiles(directory=PAGE, html=True, check_dir=False)
        self.whatsapp = WhatsAppSimulator(WHATSAPP_TOKEN, WHATSAPP_NUMBER, WHATSAPP_APP_SECRET)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        for mount, simulator in ((SIMULATOR, self.simulator.app), (WHATSAPP_SIMULATOR, self.whatsapp.app)):
            if path.startswith(f"{mount}/"):
                await simulator({**scope, "path": path.removeprefix(mount), "root_path": ""}, receive, send)
                return
        await self._choose(path)(scope, receive, send)

    def _choose(self, path: str) -> ASGIApp:
        if _PAGE.match(path) and (PAGE / "index.html").exists():  # it may be built while this serves already
            return self._page
        return next((app for pattern, app in _FUNCTIONS if pattern.match(path)), None) or api_app()


@contextlib.asynccontextmanager
async def ticking(here: Parts) -> AsyncIterator[None]:
    """What is due is woken every second while the block runs: what a killed process left goes on."""
    task = asyncio.create_task(_tick(here))
    try:
        yield
    finally:
        task.cancel()


async def _tick(here: Parts) -> None:
    while True:
        try:
            await here.wake_due()
        except Retryable as error:
            logger.warning("the tick comes again", extra={"fields": {"reason": str(error)}})
        await asyncio.sleep(TICK_SECONDS)
