"""The one way to call a model: the port that `litellm` and `scripted` implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from shared.domain import ModelReply, ModelRequest

OnText = Callable[[str], None]
"""Called with each piece of text as it comes; must return at once."""


class Gateway(Protocol):
    """Calls one model once. Which models, in which order, and what to do when one fails is the caller's affair."""

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """The model's answer with its usage and cost.

        With `on_text` the answer is streamed, and the pieces joined are the reply's text; without, it is asked for in
        one piece. Raises `ModelUnavailable` when the same or another model may answer later or instead, and
        `ModelRefused` when this request will never be answered (bad key, unknown model, rejected input).
        """
