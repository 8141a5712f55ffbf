"""The embedded store: one SQLite file that the server, the CLI and anything else on the machine may have open at once.

The standard library's `sqlite3` in threads of our own, not aiosqlite: tasks that share its one connection get into each
other's begin…commit, and it costs the same CPU. One thread writes (`BEGIN IMMEDIATE`, WAL, synchronous=FULL: what was
answered survives power loss); what comes in while the disk flushes shares the next transaction, which halves the CPU of
16 busy sessions. Reads have a second connection, so they never wait for a flush.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from shared.clock import Clock, SystemClock
from shared.domain import SessionKey
from shared.errors import Conflict
from shared.store import SHARDS, Archived, Document, Pending, SessionRow, Stored, shard
from shared.store.sqlite_file import Connection, transaction

LOADED = 500
"""How many entries of an inbox one `load` reads."""

PAGE = 100
"""How many sessions of a range are asked for at a time."""

POLL_SECONDS = 0.1
"""How soon a watcher sees what another process wrote; what this process wrote it sees at once."""


class SqliteStore:
    """`SessionStore`, `Archive` and `Documents` in the file at `path`, which is made, readable only by its owner.

    Nothing is opened before the first use, which brings a file of the release before up to date and raises
    `SettingsError` for one of another schema. Used from one event loop; any number of processes may have the file
    open. `busy_seconds` is how long a write waits for the lock of another process.
    """

    def __init__(self, path: Path, *, busy_seconds: float = 3.0, clock: Clock | None = None) -> None:
        self._writer = Connection(path, busy_seconds)
        self._reader = Connection(path, busy_seconds)
        self._clock = clock or SystemClock()
        self._watchers: dict[SessionKey, set[asyncio.Event]] = {}

    async def aclose(self) -> None:
        """Finish the write under way and close the file; every later use raises `StoreDown`."""
        await self._writer.aclose()
        await self._reader.aclose()

    async def append(self, key: SessionKey, entries: Mapping[str, Pending], due: datetime | None) -> None:
        where = (key.tenant, key.session)

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO sessions (tenant, session, version, due) VALUES (?, ?, 1, ?)"
                " ON CONFLICT DO UPDATE SET version = version + 1, due = coalesce(excluded.due, due)",
                (*where, _due(key, due)),
            )
            db.executemany(
                "INSERT OR IGNORE INTO inbox (tenant, session, id, body, rank) VALUES (?, ?, ?, ?, ?)",
                [(*where, id_, entry.body, entry.rank) for id_, entry in entries.items()],
            )

        await self._writer.write(write)
        self._wake_watchers(key)

    async def load(self, key: SessionKey) -> Stored | None:
        where = (key.tenant, key.session)

        def read(db: sqlite3.Connection) -> Stored | None:
            query = "SELECT state, version, due IS NOT NULL FROM sessions WHERE tenant = ? AND session = ?"
            entries = "SELECT id, body, rank FROM inbox WHERE tenant = ? AND session = ? ORDER BY rank, id LIMIT ?"
            with transaction(db):  # both queries see the same moment
                row = db.execute(query, where).fetchone()
                found = db.execute(entries, (*where, LOADED)).fetchall()
            if not row:
                return None
            inbox, more = {id_: body for id_, body, _ in found}, len(found) == LOADED
            read_to = found[-1][2] if more else None
            return Stored(state=row[0], inbox=inbox, version=row[1], more=more, read_to=read_to, due=bool(row[2]))

        return await self._reader.read(read)

    async def commit(  # the port's
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
        """See `SessionStore.commit`. Each entry is a row of its own: `spill` changes nothing."""
        where = (key.tenant, key.session)

        def write(db: sqlite3.Connection) -> object:
            changed_at = self._clock.now().isoformat(timespec="microseconds")
            values = (_due(key, due), changed_at, state, *where)
            if version is None:
                written = db.execute(
                    "INSERT INTO sessions (due, changed_at, state, tenant, session, version) VALUES (?, ?, ?, ?, ?, 1)"
                    " ON CONFLICT DO NOTHING RETURNING version",
                    values,
                ).fetchall()
            else:
                written = db.execute(
                    "UPDATE sessions SET due = ?, changed_at = ?, state = ?, version = version + 1"
                    " WHERE tenant = ? AND session = ? AND version = ? RETURNING version",
                    (*values, version),
                ).fetchall()
            if not written:
                raise Conflict(f"session {key.session} changed since it was read: read it again")
            db.executemany(
                "DELETE FROM inbox WHERE tenant = ? AND session = ? AND id = ?", [(*where, id_) for id_ in remove]
            )
            if archive:
                self._put(db, "runs", (*where, archive.number), archive.expires_at, archive.body)
            for path, document in (documents or {}).items():
                self._put(db, "documents", _split(path), document.expires_at, document.body)
            return written[0][0]

        new_version = await self._writer.write(write)
        self._wake_watchers(key)
        return new_version

    async def due(self, before: datetime) -> AsyncGenerator[SessionKey]:
        query = (
            "SELECT tenant, session, due, rowid FROM sessions WHERE (due, rowid) > (?, ?) AND due <= ?"
            " ORDER BY due, rowid LIMIT ?"
        )
        seen: set[SessionKey] = set()  # a session that is appended to meanwhile can come up again
        for number in range(SHARDS):
            last, end = (f"{number:x}/", 0), f"{number:x}/{_second(before)}"
            while rows := await self._reader.rows(query, *last, end, PAGE):
                last = rows[-1][2:]
                for key in (SessionKey(tenant, session) for tenant, session, *_ in rows):
                    if key not in seen:
                        seen.add(key)
                        yield key

    async def watch(self, key: SessionKey) -> AsyncGenerator[Stored]:
        """See `SessionStore.watch`. While idle it costs one look-up of the version every `POLL_SECONDS`."""
        changed = asyncio.Event()
        self._watchers.setdefault(key, set()).add(changed)
        seen: object = None
        try:
            while True:
                changed.clear()
                if await self._version(key) != seen and (stored := await self.load(key)):
                    seen = stored.version
                    yield stored
                with suppress(TimeoutError):  # wait_for of Python 3.11 can swallow a cancellation
                    async with asyncio.timeout(POLL_SECONDS):
                        await changed.wait()
        finally:
            self._watchers[key].discard(changed)
            if not self._watchers[key]:
                del self._watchers[key]

    async def run(self, key: SessionKey, number: int) -> bytes | None:
        query = "SELECT body FROM runs WHERE tenant = ? AND session = ? AND number = ?"
        rows = await self._reader.rows(query, key.tenant, key.session, number)
        return rows[0][0] if rows else None

    async def runs(self, key: SessionKey, *, before: int | None = None, limit: int = 20) -> Sequence[bytes]:
        query = "SELECT body FROM runs WHERE tenant = ? AND session = ? AND number < ? ORDER BY number DESC LIMIT ?"
        highest = 2**63 - 1 if before is None else before
        return [body for (body,) in await self._reader.rows(query, key.tenant, key.session, highest, limit)]

    async def sessions(self, tenant: str, *, limit: int = 50) -> Sequence[SessionRow]:
        query = (
            "SELECT session, state, changed_at FROM sessions WHERE tenant = ? AND changed_at IS NOT NULL"
            " ORDER BY changed_at DESC LIMIT ?"
        )
        return [
            SessionRow(key=SessionKey(tenant, session), state=state, changed_at=datetime.fromisoformat(changed_at))
            for session, state, changed_at in await self._reader.rows(query, tenant, limit)
        ]

    async def get(self, path: str) -> bytes | None:
        rows = await self._reader.rows("SELECT body FROM documents WHERE collection = ? AND id = ?", *_split(path))
        return rows[0][0] if rows else None

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        await self._writer.write(lambda db: self._put(db, "documents", _split(path), expires_at, body))

    async def delete(self, path: str) -> None:
        await self._writer.execute("DELETE FROM documents WHERE collection = ? AND id = ?", *_split(path))

    async def follow(self, path: str) -> AsyncGenerator[bytes]:
        """See `Documents.follow`. It costs one look-up every `POLL_SECONDS`."""
        seen: bytes | None = None
        while True:
            body = await self.get(path)
            if body is not None and body != seen:
                seen = body
                yield body
            await asyncio.sleep(POLL_SECONDS)

    async def list(self, collection: str, limit: int = 100) -> Sequence[tuple[str, bytes]]:
        query = "SELECT id, body FROM documents WHERE collection = ? ORDER BY id LIMIT ?"
        return [(f"{collection}/{id_}", body) for id_, body in await self._reader.rows(query, collection, limit)]

    async def _version(self, key: SessionKey) -> object:
        query = "SELECT version FROM sessions WHERE tenant = ? AND session = ?"
        rows = await self._reader.rows(query, key.tenant, key.session)
        return rows[0][0] if rows else None

    def _put(
        self, db: sqlite3.Connection, table: str, key: tuple[object, ...], expires_at: datetime | None, body: bytes
    ) -> None:
        """Write a row of one of our two tables of documents; one that will expire takes those along that have."""
        expires = None
        if expires_at is not None:
            db.execute(f"DELETE FROM {table} WHERE expires_at < ?", (_second(self._clock.now()),))  # noqa: S608  our names
            expires = _second(expires_at)
        places = ", ".join("?" * (len(key) + 2))
        db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", (*key, expires, body))  # noqa: S608  likewise

    def _wake_watchers(self, key: SessionKey) -> None:
        for watcher in self._watchers.get(key, ()):
            watcher.set()


def _due(key: SessionKey, due: datetime | None) -> str | None:
    return f"{shard(key):x}/{_second(due)}" if due else None


def _second(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _split(path: str) -> tuple[str, str]:
    collection, _, id_ = path.rpartition("/")
    return collection, id_
