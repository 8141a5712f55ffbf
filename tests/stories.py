"""What may happen to a session, told on a stage to its end, however often its process is killed meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

from shared.channels.split import LEAST_LIMIT
from shared.domain import (
    Budget,
    Effect,
    Entry,
    JsonObject,
    ModelReply,
    ModelRequest,
    Outcome,
    Queueing,
    QueueMode,
    Receipt,
    WaitRequest,
    Wake,
)
from shared.errors import Gone
from shared.llm import OnText
from shared.llm.scripted import Scripted
from shared.sessions import callback
from shared.sessions.accept import pending
from shared.sessions.document import Wait
from shared.sessions.receipts import record
from shared.store.sqlite import SqliteStore
from shared.tools import Tool, ToolContext, ToolResult
from tests.clock import NOON
from tests.stage import ASKING, PLAN, Crash, Stage, calls, message, says, tool

WAIT = timedelta(hours=1)


class Witness(Scripted):
    """The demo model, or `answer`; it also sees to it that no recorded step is executed again."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.answer: Callable[[ModelRequest], ModelReply] | None = None
        self.again: list[str] = []
        """Steps that were executed although their result was recorded."""
        self.meanwhile: Entry | None = None
        """What comes in while the model thinks for the first time."""
        for name, use in stage.tools.items():
            stage.tools[name] = self.witnessed(use)

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        session, run = await self.stage.session(), await self.stage.unfinished()
        recorded = [step for step in run.steps if step.kind == "model" and not step.dropped]
        known = len(recorded) + sum(said.role == "agent" for said in session.context)
        if sum(said.role == "agent" for said in request.messages) < known:
            self.again.append(f"model-{len(recorded)}")
        if self.meanwhile is not None:
            entry, self.meanwhile = self.meanwhile, None
            await SqliteStore.append(self.stage.store, self.stage.key, {entry.id: pending(entry)}, NOON)
            self.stage.bus.queue.append(Wake(key=self.stage.key, id="meanwhile"))
        return self.answer(request) if self.answer is not None else await super().complete(request, on_text)

    def witnessed(self, use: Tool) -> Tool:
        async def witnessed(arguments: JsonObject, context: ToolContext) -> ToolResult:
            key = context.idempotency_key.split("-", 2)[2]
            recorded = {step.key for step in (await self.stage.unfinished()).steps if step.result is not None}
            if key in recorded:
                self.again.append(key)
            return await use(arguments, context)

        return witnessed


@dataclass(frozen=True)
class Story:
    tell: Callable[[Stage, Witness], Awaitable[None]]
    inputs: list[list[str]]
    """The texts that each run answered, in order."""
    sends: int
    once: int = 0
    """Calls of a tool that must not be repeated; each was executed, or recorded as unknown."""
    resend: Literal["harmless", "receipt", "counted"] = "counted"
    outcome: Outcome = "answered"
    fetched: bool = field(default=False, kw_only=True)
    """Readers come for the replies: none is sent."""
    names: str = field(default="", kw_only=True)

    @property
    def name(self) -> str:
        return self.names or f"{self.tell.__name__}{'_fetched' * self.fetched}"


async def greeted(stage: Stage, _: Witness) -> None:
    """One model call, and a reply in two parts."""
    stage.channel.text_limit = LEAST_LIMIT
    await stage.say("Hello")
    await stage.pump()


async def greeted_with_receipts(stage: Stage, witness: Witness) -> None:
    """The provider says of each message that it took it, and says so again."""
    await greeted(stage, witness)
    for _ in range(4):
        for sent in list(stage.channel.sent):
            await report(stage, sent.id)
        await stage.pump()
        await stage.tick(60)


async def report(stage: Stage, delivery: str) -> None:
    receipt = Receipt(key=stage.key, delivery=delivery, provider_id="m", status="sent", at=NOON)
    try:
        await record(stage.store, lambda _, entry: stage.put(entry), receipt, NOON, NOON)
    except Crash:
        stage.faults.restart()
        await report(stage, delivery)


async def looked_up(stage: Stage, _: Witness) -> None:
    """The channel brings the message once more after it was answered."""
    for _once_more in range(2):
        await stage.say("Where is order 1042?")
        await stage.pump()


async def refunded(stage: Stage, _: Witness, effect: Effect = "once") -> None:
    stage.publish(replace(PLAN, tools=(tool("refund_order", effect),)))
    await stage.say("Refund order 1042")
    await stage.pump()


async def refunded_by_key(stage: Stage, witness: Witness) -> None:
    await refunded(stage, witness, "keyed")


async def approved(stage: Stage, _: Witness) -> None:
    stage.publish(ASKING)
    await stage.say("Refund order 1042")
    await stage.pump()
    await stage.tap(approved=True)
    await stage.pump()


def during(mode: QueueMode) -> Callable[[Stage, Witness], Awaitable[None]]:
    """A second message comes while the model answers the first, which comes again as well."""

    async def tell(stage: Stage, witness: Witness) -> None:
        stage.publish(replace(PLAN, queueing=Queueing(mode=mode, debounce_seconds=0)))
        witness.meanwhile = replace(message(9, "Where is order 1041?"), conversation=stage.conversation)
        await looked_up(stage, witness)

    tell.__name__ = mode
    return tell


async def stopped(stage: Stage, witness: Witness) -> None:
    """The contact says to stop while the model thinks, and the channel brings that again."""
    stop = replace(message(9, "/stop"), kind="stop", conversation=stage.conversation)
    witness.meanwhile = stop
    await stage.say("Where is order 1042?")
    await stage.pump()
    await stage.put(stop)
    await stage.pump()


def side_by_side(*names: str) -> Callable[[Stage, Witness], Awaitable[None]]:
    """The model asks for these tools at once."""

    async def tell(stage: Stage, witness: Witness) -> None:
        stage.publish(replace(PLAN, tools=(*PLAN.tools, tool("keyed_order", "keyed"))))
        stage.tools["keyed_order"] = stage.tools["lookup_order"]
        witness.answer = first(calls(*names), "Done")
        await stage.say("Do both")
        await stage.pump()

    tell.__name__ = " beside ".join(names)
    return tell


def first(reply: ModelReply, then: str) -> Callable[[ModelRequest], ModelReply]:
    """A model that begins with this reply, and says the text once tools have answered."""
    return lambda request: says(then) if request.messages[-1].role == "tool" else reply


def waited(kind: Literal["callback", "operator", "timer"]) -> Callable[[Stage, Witness], Awaitable[None]]:
    """The run waits for something outside, and that comes twice."""

    async def asks(arguments: JsonObject, context: ToolContext) -> WaitRequest:
        return WaitRequest(kind=kind, until=NOON + WAIT, question="May I?")

    async def tell(stage: Stage, witness: Witness) -> None:
        stage.publish(replace(PLAN, tools=(tool("asks", "keyed"),)))
        stage.tools["asks"] = witness.witnessed(asks)
        witness.answer = first(calls("asks"), "It came")
        await stage.say("Wait for it")
        await stage.pump()
        wait = await waiting(stage)
        if kind == "timer":
            await stage.tick(WAIT.total_seconds() + 60)
            return
        for _ in range(2):
            await answer(stage, wait)
            await stage.pump()

    tell.__name__ = f"waited_for_{kind}"
    return tell


async def waiting(stage: Stage) -> Wait:
    """The wait of a run that holds nothing."""
    session, run = await stage.session(), await stage.unfinished()
    assert (session.lease, session.outbox, run.parked) == (None, (), True)
    assert run.wait is not None
    return run.wait


async def answer(stage: Stage, wait: Wait) -> None:
    """What comes from outside; one that is over is refused, as the endpoint does."""
    try:
        entry = callback.answer_to(await stage.session(), wait.id, {"paid": True}, stage.clock.now())
    except Gone:
        return
    await stage.put(entry)


async def approved_both(stage: Stage, witness: Witness) -> None:
    stage.publish(ASKING)
    witness.answer = first(calls("refund_order", "refund_order"), "Both are refunded")
    await stage.say("Refund both")
    await stage.pump()
    open_ = [wait.id for wait in (await stage.unfinished()).open]
    assert len(open_) == 2
    for order, token in enumerate(open_, 100):
        await stage.tap(approved=True, order=order, token=token)
        await stage.pump()


async def spent(stage: Stage, witness: Witness) -> None:
    """The run may use one tool, and the model asks for two."""
    stage.publish(replace(PLAN, budget=Budget(tool_calls=1)))
    witness.answer = first(calls("refund_order", "lookup_order"), "never said")
    await stage.say("Do both")
    await stage.pump()


LOOK = "Where is order 1042?"
BOTH = [LOOK, "Where is order 1041?"]
REFUND = ["Refund order 1042"]
STORIES = [
    Story(greeted, [["Hello"]], sends=2),
    Story(greeted, [["Hello"]], sends=2, resend="harmless", names="greeted_harmlessly"),
    Story(greeted_with_receipts, [["Hello"]], sends=2, resend="receipt"),
    Story(looked_up, [[LOOK]], sends=1),
    Story(refunded, [REFUND], sends=1, once=1),
    Story(refunded_by_key, [REFUND], sends=1),
    Story(approved, [REFUND], sends=2, once=1),
    Story(during("steer"), [BOTH], sends=1),
    Story(during("followup"), [[text] for text in BOTH], sends=2),
    Story(during("collect"), [[text] for text in BOTH], sends=2),
    Story(during("interrupt"), [BOTH], sends=1),
    Story(during("reject"), [[LOOK]], sends=2),
    Story(stopped, [[LOOK]], sends=1, outcome="cancelled"),
    Story(side_by_side("lookup_order", "keyed_order"), [["Do both"]], sends=1),
    Story(side_by_side("refund_order", "refund_order"), [["Do both"]], sends=1, once=2),
    Story(waited("callback"), [["Wait for it"]], sends=1),
    Story(waited("operator"), [["Wait for it"]], sends=1),
    Story(waited("timer"), [["Wait for it"]], sends=1),
    Story(approved_both, [["Refund both"]], sends=3, once=2),
    Story(spent, [["Do both"]], sends=1, once=1, outcome="stopped"),
    Story(greeted, [["Hello"]], sends=0, fetched=True),
    Story(approved, [REFUND], sends=1, once=1, fetched=True),
    Story(during("interrupt"), [BOTH], sends=0, fetched=True),
    Story(during("followup"), [[text] for text in BOTH], sends=0, fetched=True),
    Story(stopped, [[LOOK]], sends=0, outcome="cancelled", fetched=True),
]
