"""What stands between the outside and the processes of the functions: the load balancer, and what it does wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from tests.chaos.http import Cut, Reply, Request, call

WAKE_SECONDS = 600.0
EMBEDDED = "embedded"
"""The function that is all of them."""


@dataclass(eq=False)
class Worker:
    """One life of a process."""

    name: str
    function: str
    pid: int
    port: int
    alive: bool = True
    stopped: bool = False
    sessions: list[str] = field(default_factory=list)
    """Of the pushes that it has not answered."""


@dataclass(frozen=True, slots=True)
class Push:
    """One wake's way to one process."""

    at: float
    seconds: float
    session: str
    wake: str
    worker: str
    status: int


@dataclass
class Balancer:
    """Sends each request to the process of its function that has the least to do. A process that is dead, or dies
    before it answers, is 502 at once; one that is silent for `limit` seconds is 504, as Pub/Sub cuts a push."""

    workers: list[Worker] = field(default_factory=list)
    limit: float = WAKE_SECONDS
    duplicates: float = 0.0
    """Which part of the pushes comes twice, to two processes where there are two."""
    died: Callable[[Worker], Awaitable[None]] | None = None
    duplicated: Callable[[str], None] | None = None
    random: Random = field(default_factory=Random)
    pushes: list[Push] = field(default_factory=list)
    """Every push of a wake, for whoever looks into a failure."""

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[Reply]] = set()

    async def handle(self, request: Request) -> Reply:
        """The reply of a process."""
        function = _function(request.path)
        session = _session(request) if request.path == "/wakes" else ""
        if session and self.random.random() < self.duplicates:
            if self.duplicated is not None:
                self.duplicated(session)
            again = asyncio.create_task(self._again(function, request, session))
            self._tasks.add(again)
            again.add_done_callback(self._tasks.discard)
        return await self._send(function, request, session)

    async def aclose(self) -> None:
        """End what is still on its way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _again(self, function: str, request: Request, session: str) -> Reply:
        await asyncio.sleep(self.random.uniform(0.0, 0.4))
        return await self._send(function, request, session)

    async def _send(self, function: str, request: Request, session: str) -> Reply:
        ready = [worker for worker in self.workers if worker.function in (function, EMBEDDED) and worker.alive]
        if not ready:
            return Reply(502)
        awake = [worker for worker in ready if not worker.stopped] or ready
        least = min(len(worker.sessions) for worker in awake)
        worker = self.random.choice([worker for worker in awake if len(worker.sessions) == least])
        worker.sessions.append(session)
        at = time.monotonic()
        reply = Reply(504)
        try:
            reply = await call(worker.port, request, self.limit)
        except TimeoutError:
            pass
        except OSError:
            reply = Reply(502)
            if self.died is not None:
                await self.died(worker)
        finally:
            worker.sessions.remove(session)
            if session:
                wake = str(json.loads(request.body)["message"]["messageId"])
                self.pushes.append(Push(at, time.monotonic() - at, session, wake, worker.name, reply.status))
        return reply


def _function(path: str) -> str:
    if path == "/wakes" or path.startswith("/v1/agents/"):
        return "run_agent"
    if path.startswith(("/v1/callbacks/", "/deliveries", "/results", "/tick")):
        return "callbacks"
    if path.startswith(("/telegram/", "/whatsapp/")) or path.endswith("/messages"):
        return "ingest"
    raise Cut


def _session(request: Request) -> str:
    return str(json.loads(request.body)["message"]["attributes"]["session"])
