"""The four functions behind one address, with embedded parts, a seeded tenant and a model of its own for each test."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.bus.local import LocalBus
from shared.channels.telegram import SECRET_HEADER, secret_for
from shared.cli.embedded import AGENT, TENANT, Dispatcher, prepare
from shared.cli.simulators.telegram import TelegramSimulator
from shared.config.demo import CONNECTION
from shared.config.drafts import AgentDraft
from shared.config.publishing import publish
from shared.domain import JsonObject, Queueing
from shared.llm.route import Route
from shared.llm.scripted import Scripted
from shared.observability.logging import LineFormatter
from shared.settings import Settings
from shared.store.sqlite import SqliteStore
from shared.tools import Toolbox, ToolContext, demo
from shared.wiring import Parts, using
from tests.clock import FakeClock
from tests.servers.loopback import served

URL = "http://recado.example"
PROBLEM = "application/problem+json"
OTHER_TENANT, OTHER_AGENT = "other", "clerk"


class Served:
    """An application that these parts serve, rather than the process's."""

    def __init__(self, app: ASGIApp, here: Parts) -> None:
        self._app = app
        self._here = here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with using(self._here):
            await self._app(scope, receive, send)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """API keys, as they were shown once: two roles of the demo tenant, an operator of the other one."""

    operator: str
    invoker: str
    stranger: str


class Stack:
    """What a test talks to, and what it may look into."""

    def __init__(self, home: Path, keys: Keys) -> None:
        self.home = home
        self.keys = keys
        self.clock = FakeClock(manual=True)
        self.model = Scripted()
        """Takes another one until the first model call."""
        self.refunded: list[str] = []
        """Idempotency keys, one for each call of the tool."""
        self.here = Parts(Settings(home=home))
        self.here.clock = self.clock
        self.here.store = SqliteStore(home / "sessions.db", busy_seconds=0.05, clock=self.clock)
        self.dispatcher = Dispatcher()
        self.app = Served(self.dispatcher, self.here)
        self.here.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app))
        toolbox = Toolbox({"builtin:lookup_order": demo.lookup_order, "builtin:refund_order": self._refund})
        route = Route({"scripted": lambda: self.model}, self.clock)
        self.here.driver = replace(self.here.driver, route=route, toolbox=toolbox)
        self.http = self.client()

    def client(self, app: ASGIApp | None = None) -> httpx.AsyncClient:
        """A caller of the application, or of another one that is served by the same parts."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(Served(app, self.here) if app else self.app), base_url=URL
        )

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.here.aclose()

    async def update(self, update: JsonObject | bytes, *, secret: str | None = None) -> httpx.Response:
        """Post an update as Telegram does, with the connection's secret unless another one is given."""
        secret = self.secret if secret is None else secret
        body: dict[str, Any] = {"content": update} if isinstance(update, bytes) else {"json": update}
        return await self.http.post(f"/telegram/{CONNECTION}", headers={SECRET_HEADER: secret}, **body)

    async def say(self, text: str, chat: int = 77) -> str:
        """A contact writes, and everything that follows is done; the session's id."""
        answer = await self.update(self.simulator.update_message(chat, text))
        await self.idle()
        return str(answer.json()["session"])

    async def invoke(self, body: object, *, key: str = "", agent: str = AGENT, **headers: str) -> httpx.Response:
        """Call the agent; header names with underscores. `key` is the API key, the invoker's by default."""
        sent = {"Authorization": f"Bearer {key or self.keys.invoker}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await self.http.post(f"/v1/agents/{agent}/invoke", headers=sent, **raw)

    async def read(self, path: str, *, key: str = "", **headers: str) -> httpx.Response:
        """GET as the operator, or with another API key."""
        sent = {"Authorization": f"Bearer {key or self.keys.operator}"}
        return await self.http.get(
            path, headers=sent | {name.replace("_", "-"): value for name, value in headers.items()}
        )

    async def waiting(self, text: str = "Please refund order 1042") -> tuple[str, str]:
        """A run that waits for an approval: the session's id and the path of its callback."""
        session = (await self.invoke({"input": text, "session": "s"})).json()["session_id"]
        return session, (await self.read(f"/v1/sessions/{session}")).json()["wait"]["callback"]

    async def idle(self) -> None:
        """Return once no wake is in flight."""
        assert isinstance(self.here.bus, LocalBus)
        await self.here.bus.idle()

    def rows(self) -> dict[str, int]:
        """How many rows each table of the store has: equal before and after means that nothing was written."""
        with closing(sqlite3.connect(self.home / "sessions.db")) as db:
            tables = ("sessions", "inbox", "runs", "documents")
            return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}  # noqa: S608  the names above

    @property
    def simulator(self) -> TelegramSimulator:
        return self.dispatcher.simulator

    @property
    def secret(self) -> str:
        return secret_for(self.here.box, CONNECTION)

    def shown(self, chat: int = 77) -> list[str]:
        """What the contact sees, the oldest first."""
        return [message.text for message in self.simulator.messages(chat)]

    async def _refund(self, arguments: JsonObject, context: ToolContext) -> JsonObject:
        self.refunded.append(context.idempotency_key)
        return await demo.refund_order(arguments, context)


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Keys]:
    """A migrated, seeded and published home, made once, to be copied."""
    home = tmp_path_factory.mktemp("seeded") / "home"

    async def seed() -> Keys:
        here = Parts(Settings(home=home))
        operator = await prepare(here, URL)
        repository = here.repository
        (shop,) = await repository.agents(TENANT)
        at_once = Queueing(debounce_seconds=0)  # the clock of these tests stands still
        await repository.put_agent(TENANT, replace(shop.draft, queueing=at_once))
        await repository.create_tenant(OTHER_TENANT, "Other")
        clerk = AgentDraft(id=OTHER_AGENT, instructions="Help.", models=("scripted/demo",), queueing=at_once)
        await repository.put_agent(OTHER_TENANT, clerk)
        keys = Keys(
            operator=operator,
            invoker=await repository.create_api_key(TENANT, "invoker"),
            stranger=await repository.create_api_key(OTHER_TENANT, "operator"),
        )
        await publish(repository, here.store)
        await here.aclose()
        return keys

    return home, asyncio.run(seed())


@pytest.fixture
async def stack(seeded: tuple[Path, Keys], tmp_path: Path) -> AsyncIterator[Stack]:
    home = Path(shutil.copytree(seeded[0], tmp_path / "home"))
    made = Stack(home, seeded[1])
    yield made
    await made.aclose()


@pytest.fixture
async def server(stack: Stack) -> AsyncIterator[str]:
    """The address of the same stack on a real socket, where streams stream."""
    async with served(stack.app) as url:
        yield url


@pytest.fixture
def locked(stack: Stack) -> Iterator[None]:
    """Another process holds the store's write lock for the whole test: reads work, writes do not."""
    with closing(sqlite3.connect(stack.home / "sessions.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


class Lines(logging.Handler):
    """Every line that the code under test logs, from DEBUG on, with all its fields."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(LineFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def holding(self, *words: str) -> list[str]:
        return [line for line in self.lines if any(word in line for word in words)]


@pytest.fixture
def log() -> Iterator[Lines]:
    """The lines so far; afterwards the loggers are as they were, whatever the code under test set up."""
    loggers = [logging.getLogger(name) for name in ("", "shared", "functions")]
    before = [(list(logger.handlers), logger.level) for logger in loggers]
    lines = Lines()
    loggers[0].addHandler(lines)
    for logger in loggers[1:]:
        logger.setLevel(logging.DEBUG)
    yield lines
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)


def is_problem(answer: httpx.Response, status: int, *words: str) -> bool:
    """Whether the answer is a problem of that status whose detail has these words."""
    body = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    assert (body["status"], body["type"]) == (status, "about:blank")
    assert body["title"]
    for word in words:
        assert word in body["detail"], body["detail"]
    return True
