"""What happened in one suite, as the outside world saw it; times are seconds on this process's monotonic clock."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

FaultKind = Literal["kill", "stop", "cut", "duplicate", "emulator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A message whose webhook was answered with 200."""

    at: float
    chat: str
    message: str
    order: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A request to the model. `number` tells its answer from all others for the same run and turn."""

    at: float
    chat: str
    worker: str
    run: str
    inputs: tuple[str, ...]
    turn: int
    number: int
    turns: dict[int, int]
    results: dict[str, str]
    ended: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """An execution of a tool. `number` counts those with the same idempotency key, from 0."""

    at: float
    chat: str
    worker: str
    call: str
    kind: str
    key: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that the channel took, or one whose text it changed."""

    at: float
    chat: str
    worker: str
    text: str
    id: str
    reference: str = ""
    buttons: dict[str, str] = field(default_factory=dict)
    """Data by label."""
    edit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What was done to the system. `chats` are those whose runs were on their way in the worker."""

    at: float
    kind: FaultKind
    worker: str = ""
    chats: tuple[str, ...] = ()
    what: str = ""
    until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A write of the session document, as the client counted it."""

    worker: str
    session: str
    method: str
    epoch: int
    applied: bool
    version: str
    """When the store says that it was written: of the same form for all, in order."""
    writes: int
    reads: int


Event = Accepted | ModelCall | ToolCall | Sent | Fault | Commit


@dataclass
class History:
    """Events by kind, each list in the order of its times."""

    accepted: list[Accepted] = field(default_factory=list)
    models: list[ModelCall] = field(default_factory=list)
    tools: list[ToolCall] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)

    def by_chat(self) -> dict[str, History]:
        """What concerns each chat in which a message was accepted; the faults are those of all."""
        found = {event.chat: History(faults=self.faults) for event in self.accepted}
        for name in ("accepted", "models", "tools", "sent"):
            for event in getattr(self, name):
                if event.chat in found:
                    getattr(found[event.chat], name).append(event)
        return found

    def save(self, path: Path) -> None:
        """One line of JSON an event, by time; commits, which have no time of ours, at the end."""
        timed: list[Event] = [*self.accepted, *self.models, *self.tools, *self.sent, *self.faults]
        timed.sort(key=lambda event: getattr(event, "at", 0.0))
        with path.open("w") as file:
            for event in [*timed, *self.commits]:
                file.write(json.dumps({"event": type(event).__name__, **asdict(event)}) + "\n")
