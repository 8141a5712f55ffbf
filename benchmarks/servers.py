"""The servers whose turns are compared: ours in one process, and what a user would pick instead."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.model import ANSWER
from benchmarks.peers import HERE, python_of
from benchmarks.processes import Server, Used, running
from tests.engines import free_port

Turn = Callable[[aiohttp.ClientSession], Awaitable[None]]
CREATED_AT_MOST = 20
"""How often google-adk is asked for a session before its turn fails."""
QUESTION = "What is the weather like in Quito?"


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers, and how one turn is asked of it."""

    servers: tuple[Server, ...]
    turn: Turn
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What a caller of ours sends along."""

    def used(self) -> Used:
        """By all of its processes together."""
        found = [server.used() for server in self.servers]
        return Used(cpu=sum(used.cpu for used in found), memory=sum(used.memory for used in found))


def model_environment(model: str, *, through_litellm: bool = False) -> dict[str, str]:
    """How every server finds the stand-in model; ours goes through litellm where `OPENAI_BASE_URL` is not set."""
    root = f"{model}v1"
    return {
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": "" if through_litellm else root,
        "OPENAI_API_BASE": root,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


@contextmanager
def embedded(model: str, folder: Path, *, through_litellm: bool = False) -> Iterator[Serving]:
    """`recado dev`: a turn is an invoke that waits for its answer."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **model_environment(model, through_litellm=through_litellm),
        "RECADO_HOME": str(folder / f"home-{port}"),
        "RECADO_MODEL": "openai/of-the-benchmark",
        "PORT": str(port),
        "LOG_LEVEL": "WARNING",
    }
    command: list[str | Path] = [Path(sys.executable).with_name("recado"), "dev"]
    with running(command, f"{url}/health", environment, folder) as server:
        key = (folder / f"home-{port}" / "api-key").read_text()
        headers = {"Authorization": f"Bearer {key}"}

        async def turn(http: aiohttp.ClientSession) -> None:
            body = {"input": QUESTION, "session": uuid.uuid4().hex}
            async with http.post(f"{url}/v1/agents/shop/invoke", json=body, headers=headers) as answer:
                told = await answer.json()
            assert told["text"] == ANSWER, told
            assert len(told["steps"]) == 3, told

        yield Serving((server,), turn, url, headers)


@contextmanager
def agno(model: str, folder: Path) -> Iterator[Serving]:
    """AgentOS with sessions in SQLite."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {**model_environment(model), "BENCH_DATABASE": str(folder / f"agno-{port}.db")}
    uvicorn: list[str | Path] = [python_of("agno"), "-m", "uvicorn", "--app-dir", HERE, "agno_app:app"]
    with running([*uvicorn, "--port", str(port), "--log-level", "warning"], f"{url}/health", environment, folder) as it:

        async def turn(http: aiohttp.ClientSession) -> None:
            form = {"message": QUESTION, "session_id": uuid.uuid4().hex, "stream": "false"}
            async with http.post(f"{url}/agents/weather/runs", data=form) as answer:
                said = await answer.text()
            assert ANSWER in said, said[:300]

        yield Serving((it,), turn)


@contextmanager
def adk(model: str, folder: Path) -> Iterator[Serving]:
    """google-adk's API server with sessions in SQLite."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    database = f"sqlite:///{folder}/adk-{port}.db"
    server: list[str | Path] = [python_of("adk").with_name("adk"), "api_server", "--session_service_uri", database]
    command: list[str | Path] = [*server, "--port", str(port), HERE / "adk_agents"]
    with running(command, f"{url}/list-apps", model_environment(model), folder) as it:

        async def turn(http: aiohttp.ClientSession) -> None:
            session = uuid.uuid4().hex
            for _ in range(CREATED_AT_MOST):  # its SQLite is locked now and then
                async with http.post(f"{url}/apps/weather/users/u/sessions/{session}", json={}) as made:
                    if made.ok:
                        break
            message = {"role": "user", "parts": [{"text": QUESTION}]}
            body = {"appName": "weather", "userId": "u", "sessionId": session, "newMessage": message}
            async with http.post(f"{url}/run", json=body) as answer:
                said = await answer.text()
            assert ANSWER in said, said[:300]

        yield Serving((it,), turn)


def name_of(peer: str) -> str:
    """The peer with its pinned version."""
    pinned = re.search(r"^[\w-]*==\S+", (HERE / f"{peer}.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    return pinned[0].replace("==", " ")
