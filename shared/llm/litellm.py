"""The gateway to real models. litellm is imported by the first call, which costs 2 to 3 s and 180 MB, in a thread."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
from contextlib import aclosing
from types import ModuleType
from typing import Any

from shared.domain import ModelReply, ModelRequest, Usage
from shared.errors import ModelError, ModelRefused, ModelUnavailable
from shared.llm import OnText
from shared.llm.chat import asked, is_refusal, reply

_CODE = re.compile(r'"(?:code|status)":\s*"([A-Za-z_]{3,40})"')


class LiteLLM:
    """Calls a model by its litellm name, such as `openai/gpt-5-mini` or `gemini/gemini-2.5-flash`.

    Keys and addresses come from the variables that litellm reads itself (`OPENAI_API_KEY`, `OPENAI_BASE_URL`,
    `GEMINI_API_KEY` ...); `api_base` and `api_key` take their place for every model. An OpenAI-compatible server
    needs no key. `timeout` is in seconds, for a whole call with its stream. One call is one request: nothing is
    repeated here.

    A reply costs what litellm's price list says, 0 for a model that is not on it. A tool call with malformed arguments
    is told by `shared.llm.arguments.malformed`. A reply with neither text nor tool calls counts as `ModelUnavailable`,
    or `ModelRefused` when a content filter took it.
    """

    def __init__(self, *, timeout: float = 120.0, api_base: str = "", api_key: str = "") -> None:
        self._timeout = timeout
        self._api_base = api_base
        self._api_key = api_key
        self._litellm: ModuleType | None = None

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        if self._litellm is None:
            self._litellm = await asyncio.to_thread(_load)
        litellm = self._litellm
        arguments = self._arguments(litellm, request)
        try:
            async with asyncio.timeout(self._timeout):
                if on_text is None:
                    return _reply(request.model, await litellm.acompletion(**arguments))
                return _reply(request.model, await _streamed(litellm, arguments, on_text))
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - providers' own exceptions come through litellm as well
            failure = self._failure(litellm, request.model, error)
        raise failure  # out of the handler: the provider's text, which may quote the key, is not even its context

    async def aclose(self) -> None:
        """Close litellm's connections, of every instance in this process; a later call opens new ones."""
        if self._litellm is not None:
            await self._litellm.close_litellm_async_clients()
            self._litellm.in_memory_llm_clients_cache.flush_cache()

    def _arguments(self, litellm: ModuleType, request: ModelRequest) -> dict[str, Any]:
        arguments = {"model": request.model, "max_retries": 0, **asked(request)}
        if self._api_base:
            arguments["api_base"] = self._api_base
        if self._api_key:
            arguments["api_key"] = self._api_key
        elif request.model.startswith("openai/") and _missing(litellm, request.model):
            arguments["api_key"] = "none"  # the client wants one, a server of one's own does not
        return arguments

    def _failure(self, litellm: ModuleType, model: str, error: Exception) -> ModelError:
        if isinstance(error, TimeoutError):
            return ModelUnavailable(f"{model}: no answer within {self._timeout:g} s")
        status = getattr(error, "status_code", None)
        code = _CODE.search(f'"code": "{getattr(error, "code", None) or ""}" {error}')
        reason = " ".join(filter(None, (type(error).__name__, str(status or ""), code and code.group(1))))
        if status == 401 and not self._api_key and (missing := _missing(litellm, model)):
            reason += f" (not set: {', '.join(missing)})"
        refused = isinstance(status, int) and is_refusal(status)
        return (ModelRefused if refused else ModelUnavailable)(f"{model}: {reason}")


def _load() -> ModuleType:
    # the price list of the installed version, in place of a download at each start
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    # OpenAI through litellm's own HTTP client: 6.9 in place of 7.8 ms of CPU a call, and the contract suite holds on
    # both; `false` in the environment brings the openai package back
    os.environ.setdefault("EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER", "true")
    collecting = gc.isenabled()
    gc.disable()  # the import leaves little garbage to find: 1.8 in place of 2.4 s
    try:
        import litellm
    finally:
        if collecting:
            gc.enable()
    litellm.suppress_debug_info = True  # it prints to stdout otherwise
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).disabled = True  # its lines may quote requests; what matters is in our errors
    return litellm


def _missing(litellm: ModuleType, model: str) -> list[str]:
    missing: list[str] = litellm.validate_environment(model=model)["missing_keys"]
    return missing


async def _streamed(litellm: ModuleType, arguments: dict[str, Any], on_text: OnText) -> Any:
    stream = await litellm.acompletion(**arguments, stream=True, stream_options={"include_usage": True})
    chunks = []
    async with aclosing(stream):
        async for chunk in stream:
            chunks.append(chunk)
            if chunk.choices and (piece := chunk.choices[0].delta.content):
                on_text(piece)
    if not (stream.received_finish_reason or stream.intermittent_finish_reason):
        # litellm would say "stop" in its place, and half an answer would pass for a whole one
        raise ModelUnavailable(f"{arguments['model']}: the answer broke off")
    return litellm.stream_chunk_builder(chunks, messages=arguments["messages"])


def _reply(model: str, response: Any) -> ModelReply:
    choice = response.choices[0]
    calls = [
        (call.id, call.function.name or "", call.function.arguments or "") for call in choice.message.tool_calls or ()
    ]
    cost = response._hidden_params.get("response_cost") or 0.0  # noqa: SLF001 - where litellm puts its `completion_cost`
    usage = Usage(
        input_tokens=response.usage.prompt_tokens,
        output_tokens=response.usage.completion_tokens,
        cost_nano_usd=round(cost * 1e9),
    )
    return reply(model, choice.message.content or "", calls, choice.finish_reason, usage)
