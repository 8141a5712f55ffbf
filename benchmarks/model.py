"""A stand-in model that answers at once, for us and for every peer: `python -m benchmarks.model PORT [SECONDS]`.

It calls the first tool that it is offered and, after a tool's result, answers in a sentence: two calls and a tool a
turn, or a sentence at once to a mere "Hello". It speaks OpenAI's form, whole or as a stream. `SECONDS` is how long it
thinks before a whole answer, and how long a stream takes it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from itertools import count
from typing import Any

from tests.chaos.http import LIMIT, Reply, Request, read_request

ANSWER = "It is sunny in Quito."
USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
_numbers = count(1)


def answer(request: Request) -> Reply:
    """What the model says to a request; a GET only asks whether it is there."""
    if request.method != "POST":
        return Reply(200, b"{}")
    asked: dict[str, Any] = json.loads(request.body)
    head = {"id": f"c{next(_numbers)}", "created": 1, "model": asked["model"]}
    message, finish = _message(asked)
    if asked.get("stream"):
        body = "".join(f"data: {event}\n\n" for event in events(head, message, finish))
        return Reply(200, body.encode(), "text/event-stream")
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Reply(200, json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode())


def events(head: dict[str, Any], message: dict[str, Any], finish: str) -> list[str]:
    """The data of each event of a stream: a word each."""
    words = [{"content": f"{word} "} for word in (message["content"] or "").split()]
    calls = [{"role": "assistant", "tool_calls": [{"index": 0, **call}]} for call in message.get("tool_calls", ())]
    head = {**head, "object": "chat.completion.chunk"}
    deltas = [*((delta, None) for delta in (*calls, *words)), ({}, finish)]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    return [*map(json.dumps, (*chunks, {**head, "choices": [], "usage": USAGE})), "[DONE]"]


def _message(asked: dict[str, Any]) -> tuple[dict[str, Any], str]:
    tools = asked.get("tools") or []
    last = asked["messages"][-1]
    if not tools or last["role"] == "tool" or last["content"] == "Hello":
        return {"role": "assistant", "content": ANSWER}, "stop"
    function = tools[0]["function"]
    # every tool of the workload has one argument; the order is one that the demo shop knows
    arguments = dict.fromkeys(function["parameters"]["properties"], "1042")
    called = {"name": function["name"], "arguments": json.dumps(arguments)}
    call = {"id": f"call_{next(_numbers)}", "type": "function", "function": called}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


async def spread(writer: asyncio.StreamWriter, said: Sequence[str], pause: float) -> None:
    """Write the events of a stream with pauses in between."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for event in said:
        data = f"data: {event}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()
        await asyncio.sleep(pause)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def serve(port: int, seconds: float = 0.0) -> None:
    """Answer on that loopback port until cancelled."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                if seconds and request.method == "POST" and json.loads(request.body).get("stream"):
                    said = answer(request).body.decode().removeprefix("data: ").split("\n\ndata: ")
                    await spread(writer, said, seconds / len(said))
                    continue
                if seconds and request.method == "POST":
                    await asyncio.sleep(seconds)
                writer.write(answer(request).encoded())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return  # whoever called has gone
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=LIMIT, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
