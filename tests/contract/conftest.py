"""The stores that must pass the same suite. Each test has a tenant, and a file or project, of its own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from shared.clock import SystemClock
from shared.config.database import migrate
from shared.config.repository import ConfigRepository
from shared.domain import SessionKey, session_key
from shared.store import Archive, Documents, Pending, SessionStore
from shared.store.firestore import FirestoreStore
from shared.store.sqlite import SqliteStore
from tests.fakes import FakeDocuments


class Store(SessionStore, Archive, Documents, Protocol):
    async def aclose(self) -> None: ...


OpenStore = Callable[[], Store]


def pending(bodies: Mapping[str, bytes], rank: int = 0) -> dict[str, Pending]:
    return {id_: Pending(body=body, rank=rank) for id_, body in bodies.items()}


@pytest.fixture(params=["sqlite", "firestore"])
async def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OpenStore]:
    """Opens one more client of this test's file or project, as another process would."""
    opened: list[Store] = []
    project = f"contract-{secrets.token_hex(6)}"
    if request.param == "firestore":
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", request.getfixturevalue("firestore_host"))

    def make() -> Store:
        opened.append(FirestoreStore(project) if request.param == "firestore" else SqliteStore(tmp_path / "recado.db"))
        return opened[-1]

    yield make
    for store in opened:
        await store.aclose()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


@pytest.fixture
def tenant() -> str:
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture
def key(tenant: str) -> SessionKey:
    return session_key(tenant, "connection", "conversation")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/home/config.db"


@pytest.fixture
async def repository(database_url: str) -> AsyncIterator[ConfigRepository]:
    await asyncio.to_thread(migrate, database_url)
    repository = ConfigRepository(database_url, SystemClock())
    await repository.create_tenant("demo")
    yield repository
    await repository.aclose()


@pytest.fixture
def documents() -> FakeDocuments:
    return FakeDocuments()
