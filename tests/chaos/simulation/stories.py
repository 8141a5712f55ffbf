"""Short programs without chance, in which processes are killed at every point, and at every pair of points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from shared.channels.split import LEAST_LIMIT
from tests.chaos.simulation.faults import Rates
from tests.chaos.simulation.program import Command, Program
from tests.chaos.simulation.simulate import Outcome, simulate
from tests.chaos.simulation.world import Manner

SAY = Command(do="say", after=0.0)


def _story(*turns: tuple[str, ...], then: tuple[Command, ...] = (), parts: int = 1) -> Program:
    """Ana writes once; the model calls these tools, turn by turn, and answers."""
    return Program(
        seed=0,
        channels=("telegram",),
        mode="steer",
        debounce=0.0,
        processes=1,
        room=1000,
        slice_seconds=480.0,
        rates=Rates(),
        manner=Manner(script=turns, steady=True, reply_parts=parts, text_limit=4096 if parts == 1 else LEAST_LIMIT),
        commands=(SAY, *then),
        kills_at=frozenset(),
        slack=20.0,
    )


STORIES = {
    "plain": _story(),
    "keyed": _story(("keep",)),
    "once": _story(("once",)),
    "parallel": _story(("look", "keep", "once")),
    "approval": _story(("sure",)),
    "callback": _story(("call",)),
    "timer": _story(("timer",)),
    "cancel": _story(("keep",), ("timer",), then=(Command(do="stop", after=5.0),)),
    "steer": _story(("keep",), then=(Command(do="say", after=0.5),)),
    "parts": _story(parts=3),
}


def told(name: str, at: frozenset[int], *, verbose: bool = False) -> Outcome:
    """What comes of the story when a process is killed at these points."""
    return simulate(replace(STORIES[name], kills_at=at), verbose=verbose)


def singles(name: str) -> Iterator[frozenset[int]]:
    """Every point of the story by itself, and none."""
    calm = told(name, frozenset())
    return chain([frozenset[int]()], (frozenset({at}) for at in range(len(calm.points))))


def pairs(name: str, first: int) -> Iterator[frozenset[int]]:
    """That point together with every later one, also of the recovery from it."""
    points = len(told(name, frozenset({first})).points)
    return (frozenset({first, second}) for second in range(first + 1, points))
