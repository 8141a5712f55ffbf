"""An OpenAI-compatible chat endpoint that does as it is told: `python -m tests.servers.model_server PORT`.

It asks first for a tool that it is offered, then, once the last message is a tool's result, answers in a sentence that
contains it; without tools it greets. `POST /faults` decides how the next requests go wrong, `GET /stats` says what was
asked, `POST /reset` forgets both.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import uvicorn
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

UNKNOWN_MODEL = "no-such-model"
"""The one model name that is answered with 404."""


class Fault(BaseModel):
    """How the next `count` chat requests go wrong, each kind with the fields that it uses."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["status", "hang", "drop", "end", "delay", "arguments", "empty", "text", "hold"]
    """`status`: an error answer with `message` and `code`. `hang`: no answer until the client leaves. `drop`: the
    connection ends in the middle of the answer. `end`: a stream ends there as if it were whole. `delay`: the answer
    comes `seconds` later. `arguments`: tool calls carry `arguments`, malformed or not, as they stand. `empty`: neither
    text nor tool calls, `code` being the reason to finish. `text`: `message` is the answer. `hold`: likewise, and its
    stream stops half-way until `go_on` is set."""
    count: int = 1
    status: int = 500
    message: str = "the test asked for this"
    code: str | None = None
    seconds: float = 0.0
    arguments: str = "{oops"


class ModelServer:
    """The endpoint's state and routes. `requests` are the bodies of the chat requests, the oldest first."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.hanging = threading.Event()
        """Set once a request hangs."""
        self.abandoned = threading.Event()
        """Set once a client has left a request that hangs."""
        self.go_on = threading.Event()
        """Lets answers that are held half-way go on."""
        self._faults: list[Fault] = []
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/stats", self._stats),
                Route("/faults", self._add_fault, methods=["POST"]),
                Route("/reset", self._reset, methods=["POST"]),
            ]
        )

    def fail(self, fault: Fault) -> None:
        """Let the requests that no earlier fault claims go wrong."""
        self._faults += [fault] * fault.count

    def reset(self) -> None:
        self.requests.clear()
        self._faults.clear()
        self.hanging.clear()
        self.abandoned.clear()
        self.go_on.clear()

    async def _stats(self, _: Request) -> Response:
        return JSONResponse({"requests": len(self.requests), "bodies": self.requests})

    async def _add_fault(self, request: Request) -> Response:
        try:
            self.fail(Fault.model_validate_json(await request.body()))
        except ValidationError as error:
            return Response(str(error), 400)
        return Response(status_code=204)

    async def _reset(self, _: Request) -> Response:
        self.reset()
        return Response(status_code=204)

    async def _chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append(body)
        fault = self._faults.pop(0) if self._faults else None
        if body["model"] == UNKNOWN_MODEL:
            fault = Fault(kind="status", status=404, message="The model does not exist", code="model_not_found")
        if fault and fault.kind == "status":
            error = {"message": fault.message, "type": "error", "param": None, "code": fault.code}
            return JSONResponse({"error": error}, fault.status)
        if fault and fault.kind == "hang":
            self.hanging.set()
            await request.receive()  # the body is read: what comes next is the end of the connection
            self.abandoned.set()
            return Response(status_code=499)
        if fault and fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        if body.get("stream"):
            return _streamed(body, _answer(body, fault), fault, self.go_on)
        return _whole(body, _answer(body, fault), fault)


def _answer(body: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
    if fault and fault.kind in ("empty", "text", "hold"):
        return {"role": "assistant", "content": None if fault.kind == "empty" else fault.message}
    last, tools = body["messages"][-1], [tool["function"] for tool in body.get("tools", [])]
    if last["role"] == "tool":
        return {"role": "assistant", "content": f"Here is what I found: {last['content']} That is all."}
    if not tools:
        return {"role": "assistant", "content": "Hello, I am the test model."}
    text = str(last["content"])
    tool = next((tool for tool in tools if tool["name"].split("_")[0] in text.lower()), tools[0])
    arguments = fault.arguments if fault and fault.kind == "arguments" else json.dumps(_arguments(tool, text))
    call = {
        "id": f"call_{len(body['messages'])}",
        "type": "function",
        "function": {"name": tool["name"], "arguments": arguments},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _arguments(tool: dict[str, Any], text: str) -> dict[str, str]:
    order = re.search(r"\d{3,}", text)
    values = {"order_id": order.group() if order else "1042"}
    return {name: values.get(name, "something") for name in tool["parameters"].get("properties", {})}


def _usage(body: dict[str, Any], message: dict[str, Any]) -> dict[str, int]:
    given, made = len(json.dumps(body["messages"])) // 4, len(json.dumps(message)) // 4
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def _finish(message: dict[str, Any], fault: Fault | None) -> str:
    if fault and fault.kind == "empty" and fault.code:
        return fault.code
    return "tool_calls" if message.get("tool_calls") else "stop"


def _whole(body: dict[str, Any], message: dict[str, Any], fault: Fault | None) -> Response:
    choice = {"index": 0, "message": message, "finish_reason": _finish(message, fault)}
    answer = {"id": "chat-1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
    if not fault or fault.kind != "drop":
        return Response(json.dumps(answer | {"usage": _usage(body, message)}), media_type="application/json")

    async def half() -> AsyncIterator[str]:
        yield json.dumps(answer)[:40]

    return StreamingResponse(half(), headers={"content-type": "application/json", "content-length": "4000"})


def _streamed(body: dict[str, Any], message: dict[str, Any], fault: Fault | None, go_on: threading.Event) -> Response:
    base = {"id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    deltas = [*_deltas(message)]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    chunks = [base | {"choices": [choice]} for choice in choices]
    chunks.append(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": _finish(message, fault)}]})
    if body.get("stream_options", {}).get("include_usage"):
        chunks.append(base | {"choices": [], "usage": _usage(body, message)})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]

    cut = fault is not None and fault.kind in ("drop", "end")

    async def pieces() -> AsyncIterator[str]:
        for place, line in enumerate(lines[: len(deltas) // 2] if cut else lines):
            if fault and fault.kind == "hold" and place == len(deltas) // 2:
                await asyncio.to_thread(go_on.wait)
            yield line
            await asyncio.sleep(0)

    headers = {"content-length": str(sum(map(len, lines)))} if fault and fault.kind == "drop" else {}
    return StreamingResponse(pieces(), media_type="text/event-stream", headers=headers)


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The message in pieces as OpenAI cuts it: words, and a tool call's head before its arguments."""
    yield {"role": "assistant", "content": None if message.get("tool_calls") else ""}
    for index, call in enumerate(message.get("tool_calls", [])):
        arguments = call["function"]["arguments"]
        head = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": head}]}
        for at in range(0, len(arguments), 5):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 5]}}]}
    for word in re.findall(r"\S+\s*", message["content"] or ""):
        yield {"content": word}


def _server(app: Starlette) -> uvicorn.Server:
    # a request that hangs or is cut ends with the server, without a line in the log
    return uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))


@contextmanager
def running(port: int = 0) -> Iterator[ModelServer]:
    """A model server in a thread of its own, at `url` (with `/v1`), until the end of the block."""
    model_server = ModelServer()
    server = _server(model_server.app)
    # bound and listening before the thread starts: a client may connect at once
    with socket.create_server(("127.0.0.1", port)) as listening:
        model_server.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield model_server
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as socket_of_the_command:
        _server(ModelServer().app).run(sockets=[socket_of_the_command])
