"""The points of a function's process: before and after each call of a port. It kills itself at the one it is told."""

from __future__ import annotations

import inspect
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

UNCOUNTED = frozenset({"typing", "aclose", "watch", "follow"})
"""What runs beside the rest at no certain place, or never ends."""


class Points:
    """Passes points and writes them down, one line of JSON each, which outlives the process. `arm` is such as
    `before store.commit#3`: the third time that this point is passed, the process ends as if its power had failed."""

    def __init__(self, worker: str, journal: Path, *, arm: str = "", named: bool = False) -> None:
        self.worker = worker
        self._arm, _, times = arm.partition("#")
        self._times = int(times or 1)
        self._passed: Counter[str] = Counter()
        self._named = named
        self._file = os.open(journal, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)

    def note(self, **fields: object) -> None:
        """One line of the journal."""
        os.write(self._file, json.dumps(fields).encode() + b"\n")

    def point(self, name: str) -> None:
        """This point is passed."""
        self._passed[name] += 1
        if self._named:
            self.note(point=f"{name}#{self._passed[name]}")
        if name == self._arm and self._passed[name] == self._times:
            self.note(killed=f"{name}#{self._times}")
            os.kill(os.getpid(), signal.SIGKILL)


class Pointed:
    """A port, each of whose asynchronous methods is two points. All else is the port's own."""

    def __init__(self, port: Any, name: str, points: Points) -> None:
        self._port = port
        self._name = name
        self._points = points

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._port, method)
        name, points = f"{self._name}.{method}", self._points
        if method in UNCOUNTED:
            return found

        async def each(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            points.point(f"before {name}")
            async for value in found(*args, **kwargs):
                yield value
            points.point(f"after {name}")

        async def pointed(*args: Any, **kwargs: Any) -> Any:
            points.point(f"before {name}")
            result = await found(*args, **kwargs)
            points.point(f"after {name}")
            return result

        if inspect.isasyncgenfunction(found):
            return each
        return pointed if inspect.iscoroutinefunction(found) else found
