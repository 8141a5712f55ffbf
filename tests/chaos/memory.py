"""The store and the files in memory: what a simulation needs of them, and nothing that costs it time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from shared.clock import Clock
from shared.domain import SessionKey
from shared.errors import Conflict
from shared.store import SHARDS, Archived, Document, Pending, SessionRow, Stored, shard


@dataclass
class Kept:
    """One session's document, and the entries beside it."""

    version: int = 0
    state: bytes | None = None
    due: datetime | None = None
    changed_at: datetime | None = None
    inbox: dict[str, bytes] = field(default_factory=dict)
    beside: dict[str, Pending] = field(default_factory=dict)


class MemoryStore:
    """`SessionStore`, `Archive` and `Documents` in dicts that tests may look into.

    A session's document has room for `room` entries; of those beside it, one load gives the first `page`. Nothing ever
    expires.
    """

    def __init__(self, clock: Clock, *, room: int = 1000, page: int = 100) -> None:
        self.kept: dict[SessionKey, Kept] = {}
        self.archived: dict[tuple[SessionKey, int], bytes] = {}
        self.documents: dict[str, bytes] = {}
        self._clock = clock
        self._room = room
        self._page = page
        self._changes: dict[object, set[asyncio.Event]] = {}

    async def append(self, key: SessionKey, entries: Mapping[str, Pending], due: datetime | None) -> None:
        kept = self.kept.setdefault(key, Kept())
        for id_, entry in entries.items():
            if id_ in kept.inbox or len(kept.inbox) < self._room:
                kept.inbox[id_] = entry.body
            else:
                kept.beside[id_] = entry
        kept.version += 1
        kept.due = _second(due) or kept.due
        self._tell(key)

    async def load(self, key: SessionKey) -> Stored | None:
        kept = self.kept.get(key)
        if kept is None:
            return None
        first = sorted(kept.beside, key=lambda id_: kept.beside[id_].rank)[: self._page]
        beside = {id_: kept.beside[id_].body for id_ in first}
        more = len(kept.beside) > len(first)
        read_to = kept.beside[first[-1]].rank if more else None
        inbox = {**beside, **kept.inbox}
        return Stored(
            state=kept.state,
            inbox=inbox,
            version=kept.version,
            more=more,
            read_to=read_to,
            due=kept.due is not None,
        )

    async def commit(
        self,
        key: SessionKey,
        version: object,
        *,
        state: bytes,
        remove: Collection[str] = (),
        spill: Mapping[str, Pending] | None = None,
        due: datetime | None,
        archive: Archived | None = None,
        documents: Mapping[str, Document] | None = None,
    ) -> object:
        self.compare(key, version)
        kept = self.kept.setdefault(key, Kept())
        for id_ in remove:
            kept.inbox.pop(id_, None)
            kept.beside.pop(id_, None)
        for id_, entry in (spill or {}).items():
            if kept.inbox.pop(id_, None) is not None:
                kept.beside[id_] = entry
        kept.version += 1
        kept.state, kept.due, kept.changed_at = state, _second(due), self._clock.now()
        if archive is not None:
            self.archived[key, archive.number] = archive.body
        for path, document in (documents or {}).items():
            self.documents[path] = document.body
            self._tell(path)
        self._tell(key)
        return kept.version

    def compare(self, key: SessionKey, version: object) -> None:
        """Raises `Conflict` when that is not the version of the document."""
        kept = self.kept.get(key)
        if (kept.version if kept is not None else None) != version:
            raise Conflict(f"session {key.session} changed since it was read: read it again")

    async def due(self, before: datetime) -> AsyncGenerator[SessionKey]:
        for number in range(SHARDS) if self.kept else ():
            found = [
                (kept.due, key.tenant, key.session)
                for key, kept in self.kept.items()
                if kept.due is not None and kept.due <= before and shard(key) == number
            ]
            for _, tenant, session in sorted(found):
                yield SessionKey(tenant, session)

    async def watch(self, key: SessionKey) -> AsyncGenerator[Stored]:
        seen: object = None
        with self._changed(key) as changed:
            while True:
                changed.clear()
                stored = await self.load(key)
                if stored is not None and stored.version != seen:
                    seen = stored.version
                    yield stored
                await changed.wait()

    async def run(self, key: SessionKey, number: int) -> bytes | None:
        return self.archived.get((key, number))

    async def runs(self, key: SessionKey, *, before: int | None = None, limit: int = 20) -> Sequence[bytes]:
        numbers = sorted((number for where, number in self.archived if where == key), reverse=True)
        below = [number for number in numbers if before is None or number < before]
        return [self.archived[key, number] for number in below[:limit]]

    async def sessions(self, tenant: str, *, limit: int = 50) -> Sequence[SessionRow]:
        rows = [
            SessionRow(key=key, state=kept.state, changed_at=kept.changed_at)
            for key, kept in self.kept.items()
            if key.tenant == tenant and kept.state is not None and kept.changed_at is not None
        ]
        return sorted(rows, key=lambda row: row.changed_at, reverse=True)[:limit]

    async def get(self, path: str) -> bytes | None:
        return self.documents.get(path)

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        self.documents[path] = body
        self._tell(path)

    async def delete(self, path: str) -> None:
        self.documents.pop(path, None)

    async def follow(self, path: str) -> AsyncGenerator[bytes]:
        seen: bytes | None = None
        with self._changed(path) as changed:
            while True:
                changed.clear()
                body = self.documents.get(path)
                if body is not None and body != seen:
                    seen = body
                    yield body
                await changed.wait()

    async def list(self, collection: str, limit: int = 100) -> Sequence[tuple[str, bytes]]:
        here = sorted(path for path in self.documents if path.rpartition("/")[0] == collection)
        return [(path, self.documents[path]) for path in here[:limit]]

    @contextmanager
    def _changed(self, what: object) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._changes.setdefault(what, set()).add(event)
        try:
            yield event
        finally:
            self._changes[what].discard(event)

    def _tell(self, what: object) -> None:
        for event in self._changes.get(what, ()):
            event.set()


class MemoryFiles:
    """`Files` in a dict."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}

    async def put(self, path: str, body: bytes) -> None:
        self.bodies[path] = body

    async def get(self, path: str) -> bytes | None:
        return self.bodies.get(path)

    async def delete(self, path: str) -> None:
        self.bodies.pop(path, None)


def _second(due: datetime | None) -> datetime | None:
    return due.replace(microsecond=0) if due is not None else None
