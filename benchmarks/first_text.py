"""From the model's first piece of text to the first text that whoever invoked the agent reads."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median

import aiohttp

from benchmarks.figures import Figure, compared
from benchmarks.model import events, spread
from benchmarks.processes import ROOT, running
from benchmarks.project import function
from benchmarks.servers import QUESTION, Serving, embedded, model_environment
from tests.chaos.http import read_request
from tests.engines import free_port

STREAMS = 40
WARM_UP = 5
PAUSE_SECONDS = 0.02
"""Between the pieces of a text."""


class Model:
    """Streams a sentence word by word, and knows when it sent the first."""

    def __init__(self) -> None:
        self.first_at = 0.0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while (request := await read_request(reader)) is not None:
                head = {"id": "c1", "created": 1, "model": json.loads(request.body)["model"]}
                said = events(head, {"content": "It is sunny in Quito, and warm."}, "stop")
                self.first_at = time.monotonic()
                await spread(writer, said, PAUSE_SECONDS)
        except (OSError, asyncio.IncompleteReadError):
            return  # whoever read has gone
        finally:
            writer.close()


async def figures(folder: Path) -> list[Figure]:
    """Ours against a function that relays the stream, one after the other in turn."""
    async with _serving() as (model, url), aiohttp.ClientSession() as http:
        with (
            embedded(url, folder) as ours,
            embedded(url, folder, through_litellm=True) as through,
            _relay(url, folder) as relay,
        ):
            waits: tuple[list[float], ...] = ([], [], [])
            for number in range(STREAMS + WARM_UP):
                found = [await _invoked(model, http, each) for each in (ours, through)]
                found.append(await _relayed(model, http, relay))
                if number >= WARM_UP:
                    for one, seconds in zip(waits, found, strict=True):
                        one.append(seconds * 1e3)
    value, by_litellm, other = map(median, waits)
    against = "relayed by a bare function"
    return [
        compared("first text", "ms", value, other, against, 2.0),
        compared("first text, through litellm", "ms", by_litellm, other, against, None),
    ]


@asynccontextmanager
async def _serving() -> AsyncIterator[tuple[Model, str]]:
    model = Model()
    server = await asyncio.start_server(model.answer, "127.0.0.1", 0)
    async with server:
        yield model, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@contextmanager
def _relay(url: str, folder: Path) -> Iterator[str]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {**model_environment(url), "FUNCTION_USE_ASGI": "1"}
    with running(function("relay", ROOT / "benchmarks/hello/relay.py", port), f"{address}/health", environment, folder):
        yield address


async def _invoked(model: Model, http: aiohttp.ClientSession, ours: Serving) -> float:
    """Seconds until an invoke's stream shows text."""
    body = {"input": QUESTION, "session": uuid.uuid4().hex}
    headers = {**ours.headers, "Accept": "text/event-stream"}
    async with http.post(f"{ours.url}/v1/agents/shop/invoke", json=body, headers=headers) as answer:
        return await _first(model, answer, b"event: text.")


async def _relayed(model: Model, http: aiohttp.ClientSession, relay: str) -> float:
    async with http.post(relay, json={"model": "m", "stream": True}) as answer:
        return await _first(model, answer, b'"content"')


async def _first(model: Model, answer: aiohttp.ClientResponse, sign: bytes) -> float:
    """Seconds from the model's first piece to the first line with that sign; the rest is read as well."""
    found = 0.0
    async for line in answer.content:
        if sign in line and not found:
            found = time.monotonic() - model.first_at
    assert found, f"{answer.status}: no text came"
    return found
