"""What goes wrong, where, and for how long: drawn from the seed, or at numbered points."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Literal

Act = Literal["", "kill", "pause", "fail"]


class Crash(BaseException):
    """The process was killed here; so does every later call of it end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often something goes wrong, per call of a port; 0 is never."""

    kill: float = 0.0
    pause: float = 0.0
    down: float = 0.0
    """The store or the bus gives no answer; a write did not happen."""
    lost: float = 0.0
    """The same, but the write did happen."""
    doubled: float = 0.0
    """A commit is refused although it was applied: its client had sent it twice."""
    wake_lost: float = 0.0
    wake_doubled: float = 0.0
    channel: float = 0.0
    """A channel does not take what it is given, or does not say so."""
    model: float = 0.0
    tool: float = 0.0


@dataclass
class Faults:
    """Decides at every point what happens there."""

    random: Random
    rates: Rates = field(default_factory=Rates)
    at: frozenset[int] | None = None
    """Instead of chance: kill at the points of these numbers, counted over all that were passed."""
    store_down_until: float = 0.0
    bus_down_until: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    passed: list[str] = field(default_factory=list)
    over: bool = False
    """From then on nothing goes wrong any more."""

    def kills(self, point: str) -> bool:
        """Whether the process dies at this point."""
        if self.at is not None:
            self.passed.append(point)
            return self._counted("kill", len(self.passed) - 1 in self.at)
        return self.strikes("kill", self.rates.kill)

    def strikes(self, name: str, rate: float) -> bool:
        """Whether a fault of this rate happens now."""
        return rate > 0 and not self.over and self._counted(name, self.random.random() < rate)

    def down(self, what: Literal["store", "bus"]) -> bool:
        """Whether that gives no answer now."""
        until = self.store_down_until if what == "store" else self.bus_down_until
        return not self.over and until > asyncio.get_running_loop().time()

    def _counted(self, name: str, happens: bool) -> bool:  # noqa: FBT001  one call, read at once
        if happens:
            self.counts[name] += 1
        return happens
