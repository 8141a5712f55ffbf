"""What the outside saw and what the store was told, in order: the material of the checks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import from_json

from shared.domain import Delivery, Effect, Entry, ModelRequest, Result, SessionKey
from tests.clock import NOON

MARK = re.compile(r"m\d+x")
"""Stands in every reply of a model, and is never given twice."""

HELD = ("run", "outbox", "lease", "runs", "context", "sequence")
"""What of a session only its holder changes."""


@dataclass(eq=False)
class Handling:
    """One delivery of a wake to one process, or another request that it serves."""

    process: str
    what: str
    key: SessionKey | None = None
    """The session that it drives."""
    known: dict[SessionKey, int] = field(default_factory=dict)
    """How many commits of a session it surely knows of: those before its last read or its own last commit."""
    claimed: dict[SessionKey, int] = field(default_factory=dict)
    """The epoch that it claimed."""


NOBODY = Handling("nobody", "")
handling: ContextVar[Handling] = ContextVar("handling", default=NOBODY)


@dataclass
class Sent:
    """One call of a channel, and whether the contact saw it."""

    key: SessionKey
    delivery: Delivery
    by: Handling
    known: int
    """Of how many commits the sender knew."""
    channel: str
    stale: bool
    """Whether whoever sent it could not know what the store says of it by now."""
    settles: bool = False

    @property
    def visible(self) -> bool:
        """Whether a contact would see it a second time."""
        return self.channel in ("telegram", "whatsapp")


@dataclass
class Used:
    """One execution of a tool."""

    key: str
    """The idempotency key."""
    name: str
    effect: Effect
    by: Handling
    stale: bool = False


@dataclass
class Followed:
    """What the commits of one session said so far."""

    epoch: int = 0
    commits: int = 0
    sequence: int = 0
    runs: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    steps: dict[tuple[int, str], str] = field(default_factory=dict)
    recorded_at: dict[tuple[int, str], int] = field(default_factory=dict)
    """After how many commits a step had its result."""
    marks: dict[str, int] = field(default_factory=dict)
    """The models' replies that were recorded, and after how many commits."""
    inputs: dict[int, list[str]] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    """With which commit a message became part of a run."""
    replies: dict[int, tuple[str, str]] = field(default_factory=dict)
    settled_at: dict[str, int] = field(default_factory=dict)
    """After how many commits a delivery had its final status."""
    waits: dict[str, str] = field(default_factory=dict)


class History:
    """Everything that happened in one simulation, and what was wrong with it."""

    def __init__(self, now: Callable[[], float], *, skewed: bool = False, verbose: bool = False) -> None:
        self.skewed = skewed
        """Whether the processes' clocks differ."""
        self.violations: list[tuple[str, str]] = []
        self.faults: Counter[str] = Counter()
        self.accepted: dict[SessionKey, dict[str, Entry]] = defaultdict(dict)
        """What a channel was told is accepted."""
        self.told: dict[tuple[SessionKey, str], tuple[int, str]] = {}
        """Run and reply that the caller of an invoke was given for a message."""
        self.appended: dict[SessionKey, dict[str, int]] = defaultdict(dict)
        """Entries that the store took, and after how many commits."""
        self.followed: dict[SessionKey, Followed] = defaultdict(Followed)
        self.sent: list[Sent] = []
        self.used: list[Used] = []
        self.results: list[Result] = []
        self.model_calls = 0
        self.reads = 0
        self.writes = 0
        self.recoveries: list[float] = []
        """Seconds from a kill to the next commit in a session that was being driven."""
        self._killed: dict[SessionKey, float] = {}
        self._now = now
        self._verbose = verbose

    def wrong(self, kind: str, what: str) -> None:
        if (kind, what) not in self.violations:
            self.violations.append((kind, what))
        self.note(f"VIOLATION {kind}: {what}")

    def note(self, what: str) -> None:
        """One line of the story, for whoever replays it."""
        if self._verbose:
            print(f"{self._now():10.3f} {handling.get().process:>10} {handling.get().what:>8} {what}")  # noqa: T201

    def took(self, key: SessionKey, ids: list[str]) -> None:
        for id_ in ids:
            self.appended[key].setdefault(id_, self.followed[key].commits)

    def model_asked(self, key: SessionKey, request: ModelRequest) -> None:
        """A model's reply that its asker knows to be recorded must stand in what it asks."""
        self.model_calls += 1
        given = {mark for message in request.messages for mark in _marks(message.text)}
        given |= {mark for message in request.messages for call in message.tool_calls for mark in _marks(call.id)}
        known = handling.get().known.get(key, 0)
        for mark, commits in self.followed[key].marks.items():
            if commits <= known and mark not in given:
                self.wrong("asked_again", f"{key.session[:4]}: {mark} was recorded, and the model asked without it")

    def tool_used(self, used: Used, key: SessionKey, step: tuple[int, str]) -> None:
        """A step that its executor knows to be recorded must not be executed."""
        recorded = self.followed[key].recorded_at.get(step)
        if recorded is not None and recorded <= used.by.known.get(key, 0):
            self.wrong("executed_again", f"{key.session[:4]} run {step[0]} {step[1]}: its result was recorded")
        used.stale = recorded is not None or used.by.claimed.get(key) != self.followed[key].epoch
        self.used.append(used)

    def killed(self, key: SessionKey) -> None:
        """A process died while it drove this session."""
        self._killed.setdefault(key, self._now())

    def stale(self, key: SessionKey) -> bool:
        """Whether the one who acts now is not the holder any more."""
        return handling.get().claimed.get(key) != self.followed[key].epoch

    def committed(self, key: SessionKey, body: bytes, archived: bytes | None) -> None:
        """Follow one applied commit, and the run that ended with it; what may never change has not."""
        followed = self.followed[key]
        state = from_json(body)
        by = handling.get()
        followed.commits += 1
        if (died := self._killed.pop(key, None)) is not None:
            self.recoveries.append(self._now() - died)
        self._fenced(key, followed, state, by)
        followed.epoch = state["epoch"]
        if state["sequence"] < followed.sequence or state["runs"] < followed.runs:
            self.wrong("went_back", f"{key.session[:4]}: sequence or runs went back")
        followed.sequence, followed.runs = state["sequence"], state["runs"]
        for run in (from_json(archived) if archived is not None else None, state["run"]):
            if run is not None:
                self._run(key, followed, run)
        self._outbox(followed, state)
        followed.state = state

    def _fenced(self, key: SessionKey, followed: Followed, state: dict[str, Any], by: Handling) -> None:
        epoch, earlier = state["epoch"], followed.epoch
        if epoch == earlier + 1:
            by.claimed[key] = epoch
            self._may_claim(key, followed, state)
        elif epoch != earlier:
            self.wrong("epoch", f"{key.session[:4]}: {earlier} was followed by {epoch}")
        elif by.claimed.get(key) != epoch and any(
            followed.state.get(name, state[name]) != state[name] for name in HELD
        ):
            self.wrong("fenced", f"{key.session[:4]}: {by.process} wrote in epoch {epoch}, which it does not hold")

    def _may_claim(self, key: SessionKey, followed: Followed, state: dict[str, Any]) -> None:
        """Nobody takes a live lease of another wake, nor while a step is at work that must not be repeated."""
        lease = followed.state.get("lease")
        if lease is None or self.skewed:
            return
        now = NOON + timedelta(seconds=self._now())
        if lease["wake"] != state["lease"]["wake"] and datetime.fromisoformat(lease["until"]) > now:
            self.wrong("taken_early", f"{key.session[:4]}: the lease of {lease['wake']} held until {lease['until']}")
        run = followed.state["run"] or {"steps": ()}
        until = [step["until"] for step in run["steps"] if step["result"] is None and step["until"] is not None]
        if any(datetime.fromisoformat(time) > now for time in until):
            self.wrong("taken_early", f"{key.session[:4]}: a step was at work until {until}")

    def _run(self, key: SessionKey, followed: Followed, run: dict[str, Any]) -> None:
        number = run["number"]
        name = f"{key.session[:4]} run {number}"
        inputs = [message["id"] for message in run["inputs"]]
        if followed.inputs.setdefault(number, inputs) != inputs:
            self.wrong("input_changed", f"{name}: {followed.inputs[number]} became {inputs}")
        for id_ in (*inputs, *(arrival["message"]["id"] for arrival in run["arrivals"])):
            followed.taken.setdefault(id_, followed.commits)
        for step in run["steps"]:
            self._step(name, followed, number, step)
        if run["outcome"] is not None:
            reply = (run["outcome"], run["reply"])
            if followed.replies.setdefault(number, reply) != reply:
                self.wrong("reply_changed", f"{name}: {followed.replies[number]} became {reply}")
        for delivery in run["deliveries"]:
            followed.settled_at.setdefault(delivery["id"], followed.commits)

    def _step(self, name: str, followed: Followed, number: int, step: dict[str, Any]) -> None:
        result = step["result"]
        if result is None:
            return
        place = (number, step["key"])
        known = followed.steps.get(place)
        if known is None:
            followed.steps[place] = result
            followed.recorded_at[place] = followed.commits
            if step["kind"] == "model" and (mark := MARK.search(result)) is not None:
                followed.marks[mark.group()] = followed.commits
        elif known != result:
            self.wrong("step_changed", f"{name}: {step['key']} was {known}, became {result}")
        if step["dropped"] and (mark := MARK.search(result)) is not None:
            followed.marks.pop(mark.group(), None)

    def _outbox(self, followed: Followed, state: dict[str, Any]) -> None:
        waiting = {delivery["id"] for delivery in state["outbox"]}
        for delivery in followed.state.get("outbox", ()):
            if delivery["id"] not in waiting:
                followed.settled_at.setdefault(delivery["id"], followed.commits)


def _marks(text: str) -> list[str]:
    return MARK.findall(text)
