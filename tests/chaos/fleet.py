"""The running system: emulators, processes of the functions, the world and the balancer, and what is done to them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

import httpx

from shared.secrets.keyfile import KeyFile
from shared.store.firestore import FirestoreStore
from tests.chaos.balancer import EMBEDDED, Balancer, Worker
from tests.chaos.chance import chance
from tests.chaos.contacts import Contacts
from tests.chaos.history import Commit, Fault
from tests.chaos.http import serving
from tests.chaos.parts import Chaos, Control
from tests.chaos.patience import patiently
from tests.chaos.plans import publish
from tests.chaos.world import Latency, World
from tests.engines import FirestoreEmulator, PubSubEmulator

ROOT = Path(__file__).parents[2]
FUNCTIONS = ("ingest", "run_agent", "callbacks", EMBEDDED)


TICK_AFTER = 1.2
"""Seconds of silence."""


class Nursery:
    """Where the processes of one function come from."""

    def __init__(self, function: str, folder: Path) -> None:
        self.function = function
        self._folder = folder
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return once it can fork."""
        with (self._folder / f"nursery-{self.function}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.chaos.nursery", self.function,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                cwd=self._folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
            )  # fmt: skip
        await self._line()

    async def spawn(self, environment: Mapping[str, str], chaos: Chaos, log: Path) -> tuple[int, int]:
        """The process id and the port of a new process, which accepts connections already."""
        assert self._process is not None
        assert self._process.stdin is not None
        order = {"environment": dict(environment), "chaos": asdict(chaos), "log": str(log)}
        async with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            born = await self._line()
        return born["pid"], born["port"]

    async def stop(self) -> None:
        """End it and all that it gave birth to."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()  # its children ask the system to end with it
            await self._process.wait()

    async def _line(self) -> dict[str, int]:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        if not line:
            said = (self._folder / f"nursery-{self.function}.log").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"the nursery of {self.function} ended:\n{said}")
        born: dict[str, int] = json.loads(line)
        return born


@dataclass
class Ground:
    """What suites share: emulators and nurseries, started once."""

    folder: Path
    firestore: FirestoreEmulator
    pubsub: PubSubEmulator
    nurseries: dict[str, Nursery]


@asynccontextmanager
async def ground(folder: Path) -> AsyncIterator[Ground]:
    """Emulators and nurseries until the end of the block."""
    nurseries = {name: Nursery(name, folder) for name in FUNCTIONS}
    async with AsyncExitStack() as stack:
        for nursery in nurseries.values():
            stack.push_async_callback(nursery.stop)
        firestore, pubsub = FirestoreEmulator(), PubSubEmulator()
        stack.callback(pubsub.stop)
        stack.callback(firestore.stop)
        await asyncio.gather(
            asyncio.to_thread(firestore.start),
            asyncio.to_thread(pubsub.start),
            *(nursery.start() for nursery in nurseries.values()),
        )
        os.environ["FIRESTORE_EMULATOR_HOST"] = firestore.host  # the client library reads nothing else
        yield Ground(folder, firestore, pubsub, nurseries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a fleet is, and what is wrong with it."""

    workers: Mapping[str, int] = field(default_factory=lambda: {"ingest": 2, "run_agent": 4, "callbacks": 1})
    topics: int = 16
    ack_seconds: int = 600
    lease_seconds: int = 30
    control: Control = ""
    named: bool = False
    latency: Latency = field(default_factory=Latency)
    firestore: str = ""
    """Another address of the Firestore emulator, for the functions only."""
    pubsub: str = ""
    limit: float = 600.0
    tick_seconds: float = 1.0
    ticks_when_idle: bool = False
    """Whether the tick comes only when the world has heard of nothing for a while."""


class Fleet:
    """The whole system, in a project of its own."""

    def __init__(self, ground: Ground, name: str, seed: int, shape: Shape, project: str = "") -> None:
        self.ground = ground
        self.name = name
        self.shape = shape
        self.random = chance(seed)
        self.folder = ground.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.project = project or f"demo-{name}-{os.getpid()}"
        self.world = World(seed, shape.latency)
        self.balancer = Balancer(
            limit=shape.limit, died=self._died, duplicated=self._duplicated, random=chance(seed + 1)
        )
        self.box = KeyFile(self.folder / "unused", base64.urlsafe_b64encode(b"chaos" * 6 + b"ch").decode())
        self.ticking = True
        self.port = 0
        """Where every process listens, if that is decided."""
        self.arms: dict[str, str] = {}
        """Where the next process of a function shall die."""
        self.then: dict[str, str] = {}
        """Where the one after that shall."""
        self._births = count(1)
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self.balancer.workers:
            self._end(worker)
        await self._stack.aclose()
        self.world.history.commits = read_commits(self.folder)

    @property
    def workers(self) -> list[Worker]:
        """Those that live."""
        return [worker for worker in self.balancer.workers if worker.alive]

    def people(self, number: int, connections: Sequence[str]) -> list[tuple[str, str]]:
        """So many chats, each with one of these connections, spread evenly over the topics: the emulator pushes two
        wakes of a topic at a time, and lets one that comes again wait for as long as there are others."""
        found = []
        chats = map(str, count(1000))
        for place in range(number):
            connection = connections[place % len(connections)]
            shard = place % self.shape.topics
            found.append((next(chat for chat in chats if self._shard(chat, connection) == shard), connection))
        return found

    def _shard(self, chat: str, connection: str) -> int:
        return int(self.contacts.key(chat, connection).session[:8], 16) % self.shape.topics

    def chats(self, sessions: list[str]) -> tuple[str, ...]:
        """The chats of these sessions."""
        known = self.contacts.chats
        return tuple(dict.fromkeys(known[session] for session in sessions if session in known))

    async def worker(self, function: str) -> Worker:
        """A process of that function, once there is one."""
        for _ in range(500):
            if found := [worker for worker in self.workers if worker.function == function]:
                return found[0]
            await asyncio.sleep(0.02)
        raise RuntimeError(f"no process of {function} for ten seconds")

    async def spawn(self, function: str, *, quiet: bool = False) -> Worker:
        """A new process of that function; `quiet`: not in the place of one that was killed."""
        name = f"{function}-{next(self._births)}"
        chaos = Chaos(
            worker=name,
            journal=str(self.folder / f"{name}.journal"),
            world=self.world_url,
            topics=self.shape.topics,
            arm=self.arms.pop(function, "") or ("" if quiet else self.then.pop(function, "")),
            named=self.shape.named,
            control=self.shape.control,
        )
        nursery = self.ground.nurseries[function]
        pid, port = await nursery.spawn(self.environment(), chaos, self.folder / f"{name}.log")
        worker = Worker(name, function, pid, self.port or port)
        self.balancer.workers.append(worker)
        return worker

    async def replace(self, worker: Worker) -> Worker:
        """End a process quietly, between stories, and start another."""
        self._end(worker)
        await _gone(worker)
        return await self.spawn(worker.function, quiet=True)

    async def kill(self, worker: Worker, what: str = "") -> None:
        """Kill it and start another in its place."""
        if worker.alive:
            self._end(worker)
            self._note_kill(worker, what)
            await _gone(worker)
            await self.spawn(worker.function)

    async def stop(self, worker: Worker, seconds: float) -> None:
        """Stop it for so long, as a machine does that has no time for it."""
        at = time.monotonic()
        self.world.history.faults.append(
            Fault(at=at, kind="stop", worker=worker.name, chats=self.chats(worker.sessions), until=at + seconds)
        )
        worker.stopped = True
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(worker.pid, signal.SIGCONT)
            worker.stopped = False

    def logs(self) -> str:
        """Everything that the processes have printed."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def driven_by(self, worker: Worker) -> tuple[str, ...]:
        """The chats whose runs are on their way in a process."""
        return self.chats(worker.sessions)

    def _note_kill(self, worker: Worker, what: str) -> None:
        self.world.history.faults.append(
            Fault(at=time.monotonic(), kind="kill", worker=worker.name, chats=self.driven_by(worker), what=what)
        )

    def _end(self, worker: Worker) -> None:
        worker.alive = False
        if worker in self.balancer.workers:
            self.balancer.workers.remove(worker)
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    async def _died(self, worker: Worker) -> None:
        """A connection broke: it killed itself, or somebody did."""
        if not worker.alive:
            return
        if not await _gone(worker):
            return  # it lives: the connection alone broke
        if worker.alive:
            worker.alive = False
            self.balancer.workers.remove(worker)
            self._note_kill(worker, "at its point")
            await self.spawn(worker.function)

    def _duplicated(self, session: str) -> None:
        self.world.history.faults.append(Fault(at=time.monotonic(), kind="duplicate", chats=self.chats([session])))

    def environment(self) -> dict[str, str]:
        return {
            "GOOGLE_CLOUD_PROJECT": self.project,
            "FIRESTORE_EMULATOR_HOST": self.shape.firestore or self.ground.firestore.host,
            "PUBSUB_EMULATOR_HOST": self.shape.pubsub or self.ground.pubsub.host,
            "RECADO_PLATFORM_KEY": base64.urlsafe_b64encode(b"chaos" * 6 + b"ch").decode(),
            "RECADO_HOME": str(self.folder / "home"),
            "RECADO_WAKE_TOPIC": f"wakes-{self.name}",
            "RECADO_DELIVERY_TOPIC": f"deliveries-{self.name}",
            "RECADO_RESULT_TOPIC": f"results-{self.name}",
            "RECADO_ADDRESSES": json.dumps({"callbacks": self.url}),
            "RECADO_LEASE_SECONDS": str(self.shape.lease_seconds),
        }

    async def _start(self) -> None:
        enter = self._stack.enter_async_context
        self.world_url = await enter(serving(self.world.handle))
        self.url = await enter(serving(self.balancer.handle))
        self._stack.push_async_callback(self.balancer.aclose)
        self.contacts = Contacts(self.url, self.world, self.box, self.world_url)
        self._stack.push_async_callback(self.contacts.aclose)
        self.world.receipts, self.world.callbacks = self.contacts.receipt, self.contacts.call_back
        await self.prepare()
        for function, number in self.shape.workers.items():
            await asyncio.gather(*(self.spawn(function) for _ in range(number)))
        self._begin(self._tick())

    async def prepare(self) -> None:
        """What has to be there before a process starts."""
        self.store: Any = FirestoreStore(self.project)
        self._stack.push_async_callback(self.store.aclose)
        await patiently(lambda: publish(self.store, self.box, self.world_url))
        await self._subscribe()

    def _begin(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.shape.tick_seconds)
            busy = time.monotonic() - self.world.heard_at < TICK_AFTER and self.shape.ticks_when_idle
            if self.ticking and not busy:
                await self.contacts.tick()

    async def _subscribe(self) -> None:
        names = {f"wakes-{self.name}-{number}": "/wakes" for number in range(self.shape.topics)}
        names |= {f"deliveries-{self.name}": "/deliveries", f"results-{self.name}": "/results"}
        root = f"http://{self.ground.pubsub.host}/v1/projects/{self.project}"
        async with httpx.AsyncClient(timeout=60) as http:
            for name, path in names.items():
                (await http.put(f"{root}/topics/{name}", json={})).raise_for_status()
                subscription = {
                    "topic": f"projects/{self.project}/topics/{name}",
                    "pushConfig": {"pushEndpoint": f"{self.url}{path}"},
                    "enableMessageOrdering": True,
                    "ackDeadlineSeconds": self.shape.ack_seconds,
                }
                (await http.put(f"{root}/subscriptions/{name}-push", json=subscription)).raise_for_status()
        self._stack.push_async_callback(self._unsubscribe, [f"{root}/subscriptions/{name}-push" for name in names])

    async def _unsubscribe(self, subscriptions: list[str]) -> None:
        """What was left undone is pushed to nobody: the port is soon another's."""
        async with httpx.AsyncClient(timeout=60) as http:
            for subscription in subscriptions:
                (await http.delete(subscription)).raise_for_status()


async def _gone(worker: Worker) -> bool:
    """Whether it is dead, with its ports free, within half a second."""
    for _ in range(50):
        try:
            os.kill(worker.pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.01)
    return False


def read_commits(folder: Path) -> list[Commit]:
    """What the processes noted of their writes; a last line that a kill cut is left out."""
    commits = []
    for path in sorted(folder.glob("*.journal")):
        for line in path.read_text().splitlines():
            with suppress(ValueError):
                fields = json.loads(line)
                if "method" in fields:
                    commits.append(Commit(worker=path.stem, **fields))
    return commits
