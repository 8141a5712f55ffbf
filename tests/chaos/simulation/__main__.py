"""`python -m tests.chaos.simulation --seeds 2000`: many seeds on all cores, and one line of JSON about them."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

from tests.chaos.memory import MemoryStore
from tests.chaos.simulation.broken import BROKEN
from tests.chaos.simulation.program import program
from tests.chaos.simulation.simulate import Outcome, simulate
from tests.chaos.simulation.stories import STORIES, pairs, singles, told

CHUNK = 50
STORIES_TOLD = 5
"""Of the violations of a kind, so many are told."""


def main() -> int:
    """0 when nothing was violated; with `--control`, when something was."""
    arguments = _arguments()
    logging.disable(logging.CRITICAL)  # what goes wrong here goes wrong on purpose
    if arguments.seed is not None:
        return _replay(arguments)
    jobs = _pairs() if arguments.pairs else _seeds(arguments)
    total = _Total(arguments)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for outcomes in pool.map(_work, jobs):
            total.add(outcomes)
    return total.report()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--pairs", action="store_true", help="every pair of crash points of every story instead")
    parser.add_argument("--control", choices=sorted(BROKEN), help="break the protocol so: must find violations")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--story", choices=sorted(STORIES), help="this one alone, killed at the points --at")
    parser.add_argument("--at", default="", help="numbers of points, with commas")
    parser.add_argument("--verbose", action="store_true", help="tell everything that happens")
    found = parser.parse_args()
    if found.story and found.seed is None:
        found.seed = 0
    return found


def _replay(arguments: argparse.Namespace) -> int:
    store = BROKEN.get(arguments.control or "", MemoryStore)
    if arguments.story:
        at = frozenset(int(number) for number in arguments.at.split(",") if number)
        outcome = told(arguments.story, at, verbose=arguments.verbose)
    else:
        if arguments.verbose:
            print(program(arguments.seed))  # noqa: T201  what a person asked for
        outcome = simulate(program(arguments.seed), store=store, verbose=arguments.verbose)
    total = _Total(arguments)
    total.add([(f"--seed {arguments.seed}", outcome)])
    return total.report()


Job = tuple[str, object, str]
Named = tuple[str, Outcome]


def _seeds(arguments: argparse.Namespace) -> Iterator[Job]:
    last = arguments.first_seed + arguments.seeds
    for first in range(arguments.first_seed, last, CHUNK):
        yield "seeds", range(first, min(first + CHUNK, last)), arguments.control or ""


def _pairs() -> Iterator[Job]:
    for name in STORIES:
        yield "singles", name, ""
        for first in range(len(told(name, frozenset()).points)):
            yield "pairs", (name, first), ""


def _work(job: Job) -> list[Named]:
    what, given, control = job
    gc.freeze()
    if what == "seeds":
        assert isinstance(given, range)
        store = BROKEN.get(control, MemoryStore)
        return [(f"--seed {seed}", simulate(program(seed), store=store)) for seed in given]
    if what == "singles":
        assert isinstance(given, str)
        return [_told(given, at) for at in singles(given)]
    assert isinstance(given, tuple)
    name, first = given
    return [_told(name, at) for at in pairs(name, first)]


def _told(name: str, at: frozenset[int]) -> Named:
    return f"--story {name} --at {','.join(map(str, sorted(at)))}", told(name, at)


class _Total:
    """What all outcomes come to."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._violations: Counter[str] = Counter()
        self._failed: list[tuple[str, tuple[str, str]]] = []
        self._sums: Counter[str] = Counter()
        self._recoveries: list[float] = []

    def add(self, outcomes: Iterable[Named]) -> None:
        for name, outcome in outcomes:
            self._violations.update(kind for kind, _ in outcome.violations)
            self._failed += [(name, violation) for violation in outcome.violations]
            for field in ("turns", "faults", "duplicate_sends", "wasted_model_calls", "writes", "reads"):
                self._sums[field] += getattr(outcome, field)
            self._sums["outcomes"] += 1
            self._recoveries += outcome.recoveries

    def _told(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """The first few violations of each kind."""
        for kind in self._violations:
            of_kind = (failed for failed in self._failed if failed[1][0] == kind)
            yield from islice(of_kind, STORIES_TOLD)

    def report(self) -> int:
        """The line of JSON, and how to see again what failed."""
        control = bool(self._arguments.control)
        turns = max(1, self._sums["turns"])
        line = {
            "suite": "simulation",
            "seed": self._arguments.first_seed,
            "seeds": self._sums["outcomes"],
            "turns": self._sums["turns"],
            "faults": self._sums["faults"],
            "violations": dict(self._violations),
            "duplicate_sends": self._sums["duplicate_sends"],
            "wasted_model_calls": self._sums["wasted_model_calls"],
            "recovery_s": _percentiles(self._recoveries),
            "writes_per_turn": round(self._sums["writes"] / turns, 2),
            "reads_per_turn": round(self._sums["reads"] / turns, 2),
            "control": control,
        }
        print(json.dumps(line))  # noqa: T201  what was asked for
        for name, (kind, story) in () if control else self._told():
            again = f"python -m tests.chaos.simulation {name} --verbose"
            print(f"{kind}: {story}\n    again: {again}", file=sys.stderr)  # noqa: T201
        return int(bool(self._failed) != control)


def _percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    places = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) for name, share in places.items()}


if __name__ == "__main__":
    sys.exit(main())
