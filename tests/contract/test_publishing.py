"""Publishing from SQLite and from Postgres: one suite, two databases."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import text

from shared.config.database import open_engine
from shared.config.publishing import publish
from shared.config.repository import ConfigRepository
from shared.errors import StoreDown
from shared.published import connection_path, member_path
from tests.contract.config_values import BOT, LOOKUP, SHOP, connection_of, plan_of
from tests.fakes import FakeDocuments

# Publishing


async def test_what_could_not_be_written_stays_in_the_outbox(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.put_agent("demo", SHOP)
    documents.down = True
    with pytest.raises(StoreDown):
        await publish(repository, documents)
    documents.down = False
    assert await publish(repository, documents) == 2
    assert await publish(repository, documents) == 0


async def test_more_than_a_page_is_published_each_plan_before_what_names_it(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    for number in range(60):
        await repository.put_agent("demo", replace(SHOP, id=f"agent{number}"))
    assert await publish(repository, documents) == 120
    assert [path.split("/")[0] for path in documents.writes] == ["tenants", "connections"] * 60


async def test_of_many_changes_of_a_document_the_last_is_written_once(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.put_agent("demo", SHOP)
    await repository.put_connection("demo", BOT)
    for version in (2, 3, 4):
        await repository.put_agent("demo", replace(SHOP, instructions=f"Help {version}."))
    assert await publish(repository, documents) == 6
    assert documents.writes.count(connection_path("bot")) == 1
    assert plan_of(documents, "bot").agent_version == 4
    assert await repository.pending() == []


async def test_a_plan_that_a_newer_release_words_differently_is_published_before_whatever_comes_to_name_it(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.put_agent("demo", SHOP)
    await repository.put_connection("demo", BOT)
    await publish(repository, FakeDocuments())  # by the release before: under another hash
    await repository.set_connection_enabled("demo", "api-demo-shop", enabled=True)
    await repository.set_connection_enabled("demo", "bot", enabled=True)
    await publish(repository, documents)
    assert [path.split("/")[0] for path in documents.writes] == ["tenants", "connections", "connections"]
    assert plan_of(documents, "bot") == plan_of(documents, "api-demo-shop")


async def test_a_deletion_is_published(
    repository: ConfigRepository, documents: FakeDocuments, database_url: str
) -> None:
    documents.bodies[connection_path("gone")] = b"{}"
    engine = open_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO publish_outbox (tenant_id, path) VALUES ('demo', 'connections/gone')"))
    engine.dispose()
    assert await publish(repository, documents) == 1
    assert documents.bodies == {}


class HeldDocuments(FakeDocuments):
    """Holds the first `put` of anything but a plan back, before it is seen, until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.held = asyncio.Event()
        self.go = asyncio.Event()

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        if not self.held.is_set() and "/plans/" not in path:
            self.held.set()
            await self.go.wait()
        await super().put(path, body, expires_at)


async def test_a_publisher_that_comes_late_does_not_leave_an_older_document(repository: ConfigRepository) -> None:
    documents = HeldDocuments()
    await repository.put_agent("demo", SHOP)
    await repository.put_connection("demo", BOT)
    await publish(repository, quick := FakeDocuments())
    documents.bodies = quick.bodies
    await repository.set_connection_enabled("demo", "bot", enabled=True)
    late = asyncio.create_task(publish(repository, documents))
    await documents.held.wait()
    await publish(repository, documents)
    await repository.set_connection_enabled("demo", "bot", enabled=False)
    await publish(repository, documents)
    documents.go.set()
    await late
    assert not connection_of(documents, "bot").enabled
    assert await repository.pending() == []


async def test_a_late_publisher_takes_no_younger_change_out_of_the_outbox(repository: ConfigRepository) -> None:
    documents = HeldDocuments()
    await repository.put_agent("demo", SHOP)
    await repository.put_connection("demo", BOT)
    await publish(repository, FakeDocuments())
    await repository.set_connection_enabled("demo", "bot", enabled=True)
    late = asyncio.create_task(publish(repository, documents))
    await documents.held.wait()
    await publish(repository, documents)
    await repository.set_connection_enabled("demo", "bot", enabled=False)
    documents.go.set()
    await late
    assert not connection_of(documents, "bot").enabled


async def test_a_late_publisher_does_not_let_a_removed_user_back_in(repository: ConfigRepository) -> None:
    documents = HeldDocuments()
    await repository.put_user("demo", "olga")
    late = asyncio.create_task(publish(repository, documents))
    await documents.held.wait()
    await publish(repository, documents)
    await repository.remove_user("demo", "olga")
    await publish(repository, documents)
    documents.go.set()
    await late
    assert documents.writes[-2:] == [member_path("demo", "olga")] * 2, (
        "the late one wrote, and what it wrote was deleted"
    )
    assert documents.bodies == {}


class JitteryDocuments(FakeDocuments):
    """Every write takes a few turns of the loop, another number each time."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        for _ in range(self._chance.randrange(40)):
            await asyncio.sleep(0)
        await super().put(path, body, expires_at)


async def test_changes_and_publishers_all_at_once_end_in_the_truth(repository: ConfigRepository) -> None:
    documents = JitteryDocuments(random.Random(7))  # noqa: S311  the same in every run
    await repository.put_agent("demo", SHOP)
    await repository.put_connection("demo", BOT)

    async def edit(number: int) -> int:
        version = await repository.put_agent("demo", replace(SHOP, instructions=f"Help {number}."))
        await repository.set_connection_enabled("demo", "bot", enabled=number % 2 == 0)
        await publish(repository, documents)
        return version

    versions = await asyncio.gather(*(edit(number) for number in range(8)))
    assert sorted(versions) == list(range(2, 10)), "each edit made a version of its own"
    shown = dict(documents.bodies)
    await repository.put_connection("demo", BOT)  # writes the truth to the outbox once more
    await repository.set_connection_enabled("demo", "api-demo-shop", enabled=True)
    assert await publish(repository, documents) == 3, "the plan, once, and the two connections"
    assert documents.bodies == shown
    assert plan_of(documents, "bot").agent_version == 9


async def test_what_was_published_and_lost_is_published_again(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.put_tool("demo", LOOKUP)
    await repository.put_agent("demo", replace(SHOP, tools=("lookup",)))
    await repository.create_api_key("demo")
    await repository.put_user("demo", "olga")
    await publish(repository, documents)
    lost = FakeDocuments()
    await repository.republish("demo")
    await publish(repository, lost)
    assert lost.bodies == documents.bodies
