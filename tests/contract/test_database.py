"""The database itself, SQLite and Postgres: its schema, its errors, its absence."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared.clock import SystemClock
from shared.config.database import migrate, migrations, open_engine
from shared.config.repository import ConfigRepository
from shared.errors import StoreDown
from shared.settings import SettingsError
from tests.engines import free_port

# The schema


def test_the_migrations_make_what_the_code_expects(database_url: str) -> None:
    migrate(database_url)
    with migrations(database_url) as config:
        command.check(config)


def test_the_schema_can_be_taken_down_and_made_again(database_url: str) -> None:
    migrate(database_url)
    with migrations(database_url) as config:
        command.downgrade(config, "base")
    migrate(database_url)
    with migrations(database_url) as config:
        command.check(config)


async def test_several_processes_may_migrate_at_once_and_again(database_url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, database_url) for _ in range(4)))
    repository = ConfigRepository(database_url, SystemClock())
    assert await repository.create_tenant("demo")
    await repository.aclose()


def test_a_database_of_a_newer_release_is_left_alone(database_url: str) -> None:
    migrate(database_url)
    engine = open_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SettingsError, match="newer release"):
        migrate(database_url)


def test_the_sqlite_file_is_only_its_owners(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path}/home/config.db")
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "home" / "config.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("url", ["", "config.db", "sqlite://", "sqlite:///:memory:", "mysql://root:hunter2@h/db"])
def test_a_url_that_cannot_be_used_is_refused_with_the_fix_and_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="use sqlite:///<file> or postgresql") as refused:
        migrate(url)
    assert "hunter2" not in str(refused.value)


# When the database is away

CLOSE_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()
"""


@pytest.mark.parametrize("root", ["postgresql://nobody:hunter2@127.0.0.1:{port}", "sqlite:///{folder}"])
async def test_a_database_that_is_not_there_is_a_store_that_is_down(tmp_path: Path, root: str) -> None:
    (tmp_path / "config").mkdir()
    url = root.format(port=free_port(), folder=tmp_path) + "/config"
    repository = ConfigRepository(url, SystemClock())
    with pytest.raises(StoreDown) as down:
        await repository.agents("demo")
    await repository.aclose()
    assert "hunter2" not in str(down.value)


async def test_connections_that_the_server_closed_are_replaced_unseen(postgres_url: str) -> None:
    await asyncio.to_thread(migrate, postgres_url)
    repository = ConfigRepository(postgres_url, SystemClock())
    await repository.create_tenant("demo")
    engine = open_engine(postgres_url)
    for _ in range(5):
        await asyncio.gather(*(repository.agents("demo") for _ in range(5)))
        with engine.begin() as connection:
            connection.execute(text(CLOSE_OTHERS))
        assert await repository.agents("demo") == []
    engine.dispose()
    await repository.aclose()


async def test_no_error_of_the_database_shows_a_value(tmp_path: Path) -> None:
    repository = ConfigRepository(f"sqlite:///{tmp_path}/never-migrated.db", SystemClock())
    with pytest.raises(DBAPIError) as error:
        await repository.create_tenant("hunter2")
    await repository.aclose()
    assert "hunter2" not in str(error.value)
