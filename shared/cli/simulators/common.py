"""What the simulators have in common: calls that are remembered, faults on request, answers that never come."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from shared.domain import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, in the order of arrival, and how it was answered; status 0 for one that got no answer."""

    method: str
    parameters: JsonObject
    status: int
    description: str = ""


@dataclass(slots=True, kw_only=True)
class Faults:
    """What the next calls of a method meet; of each kind several queue up."""

    refusals: dict[str, deque[Exception]] = field(default_factory=lambda: defaultdict(deque))
    delays: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    drops: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def refuse(self, method: str) -> None:
        """Raise the refusal that waits for this call, if one does."""
        if refusals := self.refusals[method]:
            raise refusals.popleft()

    def drop(self, method: str) -> bool:
        """Whether this call is to be done and never answered."""
        dropped = self.drops[method] > 0
        self.drops[method] -= dropped
        return dropped


class Silence(Response):
    """No answer, until the client hangs up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


def problem(status: int, detail: str) -> Response:
    """What the command line is told that it got wrong."""
    return JSONResponse({"status": status, "detail": detail}, status, media_type="application/problem+json")
