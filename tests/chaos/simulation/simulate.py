"""One seed, start to end."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.chaos.memory import MemoryStore
from tests.chaos.simulation.checks import check
from tests.chaos.simulation.loop import Deadlock, run
from tests.chaos.simulation.program import Program
from tests.chaos.simulation.town import Town


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one program."""

    seed: int
    violations: tuple[tuple[str, str], ...] = ()
    """Kind and story of each."""
    turns: int = 0
    faults: int = 0
    duplicate_sends: int = 0
    wasted_model_calls: int = 0
    recoveries: tuple[float, ...] = ()
    """Seconds from a kill to the next commit in a session that was being driven."""
    writes: int = 0
    reads: int = 0
    points: tuple[str, ...] = ()
    """Names of the points passed, only for a program that kills at numbered ones."""
    counts: dict[str, int] = field(default_factory=dict)


def simulate(program: Program, *, store: type[MemoryStore] = MemoryStore, verbose: bool = False) -> Outcome:
    """Live the program and check what it left. The same program always has the same outcome."""

    async def main() -> Outcome:
        town = Town(program, store=store, verbose=verbose)
        try:
            await town.live()
        finally:
            town.stop()
        check(town)
        return _outcome(town)

    try:
        return run(main())
    except Deadlock as error:
        return Outcome(seed=program.seed, violations=(("deadlock", str(error)),))


def _outcome(town: Town) -> Outcome:
    history = town.history
    sends = [(call.key, call.delivery.id) for call in history.sent if not call.settles and call.visible]
    recorded = sum(len(followed.marks) for followed in history.followed.values())
    return Outcome(
        seed=town.program.seed,
        violations=tuple(history.violations),
        turns=sum(followed.runs for followed in history.followed.values()),
        faults=sum(town.faults.counts.values()),
        duplicate_sends=len(sends) - len(set(sends)),
        wasted_model_calls=history.model_calls - recorded,
        recoveries=tuple(history.recoveries),
        writes=history.writes,
        reads=history.reads,
        points=tuple(town.faults.passed),
        counts=dict(town.faults.counts),
    )
