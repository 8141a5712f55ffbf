"""What lies outside of the processes: models, tools, channels with the people behind them, systems that call back.

It answers by chance, drawn from the seed, and differently when it is asked again: whatever is done twice shows.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Protocol

from shared.channels import Resend
from shared.domain import (
    Connection,
    Delivery,
    Effect,
    JsonObject,
    ModelReply,
    ModelRequest,
    SessionKey,
    ToolCall,
    Usage,
    WaitRequest,
)
from shared.errors import ModelRefused, ModelUnavailable, NotSent, Refused, Retryable, SendUnknown
from shared.tools import LookUp, Tool, ToolContext, ToolError, ToolResult
from tests.chaos.simulation.faults import Crash, Faults
from tests.chaos.simulation.history import History, Sent, Used, handling
from tests.chaos.simulation.process import Process
from tests.clock import NOON

RESEND: dict[str, Resend] = {"telegram": "counted", "whatsapp": "receipt", "web": "harmless", "api": "harmless"}
FETCHED = ("web", "api")
"""Channels whose readers come for the reply."""
EFFECTS: dict[str, Effect] = {
    "look": "pure",
    "keep": "keyed",
    "once": "once",
    "asked": "keyed",
    "sure": "once",
    "denied": "keyed",
    "timer": "pure",
    "call": "keyed",
    "person": "keyed",
}
"""The tools of every agent here. `asked` and `sure` need an approval."""
POISON = "poison"
"""A message with this word kills every process that asks a model about it."""
WAITS = {"timer", "call", "person"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How the world of one seed behaves."""

    tools: tuple[str, ...] = tuple(EFFECTS)
    talk: float = 0.5
    """How often a model answers with text; else it calls tools."""
    script: tuple[tuple[str, ...], ...] = ()
    """Instead of chance: which tools a run's model calls in its first turn, its second, and so on; then it answers."""
    slow: float = 0.1
    """How often a model or a tool takes more than a minute."""
    reply_parts: int = 1
    text_limit: int = 4096
    steady: bool = False
    """Nothing is left to chance."""


class Outside(Protocol):
    """Who brings into the sessions what people and systems answer."""

    def prompted(self, key: SessionKey, delivery: Delivery) -> None:
        """A contact sees buttons."""

    def called(self, key: SessionKey, wait: str, kind: str) -> None:
        """A system or an operator was asked, and will answer to this wait."""

    def delivered(self, key: SessionKey, delivery: Delivery, provider_id: str) -> None:
        """The provider took it, and says so by a receipt."""


class World:
    """One for all processes of a simulation."""

    def __init__(
        self, random: Random, faults: Faults, history: History, manner: Manner, sessions: dict[str, SessionKey]
    ) -> None:
        self.outside: Outside | None = None
        self.random = random
        self.faults = faults
        self.history = history
        self.manner = manner
        self.text_limit = manner.text_limit
        self.sessions = sessions
        """By the conversation's name."""
        self.kept: dict[str, str] = {}
        """What a `keyed` tool gave for a key."""
        self.given: dict[str, set[str]] = defaultdict(set)
        """All that was given for a key."""
        self.made = 0

    def resend(self, channel: str) -> Resend:
        return RESEND[channel]

    def fetched(self, channel: str) -> bool:
        return channel in FETCHED

    async def complete(self, process: Process, request: ModelRequest) -> ModelReply:
        """A reply with a mark that no other has: text, or calls of one to three tools."""
        key = handling.get().key
        assert key is not None
        self.history.model_asked(key, request)
        self.made += 1
        mark = f"m{self.made}x"
        if self._poisoned(request):
            self.faults.counts["poison"] += 1
            process.kill()
            raise Crash
        await process.spend(self._time())
        if self.faults.strikes("model", self.faults.rates.model):
            self.history.note(f"model fails instead of {mark}")
            raise self.random.choice((ModelUnavailable, ModelUnavailable, ModelRefused))(f"{request.model}: {mark}")
        names = self._tools_for(request)
        self.history.note(f"model {mark}: {' '.join(names) or 'text'}")
        calls = tuple(
            ToolCall(id=f"{mark}-{number}", name=name, arguments={"n": number}) for number, name in enumerate(names)
        )
        text = "" if calls and self.random.random() < 0.8 else self._text(mark)
        usage = Usage(input_tokens=10, output_tokens=2, cost_nano_usd=5)
        return ModelReply(model=request.model, text=text, tool_calls=calls, usage=usage)

    def tools(self, process: Process) -> dict[str, Tool]:
        """By implementation, as one process has them."""
        return {f"builtin:{name}": self._tool(process, name) for name in EFFECTS}

    def look_ups(self, process: Process) -> dict[str, LookUp]:
        """Of the tools that can tell what became of a call."""

        async def look_up(arguments: JsonObject, context: ToolContext) -> JsonObject | None:
            await process.point("before look-up")
            done = self.kept.get(context.idempotency_key)
            return {"done": done} if done is not None else None

        return {"builtin:sure": look_up}

    async def send(
        self, process: Process, channel: str, connection: Connection, conversation: str, delivery: Delivery
    ) -> str:
        key = self.sessions[conversation]
        try:
            await self._fail(process, delivery)
        except SendUnknown:
            if self.random.random() < 0.5:
                self._sent(key, channel, delivery)
            raise
        provider_id = self._sent(key, channel, delivery)
        await process.spend(self.random.uniform(0.02, 0.3))
        return provider_id

    async def settle(
        self, process: Process, channel: str, connection: Connection, conversation: str, delivery: Delivery
    ) -> None:
        await self._fail(process, delivery)
        self._note(self.sessions[conversation], channel, delivery, settles=True)

    async def _fail(self, process: Process, delivery: Delivery) -> None:
        await process.spend(self.random.uniform(0.02, 0.3))
        if not self.faults.strikes("channel", self.faults.rates.channel):
            return
        kind = self.random.randrange(6)
        if kind < 3:
            after = self.random.choice((0.5, 3.0, 30.0, 120.0))
            self.history.note(f"send {delivery.id}: not now, after {after} s")
            raise NotSent("429", after)
        if kind == 3:
            self.history.note(f"send {delivery.id}: refused")
            raise Refused("the contact blocked the bot")
        self.history.note(f"send {delivery.id}: unknown")
        raise SendUnknown("timeout")

    def _sent(self, key: SessionKey, channel: str, delivery: Delivery) -> str:
        self._note(key, channel, delivery, settles=False)
        provider_id = f"p{len(self.history.sent)}"
        if self.outside is not None:
            if delivery.buttons:
                self.outside.prompted(key, delivery)
            if RESEND[channel] == "receipt":
                self.outside.delivered(key, delivery, provider_id)
        return provider_id

    def _note(self, key: SessionKey, channel: str, delivery: Delivery, *, settles: bool) -> None:
        self.history.note(f"{'settle' if settles else 'send'} {delivery.id}: {delivery.text[:40]}")
        by = handling.get()
        known, stale = by.known.get(key, 0), self.history.stale(key)
        self.history.sent.append(Sent(key, delivery, by, known, channel, stale=stale, settles=settles))

    def _tool(self, process: Process, name: str) -> Tool:
        async def use(arguments: JsonObject, context: ToolContext) -> ToolResult:
            await process.point("before tool")
            result = await self._use(process, name, arguments, context)
            await process.point("after tool")
            return result

        return use

    async def _use(self, process: Process, name: str, arguments: JsonObject, context: ToolContext) -> ToolResult:
        key = SessionKey(context.tenant, context.session)
        step = step_of(context.idempotency_key)
        used = Used(context.idempotency_key, name, EFFECTS[name], handling.get())
        self.history.note(f"tool {name} {context.idempotency_key[-16:]}")
        self.history.tool_used(used, key, step)
        if name in WAITS:
            return self._wait(name, key, step)
        if EFFECTS[name] == "keyed" and context.idempotency_key in self.kept:
            return {"done": self.kept[context.idempotency_key]}
        if not self.manner.steady:
            await process.spend(self._time())
        if self.faults.strikes("tool", self.faults.rates.tool):
            raise self.random.choice((ToolError("no"), ValueError("a bug"), Retryable("the system is down")))
        self.made += 1
        done = self.kept[context.idempotency_key] = f"t{self.made}x"
        self.given[context.idempotency_key].add(done)
        return {"done": done}

    def _wait(self, name: str, key: SessionKey, step: tuple[int, str]) -> WaitRequest:
        now = NOON + timedelta(seconds=asyncio.get_running_loop().time())
        seconds = 45.0 if self.manner.steady else self.random.choice((5.0, 45.0, 130.0))
        if name == "timer":
            return WaitRequest(until=now + timedelta(seconds=seconds))
        kind = "callback" if name == "call" else "operator"
        if self.outside is not None:
            self.outside.called(key, f"c{step[0]}-{step[1].replace('.', '-')}", kind)
        until = now + timedelta(seconds=300.0)
        return WaitRequest(until=until, kind="callback" if name == "call" else "operator", question="May they?")

    def _tools_for(self, request: ModelRequest) -> tuple[str, ...]:
        if self.manner.steady:
            since = [message.role for message in reversed(request.messages)]
            turn = since[: since.index("contact")].count("agent")
            return self.manner.script[turn] if turn < len(self.manner.script) else ()
        if not request.tools or self.random.random() < self.manner.talk:
            return ()
        count = self.random.choice((1, 1, 1, 2, 3))
        return tuple(self.random.choice(self.manner.tools) for _ in range(count))

    def _poisoned(self, request: ModelRequest) -> bool:
        spoken = [message for message in request.messages if message.role != "tool"]
        last = next((number for number, message in enumerate(reversed(spoken)) if message.role == "agent"), len(spoken))
        return any(POISON in message.text for message in spoken[len(spoken) - last :])

    def _text(self, mark: str) -> str:
        parts = [f"{mark} says " + "word " * 6 for _ in range(self.manner.reply_parts)]
        return "\n\n".join(parts).strip()

    def _time(self) -> float:
        if self.manner.steady:
            return 1.0
        if self.random.random() < self.manner.slow:
            return self.random.choice((12.0, 45.0, 100.0))
        return self.random.uniform(0.1, 3.0)


def step_of(idempotency_key: str) -> tuple[int, str]:
    """Run and step of an idempotency key."""
    _, run, step = idempotency_key.split("-", 2)
    return int(run), step
