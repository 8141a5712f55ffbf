"""The gateway to an OpenAI-compatible server of one's own, such as vLLM, Ollama, OpenRouter or a proxy.

litellm serves these too, for several times the processor time, 180 MB and two seconds of a cold start
(docs/adr/0003-servers-of-ones-own-are-asked-directly.md). OpenAI's own address stays with litellm, which knows what
each model takes there.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shared.domain import ModelReply, ModelRequest, Usage
from shared.errors import ModelError, ModelRefused, ModelUnavailable
from shared.llm import OnText
from shared.llm.chat import asked, is_refusal, reply
from shared.llm.prices import Prices, Tokens

if TYPE_CHECKING:
    import aiohttp

CHARACTERS_A_TOKEN = 4
"""For a server that does not say what was used; OpenAI's rule of thumb for English:
https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them"""
_LINE_BYTES = 1 << 22
"""How long one piece of a stream may be."""
_CODE = re.compile(r"[A-Za-z_]{3,40}")
_MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class ChatCompletions:
    """Calls `openai/NAME` at `base_url`, such as `http://vllm:8000/v1`, where the server knows the model as `NAME`.

    `timeout` is in seconds, for a whole call with its stream. One call is one request: nothing is repeated here. A
    reply costs what litellm's price list says of OpenAI's model of that name, 0 for one that is not on it. Malformed
    arguments and empty answers are told as by `shared.llm.litellm.LiteLLM`.
    """

    def __init__(self, base_url: str, api_key: str = "", *, timeout: float = 120.0) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._api_key = api_key
        self._timeout = timeout
        self._prices: Prices | None = None

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        import aiohttp

        model = request.model
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._ask(request, on_text)
            if self._prices is None:
                self._prices = await asyncio.to_thread(Prices.of, "openai")
            return reply(model, answer.text, answer.written, answer.finish, _usage(request, answer, self._prices))
        except ModelError:
            raise
        except aiohttp.ClientError as error:
            reason = type(error).__name__
        except TimeoutError:
            reason = f"no answer within {self._timeout:g} s"
        except _MALFORMED as error:
            reason = f"the answer cannot be read: {type(error).__name__}"
        raise ModelUnavailable(f"{model}: {reason}")  # out of the handler: what was answered is not even its context

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        if (client := self.__dict__.pop("_client", None)) is not None:
            await client.close()

    @cached_property
    def _client(self) -> aiohttp.ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._api_key or 'none'}"},  # many servers want one, whatever it says
            connector=aiohttp.TCPConnector(limit=0),  # httpx looks at all connections for each request
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
            read_bufsize=_LINE_BYTES,
            trust_env=True,
        )

    async def _ask(self, request: ModelRequest, on_text: OnText | None) -> _Answer:
        body = {"model": request.model.removeprefix("openai/"), **asked(request)}
        if on_text is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        answer = _Answer(on_text=on_text)
        async with self._client.post(self._url, json=body) as response:
            if not response.ok:
                raise self._failure(request.model, response.status, await response.read())
            if response.content_type != "text/event-stream":
                answer.take(json.loads(await response.read()), "message")
                return answer
            async for line in response.content:
                data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                if data and data != b"[DONE]":
                    piece = json.loads(data)
                    if "error" in piece:
                        raise ModelUnavailable(f"{request.model}: an error in the stream{_code(piece)}")
                    answer.take(piece, "delta")
        if not answer.finish:
            raise ModelUnavailable(f"{request.model}: the answer broke off")
        return answer

    def _failure(self, model: str, status: int, body: bytes) -> ModelError:
        try:
            reason = f"HTTP {status}{_code(json.loads(body))}"
        except ValueError:
            reason = f"HTTP {status}"
        if status == 401 and not self._api_key:
            reason += " (not set: OPENAI_API_KEY)"
        return (ModelRefused if is_refusal(status) else ModelUnavailable)(f"{model}: {reason}")


def _code(said: Any) -> str:
    """What a server's error is called, with a blank before; nothing of its text, which may quote what it was sent."""
    try:
        code = said["error"]["code"]
    except _MALFORMED:
        return ""
    return f" {code}" if isinstance(code, str) and _CODE.fullmatch(code) else ""


@dataclass
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class _Answer:
    """What the server has said so far, of a stream or at once."""

    on_text: OnText | None
    text: str = ""
    calls: dict[int, _Call] = field(default_factory=dict)
    finish: str = ""
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def written(self) -> list[tuple[str, str, str]]:
        """Id, name and arguments of each call."""
        return [(call.id, call.name, call.arguments) for call in self.calls.values()]

    @property
    def call_characters(self) -> int:
        """How long the calls are together."""
        return sum(len(part) for call in self.written for part in call)

    def take(self, said: dict[str, Any], name: str) -> None:
        """The next piece, which holds what is new under that name."""
        self.usage = said.get("usage") or self.usage
        for choice in said["choices"][:1]:
            self.finish = choice.get("finish_reason") or self.finish
            new = choice.get(name) or {}
            if piece := new.get("content") or "":
                self.text += piece
                if self.on_text is not None:
                    self.on_text(piece)
            for call in new.get("tool_calls") or ():
                self._call(call)

    def _call(self, said: dict[str, Any]) -> None:
        function = said.get("function") or {}
        begins = bool(said.get("id") or function.get("name"))  # some servers do not number the calls of a reply
        place = said["index"] if "index" in said else len(self.calls) - (not begins)
        call = self.calls.setdefault(place, _Call())
        call.id = said.get("id") or call.id
        call.name += function.get("name") or ""
        call.arguments += function.get("arguments") or ""


def _usage(request: ModelRequest, answer: _Answer, prices: Prices) -> Usage:
    used = answer.usage
    if not used:
        # of what was sent, its JSON included
        given, made = len(json.dumps(asked(request), ensure_ascii=False)), len(answer.text) + answer.call_characters
        used = {
            "prompt_tokens": -(-given // CHARACTERS_A_TOKEN),
            "completion_tokens": -(-made // CHARACTERS_A_TOKEN),
        }
    details = used.get("prompt_tokens_details") or {}
    tokens = Tokens(
        input=used.get("prompt_tokens") or 0,
        output=used.get("completion_tokens") or 0,
        cached=details.get("cached_tokens") or 0,
        written=details.get("cache_write_tokens") or 0,
    )
    cost = prices.cost(request.model.removeprefix("openai/"), tokens)
    return Usage(input_tokens=tokens.input, output_tokens=tokens.output, cost_nano_usd=round(cost * 1e9))
