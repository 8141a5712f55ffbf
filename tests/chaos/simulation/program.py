"""A random program: what people and operators do and what goes wrong, made from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal, get_args

from shared.domain import ChannelName, QueueMode
from tests.chaos.simulation.faults import Rates
from tests.chaos.simulation.world import Manner

MOST_COMMANDS = 20
Do = Literal[
    "say",
    "burst",
    "poison",
    "again",
    "stop",
    "tap",
    "answer",
    "watch",
    "kill",
    "pause",
    "store_down",
    "bus_down",
    "long",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One thing that is done, `after` so many seconds since the one before."""

    do: Do
    after: float
    session: int = 0
    number: int = 0
    """Which message, button or process, of those that there are."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Everything that one simulation does."""

    seed: int
    channels: tuple[ChannelName, ...]
    """One for each session."""
    mode: QueueMode
    debounce: float
    processes: int
    room: int
    """Entries that a session's document takes."""
    slice_seconds: float
    rates: Rates
    manner: Manner
    commands: tuple[Command, ...]
    kills_at: frozenset[int] | None = None
    """Instead of chance: the numbers of the points at which a process is killed."""
    skew: float = 0.0
    """Seconds by which the processes' clocks are wrong at most."""
    invokes: bool = False
    """Whoever calls by the API waits for the answer."""
    accepts_early: bool = False
    """Broken on purpose: a message counts as accepted before it is stored."""
    calm: bool = False
    """Nothing goes wrong."""
    slack: float = 30.0
    """Seconds that go on after the last command before faults stop."""


def program(seed: int) -> Program:
    """Always the same for the same seed."""
    random = Random(seed)  # noqa: S311  chance that can be had again, not a secret
    calm = random.random() < 0.15
    sessions = random.choice((1, 1, 1, 2, 3))
    count = random.randint(2, MOST_COMMANDS)
    return Program(
        seed=seed,
        channels=tuple(random.choice(get_args(ChannelName)) for _ in range(sessions)),
        mode=random.choice(get_args(QueueMode)),
        debounce=random.choice((0.0, 0.5, 0.5, 2.0)),
        processes=random.choice((1, 2, 3)),
        room=random.choice((1, 3, 1000, 1000)),
        slice_seconds=random.choice((8.0, 60.0, 480.0, 480.0)),
        rates=Rates() if calm else _rates(random),
        manner=Manner(
            talk=random.choice((0.35, 0.5, 0.8)),
            slow=random.choice((0.0, 0.05, 0.2)),
            reply_parts=random.choice((1, 1, 3)),
        ),
        commands=tuple(_command(random, sessions, calm=calm) for _ in range(count)),
        skew=random.choice((0.0, 0.0, 0.0, 3.0)),
        invokes=random.random() < 0.7,
        calm=calm,
    )


def _rates(random: Random) -> Rates:
    """Some kinds of faults, each more or less often; the more kinds there are, the less one learns of each."""
    rates = Rates()
    kinds = {
        "kill": (0.005, 0.02, 0.06),
        "pause": (0.003, 0.01, 0.03),
        "down": (0.01, 0.05),
        "lost": (0.01, 0.05),
        "doubled": (0.02, 0.1),
        "wake_lost": (0.1, 0.5),
        "wake_doubled": (0.1, 0.4),
        "channel": (0.1, 0.4),
        "model": (0.05, 0.3),
        "tool": (0.1, 0.3),
    }
    for kind in random.sample(sorted(kinds), random.randint(1, 5)):
        rates = replace(rates, **{kind: random.choice(kinds[kind])})
    return rates


def _command(random: Random, sessions: int, *, calm: bool) -> Command:
    whats: list[tuple[Do, float]] = [("say", 55), ("again", 6), ("stop", 5), ("tap", 6), ("answer", 5), ("watch", 2)]
    whats += [("long", 3), ("burst", 0.2)]
    if not calm:
        whats += [("kill", 6), ("pause", 6), ("store_down", 3), ("bus_down", 3), ("poison", 1)]
    do = random.choices([what for what, _ in whats], [weight for _, weight in whats])[0]
    gaps = (random.uniform(0.0, 0.3), random.uniform(0.3, 4.0), random.uniform(4.0, 40.0), random.uniform(40.0, 200.0))
    return Command(
        do=do,
        after=random.choices(gaps, (4, 4, 2, 1))[0],
        session=random.randrange(sessions),
        number=random.randrange(1000),
        seconds=random.choice((2.0, 10.0, 45.0, 90.0)),
    )
