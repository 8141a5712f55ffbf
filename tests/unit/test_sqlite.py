"""What only the embedded store promises: survival of a killed process, a file shared by processes, clear refusals."""

import asyncio
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.domain import SessionKey
from shared.errors import StoreDown
from shared.settings import SettingsError
from shared.store import Archived, Document, Pending
from shared.store.sqlite import SqliteStore
from shared.store.sqlite_file import SCHEMA
from tests.clock import FakeClock

KEY = SessionKey("tenant", "a" * 32)
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ENTRY = {"a": Pending(body=b"1", rank=1)}

SCHEMA_2 = """
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
PRAGMA user_version = 2;
INSERT INTO sessions VALUES
    ('tenant', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 7, 'a/2026-11-20T12:00:00', '2026-11-20T11:59:59+00:00', x'01');
INSERT INTO inbox VALUES ('tenant', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'old', x'02');
INSERT INTO runs VALUES ('tenant', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 1, NULL, x'03');
INSERT INTO documents VALUES ('plans', 'one', NULL, x'04');
"""
"""What the release before wrote."""

INCREMENT = """
import asyncio, itertools, sys
from pathlib import Path
from shared.domain import SessionKey
from shared.errors import Conflict
from shared.store import Archived
from shared.store.sqlite import SqliteStore

async def main(path, times):
    store = SqliteStore(Path(path))
    key = SessionKey("tenant", "a" * 32)
    done = 0
    while done != times:
        stored = await store.load(key)
        number = int(stored.state) + 1 if stored else 1
        state, run = b"%d" % number, Archived(number=number, body=b"x" * 50_000)
        try:
            await store.commit(key, stored and stored.version, state=state, due=None, archive=run)
        except Conflict:
            continue
        done += 1
        print(number, flush=True)
    await store.aclose()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def increment(path: Path, times: int) -> asyncio.subprocess.Process:
    """Another process that adds to the session's number, archives a run and prints the number it was answered."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", INCREMENT, path, str(times), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "recado.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, busy_seconds=0.05)
    yield store
    await store.aclose()


async def test_what_was_answered_outlives_a_kill(store: SqliteStore, path: Path) -> None:
    child = await increment(path, -1)
    assert child.stdout is not None
    answered = 0
    while answered < 50:
        answered = int(await child.stdout.readline())
    child.kill()
    rest = (await child.stdout.read()).split(b"\n")[:-1]
    assert await child.wait() == -9
    answered = max([answered, *map(int, rest)])

    stored = await store.load(KEY)
    assert stored is not None
    number = int(stored.state or b"")
    assert number in {answered, answered + 1}  # the last one may have been killed before it was printed
    assert len(await store.runs(KEY, limit=number + 1)) == number  # each came with the commit that counted it


async def test_many_may_open_a_new_file_at_the_same_time(path: Path) -> None:
    stores = [SqliteStore(path) for _ in range(8)]
    await asyncio.gather(*(store.put(f"a/{number}", b"1") for number, store in enumerate(stores)))
    assert len(await stores[0].list("a")) == 8
    for store in stores:
        await store.aclose()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_two_processes_that_open_and_commit_at_once_lose_nothing(store: SqliteStore, path: Path) -> None:
    children = [await increment(path, 40) for _ in range(2)]
    answers = await asyncio.gather(*(child.communicate() for child in children))
    assert [child.returncode for child in children] == [0, 0]
    numbers = [int(line) for output, _ in answers for line in output.split()]
    assert sorted(numbers) == list(range(1, 81))
    stored = await store.load(KEY)
    assert stored is not None
    assert stored.state == b"80"


async def test_a_file_of_the_release_before_is_brought_up_to_date_with_all_that_is_in_it(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA journal_mode = WAL; {SCHEMA_2}")
    stores = [SqliteStore(path) for _ in range(8)]
    found = await asyncio.gather(*(store.load(KEY) for store in stores))
    assert [stored and (stored.state, stored.inbox) for stored in found] == [(b"\1", {"old": b"\2"})] * 8
    store = stores[0]
    assert [key async for key in store.due(NOW)] == [KEY]
    assert (await store.run(KEY, 1), await store.get("plans/one")) == (b"\3", b"\4")
    await store.append(KEY, ENTRY, NOW)
    stored = await store.load(KEY)
    assert stored is not None
    assert list(stored.inbox) == ["old", "a"]
    await store.commit(KEY, stored.version, state=b"", remove=["old"], due=None)
    for store in stores:
        await store.aclose()
    new = SqliteStore(path.with_name("new.db"))
    await new.put("plans/one", b"")
    await new.aclose()
    columns = []
    for file in (path, path.with_name("new.db")):
        with closing(sqlite3.connect(file)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
            columns.append(db.execute("PRAGMA table_info(inbox)").fetchall())
    assert columns[0] == columns[1]


async def test_two_processes_may_bring_a_file_up_to_date_at_once(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA journal_mode = WAL; {SCHEMA_2}")
        db.execute("UPDATE sessions SET state = x'30'")
        db.commit()
    children = [await increment(path, 5) for _ in range(3)]
    await asyncio.gather(*(child.communicate() for child in children))
    assert [child.returncode for child in children] == [0, 0, 0]


@pytest.mark.parametrize("schema", [0, 1, SCHEMA + 1])
async def test_a_file_of_another_schema_is_refused_and_left_as_it_is(
    store: SqliteStore, path: Path, schema: int
) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA user_version = {schema}")
    with pytest.raises(SettingsError, match=rf"schema {schema}, this release knows {SCHEMA}.*RECADO_HOME"):
        await store.load(KEY)
    with pytest.raises(SettingsError):
        await store.put("a/b", b"never")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


async def test_only_the_owner_can_read_the_file(store: SqliteStore, path: Path) -> None:
    await store.append(KEY, ENTRY, NOW)
    modes = {file.name: stat.filemode(file.stat().st_mode) for file in (path.parent, *path.parent.iterdir())}
    files = ("recado.db", "recado.db-wal", "recado.db-shm")
    assert modes == {"home": "drwx------"} | dict.fromkeys(files, "-rw-------")


async def test_reads_answer_while_a_write_waits_for_another_process(path: Path) -> None:
    store = SqliteStore(path, busy_seconds=30)
    await store.put("a/b", b"before")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(store.put("a/b", b"after"))
        assert [await store.get("a/b") for _ in range(3)] == [b"before"] * 3
        assert not write.done()
        other.execute("ROLLBACK")
    await write
    assert await store.get("a/b") == b"after"
    await store.aclose()


async def test_a_lock_that_is_never_released_is_store_down(store: SqliteStore, path: Path) -> None:
    await store.put("a/b", b"before")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreDown, match="locked"):
            await store.append(KEY, ENTRY, NOW)
        other.execute("ROLLBACK")
    await store.append(KEY, ENTRY, NOW)


async def test_a_file_that_cannot_be_opened_is_store_down(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)  # a folder
    with pytest.raises(StoreDown, match="unable to open"):
        await store.load(KEY)


async def test_a_closed_store_is_down(store: SqliteStore) -> None:
    await store.put("a/b", b"1")
    await store.aclose()
    with pytest.raises(StoreDown, match="closed"):
        await store.get("a/b")
    with pytest.raises(StoreDown, match="closed"):
        await store.put("a/b", b"2")


async def test_closing_finishes_the_writes_under_way(store: SqliteStore, path: Path) -> None:
    writes = [asyncio.create_task(store.put(f"a/{number}", b"1")) for number in range(5)]
    await asyncio.sleep(0)
    await store.aclose()
    await asyncio.gather(*writes)
    again = SqliteStore(path)
    assert len(await again.list("a")) == 5
    await again.aclose()


async def test_a_caller_who_gives_up_harms_no_other(store: SqliteStore) -> None:
    writes = [asyncio.create_task(store.put(f"a/{number}", b"1")) for number in range(5)]
    await asyncio.sleep(0)
    writes[2].cancel()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result) for result in results].count(asyncio.CancelledError) == 1
    assert {"a/0", "a/1", "a/3", "a/4"} <= {path for path, _ in await store.list("a")}


async def test_a_mistake_in_one_write_fails_only_that_one(store: SqliteStore) -> None:
    ids = ["0", "1", "not \ud800 unicode", "3"]
    results = await asyncio.gather(*(store.put(f"a/{id_}", b"1") for id_ in ids), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), type(None), UnicodeEncodeError, type(None)]
    assert [path for path, _ in await store.list("a")] == ["a/0", "a/1", "a/3"]


async def test_what_has_expired_goes_with_the_next_write_of_its_sort(path: Path) -> None:
    clock = FakeClock()
    store = SqliteStore(path, clock=clock)
    soon, late = (clock.now() + timedelta(days=days) for days in (1, 2))
    version: object = None
    for number, expires_at in enumerate((soon, late, None), start=1):
        archive = Archived(number=number, body=b"run", expires_at=expires_at)
        version = await store.commit(KEY, version, state=b"", due=None, archive=archive)
        await store.put(f"a/{number}", b"document", expires_at)
    clock.advance(timedelta(days=1, seconds=1).total_seconds())
    documents = {"a/4": Document(body=b"document", expires_at=late)}
    archive = replace(archive, expires_at=late)
    await store.commit(KEY, version, state=b"", due=None, archive=archive, documents=documents)
    assert [path for path, _ in await store.list("a")] == ["a/2", "a/3", "a/4"]
    assert [number for number in (1, 2, 3) if await store.run(KEY, number)] == [2, 3]
    await store.aclose()
