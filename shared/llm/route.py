"""Trying the models of a plan in their order until one answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from shared.clock import Clock
from shared.domain import ModelReply, ModelRequest
from shared.errors import ModelError, ModelFailed, ModelUnavailable
from shared.llm import Gateway, OnText

PAUSES = (0.5,)
"""Seconds before each further attempt at the same model; the next model is tried at once."""

logger = logging.getLogger(__name__)


class Route:
    """Picks the gateway by what stands before the slash in a model's name; `""` has all that no other name has.

    A gateway is made when the first request for it comes.
    """

    def __init__(self, gateways: Mapping[str, Callable[[], Gateway]], clock: Clock) -> None:
        self._makers = gateways
        self._made: dict[str, Gateway] = {}
        self._clock = clock

    async def complete(
        self,
        models: tuple[str, ...],
        request: ModelRequest,
        on_text: OnText | None = None,
        on_reset: Callable[[], None] | None = None,
    ) -> ModelReply:
        """The answer of the first of `models` that gives one; the model that `request` names does not matter.

        A model that is unavailable gets one more attempt after half a second, one that refuses none. `on_reset` is
        called when an attempt fails that has given text to `on_text`: forget those pieces, the next begins a new
        answer. Raises `ModelFailed`, which names each model and its last reason.
        """
        reasons = []
        for model in models:
            try:
                return await self._try(replace(request, model=model), on_text, on_reset)
            except ModelError as error:
                reasons.append(str(error))
        raise ModelFailed("; ".join(reasons) or "the plan names no model")

    async def _try(
        self, request: ModelRequest, on_text: OnText | None, on_reset: Callable[[], None] | None
    ) -> ModelReply:
        for pause in PAUSES:
            with suppress(ModelUnavailable):
                return await self._once(request, on_text, on_reset)
            await self._clock.sleep(pause)
        return await self._once(request, on_text, on_reset)

    async def _once(
        self, request: ModelRequest, on_text: OnText | None, on_reset: Callable[[], None] | None
    ) -> ModelReply:
        streamed = False

        def piece(text: str) -> None:
            nonlocal streamed
            streamed = True
            if on_text:
                on_text(text)

        try:
            return await self._gateway(request.model).complete(request, piece if on_text else None)
        except ModelError as error:
            logger.warning("model did not answer", extra={"fields": {"reason": str(error)}})
            if streamed and on_reset:
                on_reset()
            raise

    def _gateway(self, model: str) -> Gateway:
        prefix = model.partition("/")[0]
        name = prefix if prefix in self._makers else ""
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]
