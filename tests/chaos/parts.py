"""The parts of a function's process: the project's own, behind points, with the world's models and tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import httpx

from shared.clock import Clock
from shared.codec import encode
from shared.domain import (
    JsonObject,
    Message,
    ModelReply,
    ModelRequest,
    Receipt,
    Result,
    SessionKey,
    ToolCall,
    Usage,
    WaitRequest,
)
from shared.errors import ModelUnavailable, Retryable
from shared.llm import OnText
from shared.llm.route import Route
from shared.orchestrator.drive import Driver
from shared.sessions.pace import Pace
from shared.settings import Settings
from shared.tools import Tool, Toolbox, ToolContext, ToolError
from shared.wiring import Parts
from tests.chaos.points import Pointed, Points
from tests.chaos.world import WORKER

Control = Literal["", "no_swap", "no_seen", "early_answer", "early_ack", "no_nonce"]
"""A mistake that is made on purpose, to see that a suite finds it."""
_ROLES = {"contact": "user", "agent": "assistant", "operator": "assistant", "tool": "tool"}
EARLY_SECONDS = 0.4
KINDS = ("pure", "keyed", "once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """What a process is told when it starts."""

    worker: str
    journal: str
    world: str
    topics: int = 1
    """Wake topics, `<name>-0` and so on, that sessions are spread over: the emulator pushes two at a time for each."""
    arm: str = ""
    named: bool = False
    control: Control = ""


class ChaosParts(Parts):
    """Everything there is one of in a process, behind points."""

    def __init__(self, settings: Settings, chaos: Chaos) -> None:
        super().__init__(settings)
        self.chaos = chaos
        self.points = Points(chaos.worker, Path(chaos.journal), arm=chaos.arm, named=chaos.named)

    @cached_property
    def pace(self) -> Pace:
        """As in production, but that what is due is found within a second or two."""
        return replace(super().pace, due=1.0)

    @cached_property
    def store(self) -> Any:
        """The project's, with its writes counted, behind points."""
        return Pointed(Watched(_broken(super().store, self.chaos.control), self.points), "store", self.points)

    @cached_property
    def files(self) -> Any:
        """The project's, behind points."""
        return Pointed(super().files, "files", self.points)

    @cached_property
    def bus(self) -> Any:
        """The project's, over several topics."""
        if self.settings.embedded:
            return Pointed(super().bus, "bus", self.points)
        from shared.bus.pubsub import PubSubBus

        settings = self.settings
        buses = [
            PubSubBus(
                settings.project,
                f"{settings.wake_topic}-{number}",
                settings.delivery_topic,
                settings.result_topic,
                emulator=settings.pubsub_emulator,
            )
            for number in range(self.chaos.topics)
        ]
        return Pointed(Sharded(buses), "bus", self.points)

    @cached_property
    def http(self) -> httpx.AsyncClient:
        """The client of outgoing HTTP, which names the process."""
        limits = httpx.Timeout(20.0, connect=5.0)
        # everything is on loopback: reading certificates would take a tenth of a short life
        return httpx.AsyncClient(timeout=limits, headers={WORKER: self.chaos.worker}, verify=False)  # noqa: S501

    @cached_property
    def result_poster(self) -> Any:
        """The project's, behind points."""
        return Pointed(super().result_poster, "results", self.points)

    @cached_property
    def driver(self) -> Driver:
        """The project's, with the world's models and tools, everything behind points."""
        driver = super().driver
        model, tools = WorldModel(self.http, self.chaos.world), WorldTools(self.http, self.chaos.world, self.clock)
        gateway = Pointed(model, "model", self.points)
        return replace(
            driver,
            route=Route({"world": lambda: gateway}, self.clock),
            toolbox=Toolbox(
                {name: self._pointed(tool) for name, tool in tools.registered.items()},
                callback=self.callback_address,
            ),
            channels={name: Pointed(channel, "channel", self.points) for name, channel in driver.channels.items()},
        )

    async def run_agent(self, wake: Any) -> None:
        """Drive one session for one wake."""
        if self.chaos.control == "early_ack":
            _later(super().run_agent(wake))
            return
        await super().run_agent(wake)

    def _pointed(self, tool: Tool) -> Tool:
        async def pointed(arguments: JsonObject, context: ToolContext) -> Any:
            self.points.point("before tool")
            result = await tool(arguments, context)
            self.points.point("after tool")
            return result

        return pointed


class Sharded:
    """Wakes spread over several topics by their session; all else by the first."""

    def __init__(self, buses: list[Any]) -> None:
        self._buses = buses

    async def wake(self, key: SessionKey) -> None:
        await self._buses[int(key.session[:8], 16) % len(self._buses)].wake(key)

    async def receipt(self, receipt: Receipt) -> None:
        await self._buses[0].receipt(receipt)

    async def result(self, result: Result) -> None:
        await self._buses[0].result(result)

    async def check(self) -> None:
        await self._buses[0].check()

    async def aclose(self) -> None:
        for bus in self._buses:
            await bus.aclose()


class Watched:
    """A store whose writes and reads of sessions are counted in the journal."""

    def __init__(self, store: Any, points: Points) -> None:
        self._store = store
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, key: SessionKey, *args: Any, **kwargs: Any) -> None:
        await self._store.append(key, *args, **kwargs)
        self._note(key, "append", writes=1)

    async def load(self, key: SessionKey) -> Any:
        stored = await self._store.load(key)
        self._note(key, "load", reads=1)
        return stored

    async def commit(self, key: SessionKey, version: object, **kwargs: Any) -> object:
        epoch = int(json.loads(kwargs["state"]).get("epoch", 0))
        writes = 1 + bool(kwargs.get("archive")) + len(kwargs.get("documents") or {}) + len(kwargs.get("spill") or {})
        try:
            new: object = await self._store.commit(key, version, **kwargs)
        except Exception:
            self._note(key, "commit", epoch=epoch, writes=writes, applied=False)
            raise
        self._note(key, "commit", epoch=epoch, writes=writes, version=_written(new))
        return new

    def _note(
        self,
        key: SessionKey,
        method: str,
        *,
        epoch: int = 0,
        applied: bool = True,
        version: str = "",
        writes: int = 0,
        reads: int = 0,
    ) -> None:
        self._points.note(
            session=key.session,
            method=method,
            epoch=epoch,
            applied=applied,
            version=version,
            writes=writes,
            reads=reads,
        )


def _written(version: object) -> str:
    """The version as text that sorts by time: Firestore's is the time of the write, to the nanosecond."""
    version = getattr(version, "at", version)
    if isinstance(version, int):
        return f"{version:020d}"
    if isinstance(version, datetime):
        return f"{version.astimezone(UTC).strftime('%Y%m%d%H%M%S')}{getattr(version, 'nanosecond', 0):09d}"
    return str(version)


def _broken(store: Any, control: Control) -> Any:
    made = {"no_swap": NoSwap, "no_seen": NoSeen, "early_answer": EarlyAnswer, "no_nonce": NoNonce}.get(control)
    return made(store) if made is not None else store


class _Broken:
    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class NoSwap(_Broken):
    """Writes whatever the document's version is by now: the last writer wins."""

    async def commit(self, key: SessionKey, version: object, **kwargs: Any) -> object:
        from shared.errors import Conflict

        for _ in range(20):
            try:
                return await self._store.commit(key, version, **kwargs)
            except Conflict:
                stored = await self._store.load(key)
                version = stored.version if stored is not None else None
        raise Conflict("lost twenty races without a swap")


class NoSeen(_Broken):
    """Forgets which messages a run has taken."""

    async def commit(self, key: SessionKey, version: object, **kwargs: Any) -> object:
        state = json.loads(kwargs["state"]) | {"seen": []}
        return await self._store.commit(key, version, **{**kwargs, "state": json.dumps(state).encode()})


class EarlyAnswer(_Broken):
    """Says that an entry is durable before it is."""

    async def append(self, *args: Any, **kwargs: Any) -> None:
        _later(self._store.append(*args, **kwargs), EARLY_SECONDS)


class NoNonce(_Broken):
    """Hides by whose commit the document became what it is."""

    async def load(self, key: SessionKey) -> Any:
        stored = await self._store.load(key)
        if stored is None or stored.state is None:
            return stored
        state = json.loads(stored.state) | {"nonce": "hidden"}
        return replace(stored, state=json.dumps(state).encode())


_tasks: set[asyncio.Task[Any]] = set()


def _later(work: Any, seconds: float = 0.0) -> None:
    async def begin() -> None:
        await asyncio.sleep(seconds)
        try:
            await work
        except Retryable:
            return  # nobody is left to be told: that is the mistake

    task = asyncio.create_task(begin())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class WorldModel:
    """A gateway to the world's model, in OpenAI's form."""

    def __init__(self, http: httpx.AsyncClient, world: str) -> None:
        self._http = http
        self._world = world

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        body = {
            "model": request.model,
            "messages": [_said(message) for message in request.messages],
            "tools": [tool.name for tool in request.tools],
        }
        try:
            response = await self._http.post(f"{self._world}/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            raise ModelUnavailable(f"{request.model}: {type(error).__name__}") from None
        said = response.json()["choices"][0]["message"]
        calls = tuple(
            ToolCall(id=call["id"], name=call["function"]["name"], arguments=json.loads(call["function"]["arguments"]))
            for call in said.get("tool_calls", ())
        )
        text = said["content"] or ""
        if on_text is not None:
            on_text(text)
        return ModelReply(
            model=request.model, text=text, tool_calls=calls, usage=Usage(input_tokens=10, output_tokens=2)
        )


def _said(message: Message) -> JsonObject:
    said: JsonObject = {"role": _ROLES[message.role], "content": message.text}
    if message.role == "tool":
        return said | {"tool_call_id": message.tool_call_id}
    if message.tool_calls:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return said


class WorldTools:
    """The tools that the world offers: one for each effect, and those that wait."""

    def __init__(self, http: httpx.AsyncClient, world: str, clock: Clock) -> None:
        self._http = http
        self._world = world
        self._clock = clock

    @property
    def registered(self) -> Mapping[str, Tool]:
        """By implementation."""
        tools: dict[str, Tool] = {f"builtin:{kind}": self._use for kind in KINDS}
        return {
            **tools,
            "builtin:ask": self._use,
            "builtin:timer": self._timer,
            "builtin:callback": self._external,
            "builtin:early": self._external,
        }

    async def _use(self, arguments: JsonObject, context: ToolContext) -> JsonObject:
        body = encode({**arguments, "key": context.idempotency_key})
        try:
            response = await self._http.post(f"{self._world}/tools", content=body)
        except httpx.HTTPError as error:
            raise ToolError(type(error).__name__) from None
        result: JsonObject = response.json()
        return result

    async def _timer(self, arguments: JsonObject, context: ToolContext) -> WaitRequest:
        return WaitRequest(until=self._clock.now() + timedelta(seconds=1))

    async def _external(self, arguments: JsonObject, context: ToolContext) -> WaitRequest:
        """Hand out the address; whoever has it calls back once this call is over, or sooner."""
        await self._http.post(f"{self._world}/external", json={**arguments, "url": context.callback()})
        return WaitRequest(kind="callback", until=self._clock.now() + timedelta(seconds=60))
