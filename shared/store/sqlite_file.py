"""The file of the embedded store: its tables, how it is made, and connections to it, each in a thread of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, TypeVar

from shared.errors import Conflict, StoreDown
from shared.settings import SettingsError

SCHEMA = 3
"""`PRAGMA user_version` of the files that this release writes."""

LIMIT_SECONDS = 5.0
"""How long a method waits before `StoreDown`, time in our own queue included."""

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
    rank INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (tenant, session, id)
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

_UPGRADES = {2: "ALTER TABLE inbox ADD COLUMN rank INTEGER NOT NULL DEFAULT 0"}
"""The statement that makes of a file's schema the next one."""

Result = TypeVar("Result")
Work: TypeAlias = Callable[[sqlite3.Connection], Result]


class Connection:
    """One SQLite connection and the only thread that touches it; without an answer it raises `StoreDown`."""

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{path.name}")
        self._db: sqlite3.Connection | None = None
        self._pending: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._closed = False

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the query finds."""
        return await self.read(lambda db: db.execute(query, values).fetchall())

    async def read(self, work: Work[Result]) -> Result:
        """What work returns; it must not write."""
        self._require_open()
        return await self._answer(self._submit(work))

    async def execute(self, query: str, *values: object) -> None:
        """Write by one statement."""
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
    """Bring a file of an earlier release up to this one's schema."""
    if _schema(db) in _UPGRADES:
        with transaction(db, "BEGIN IMMEDIATE"):  # another process may be about to do the same
            while (schema := _schema(db)) in _UPGRADES:
                db.execute(_UPGRADES[schema])
                db.execute(f"PRAGMA user_version = {schema + 1}")
    if (schema := _schema(db)) != SCHEMA:
        raise SettingsError(
            f"{path} has schema {schema}, this release knows {SCHEMA}: "
            "use the release that wrote it, or point RECADO_HOME at another folder"
        )


def _schema(db: sqlite3.Connection) -> int:
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    return int(schema)


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
    with transaction(db, "BEGIN IMMEDIATE"):
        for work in works:
            try:
                outcomes.append(work(db))
            except Conflict as conflict:
                outcomes.append(conflict)
    return outcomes


@contextmanager
def transaction(db: sqlite3.Connection, begin: str = "BEGIN") -> Iterator[None]:
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have rolled it back already
            db.execute("ROLLBACK")
        raise
