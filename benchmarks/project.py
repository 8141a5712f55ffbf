"""A project on the emulators: the demo tenant published, a Telegram that takes what is sent, and the functions."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import aiohttp

from benchmarks.processes import ROOT, Server, running
from benchmarks.servers import QUESTION, model_environment
from shared.channels.telegram import SECRET_HEADER, secret_for
from shared.clock import SystemClock
from shared.config.database import migrate
from shared.config.demo import CONNECTION, TENANT, seed
from shared.config.publishing import publish
from shared.config.repository import ConfigRepository
from shared.domain import JsonObject, session_key
from shared.secrets.keyfile import KeyFile
from shared.store.firestore import FirestoreStore
from tests.chaos.contacts import update
from tests.e2e.cloud import BOT_TOKEN, new_project
from tests.engines import FirestoreEmulator, PubSubEmulator, free_port, make_topic, push, unsubscribe

MODEL = "openai/of-the-benchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What the functions of one project share."""

    name: str
    firestore: str
    """`host:port`."""
    pubsub: str
    box: KeyFile
    api_key: str
    environment: Mapping[str, str]
    folder: Path
    updates: Iterator[int] = field(default_factory=lambda: count(int(time.time())))

    def update(self, chat: int, text: str = QUESTION) -> JsonObject:
        """A message on Telegram, as it posts it."""
        return update(next(self.updates), str(chat), text)

    def wake(self, chat: int) -> JsonObject:
        """The wake of that chat's session, as Pub/Sub pushes it."""
        key = session_key(TENANT, CONNECTION, str(chat))
        attributes = {"tenant": key.tenant, "session": key.session}
        message = {"messageId": str(chat), "attributes": attributes, "orderingKey": key.session}
        return {"message": message, "subscription": f"projects/{self.name}/subscriptions/wakes-push"}

    @property
    def webhook(self) -> tuple[str, dict[str, str]]:
        """Path and headers of the bot's webhook."""
        return f"/telegram/{CONNECTION}", {SECRET_HEADER: secret_for(self.box, CONNECTION)}

    def with_model(self, url: str, *, through_litellm: bool = False) -> Project:
        """The same project, its functions asking another model."""
        environment = model_environment(url, through_litellm=through_litellm)
        return replace(self, environment={**self.environment, **environment})

    @contextmanager
    def pushed_to(self, topic: str, endpoint: str) -> Iterator[None]:
        """Pub/Sub pushes the topic's messages there until the end of the block."""
        push(self.pubsub, self.name, topic, endpoint)
        try:
            yield
        finally:
            unsubscribe(self.pubsub, self.name, topic)

    @contextmanager
    def running(self, name: str) -> Iterator[tuple[str, Server]]:
        """A function that answers, and its address."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = function(name, source(name), port)
        with running(command, f"{url}/health", self.environment, self.folder) as server:
            yield url, server


def source(name: str) -> Path:
    """Where that function of ours is."""
    return ROOT / f"functions/{name}/main.py"


def function(name: str, path: Path, port: int) -> list[str]:
    """The Functions Framework with one function in it, as Cloud Run starts it."""
    framework = [sys.executable, "-m", "functions_framework", "--host", "127.0.0.1", "--port", str(port)]
    return [*framework, "--target", name, "--source", str(path)]


class Telegram:
    """A Bot API that takes everything, and remembers to whom it was sent: less than the simulator, which would take the
    load's processor time."""

    def __init__(self) -> None:
        self._sent: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._numbers = count(1)

    def answer(self, path: str, body: bytes) -> dict[str, object]:
        """What the Bot API answers a call."""
        if not path.endswith("/sendMessage"):
            return {"ok": True, "result": True}
        chat = int(json.loads(body)["chat_id"])
        self._sent[chat].set()
        return {"ok": True, "result": {"message_id": next(self._numbers), "date": 1, "chat": {"id": chat}}}

    async def until(self, chat: int, seconds: float = 120.0) -> None:
        """Return once something was sent to the chat."""
        async with asyncio.timeout(seconds):
            await self._sent[chat].wait()


@asynccontextmanager
async def project(folder: Path, model: str, telegram: str) -> AsyncIterator[Project]:
    """Emulators with the demo tenant published, until the end of the block."""
    firestore, pubsub = FirestoreEmulator(), PubSubEmulator()
    async with AsyncExitStack() as stack:
        stack.callback(firestore.stop)
        stack.callback(pubsub.stop)
        await asyncio.gather(asyncio.to_thread(firestore.start), asyncio.to_thread(pubsub.start))
        os.environ["FIRESTORE_EMULATOR_HOST"] = firestore.host  # the client library reads nothing else
        key = base64.urlsafe_b64encode(os.urandom(32)).decode()
        name, box = new_project(), KeyFile(folder / "unused", key)
        database = f"sqlite:///{folder}/{name}.db"
        api_key = await _publish(database, name, box, telegram)
        for topic in ("wakes", "deliveries", "results"):
            make_topic(pubsub.host, name, topic)
        environment = {
            **model_environment(model),
            "GOOGLE_CLOUD_PROJECT": name,
            "FIRESTORE_EMULATOR_HOST": firestore.host,
            "PUBSUB_EMULATOR_HOST": pubsub.host,
            "FIREBASE_AUTH_EMULATOR_HOST": "127.0.0.1:9",  # unsigned tokens are taken; nobody asks it
            "RECADO_PLATFORM_KEY": key,
            "DATABASE_URL": database,
            "LOG_FORMAT": "json",
            "FUNCTION_USE_ASGI": "1",
        }
        yield Project(
            name=name,
            firestore=firestore.host,
            pubsub=pubsub.host,
            box=box,
            api_key=api_key,
            environment=environment,
            folder=folder,
        )


async def _publish(database: str, project: str, box: KeyFile, telegram: str) -> str:
    await asyncio.to_thread(migrate, database)
    repository, store = ConfigRepository(database, SystemClock()), FirestoreStore(project)
    try:
        await seed(repository, box, telegram_token=BOT_TOKEN, model=MODEL, telegram_api=telegram)
        key = await repository.create_api_key(TENANT, "operator")
        await publish(repository, store)
    finally:
        await repository.aclose()
        await store.aclose()
    return key


async def first_answer(
    url: str, body: object, headers: Mapping[str, str], *, method: str = "POST", seconds: float = 60.0
) -> tuple[int, bytes]:
    """Status and body of the first answer of a server that is still starting."""
    deadline = time.monotonic() + seconds
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(seconds)) as http:
        while True:
            try:
                async with http.request(method, url, json=body, headers=dict(headers)) as answer:
                    return answer.status, await answer.read()
            except aiohttp.ClientConnectorError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.002)
