"""The embedded store: one SQLite file that the server, the CLI and anything else on the machine may have open at once.

The standard library's `sqlite3` in threads of our own, not aiosqlite: tasks that share its one connection get into each
other's begin…commit, and it costs the same CPU. One thread writes (`BEGIN IMMEDIATE`, WAL, synchronous=FULL: what was
answered survives power loss); what comes in while the disk flushes shares the next transaction, which halves the CPU of
16 busy sessions. Reads have a second connection, so they never wait for a flush.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, TypeVar

from shared.clock import Clock, SystemClock
from shared.domain import SessionKey
from shared.errors import Conflict, StoreDown
from shared.settings import SettingsError
from shared.store import SHARDS, Archived, SessionRow, Stored, shard

SCHEMA = 2
"""`PRAGMA user_version` of the files that this release writes."""

LIMIT_SECONDS = 5.0
"""How long a method waits before `StoreDown`, time in our own queue included."""

POLL_SECONDS = 0.1
"""How soon a watcher sees what another process wrote; what this process wrote it sees at once."""

# `changed_at` is when a run last committed: NULL while none has claimed the session. `state` comes last: SQLite finds
# the other columns of a large row without following its overflow pages.
_TABLES = """
CREATE TABLE sessions (
    tenant TEXT NOT NULL, session TEXT NOT NULL, version INTEGER NOT NULL, due TEXT, changed_at TEXT,
    state BLOB, PRIMARY KEY (tenant, session)
);
CREATE INDEX sessions_due ON sessions (due) WHERE due IS NOT NULL;
CREATE INDEX sessions_recent ON sessions (tenant, changed_at) WHERE changed_at IS NOT NULL;
CREATE TABLE inbox (
    tenant TEXT NOT NULL, session TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (tenant, session, id)
) WITHOUT ROWID;
CREATE TABLE runs (
    tenant TEXT NOT NULL, session TEXT NOT NULL, number INTEGER NOT NULL, expires_at TEXT, body BLOB NOT NULL,
    PRIMARY KEY (tenant, session, number)
);
CREATE INDEX runs_expiring ON runs (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE documents (
    collection TEXT NOT NULL, id TEXT NOT NULL, expires_at TEXT, body BLOB NOT NULL, PRIMARY KEY (collection, id)
);
CREATE INDEX documents_expiring ON documents (expires_at) WHERE expires_at IS NOT NULL;
"""

Result = TypeVar("Result")
Work: TypeAlias = Callable[[sqlite3.Connection], Result]


class SqliteStore:
    """`SessionStore`, `Archive` and `Documents` in the file at `path`, which is made, readable only by its owner.

    Nothing is opened before the first use, which raises `SettingsError` for a file of another schema.
    Used from one event loop; any number of processes may have the file open. `busy_seconds` is how long a write waits
    for the lock of another process.
    """

    def __init__(self, path: Path, *, busy_seconds: float = 3.0, clock: Clock | None = None) -> None:
        self._writer = _Connection(path, busy_seconds)
        self._reader = _Connection(path, busy_seconds)
        self._clock = clock or SystemClock()
        self._watchers: dict[SessionKey, set[asyncio.Event]] = {}

    async def aclose(self) -> None:
        """Finish the write under way and close the file; every later use raises `StoreDown`."""
        await self._writer.aclose()
        await self._reader.aclose()

    async def append(self, key: SessionKey, entries: Mapping[str, bytes], due: datetime) -> None:
        where = (key.tenant, key.session)

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO sessions (tenant, session, version, due) VALUES (?, ?, 1, ?)"
                " ON CONFLICT DO UPDATE SET version = version + 1, due = excluded.due",
                (*where, _due(key, due)),
            )
            _put_entries(db, where, entries)

        await self._writer.write(write)
        self._wake_watchers(key)

    async def load(self, key: SessionKey) -> Stored | None:
        where = (key.tenant, key.session)

        def read(db: sqlite3.Connection) -> Stored | None:
            query = "SELECT state, version FROM sessions WHERE tenant = ? AND session = ?"
            with _transaction(db):  # both queries see the same moment
                row = db.execute(query, where).fetchone()
                inbox = db.execute("SELECT id, body FROM inbox WHERE tenant = ? AND session = ?", where).fetchall()
            return Stored(state=row[0], inbox=dict(inbox), version=row[1]) if row else None

        return await self._reader.read(read)

    async def commit(  # the port's
        self,
        key: SessionKey,
        version: object,
        *,
        state: bytes,
        inbox: Mapping[str, bytes],
        due: datetime | None,
        archive: Archived | None = None,
        documents: Mapping[str, bytes] | None = None,
    ) -> object:
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
            db.execute("DELETE FROM inbox WHERE tenant = ? AND session = ?", where)
            _put_entries(db, where, inbox)
            if archive:
                self._put(db, "runs", (*where, archive.number), archive.expires_at, archive.body)
            for path, body in (documents or {}).items():
                self._put(db, "documents", _split(path), None, body)
            return written[0][0]

        new_version = await self._writer.write(write)
        self._wake_watchers(key)
        return new_version

    async def due(self, before: datetime, limit: int = 100) -> Sequence[SessionKey]:
        def read(db: sqlite3.Connection) -> list[SessionKey]:
            found: list[tuple[str, str, str]] = []
            for number in range(SHARDS):
                found += db.execute(
                    "SELECT due, tenant, session FROM sessions WHERE due BETWEEN ? AND ? ORDER BY due LIMIT ?",
                    (f"{number:x}/", f"{number:x}/{_second(before)}", limit),
                )
            found.sort(key=lambda row: row[0].partition("/")[2])
            return [SessionKey(tenant, session) for _, tenant, session in found[:limit]]

        return await self._reader.read(read)

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
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), POLL_SECONDS)
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
        db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", (*key, expires, body))

    def _wake_watchers(self, key: SessionKey) -> None:
        for watcher in self._watchers.get(key, ()):
            watcher.set()


class _Connection:
    """One SQLite connection and the only thread that touches it."""

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{path.name}")
        self._db: sqlite3.Connection | None = None
        self._pending: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._closed = False

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return await self.read(lambda db: db.execute(query, values).fetchall())

    async def read(self, work: Work[Result]) -> Result:
        self._require_open()
        return await self._answer(self._submit(work))

    async def execute(self, query: str, *values: object) -> None:
        # the cursor must end in its own thread: elsewhere its end waits for a flush under way
        await self.write(lambda db: db.execute(query, values).fetchall())

    async def write(self, work: Work[Result]) -> Result:
        """The result of work once it is durable. Work that raises `Conflict` must not have written anything."""
        self._require_open()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pending.append((work, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await self._answer(future)

    async def aclose(self) -> None:
        self._closed = True
        if self._flushing:
            await self._flushing
        if db := self._db:
            self._db = None
            await asyncio.get_running_loop().run_in_executor(self._thread, db.close)
        self._thread.shutdown()

    def _require_open(self) -> None:
        if self._closed:
            raise StoreDown(f"{self._path} is closed")

    async def _flush(self) -> None:
        """Write what is pending, in its order, until nothing is: one transaction for all that came during the last."""
        while self._pending:
            batch, self._pending = self._pending, []
            outcomes = await self._outcomes([work for work, _ in batch])
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():  # its caller gave up
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        self._flushing = None

    async def _outcomes(self, works: Sequence[Work[object]]) -> Sequence[object]:
        """What each work returned or raised."""
        try:
            return await self._submit(partial(_write, works=works))
        except (sqlite3.OperationalError, OSError) as error:
            return [error] * len(works)
        except Exception as error:  # noqa: BLE001  # handed to the caller whose mistake it is, and to no other
            return [error] if len(works) == 1 else [(await self._outcomes([work]))[0] for work in works]

    async def _submit(self, work: Work[Result]) -> Result:
        def call() -> Result:
            if self._db is None:
                self._db = _open(self._path, self._busy_seconds)
            return work(self._db)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _answer(self, result: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                return await result
        except TimeoutError as error:
            raise StoreDown(f"{self._path} did not answer in {LIMIT_SECONDS:g} s") from error
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreDown(f"{self._path}: {error}") from error


def _open(path: Path, busy_seconds: float) -> sqlite3.Connection:
    if not path.exists():
        _make(path)
    db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = FULL")
        _check_schema(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    if schema != SCHEMA:
        raise SettingsError(
            f"{path} has schema {schema}, this release knows {SCHEMA}: "
            "use the release that wrote it, or point RECADO_HOME at another folder"
        )


def _make(path: Path) -> None:
    """Put a whole, empty file at `path` in one step, or leave the one of a process that was faster.

    Made aside, because the switch to WAL does not wait its turn: of two that open a new file, one would be refused.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as folder:
        new = Path(folder) / path.name
        new.touch(mode=0o600)  # SQLite gives the files beside it the same mode
        with closing(sqlite3.connect(new)) as db:
            db.executescript(f"PRAGMA journal_mode = WAL; {_TABLES} PRAGMA user_version = {SCHEMA};")
        with suppress(FileExistsError):
            path.hardlink_to(new)


def _write(db: sqlite3.Connection, works: Sequence[Work[object]]) -> list[object]:
    """What each work returned, or the `Conflict` that it raised; any other error undoes them all."""
    outcomes: list[object] = []
    with _transaction(db, "BEGIN IMMEDIATE"):
        for work in works:
            try:
                outcomes.append(work(db))
            except Conflict as conflict:
                outcomes.append(conflict)
    return outcomes


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str = "BEGIN") -> Iterator[None]:
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have rolled it back already
            db.execute("ROLLBACK")
        raise


def _put_entries(db: sqlite3.Connection, where: tuple[str, str], entries: Mapping[str, bytes]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO inbox VALUES (?, ?, ?, ?)", [(*where, id_, body) for id_, body in entries.items()]
    )


def _due(key: SessionKey, due: datetime | None) -> str | None:
    return f"{shard(key):x}/{_second(due)}" if due else None


def _second(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _split(path: str) -> tuple[str, str]:
    collection, _, id_ = path.rpartition("/")
    return collection, id_
