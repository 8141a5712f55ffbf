"""The four functions as Cloud Run starts them, on the emulators and Postgres, with a simulated Telegram and model."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from shared.channels.telegram import SECRET_HEADER, secret_for
from shared.cli.client import Client, Seen
from shared.cli.simulators.telegram import TelegramSimulator
from shared.clock import SystemClock
from shared.config.database import migrate
from shared.config.demo import CONNECTION, TENANT, seed
from shared.config.publishing import publish
from shared.config.repository import ConfigRepository
from shared.domain import JsonObject, session_key
from shared.secrets.keyfile import KeyFile
from shared.store.firestore import FirestoreStore
from tests.e2e.processes import ROOT, Process, served
from tests.engines import Postgres, free_port, subscribe
from tests.servers.model_server import ModelServer, running

FUNCTIONS = ("ingest", "run_agent", "callbacks", "api")
BOT_TOKEN = "1234567890:the-token-of-the-bot-of-the-tests-00"
MODEL = "openai/of-the-test"
MODEL_KEY = "sk-the-key-of-the-model"
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Everything that runs, and what a contact and an operator do with it."""

    project: str
    functions: dict[str, Process]
    simulator: TelegramSimulator
    model: ModelServer
    database: Postgres
    database_url: str
    box: KeyFile
    api_key: str

    def session(self, chat: int) -> str:
        """Id of the session of that chat."""
        return session_key(TENANT, CONNECTION, str(chat)).session

    def shown(self, chat: int) -> list[str]:
        """What the bot's messages in that chat say, the oldest first."""
        return [message.text for message in self.simulator.messages(chat)]

    async def write(self, chat: int, text: str) -> None:
        """The contact writes that, and Telegram posts it."""
        await self.post(self.simulator.update_message(chat, text))

    async def tap(self, chat: int, label: str) -> None:
        """The contact taps a button of the bot's last message."""
        message = self.simulator.messages(chat)[-1]
        (data,) = [button["callback_data"] for row in message.buttons for button in row if button["text"] == label]
        await self.post(self.simulator.update_tap(chat, message.message_id, data))

    async def post(self, update: JsonObject) -> None:
        """Telegram posts the update to the webhook."""
        headers = {SECRET_HEADER: secret_for(self.box, CONNECTION)}
        answer = await self.request("ingest", f"/telegram/{CONNECTION}", json=update, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (200, "accepted")

    async def request(
        self,
        function: str,
        path: str,
        *,
        method: str = "POST",
        json: JsonObject | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """What the function answers, to a request with the operator's API key unless the headers have another.

        The body is `content` as it stands, or else `json`.
        """
        headers = {"Authorization": f"Bearer {self.api_key}", **(headers or {})}
        async with httpx.AsyncClient(base_url=self.functions[function].url, timeout=PATIENCE_SECONDS) as http:
            return await http.request(method, path, json=json or {}, content=content, headers=headers)

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Client]:
        """The control plane, as an operator uses it."""
        client = Client(self.functions["api"].url, self.api_key)
        try:
            yield client
        finally:
            await client.aclose()

    @asynccontextmanager
    async def configuring(self) -> AsyncIterator[ConfigRepository]:
        """The configuration; what the block changes in it is published at its end."""
        async with _configuring(self.database_url, self.project) as repository:
            yield repository

    async def until(self, session: str, kind: str, after: int = 0) -> list[Seen]:
        """The session's events later than `after`, up to the first one of that kind, read from the events stream.

        A run's text is stored before it is sent: with `text` this returns once the run is over.
        """
        seen: list[Seen] = []
        async with self.operator() as client, asyncio.timeout(PATIENCE_SECONDS):
            events = client.events(session, after)
            async with aclosing(events):
                async for event in events:
                    seen.append(event)
                    if event.kind == kind:
                        if kind == "text":
                            await _is(client, session, "idle")
                        return seen
        raise AssertionError(f"the stream of session {session} ended after {seen}")

    async def until_it_waits(self, session: str) -> None:
        """Return once nobody holds the session any more, whose question the contact may have seen before."""
        async with self.operator() as client, asyncio.timeout(PATIENCE_SECONDS):
            await _is(client, session, "waiting")

    async def run(self, session: str, number: int = 1) -> JsonObject:
        """The finished run, from the archive."""
        async with self.operator() as client:
            run = await client.get(f"/v1/sessions/{session}/runs/{number}")
        assert run is not None
        return run


async def _is(client: Client, session: str, status: str) -> None:
    while (await client.get(f"/v1/sessions/{session}") or {})["status"] != status:  # noqa: ASYNC110  over HTTP
        await asyncio.sleep(0.02)


def new_project() -> str:
    """The name of a project that no other test has, as the emulators take it."""
    return f"demo-{secrets.token_hex(6)}"


@contextmanager
def cloud_in(
    folder: Path, firestore: str, pubsub: str, project: str = "", more: Mapping[str, str] | None = None
) -> Iterator[Cloud]:
    """All of it, configured with the demo tenant and published, until the end of the block.

    `FIRESTORE_EMULATOR_HOST` must be set in this process, too. `more` is added to the environment of each function.
    """
    project = project or new_project()
    platform_key = base64.urlsafe_b64encode(os.urandom(32)).decode()
    box = KeyFile(folder / "unused", platform_key)
    simulator = TelegramSimulator(BOT_TOKEN)
    with ExitStack() as stack:
        model = stack.enter_context(running())
        telegram = stack.enter_context(served(simulator.app))
        database = stack.enter_context(Postgres())
        url = database.database()
        api_key = asyncio.run(_configure(url, project, box, telegram))
        environment = {
            "GOOGLE_CLOUD_PROJECT": project,
            "FIRESTORE_EMULATOR_HOST": firestore,
            "PUBSUB_EMULATOR_HOST": pubsub,
            "RECADO_PLATFORM_KEY": platform_key,
            "LOG_FORMAT": "json",
            "FUNCTION_USE_ASGI": "1",
            **(more or {}),
        }
        ports = {name: free_port() for name in FUNCTIONS}
        addresses = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        only = {
            "run_agent": {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": MODEL_KEY},
            "api": {"DATABASE_URL": url, "RECADO_ADDRESSES": json.dumps(addresses)},
        }
        functions = {
            name: stack.enter_context(_function(name, port, environment | only.get(name, {}), folder))
            for name, port in ports.items()
        }
        subscribe(pubsub, project, "wakes", f"{functions['run_agent'].url}/wakes")
        subscribe(pubsub, project, "results", f"{functions['callbacks'].url}/results")
        subscribe(pubsub, project, "deliveries", f"{functions['callbacks'].url}/deliveries")
        yield Cloud(
            project=project,
            functions=functions,
            simulator=simulator,
            model=model,
            database=database,
            database_url=url,
            box=box,
            api_key=api_key,
        )


def _function(name: str, port: int, environment: dict[str, str], folder: Path) -> Process:
    source = str(ROOT / f"functions/{name}/main.py")
    framework = (sys.executable, "-m", "functions_framework", "--host", "127.0.0.1")
    command = (*framework, "--port", str(port), "--target", name, "--source", source)
    return Process(command, port, environment, folder=folder, name=name)


async def _configure(url: str, project: str, box: KeyFile, telegram: str) -> str:
    """Make the demo in the database and publish it; an operator's API key."""
    await asyncio.to_thread(migrate, url)
    async with _configuring(url, project) as repository:
        await seed(repository, box, telegram_token=BOT_TOKEN, model=MODEL, telegram_api=telegram)
        return await repository.create_api_key(TENANT, "operator")


@asynccontextmanager
async def _configuring(url: str, project: str) -> AsyncIterator[ConfigRepository]:
    repository, store = ConfigRepository(url, SystemClock()), FirestoreStore(project)
    try:
        yield repository
        await publish(repository, store)
    finally:
        await repository.aclose()
        await store.aclose()
