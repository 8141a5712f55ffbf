"""A driver with everything around it: the real embedded store, a script for a model, and ports that can fail.

Every call of a port is two points, before and after its effect. `Faults` kills the process at one of them: the call
raises `Crash`, and so does every later call until `restart`, as nothing more comes from a killed process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.codec import decode, encode, fingerprint
from shared.domain import (
    Connection,
    Contact,
    Effect,
    Entry,
    ExecutionPlan,
    JsonObject,
    ModelReply,
    ModelRequest,
    Queueing,
    Rule,
    SessionKey,
    ToolCall,
    ToolSpec,
    Usage,
    Wake,
    digest,
    session_key,
)
from shared.errors import Retryable
from shared.llm import OnText
from shared.llm.route import Route
from shared.llm.scripted import Scripted
from shared.orchestrator.drive import Driver
from shared.published import Published, connection_path, plan_path
from shared.sessions.accept import accept
from shared.sessions.document import Run, Session, read
from shared.sessions.pace import Pace
from shared.store import Pending, Stored
from shared.store.sqlite import SqliteStore
from shared.tools import LookUp, Tool, Toolbox, ToolContext, demo
from tests.clock import NOON, FakeClock
from tests.fakes import FakeBus, FakeChannel, FakeDocuments, FakeFiles

TENANT, CONNECTION, MODEL = "acme", "bot", "scripted/queue"
ANA, BEN = Contact(id="7", name="Ana"), Contact(id="8", name="Ben")
ORDER_1042 = {"order_id": "1042"}


class Crash(BaseException):
    """The process was killed here."""


class Faults:
    """Notes the points that were passed, and kills the process at those whose numbers are in `at`."""

    def __init__(self) -> None:
        self.at: set[int] = set()
        self.passed: list[str] = []
        self._stop = ("", 0)
        self._dead = False
        self._moved = asyncio.Event()

    def point(self, name: str) -> None:
        if self._dead:
            raise Crash
        self.passed.append(name)
        self._moved.set()
        if (name, self.passed.count(name)) == self._stop:
            self._dead = True
            raise Crash
        if len(self.passed) - 1 in self.at:
            self._dead = True
            raise Crash

    def stop_at(self, name: str, times: int) -> None:
        """Kill the process when it passes this point for that time."""
        self._stop = (name, times)

    def restart(self) -> None:
        self._dead = False

    async def until(self, happened: Callable[[], Awaitable[bool]]) -> None:
        """Return once that is so; asked again after each point."""
        async with asyncio.timeout(10):
            while True:
                self._moved.clear()
                if await happened():
                    return
                await self._moved.wait()

    async def passes(self, name: str, times: int) -> None:
        """Return once this point was passed so often since the start."""
        while self.passed.count(name) < times:
            self._moved.clear()
            await asyncio.wait_for(self._moved.wait(), 10)


class PointedStore(SqliteStore):
    """The embedded store with a point before and after each call that drives a session."""

    faults: Faults

    def __init__(self, path: Path) -> None:
        super().__init__(path, clock=FakeClock())

    async def append(self, key: SessionKey, entries: Mapping[str, Pending], due: datetime | None) -> None:
        self.faults.point("before append")
        await super().append(key, entries, due)
        self.faults.point("after append")

    async def load(self, key: SessionKey) -> Stored | None:
        self.faults.point("before load")
        stored = await super().load(key)
        self.faults.point("after load")
        return stored

    async def commit(self, key: SessionKey, version: object, **written: Any) -> object:
        self.faults.point("before commit")
        new = await super().commit(key, version, **written)
        self.faults.point("after commit")
        return new


@dataclass
class PointedGateway:
    """A gateway with points."""

    script: Scripted
    faults: Faults

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        self.faults.point("before model")
        reply = await self.script.complete(request, on_text)
        self.faults.point("after model")
        return reply


class Stage:
    """One conversation of one connection, at noon. A test changes what it needs before it drives."""

    def __init__(self, store: PointedStore, clock: FakeClock, replies: Iterable[ModelReply | Exception] | None) -> None:
        self.faults = Faults()
        self.store, self.clock = store, clock
        store.faults = self.faults
        self.script = Scripted(replies)
        self.documents = FakeDocuments()
        self.files = FakeFiles(self.faults.point)
        self.channel = FakeChannel(self.faults.point)
        self.bus = FakeBus(self.faults.point, clock)
        self.used: list[str] = []
        """The idempotency key of each execution of a tool, in order."""
        self.tools: dict[str, Tool] = {"lookup_order": self._lookup, "refund_order": self._refund}
        self.look_ups: dict[str, LookUp] = {}
        self.conversation = "1"
        self.slice_seconds = 480.0
        self.publish(PLAN)

    def publish(self, plan: ExecutionPlan, *, enabled: bool = True) -> str:
        """Make this the connection's plan, seen by drivers made from now on."""
        sha = fingerprint(plan)
        connection = Connection(
            id=CONNECTION, tenant=TENANT, channel="telegram", agent=plan.agent, plan=sha, enabled=enabled
        )
        self.documents.bodies[connection_path(CONNECTION)] = encode(connection)
        self.documents.bodies[plan_path(TENANT, sha)] = encode(plan)
        return sha

    @property
    def key(self) -> SessionKey:
        return session_key(TENANT, CONNECTION, self.conversation)

    def driver(self) -> Driver:
        """A process that just started."""
        gateway = PointedGateway(self.script, self.faults)
        return Driver(
            store=self.store,
            files=self.files,
            bus=self.bus,
            published=Published(self.documents, self.clock),
            route=Route({"scripted": lambda: gateway}, self.clock),
            toolbox=Toolbox({f"builtin:{name}": tool for name, tool in self.tools.items()}, self.look_ups),
            channels={"telegram": self.channel},
            clock=self.clock,
            pace=PACE,
            slice_seconds=self.slice_seconds,
        )

    async def put(self, entry: Entry) -> None:
        """Accept an entry, as `ingest` does, and again when the process is killed meanwhile."""
        while True:
            try:
                await accept(self.store, self.files, self.bus, self.clock, PACE, self.key, entry)
            except Crash:
                self.faults.restart()
            else:
                return

    async def say(self, text: str, order: int = 1, by: Contact = ANA) -> None:
        await self.put(replace(message(order, text, by), conversation=self.conversation))

    async def tap(self, *, approved: bool, order: int = 100, by: Contact = ANA, token: str = "") -> None:
        """Tap a button of the question that the session waits for, or of the one that `token` names."""
        run = (await self.session()).run
        token = token or (run.wait.id if run is not None and run.wait is not None else "")
        await self.put(replace(verdict(order, token, approved=approved, by=by), conversation=self.conversation))

    async def pump(self) -> None:
        """Deliver every wake until it is acknowledged; one that comes again finds the lease expired."""
        driver = self.driver()
        while self.bus.queue:
            try:
                await driver.drive(self.bus.queue[0])
            except Crash:
                self.faults.restart()
                driver = self.driver()
            except Retryable:
                self.clock.advance(PACE.lease + 1)
            else:
                self.bus.queue.pop(0)

    async def drive(self, wake: str = "w") -> Session | None:
        return await self.driver().drive(Wake(key=self.key, id=wake))

    async def session(self) -> Session:
        stored = await SqliteStore.load(self.store, self.key)
        assert stored is not None
        session = read(self.key, stored)
        assert session is not None
        return session

    async def run(self, number: int = 1) -> Run:
        body = await self.store.run(self.key, number)
        assert body is not None, f"run {number} is not archived"
        return decode(Run, body)

    async def unfinished(self) -> Run:
        run = (await self.session()).run
        assert run is not None, "no run is active"
        return run

    async def due(self) -> list[SessionKey]:
        """What the tick would wake now."""
        return [key async for key in self.store.due(self.clock.now())]

    async def tick(self, seconds: float = 0) -> int:
        """Let so much time pass, wake what is due, as the tick does, and say how many that was."""
        self.clock.advance(seconds)
        due = await self.due()
        try:
            for key in due:
                await self.bus.wake(key)
        except Crash:
            self.faults.restart()
            return await self.tick()
        await self.pump()
        return len(due)

    async def is_quiet(self) -> bool:
        """Whether nothing is left to do, and the tick knows."""
        session = await self.session()
        due = [key async for key in self.store.due(datetime.max.replace(tzinfo=NOON.tzinfo))]
        left = (session.run, session.lease, *session.outbox, *session.inbox.values())
        return self.key not in due and not any(left)

    async def _lookup(self, arguments: JsonObject, context: ToolContext) -> JsonObject:
        return await self._use(demo.lookup_order(arguments, context), context)

    async def _refund(self, arguments: JsonObject, context: ToolContext) -> JsonObject:
        return await self._use(demo.refund_order(arguments, context), context)

    async def _use(self, effect: Coroutine[Any, Any, JsonObject], context: ToolContext) -> JsonObject:
        result = await effect
        self.faults.point("before tool")
        self.used.append(context.idempotency_key)
        self.faults.point("after tool")
        return result


PACE = Pace(lease=30.0, due=60.0)


def tool(name: str, effect: Effect) -> ToolSpec:
    return ToolSpec(name=name, description=name, parameters={}, effect=effect, implementation=f"builtin:{name}")


PLAN = ExecutionPlan(
    tenant=TENANT,
    agent="shop",
    agent_version=1,
    instructions="Be kind.",
    models=(MODEL,),
    tools=(tool("lookup_order", "pure"), tool("refund_order", "once")),
    queueing=Queueing(debounce_seconds=0.0),
)
ASKING = replace(PLAN, rules=(Rule(tool="refund_order", decision="ask", approvers=("contact",)),))


def message(order: int, text: str = "Hi", by: Contact = ANA, received_at: datetime = NOON) -> Entry:
    """Ana's message to the connection, with `order` as the channel's number."""
    return Entry(
        id=digest(CONNECTION, str(order)),
        kind="message",
        connection=CONNECTION,
        conversation="1",
        order=order,
        received_at=received_at,
        contact=by,
        text=text,
    )


def verdict(
    order: int, token: str, *, approved: bool, by: Contact = ANA, received_at: datetime = NOON, tap: str = "tap"
) -> Entry:
    """A tap on a button of the approval `token`."""
    entry = message(order, "", by, received_at)
    return replace(entry, kind="verdict", token=token, approved=approved, tap=tap)


def says(text: str) -> ModelReply:
    return ModelReply(model=MODEL, text=text, usage=Usage(input_tokens=10, output_tokens=2, cost_nano_usd=5))


def calls(*names: str, arguments: JsonObject | None = None) -> ModelReply:
    """The model asks for these tools at once, for order 1042 if nothing else is said."""
    asked = tuple(
        ToolCall(id=f"c{number}", name=name, arguments=arguments or ORDER_1042) for number, name in enumerate(names)
    )
    return ModelReply(model=MODEL, text="", tool_calls=asked, usage=Usage(input_tokens=10, output_tokens=2))
