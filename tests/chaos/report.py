"""One line of JSON for each suite."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos import invariants
from tests.chaos.history import History
from tests.chaos.invariants import Violation

RECOVERY_SECONDS = 5.0
"""What the 95th percentile must stay below."""


@dataclass
class Report:
    """What a suite found; reports of the same suite add up."""

    suite: str
    seed: int
    turns: int = 0
    faults: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    duplicate_sends: int = 0
    repeated: int = 0
    """Deliveries that the system itself says it sent again, not knowing: at least as many as were seen twice."""
    wasted_model_calls: int = 0
    recoveries: list[float] = field(default_factory=list)
    writes_per_turn: float | None = None
    reads_per_turn: float | None = None
    """None where no turns without faults were told to measure it."""
    control: bool = False
    seen: list[str] = field(default_factory=list)
    """What the violations were, for the log."""

    def add(self, history: History, faults: Iterable[str], otherwise: frozenset[str] = frozenset()) -> None:
        """Check a history; `faults` are the kinds of faults that count."""
        wanted = set(faults)
        self.turns += invariants.turns(history)
        self.faults += sum(fault.kind in wanted for fault in history.faults)
        self.duplicate_sends += sum(1 for _ in invariants.repeated_sends(history))
        self.wasted_model_calls += invariants.wasted(history)
        self.recoveries += invariants.recoveries(history)
        self.violate(invariants.violations(history, otherwise))

    def violate(self, found: Iterable[Violation]) -> None:
        """Count these."""
        for kind, what in found:
            self.violations[kind] += 1
            self.seen.append(f"{kind}: {what}")

    @property
    def ok(self) -> bool:
        """Whether it is as it must be: nothing found, or something when that was the point."""
        return bool(self.violations) == self.control

    def line(self) -> str:
        """The report as one line of JSON."""
        recovery = {
            "p50": _percentile(self.recoveries, 50),
            "p95": _percentile(self.recoveries, 95),
            "max": _percentile(self.recoveries, 100),
        }
        return json.dumps(
            {
                "suite": self.suite,
                "seed": self.seed,
                "turns": self.turns,
                "faults": self.faults,
                "violations": dict(sorted(self.violations.items())),
                "duplicate_sends": self.duplicate_sends,
                "wasted_model_calls": self.wasted_model_calls,
                "recovery_s": recovery,
                "writes_per_turn": _rounded(self.writes_per_turn),
                "reads_per_turn": _rounded(self.reads_per_turn),
                "control": self.control,
            }
        )

    def check_recovery(self) -> None:
        """I11: a violation when it took too long."""
        late = _percentile(self.recoveries, 95)
        if late is not None and late > RECOVERY_SECONDS:
            self.violate([("slow_recovery", f"95 % within {late} s")])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _percentile(values: Sequence[float], percent: int) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 2)
