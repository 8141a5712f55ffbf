"""What the world's model does: decided by the texts of the messages alone, so that every reply can be checked.

A contact's message is `#<chat>.<number>` and options, such as `#7.3 k=2 t=1 e=keyed`: the run that begins with it asks
the model `k` times; each time but the last the model calls `t` tools, whose kinds are taken in turn from `e`. The last
answer names every message that the run had as an input, which answer of the model this is, and what the tools gave.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from shared.domain import Texts

MESSAGE = re.compile(r"#([\w+]+)\.(\d+)")
_OPTION = re.compile(r"\b(\w+)=([\w,.]+)")
_ANSWER = re.compile(r"re ([#\w+., -]+?) \| x=(\d+) \| (\S*)")
_PART = re.compile(r"part (\d+) of (re [^\n]+)")
_TURN = re.compile(r"turn (\d+) x=(\d+)")
TELEGRAM_CHARACTERS = 4096
GAVE_UP = frozenset({Texts().failed, Texts().stopped, Texts().blocked})
"""What contacts are told when a run ends without an answer."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a run goes that begins with a message."""

    models: int = 2
    tools: int = 1
    kinds: tuple[str, ...] = ("keyed",)
    parts: int = 1
    """Deliveries that the reply is cut into."""
    stalls: bool = False
    """Whether whoever asks the model dies of it."""
    delay: float = 0.0
    """Seconds that each answer of the model takes; 0: as the world likes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request to the model says of its run."""

    chat: str
    run: str
    """The run's first input."""
    inputs: tuple[str, ...]
    turn: int
    """The how-many-eth request of the run it is, by the answers that it has on record."""
    options: Options
    turns: dict[int, int]
    """Which answer of the model is on record for each earlier turn."""
    results: dict[str, str]
    """What is on record for each tool call."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a reply says."""

    chat: str
    inputs: tuple[str, ...]
    answer: int
    results: str


SUMMARY_ASKED = "Sum up the conversation"
"""How a request for a summary ends; its other messages are of runs long over."""


def options(text: str) -> Options:
    """The options in a message's text."""
    found = dict(_OPTION.findall(text))
    return Options(
        models=int(found.get("k", "2")),
        tools=int(found.get("t", "1")),
        kinds=tuple(found.get("e", "keyed").split(",")),
        parts=int(found.get("parts", "1")),
        stalls="stalls" in found,
        delay=float(found.get("wait", "0")),
    )


def ids(text: str) -> tuple[str, ...]:
    """The messages that a text names."""
    return tuple(f"{chat}.{number}" for chat, number in MESSAGE.findall(text))


def asked(messages: list[dict[str, Any]]) -> Asked | None:
    """What a request's messages say, in OpenAI's form; None when none is one of ours, or a summary is asked for."""
    if str(messages[-1]["content"]).startswith(SUMMARY_ASKED):
        return None
    last = max((place for place, said in enumerate(messages) if _is_final(said)), default=-1)
    run = messages[last + 1 :]
    inputs = [name for said in run if said["role"] == "user" for name in ids(str(said["content"]))[:1]]
    if not inputs:
        return None
    first = next(str(said["content"]) for said in run if said["role"] == "user" and ids(str(said["content"])))
    turns: dict[int, int] = {}
    for said in run:
        if said.get("tool_calls") and (found := _TURN.search(str(said["content"]))):
            turns[int(found[1])] = int(found[2])
    results = {said["tool_call_id"]: str(said["content"]) for said in run if said["role"] == "tool"}
    return Asked(
        chat=inputs[0].partition(".")[0],
        run=inputs[0],
        inputs=tuple(inputs),
        turn=len(turns) + 1,
        options=options(first),
        turns=turns,
        results=results,
    )


def answer(said: Asked, number: int) -> dict[str, Any]:
    """The model's message, in OpenAI's form; `number` is how many answers it has given before and tells them apart."""
    if said.turn < said.options.models:
        kinds = said.options.kinds
        calls = [_call(said, index, kinds[index % len(kinds)]) for index in range(said.options.tools)]
        return {"role": "assistant", "content": f"turn {said.turn} x={number}", "tool_calls": calls}
    digest = ",".join(_short(result) for _, result in sorted(said.results.items()))
    text = f"re {' '.join(f'#{name}' for name in said.inputs)} | x={number} | {digest or '-'}"
    head = text
    for part in range(2, said.options.parts + 1):
        text += f"\n\n{'.' * (TELEGRAM_CHARACTERS - len(head) - 10)}\n\npart {part} of {head}"
    return {"role": "assistant", "content": text}


def answered(text: str) -> Answered | None:
    """What a sent text says, if it is a reply of the model."""
    found = _ANSWER.match(text)
    if found is None:
        return None
    inputs = ids(found[1])
    return Answered(inputs[0].partition(".")[0], inputs, int(found[2]), found[3])


def parts(text: str) -> list[tuple[int, str]]:
    """The numbers of the further parts of a reply that stand in a sent text, each with the reply's first line."""
    return [(int(number), head) for number, head in _PART.findall(text)]


def heads(text: str) -> set[str]:
    """What marks a sent text, so that the part behind it can be known to follow: first lines, and `part n of` them."""
    found = {f"part {number} of {head}" for number, head in parts(text)}
    return found | ({text.splitlines()[0]} if answered(text) else set())


def _is_final(said: dict[str, Any]) -> bool:
    return said["role"] == "assistant" and not said.get("tool_calls")


def _call(said: Asked, index: int, kind: str) -> dict[str, Any]:
    name = f"{said.run}-{said.turn}-{index}"
    arguments = json.dumps({"call": name, "kind": kind})
    return {"id": name, "type": "function", "function": {"name": kind, "arguments": arguments}}


def _short(result: str) -> str:
    """A tool's result in a word: its execution's number, or what became of it."""
    found = json.loads(result)
    if "n" in found:
        return str(found["n"])
    word = "-".join(sorted(found)) + "-" + str(found.get("error", ""))[:24]
    return re.sub(r"\W+", "_", word)
