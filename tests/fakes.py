"""Small stand-ins for ports, where a real engine would only slow a test down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime

from shared.channels import Resend
from shared.clock import Clock
from shared.domain import Connection, Delivery, Receipt, Result, SessionKey, Wake
from shared.errors import BusDown, StoreDown


class FakeDocuments:
    """`Documents` in a dict that tests may look into. While `down`, every method raises `StoreDown`."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.down = False
        self.reads: list[str] = []
        """Paths asked of `get`, in order."""
        self.writes: list[str] = []
        """Paths given to `put` and `delete`, in order."""
        self.expiries: dict[str, datetime | None] = {}

    async def get(self, path: str) -> bytes | None:
        self._check()
        self.reads.append(path)
        return self.bodies.get(path)

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        self._check()
        self.expiries[path] = expires_at
        self.writes.append(path)
        self.bodies[path] = body

    async def delete(self, path: str) -> None:
        self._check()
        self.writes.append(path)
        self.bodies.pop(path, None)

    async def follow(self, path: str) -> AsyncGenerator[bytes]:
        """What is there now, and nothing more."""
        if path in self.bodies:
            yield self.bodies[path]

    async def list(self, collection: str, limit: int = 100) -> Sequence[tuple[str, bytes]]:
        self._check()
        here = [path for path in sorted(self.bodies) if path.rpartition("/")[0] == collection]
        return [(path, self.bodies[path]) for path in here[:limit]]

    def _check(self) -> None:
        if self.down:
            raise StoreDown("the documents are down")


Point = Callable[[str], None]
"""Called with the name of what is about to happen, or just did; raises to end the process there."""


class FakeFiles:
    """`Files` in a dict that tests may look into."""

    def __init__(self, point: Point) -> None:
        self.bodies: dict[str, bytes] = {}
        self._point = point

    async def put(self, path: str, body: bytes) -> None:
        self._point("before put")
        self.bodies[path] = body
        self._point("after put")

    async def get(self, path: str) -> bytes | None:
        return self.bodies.get(path)

    async def delete(self, path: str) -> None:
        self.bodies.pop(path, None)


class FakeBus:
    """`Bus` that keeps its wakes in `queue` until a test takes them out. While `down`, it takes none."""

    def __init__(self, point: Point, clock: Clock) -> None:
        self.queue: list[Wake] = []
        self.receipts: list[Receipt] = []
        self.results: list[Result] = []
        self.down = False
        self._point = point
        self._clock = clock

    async def wake(self, key: SessionKey) -> None:
        self._point("before wake")
        await self.check()
        self.queue.append(Wake(key=key, id=self._clock.new_id()))
        self._point("after wake")

    async def receipt(self, receipt: Receipt) -> None:
        await self.check()
        self.receipts.append(receipt)

    async def result(self, result: Result) -> None:
        self._point("before result")
        await self.check()
        self.results.append(result)
        self._point("after result")

    async def check(self) -> None:
        if self.down:
            raise BusDown("the bus is down")


class FakeChannel:
    """`Channel` that shows what it was given; the next calls raise what a test puts into `failures`."""

    text_limit = 4096
    typing_seconds = 4.0
    resend: Resend = "counted"
    fetched = False

    def __init__(self, point: Point) -> None:
        self.sent: list[Delivery] = []
        """What the contact sees, in order, also what was sent again."""
        self.settled: list[Delivery] = []
        self.tried: list[Delivery] = []
        """Every call of `send` and `settle`."""
        self.failures: list[Exception] = []
        self._point = point

    @property
    def texts(self) -> list[str]:
        return [delivery.text for delivery in self.sent]

    async def send(self, connection: Connection, conversation: str, delivery: Delivery) -> str:
        await self._take(delivery, "send", self.sent)
        return f"m{len(self.sent)}"

    async def settle(self, connection: Connection, conversation: str, delivery: Delivery) -> None:
        await self._take(delivery, "settle", self.settled)

    async def typing(self, connection: Connection, conversation: str, message: str = "") -> None:
        """Takes for ever: nothing may wait for it."""
        await asyncio.Event().wait()

    async def _take(self, delivery: Delivery, what: str, shown: list[Delivery]) -> None:
        self._point(f"before {what}")
        self.tried.append(delivery)
        if self.failures:
            raise self.failures.pop(0)
        shown.append(delivery)
        self._point(f"after {what}")
