"""The least that a turn can cost: the model called in a loop, nothing kept, nothing served. `raw.py httpx|litellm`
prints the processor milliseconds of a turn, one turn after the other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Said = dict[str, Any]
Ask = Callable[[list[Said]], Awaitable[Said]]

TURNS = int(os.environ.get("BENCH_TURNS", "150"))
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "What the weather is like in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def turn(ask: Ask) -> None:
    messages: list[Said] = [{"role": "user", "content": "What is the weather like in Quito?"}]
    while (message := await ask(messages)).get("tool_calls"):
        messages.append(message)
        for call in message["tool_calls"]:
            city = json.loads(call["function"]["arguments"])["city"]
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": f"sunny in {city}"})
    assert message["content"]


def by_httpx() -> Ask:
    import httpx

    client = httpx.AsyncClient(base_url=os.environ["OPENAI_BASE_URL"])

    async def ask(messages: list[Said]) -> Said:
        body = {"model": "of-the-benchmark", "messages": messages, "tools": [TOOL]}
        said: Said = (await client.post("/chat/completions", json=body)).json()["choices"][0]["message"]
        return said

    return ask


def by_litellm() -> Ask:
    import litellm

    async def ask(messages: list[Said]) -> Said:
        reply = await litellm.acompletion(model="openai/of-the-benchmark", messages=messages, tools=[TOOL])
        said: Said = reply.choices[0].message.model_dump(exclude_none=True)
        return said

    return ask


async def main() -> None:
    ask = {"httpx": by_httpx, "litellm": by_litellm}[sys.argv[1]]()
    for _ in range(10):
        await turn(ask)
    begun = time.process_time()
    for _ in range(TURNS):
        await turn(ask)
    print(json.dumps({"cpu_ms_per_turn": (time.process_time() - begun) / TURNS * 1e3}))


asyncio.run(main())
