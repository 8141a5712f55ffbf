"""One session with everything around it, in this process, on a store that counts: for limits and for benchmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.clock import Clock
from shared.codec import decode
from shared.domain import (
    Entry,
    ExecutionPlan,
    JsonObject,
    ModelReply,
    ModelRequest,
    SessionKey,
    ToolCall,
    Usage,
    Wake,
    digest,
)
from shared.files.fsspec import FolderFiles
from shared.llm import OnText
from shared.llm.route import Route
from shared.orchestrator.drive import Driver
from shared.published import Published
from shared.sessions.accept import put
from shared.sessions.document import Run, Session, read
from shared.sessions.pages import whole
from shared.sessions.transcript import total
from shared.store import SessionStore
from shared.tools import Toolbox, ToolContext
from tests.clock import FakeClock
from tests.fakes import FakeBus, FakeChannel, FakeDocuments
from tests.stage import CONNECTION, PACE, PLAN, TENANT, Stage, message

MODEL = PLAN.models[0]


class Counted:
    """A store that counts its calls and the bytes of the states that it is given."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("append", "load", "commit", "get", "put"):
            return method

        async def counted(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            self.bytes += len(named.get("state") or b"")
            self.calls["views"] += len(named.get("documents") or {})
            if name == "commit":
                self.calls["documents"] += len(named.get("documents") or {}) + (named.get("archive") is not None)
            return await method(*arguments, **named)

        return counted


@dataclass
class Model:
    """Answers by `script`, which is given the request."""

    script: Callable[[ModelRequest], ModelReply]
    largest: int = 0
    """Bytes of the longest conversation that it was given."""
    asked: int = 0
    """How often, summaries aside."""

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        self.largest = max(self.largest, total(request.messages))
        if request.messages[-1].text.startswith("Sum up the conversation"):
            return says("In short: all is well.")
        self.asked += 1
        return self.script(request)


def says(text: str) -> ModelReply:
    return ModelReply(model=MODEL, text=text, usage=Usage(input_tokens=1, output_tokens=1))


def asks(*names: str) -> ModelReply:
    calls = tuple(ToolCall(id=f"c{place}", name=name, arguments={}) for place, name in enumerate(names))
    return ModelReply(model=MODEL, text="", tool_calls=calls, usage=Usage(input_tokens=1, output_tokens=1))


def looks_up(request: ModelRequest) -> ModelReply:
    """A script of two model calls and one tool call."""
    return says("It is on its way.") if request.messages[-1].role == "tool" else asks("lookup_order")


class House:
    """One session with everything around it, on a store that counts."""

    def __init__(
        self, store: SessionStore, folder: Path, plan: ExecutionPlan, model: Model, clock: Clock | None = None
    ) -> None:
        self.store: Any = Counted(store)
        self.files = FolderFiles(folder)
        self.clock: Any = clock or FakeClock(datetime.now(UTC))  # the store itself removes what expired
        self.bus = FakeBus(lambda _: None, self.clock)
        self.channel = FakeChannel(lambda _: None)
        self.documents = FakeDocuments()
        self.model = model
        Stage.publish(self, plan)  # type: ignore[arg-type]  # which needs the documents alone
        self.driver = Driver(
            store=self.store,
            files=self.files,
            bus=self.bus,
            published=Published(self.documents, self.clock),
            route=Route({"scripted": lambda: model}, self.clock),
            toolbox=Toolbox({"builtin:lookup_order": self._look_up, "builtin:refund_order": self._look_up}),
            channels={"telegram": self.channel},
            clock=self.clock,
            pace=PACE,
            slice_seconds=480.0,
        )

    key = SessionKey(TENANT, digest(CONNECTION, "1"))

    async def say(self, order: int, text: str, **fields: Any) -> None:
        await self.put(replace(message(order, text, received_at=self.clock.now()), **fields))

    async def put(self, entry: Entry) -> None:
        await put(self.store, self.files, self.clock, PACE, self.key, entry)

    async def drive(self) -> Session:
        self.bus.queue.append(Wake(key=self.key, id=self.clock.new_id()))
        while self.bus.queue:
            await self.driver.drive(self.bus.queue.pop(0))
        return await self.session()

    async def session(self) -> Session:
        stored = await self.store.load(self.key)
        session = read(self.key, stored)
        assert session is not None
        return session

    async def run(self, number: int) -> Run:
        body = await self.store.run(self.key, number)
        assert body is not None
        return await whole(self.store, self.key, decode(Run, body))

    async def _look_up(self, arguments: JsonObject, context: ToolContext) -> JsonObject:
        return {"found": True}
