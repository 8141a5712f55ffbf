"""The outside world: models, tools and channels behind one address, which see every call and write it down."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from shared.domain import JsonObject
from tests.chaos import script
from tests.chaos.chance import chance
from tests.chaos.history import History, ModelCall, Sent, ToolCall
from tests.chaos.http import Reply, Request
from tests.chaos.script import GAVE_UP

WORKER = "x-worker"
"""The header by which a function's process names itself to the world."""
_BOT = re.compile(r"/bot([^/]+)/(\w+)")
_WHATSAPP = re.compile(r"/v25\.0/(\d+)/messages")


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that the world takes at least and at most."""

    model: tuple[float, float] = (0.03, 0.12)
    tool: tuple[float, float] = (0.005, 0.1)
    send: tuple[float, float] = (0.005, 0.03)


@dataclass
class World:
    """Answers every call after a while and keeps it in `history`. `moved` is set whenever something happened."""

    seed: int
    latency: Latency = field(default_factory=Latency)
    history: History = field(default_factory=History)
    receipts: Callable[[Sent], Coroutine[Any, Any, None]] | None = None
    """Told of each message that WhatsApp took."""
    callbacks: Callable[[str, float], Coroutine[Any, Any, None]] | None = None
    """Given the address of a callback, and after how many seconds it shall come."""
    asked: Callable[[ModelCall, script.Options], Coroutine[Any, Any, None]] | None = None
    """Told of each call of the model before it is answered."""

    def __post_init__(self) -> None:
        self.moved = asyncio.Condition()
        self._random = chance(self.seed)
        self._answers: Counter[tuple[str, int]] = Counter()
        self._executions: Counter[str] = Counter()
        self._results: set[str] = set()
        self._messages = 0
        self.heard_at = 0.0
        self.answered: dict[str, float] = {}
        """When each message was first named in a reply."""
        self.apologies: set[str] = set()
        """Chats that were told that it went wrong."""
        self.replies: set[tuple[str, ...]] = set()
        """The inputs of each run that was answered."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, request: Request) -> Reply:
        """What the world answers."""
        path = unquote(request.path)
        if found := _BOT.fullmatch(path):
            return await self._telegram(found[2], request)
        if _WHATSAPP.fullmatch(path):
            return await self._whatsapp(request)
        answer = {
            "/v1/chat/completions": self._model,
            "/tools": self._tool,
            "/external": self._external,
            "/results": self._result,
        }.get(path)
        return await answer(request) if answer is not None else Reply(404)

    async def until(self, found: Callable[[], object], limit: float) -> bool:
        """Whether `found` became true within so many seconds."""
        try:
            async with asyncio.timeout(limit), self.moved:
                await self.moved.wait_for(lambda: bool(found()))
        except TimeoutError:
            return False
        return True

    async def tell(self) -> None:
        """Let those who wait look again."""
        self.heard_at = time.monotonic()
        async with self.moved:
            self.moved.notify_all()

    async def told(self, chat: str, text: str) -> None:
        """A caller has its answer: what a channel's message is to others."""
        self._messages += 1
        await self._heard(Sent(at=time.monotonic(), chat=chat, worker="", text=text, id=str(self._messages)))

    async def _heard(self, sent: Sent) -> None:
        self.history.sent.append(sent)
        said = script.answered(sent.text)
        if sent.text in GAVE_UP:
            self.apologies.add(sent.chat)
        if said is not None:
            self.replies.add(said.inputs)
            for name in said.inputs:
                self.answered.setdefault(name, sent.at)
        await self.tell()

    async def _model(self, request: Request) -> Reply:
        body = json.loads(request.body)
        asked = script.asked(body["messages"])
        if asked is None or not body["tools"]:  # without tools it is asked to sum the conversation up
            return _completion(body["model"], {"role": "assistant", "content": "They wrote, and were answered."})
        number = self._answers[asked.run, asked.turn]
        self._answers[asked.run, asked.turn] += 1
        call = ModelCall(
            at=time.monotonic(),
            chat=asked.chat,
            worker=request.headers.get(WORKER, ""),
            run=asked.run,
            inputs=asked.inputs,
            turn=asked.turn,
            number=number,
            turns=asked.turns,
            results=asked.results,
        )
        place = len(self.history.models)
        self.history.models.append(call)
        await self.tell()
        if self.asked is not None:
            await self.asked(call, asked.options)
        await asyncio.sleep(asked.options.delay or self._random.uniform(*self.latency.model))
        self.history.models[place] = replace(call, ended=time.monotonic())
        return _completion(body["model"], script.answer(asked, number))

    async def _tool(self, request: Request) -> Reply:
        body = json.loads(request.body)
        await asyncio.sleep(self._random.uniform(*self.latency.tool))
        number = self._executions[body["key"]]
        self._executions[body["key"]] += 1
        self.history.tools.append(
            ToolCall(
                at=time.monotonic(),
                chat=body["call"].partition(".")[0],
                worker=request.headers.get(WORKER, ""),
                call=body["call"],
                kind=body["kind"],
                key=body["key"],
                number=number,
            )
        )
        await self.tell()
        # a keyed tool has done it the first time and says so ever after
        return _json({"n": 0 if body["kind"] == "keyed" else number})

    async def _external(self, request: Request) -> Reply:
        """Somebody else's system: it calls back soon, or before it has answered."""
        body = json.loads(request.body)
        if self.callbacks is not None:
            if body["kind"] == "early":
                await self.callbacks(body["url"], 0.0)
            else:
                self._begin(self.callbacks(body["url"], self._random.uniform(0.0, 0.4)))
        return _json({})

    async def _result(self, request: Request) -> Reply:
        """A caller of an invoke who is told how it ended, and knows by its id what it was told before."""
        result = json.loads(request.body)
        if result["id"] not in self._results:
            self._results.add(result["id"])
            await self.told(result["session"], result["text"])
        return Reply(204)

    async def _telegram(self, method: str, request: Request) -> Reply:
        body = json.loads(request.body)
        if method in ("sendMessage", "editMessageText"):
            rows = body.get("reply_markup", {}).get("inline_keyboard", [])
            buttons = {button["text"]: button["callback_data"] for row in rows for button in row}
            sent = await self._sent(
                request,
                chat=str(body["chat_id"]),
                text=body["text"],
                buttons=buttons,
                edit=method == "editMessageText",
                id=str(body.get("message_id", "")),
            )
            return _json({"ok": True, "result": {"message_id": int(sent.id), "text": body["text"]}})
        return _json({"ok": True, "result": True})

    async def _whatsapp(self, request: Request) -> Reply:
        body = json.loads(request.body)
        if body.get("status") == "read":
            return _json({"success": True})
        interactive = body.get("interactive", {})
        text = (body.get("text") or interactive.get("body") or {}).get("body") or interactive.get("body", {}).get(
            "text"
        )
        rows = interactive.get("action", {}).get("buttons", [])
        sent = await self._sent(
            request,
            chat=str(body.get("to") or body.get("recipient")),
            text=str(text),
            buttons={row["reply"]["title"]: row["reply"]["id"] for row in rows},
            reference=body.get("biz_opaque_callback_data", ""),
        )
        if self.receipts is not None:
            self._begin(self.receipts(sent))
        return _json({"messages": [{"id": f"wamid.{sent.id}"}]})

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sent(self, request: Request, *, id: str = "", **fields: Any) -> Sent:  # noqa: A002
        """Taken at half of the time that the answer takes: a caller may die on either side."""
        pause = self._random.uniform(*self.latency.send) / 2
        await asyncio.sleep(pause)
        self._messages += 1
        sent = Sent(at=time.monotonic(), worker=request.headers.get(WORKER, ""), id=id or str(self._messages), **fields)
        await self._heard(sent)
        await asyncio.sleep(pause)
        return sent


def _completion(model: str, message: JsonObject) -> Reply:
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    head = {"id": "chat-1", "object": "chat.completion", "created": 1, "model": model}
    return _json({**head, "choices": [choice], "usage": usage})


def _json(body: JsonObject) -> Reply:
    return Reply(200, json.dumps(body).encode())
