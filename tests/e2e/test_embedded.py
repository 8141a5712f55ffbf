"""`recado dev` as a process of its own, spoken to by other processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.cli.client import Client, Seen
from shared.config.demo import AGENT, CONNECTION, TENANT
from shared.domain import JsonObject, api_connection, session_key
from tests.e2e.processes import RECADO, Process
from tests.engines import free_port
from tests.servers.model_server import Fault, ModelServer, running

CHAT = 1001
TELEGRAM = session_key(TENANT, CONNECTION, str(CHAT)).session
RECOVERY = timedelta(seconds=15)
"""From the new start until the run goes on."""

pytestmark = pytest.mark.timeout(180)


class Embedded(Process):
    """`recado dev` with its home in a folder of the test's, and the other subcommands beside it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._home = {"RECADO_HOME": str(folder / "home"), **environment}
        super().__init__((RECADO, "dev"), free_port(), self._home, folder=folder)

    def recado(self, *arguments: str) -> str:
        """What the subcommand printed. Raises `CalledProcessError` when it fails."""
        return subprocess.run(
            (RECADO, *arguments), env=self._environment, cwd=self._folder, check=True, capture_output=True, text=True
        ).stdout

    @contextmanager
    def begun(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The subcommand, under way until it ends by itself or the block does."""
        command, both = (RECADO, *arguments), subprocess.PIPE
        with subprocess.Popen(
            command, env=self._environment, cwd=self._folder, stdout=both, stderr=both, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        client = Client(self.url, (self._folder / "home/api-key").read_text())
        try:
            yield client
        finally:
            await client.aclose()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """Shared: each test has a chat of its own."""
    with Embedded(tmp_path_factory.mktemp("embedded")) as started:
        yield started


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with running() as started:
        yield started


@pytest.fixture
def server_on_a_model(tmp_path: Path, model: ModelServer) -> Iterator[Embedded]:
    """As a developer has it who set the variables of an OpenAI-compatible server."""
    key, name = "sk-of-the-test", "openai/of-the-test"
    with Embedded(tmp_path, OPENAI_BASE_URL=model.url, OPENAI_API_KEY=key, RECADO_MODEL=name) as started:
        yield started


def test_a_contact_on_telegram_is_answered(server: Embedded) -> None:
    assert server.recado("send", "telegram", "Where is order 1042?") == (
        "Order 1042 is shipped with Correos and should arrive on 2026-11-24.\n"
    )
    as_json = json.loads(server.recado("send", "telegram", "Where is order 1040?", "--json", "--chat", "1002"))
    assert as_json["text"] == "Order 1040 is delivered with SEUR, on 2026-11-16."


def test_a_refund_is_made_only_once_the_contact_has_tapped_approve(server: Embedded) -> None:
    asked = server.recado("send", "telegram", "Please refund order 1042", "--chat", "2001")
    assert asked == "May I do this? refund_order (order_id: 1042)\n  [Approve] [Deny]\n"
    assert server.recado("send", "telegram", "--tap", "approve", "--chat", "2001") == (
        "Approved (refund_order), by Ana. (edited)\nOrder 1042 is refunded: 49.90 EUR is on its way back to you.\n"
    )


def test_a_denied_refund_is_not_made(server: Embedded) -> None:
    server.recado("send", "telegram", "Please refund order 1042", "--chat", "2002")
    assert server.recado("send", "telegram", "--tap", "deny", "--chat", "2002") == (
        "Denied (refund_order), by Ana. (edited)\nI may not do that: not approved by Ana.\n"
    )


async def test_a_server_killed_in_mid_run_answers_once_and_takes_no_recorded_step_again(
    server_on_a_model: Embedded, model: ModelServer
) -> None:
    server = server_on_a_model
    model.fail(Fault(kind="delay", seconds=0))  # the first request goes well
    model.fail(Fault(kind="hang"))
    with server.begun("send", "telegram", "Where is order 1042?") as sending:
        assert await asyncio.to_thread(model.hanging.wait, 60)
        async with server.client() as client:
            before = [event async for event in first(client, 3)]
            assert await messages(client) == []
        server.kill()
        assert "no server answers" in sending.communicate(timeout=30)[1]

    begun = datetime.now(UTC)
    server.start()
    async with server.client() as client:
        after = [event async for event in until_text(client, after=before[-1].sequence)]
        assert [message["text"] for message in await messages(client)] == [after[-1].data["text"]]
        archived = await client.request("GET", f"/v1/sessions/{TELEGRAM}/runs")
    (run,) = archived.json()
    assert datetime.fromisoformat(run["steps"][-1]["started_at"]) - begun < RECOVERY
    assert [step["key"] for step in run["steps"]] == ["model-1", "tool-1.0", "model-2"]
    assert [step["key"] for step in run["steps"] if step["attempt"] == 1] == ["model-1", "tool-1.0"]
    assert [event.sequence for event in (*before, *after)] == [1, 2, 3, 4, 5]
    assert [len(request["messages"]) for request in model.requests] == [2, 4, 4]
    assert [delivery["status"] for delivery in run["deliveries"]] == ["sent"]


async def test_ctrl_c_ends_it_cleanly_and_the_next_start_knows_the_conversation(
    server_on_a_model: Embedded, model: ModelServer
) -> None:
    server = server_on_a_model
    assert "1042" in server.recado("chat", "Where is order 1042?", "--url", server.url)
    session = session_key(TENANT, api_connection(TENANT, AGENT), "chat").session
    async with server.client() as client, aclosing(client.events(session, 0)) as watched:
        await anext(watched)  # somebody watches while the server ends
        assert await asyncio.to_thread(server.interrupt) == 0
        assert [event.kind async for event in watched][-1] == "text"  # and has an orderly end of the stream
    assert "Traceback" not in server.output

    server.start()
    server.recado("chat", "And order 1040?", "--url", server.url)
    assert [message["content"] for message in model.requests[-1]["messages"] if message["role"] == "user"] == [
        "Where is order 1042?",
        "And order 1040?",
    ]
    async with server.client() as client:
        found = await client.get(f"/v1/sessions/{session}")
        assert found is not None
        assert (found["runs"], found["status"]) == (2, "idle")


async def first(client: Client, count: int) -> AsyncIterator[Seen]:
    """The first events of the contact's session, as soon as there are so many."""
    async with asyncio.timeout(60), aclosing(client.events(TELEGRAM, 0)) as events:
        for _ in range(count):
            yield await anext(events)


async def until_text(client: Client, after: int) -> AsyncIterator[Seen]:
    """The events later than `after`, up to the run's reply; that is stored before it is sent, so at its end the run
    is over."""
    async with asyncio.timeout(60), aclosing(client.events(TELEGRAM, after)) as events:
        async for event in events:
            yield event
            if event.kind == "text":
                break
        while (await client.get(f"/v1/sessions/{TELEGRAM}") or {})["status"] != "idle":  # noqa: ASYNC110  over HTTP
            await asyncio.sleep(0.02)


async def messages(client: Client) -> list[JsonObject]:
    """What the simulator has received for the contact since the server started."""
    answer = await client.request("GET", f"/simulators/telegram/simulator/chats/{CHAT}/messages")
    return list(answer.json())
