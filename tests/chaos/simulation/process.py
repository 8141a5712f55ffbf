"""One process: everything that it does outside itself passes a point where it may be killed or paused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, TypeVar

from shared.domain import Connection, Delivery, ModelReply, ModelRequest, Receipt, Result, SessionKey
from shared.errors import BusDown, Conflict, StoreDown
from shared.llm import OnText
from shared.orchestrator.drive import Driver
from shared.orchestrator.invoke import Invoker
from shared.store import Archived, Document, Pending, SessionRow, Stored
from tests.chaos.memory import MemoryFiles, MemoryStore
from tests.chaos.simulation.faults import Crash, Faults
from tests.chaos.simulation.history import Handling, History, handling
from tests.clock import NOON

Value = TypeVar("Value")
LATENCY = 0.004
"""Seconds that a call of the store or the bus takes each way at least; at most ten times that."""


class Process:
    """Lives until it is killed; while it is paused, nothing of it goes on."""

    def __init__(self, name: str, faults: Faults, history: History) -> None:
        self.name = name
        self.faults = faults
        self.history = history
        self.dead = False
        self.paused_until = 0.0
        self.driver: Driver
        self.invoker: Invoker
        self._tasks: dict[asyncio.Task[Any], SessionKey | None] = {}
        self._loop = asyncio.get_running_loop()

    async def serve(
        self, what: str, request: Callable[[], Coroutine[Any, Any, Value]], key: SessionKey | None = None
    ) -> Value:
        """What the request gives. Raises `Crash` when the process dies before it could answer."""
        token = handling.set(Handling(self.name, what, key))
        task = asyncio.create_task(request())
        handling.reset(token)
        self._tasks[task] = key
        try:
            await asyncio.wait({task})
        finally:
            del self._tasks[task]
            task.cancel()
        if self.dead or task.cancelled():
            if not task.cancelled():
                task.exception()  # of a process that is gone: nobody wants to know
            raise Crash
        return task.result()

    def kill(self) -> None:
        """Nothing that it was doing goes on."""
        self.dead = True
        self.history.note("killed")
        for task, key in self._tasks.items():
            task.cancel()
            if key is not None:
                self.history.killed(key)

    def pause(self, seconds: float) -> None:
        """Nothing of it goes on before that many seconds are over."""
        self.history.note(f"paused for {seconds:.1f} s")
        self.paused_until = self._loop.time() + seconds

    async def point(self, name: str) -> None:
        """Pass here; raises `Crash` instead when the process is killed here or is dead already."""
        if self.dead:
            raise Crash
        if self.faults.kills(name):
            self.history.note(f"{name}: killed here")
            self.kill()
            raise Crash
        if self.faults.strikes("pause", self.faults.rates.pause):
            self.pause(self.faults.random.choice((5.0, 40.0, 70.0)))
        while self.paused_until > (now := self._loop.time()):
            await asyncio.sleep(self.paused_until - now)
            if self.dead:
                raise Crash

    async def spend(self, seconds: float) -> None:
        """Let that much time pass."""
        await asyncio.sleep(seconds)
        if self.dead:
            raise Crash


class ProcessClock:
    """`Clock` of the loop; a process that is dead or paused does not get out of a sleep."""

    def __init__(self, random: Random, process: Process | None = None, skew: float = 0.0) -> None:
        self._start = NOON + timedelta(seconds=skew)
        self._random = random
        self._process = process
        self._loop = asyncio.get_running_loop()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._process is not None:
            await self._process.point("slept")

    def new_id(self) -> str:
        return f"{self._random.getrandbits(96):024x}"


class ProcessStore:
    """The store as one process reaches it."""

    def __init__(self, store: MemoryStore, process: Process) -> None:
        self._store = store
        self._process = process
        self._faults = process.faults
        self._history = process.history

    async def append(self, key: SessionKey, entries: Mapping[str, Pending], due: datetime | None) -> None:
        await self._ask("append")
        await self._store.append(key, entries, due)
        self._history.took(key, list(entries))
        self._history.writes += 1
        self._history.note(f"append {', '.join(id_[:6] for id_ in entries)} to {key.session[:4]}")
        await self._answer("append", written=True)

    async def load(self, key: SessionKey) -> Stored | None:
        await self._ask("load")
        stored = await self._store.load(key)
        commits = self._history.followed[key].commits
        self._history.reads += 1
        await self._answer("load", written=False)
        handling.get().known[key] = commits
        return stored

    async def commit(
        self,
        key: SessionKey,
        version: object,
        *,
        state: bytes,
        remove: Collection[str] = (),
        spill: Mapping[str, Pending] | None = None,
        due: datetime | None,
        archive: Archived | None = None,
        documents: Mapping[str, Document] | None = None,
    ) -> object:
        await self._ask("commit")
        try:
            new = await self._store.commit(
                key, version, state=state, remove=remove, spill=spill, due=due, archive=archive, documents=documents
            )
        except Conflict:
            self._history.note("commit: conflict")
            await self._answer("conflict", written=False)
            raise
        self._history.writes += 1 + (archive is not None) + len(documents or {})
        self._history.committed(key, state, archive.body if archive is not None else None)
        commits = self._history.followed[key].commits
        await self._answer("commit", written=True)
        if self._faults.strikes("doubled", self._faults.rates.doubled):
            raise Conflict("sent twice by the store's client")
        handling.get().known[key] = commits
        return new

    async def due(self, before: datetime) -> AsyncGenerator[SessionKey]:
        await self._ask("due")
        async for key in self._store.due(before):
            yield key

    async def watch(self, key: SessionKey) -> AsyncGenerator[Stored]:
        async for stored in self._store.watch(key):
            await self._process.point("watched")
            handling.get().known[key] = self._history.followed[key].commits
            yield stored

    async def run(self, key: SessionKey, number: int) -> bytes | None:
        await self._ask("run")
        return await self._store.run(key, number)

    async def runs(self, key: SessionKey, *, before: int | None = None, limit: int = 20) -> Sequence[bytes]:
        await self._ask("runs")
        return await self._store.runs(key, before=before, limit=limit)

    async def sessions(self, tenant: str, *, limit: int = 50) -> Sequence[SessionRow]:
        await self._ask("sessions")
        return await self._store.sessions(tenant, limit=limit)

    async def get(self, path: str) -> bytes | None:
        await self._ask("get")
        return await self._store.get(path)

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        await self._ask("put")
        await self._store.put(path, body, expires_at)
        await self._answer("put", written=True)

    async def delete(self, path: str) -> None:
        await self._ask("delete")
        await self._store.delete(path)
        await self._answer("delete", written=True)

    async def follow(self, path: str) -> AsyncGenerator[bytes]:
        async for body in self._store.follow(path):
            yield body

    async def list(self, collection: str, limit: int = 100) -> Sequence[tuple[str, bytes]]:
        await self._ask("list")
        return await self._store.list(collection, limit)

    async def _ask(self, what: str) -> None:
        await self._process.point(f"before {what}")
        await self._process.spend(LATENCY * (1 + 9 * self._faults.random.random()))
        if self._faults.down("store") or self._faults.strikes("down", self._faults.rates.down):
            self._history.note(f"{what}: the store is down")
            await self._process.spend(3.0)
            raise StoreDown(f"{what}: no answer")

    async def _answer(self, what: str, *, written: bool) -> None:
        if written and self._faults.strikes("lost", self._faults.rates.lost):
            self._history.note(f"{what}: the answer is lost")
            await self._process.spend(3.0)
            raise StoreDown(f"{what}: the answer is lost")
        await self._process.point(f"after {what}")


class ProcessFiles:
    """The files as one process reaches them."""

    def __init__(self, files: MemoryFiles, process: Process) -> None:
        self._files = files
        self._process = process

    async def put(self, path: str, body: bytes) -> None:
        await self._process.point("before file")
        await self._files.put(path, body)
        await self._process.point("after file")

    async def get(self, path: str) -> bytes | None:
        await self._process.point("before file")
        return await self._files.get(path)

    async def delete(self, path: str) -> None:
        await self._process.point("before file")
        await self._files.delete(path)


class ProcessBus:
    """The bus as one process reaches it."""

    def __init__(self, bus: Any, process: Process) -> None:
        self._bus = bus
        self._process = process
        self._faults = process.faults

    async def wake(self, key: SessionKey) -> None:
        await self._ask("wake")
        self._bus.publish(key)
        await self._answer("wake")

    async def receipt(self, receipt: Receipt) -> None:
        await self._ask("receipt")

    async def result(self, result: Result) -> None:
        await self._ask("result")
        self._process.history.results.append(result)
        await self._answer("result")

    async def check(self) -> None:
        if self._faults.down("bus"):
            raise BusDown("the bus is down")

    async def _ask(self, what: str) -> None:
        await self._process.point(f"before {what}")
        await self._process.spend(LATENCY * (1 + 9 * self._faults.random.random()))
        if self._faults.down("bus") or self._faults.strikes("down", self._faults.rates.down):
            raise BusDown(f"{what}: no answer")

    async def _answer(self, what: str) -> None:
        if self._faults.strikes("lost", self._faults.rates.lost):
            raise BusDown(f"{what}: the answer is lost")
        await self._process.point(f"after {what}")


class ProcessGateway:
    """The models as one process reaches them."""

    def __init__(self, world: Any, process: Process) -> None:
        self._world = world
        self._process = process

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        await self._process.point("before model")
        reply: ModelReply = await self._world.complete(self._process, request)
        if on_text is not None:
            on_text(reply.text)
        await self._process.point("after model")
        return reply


class ProcessChannel:
    """A channel as one process reaches it."""

    typing_seconds = 4.0

    def __init__(self, world: Any, process: Process, name: str) -> None:
        self._world = world
        self._process = process
        self._name = name
        self.text_limit: int = world.text_limit
        self.resend = world.resend(name)
        self.fetched = world.fetched(name)

    async def send(self, connection: Connection, conversation: str, delivery: Delivery) -> str:
        await self._process.point("before send")
        provider_id: str = await self._world.send(self._process, self._name, connection, conversation, delivery)
        await self._process.point("after send")
        return provider_id

    async def settle(self, connection: Connection, conversation: str, delivery: Delivery) -> None:
        await self._process.point("before settle")
        await self._world.settle(self._process, self._name, connection, conversation, delivery)
        await self._process.point("after settle")

    async def typing(self, connection: Connection, conversation: str, message: str = "") -> None:
        """Shows nothing, and takes for ever: nothing may wait for it."""
        await asyncio.Event().wait()
