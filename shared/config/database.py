"""The database of the configuration: its engine, and its schema brought up to date.

Migrations only add: a revision may make a table, an index, or a column that is nullable or has a server default, so
the release before it keeps working on the new schema while both run. What is no longer used is dropped one release
after the code that used it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DisconnectionError

from shared.settings import SettingsError

if TYPE_CHECKING:
    from alembic.config import Config

TIMEOUT_SECONDS = 10
"""How long a connect, a statement or the wait for a lock may take."""

_MIGRATING = 7_236_232  # any number of our own: whoever holds this Postgres advisory lock migrates, the others wait


def open_engine(database_url: str) -> Engine:
    """An engine for any thread, with at most five connections to Postgres or one to SQLite, made on first use.

    `sqlite:///<file>` (made with mode 0600, its folder with 0700) or `postgresql+pg8000://...`; `postgresql://` means
    the latter. Raises `SettingsError` for anything else. Errors of the engine never show a statement's parameters.
    """
    url = _url(database_url)
    postgres = url.drivername == "postgresql+pg8000"
    engine = create_engine(
        url,
        pool_size=2 if postgres else 1,  # SQLite has one writer: waiting for a connection is fairer than for its lock
        max_overflow=3 if postgres else 0,
        pool_timeout=TIMEOUT_SECONDS,
        hide_parameters=True,
        connect_args={"timeout": TIMEOUT_SECONDS},
    )
    if postgres:
        event.listen(engine, "checkout", partial(_check_alive, engine.dialect))
        return engine
    event.listen(engine, "do_connect", _make_file)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def migrate(database_url: str) -> None:
    """Bring the schema to this release's, all of it or nothing; safe to run in several processes at once.

    Raises `SettingsError` when a newer release has already migrated further.
    """
    from alembic import command
    from alembic.util import CommandError

    with migrations(database_url) as config:
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise SettingsError(
                f"the configuration database is of a newer release: start that one ({error})"
            ) from error


@contextmanager
def migrations(database_url: str) -> Iterator[Config]:
    """Alembic's configuration on one transaction of this database, committed at the end."""
    from alembic.config import Config

    engine = open_engine(database_url)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", "shared.config:migrations")
            yield config
    finally:
        engine.dispose()


def _url(database_url: str) -> URL:
    fix = "use sqlite:///<file> or postgresql+pg8000://<user>:<password>@<host>/<database>"
    try:
        url = make_url(database_url)
    except ArgumentError:
        raise SettingsError(f"DATABASE_URL cannot be read: {fix}") from None  # the URL may hold a password
    if url.drivername in ("postgres", "postgresql", "postgresql+pg8000"):
        return url.set(drivername="postgresql+pg8000")
    if url.drivername in ("sqlite", "sqlite+pysqlite") and url.database not in (None, "", ":memory:"):
        return url
    raise SettingsError(f"DATABASE_URL begins with {url.drivername}: {fix}")


def _check_alive(dialect: Dialect, connection: DBAPIConnection, record: Any, proxy: Any) -> None:
    """The pool's own `pre_ping` does not know how pg8000 ends: a socket's bare OSError, or an error with a SQLSTATE."""
    try:
        dialect.do_ping(connection)
    except (OSError, dialect.loaded_dbapi.Error) as error:
        raise DisconnectionError from error  # the pool opens another


def _make_file(dialect: Any, record: Any, arguments: list[Any], keywords: dict[str, Any]) -> None:
    path = Path(arguments[0])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    # Python's own BEGIN comes too late for DDL and reads; ours is sent by the engine's "begin".
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
