from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from shared import codec
from shared.domain import Connection, ExecutionPlan
from shared.errors import Blocked, NotFound, StoreDown
from shared.published import (
    CACHE_SECONDS,
    CACHED_DOCUMENTS,
    CACHED_PLANS,
    ApiKey,
    App,
    Published,
    api_key_path,
    app_path,
    connection_path,
    number_path,
    plan_path,
)
from tests.clock import FakeClock
from tests.fakes import FakeDocuments

CONNECTION = Connection(id="bot", tenant="demo", channel="telegram", agent="shop", plan="0" * 64)
PLAN = ExecutionPlan(tenant="demo", agent="shop", agent_version=1, instructions="Help.", models=("scripted/demo",))


@pytest.fixture
def documents() -> FakeDocuments:
    return FakeDocuments()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def published(documents: FakeDocuments, clock: FakeClock) -> Published:
    return Published(documents, clock)


async def test_a_connection_is_read_once_in_ten_seconds(
    published: Published, documents: FakeDocuments, clock: FakeClock
) -> None:
    documents.bodies[connection_path("bot")] = codec.encode(CONNECTION)
    assert await published.connection("bot") == CONNECTION
    documents.bodies[connection_path("bot")] = codec.encode(changed := replace(CONNECTION, enabled=False))
    clock.advance(CACHE_SECONDS - 0.1)
    assert await published.connection("bot") == CONNECTION
    clock.advance(0.1)
    assert await published.connection("bot") == changed
    assert len(documents.reads) == 2


async def test_what_is_not_there_is_remembered_as_long(
    published: Published, documents: FakeDocuments, clock: FakeClock
) -> None:
    for _ in range(3):
        with pytest.raises(NotFound):
            await published.connection("bot")
        assert await published.api_key("k1") is None
    assert documents.reads == [connection_path("bot"), api_key_path("k1")]
    documents.bodies[connection_path("bot")] = codec.encode(CONNECTION)
    clock.advance(CACHE_SECONDS)
    assert await published.connection("bot") == CONNECTION


@pytest.mark.parametrize("id_", ["", "a/b", "../api_keys/k1", "bot/x/y", "a" * 201, "é", "bot\n"])
async def test_an_id_that_could_name_another_document_is_never_looked_up(
    published: Published, documents: FakeDocuments, id_: str
) -> None:
    with pytest.raises(NotFound):
        await published.connection(id_)
    assert await published.api_key(id_) is None
    assert documents.reads == []


async def test_a_flood_of_unknown_ids_does_not_grow_the_cache_without_end(
    published: Published, documents: FakeDocuments
) -> None:
    documents.bodies[connection_path("bot")] = codec.encode(CONNECTION)
    for number in range(CACHED_DOCUMENTS + 1):
        await published.api_key(f"k{number}")
        await published.connection("bot")
    assert documents.reads.count(connection_path("bot")) == 1, "what is used stays"
    await published.api_key("k0")
    assert documents.reads.count(api_key_path("k0")) == 2, "what was used longest ago went"


async def test_a_number_leads_to_its_connection(published: Published, documents: FakeDocuments) -> None:
    line = replace(CONNECTION, channel="whatsapp", app="meta", number="1065")
    documents.bodies[connection_path("bot")] = codec.encode(line)
    documents.bodies[number_path("meta", "1065")] = codec.encode("bot")
    assert await published.number("meta", "1065") == line
    assert await published.number("meta", "2065") is None
    assert await published.number("other", "1065") is None


async def test_a_number_whose_connection_has_another_by_now_leads_nowhere(
    published: Published, documents: FakeDocuments
) -> None:
    moved = replace(CONNECTION, channel="whatsapp", app="meta", number="2065")
    documents.bodies[connection_path("bot")] = codec.encode(moved)
    documents.bodies[number_path("meta", "1065")] = codec.encode("bot")
    documents.bodies[number_path("meta", "3065")] = codec.encode("gone")
    assert await published.number("meta", "1065") is None
    assert await published.number("meta", "3065") is None


async def test_an_app_is_found_by_its_id_alone(published: Published, documents: FakeDocuments) -> None:
    app = App(id="meta", tenant="demo", secrets={"app_secret": "sealed"})
    documents.bodies[app_path("meta")] = codec.encode(app)
    assert await published.app("meta") == app
    for id_ in ("other", "meta/numbers/1065", ""):
        with pytest.raises(NotFound):
            await published.app(id_)
    for app_id, number in (("meta/x", "1"), ("meta", ""), ("meta", "1/../2")):
        assert await published.number(app_id, number) is None
    assert documents.reads == [app_path("meta"), app_path("other")]


async def test_a_plan_is_read_once_for_ever(published: Published, documents: FakeDocuments, clock: FakeClock) -> None:
    sha = codec.fingerprint(PLAN)
    documents.bodies[plan_path("demo", sha)] = codec.encode(PLAN)
    assert await published.plan("demo", sha) == PLAN
    clock.advance(1_000_000)
    documents.down = True
    assert await published.plan("demo", sha) == PLAN


async def test_at_most_two_hundred_plans_are_kept(published: Published, documents: FakeDocuments) -> None:
    for number in range(CACHED_PLANS + 1):
        documents.bodies[plan_path("demo", str(number))] = codec.encode(PLAN)
        await published.plan("demo", str(number))
    await published.plan("demo", "1")
    await published.plan("demo", "0")
    assert documents.reads.count(plan_path("demo", "1")) == 1
    assert documents.reads.count(plan_path("demo", "0")) == 2


async def test_a_plan_that_is_not_published_blocks_until_it_is(published: Published, documents: FakeDocuments) -> None:
    sha = codec.fingerprint(PLAN)
    with pytest.raises(Blocked, match=sha):
        await published.plan("demo", sha)
    documents.bodies[plan_path("demo", sha)] = codec.encode(PLAN)
    assert await published.plan("demo", sha) == PLAN


async def test_a_plan_belongs_to_its_tenant(published: Published, documents: FakeDocuments) -> None:
    sha = codec.fingerprint(PLAN)
    documents.bodies[plan_path("demo", sha)] = codec.encode(PLAN)
    await published.plan("demo", sha)
    with pytest.raises(Blocked):
        await published.plan("other", sha)


async def test_a_store_that_is_down_is_not_remembered_as_an_answer(
    published: Published, documents: FakeDocuments
) -> None:
    key = ApiKey(id="k1", tenant="demo", secret_sha256="0" * 64)
    documents.bodies[api_key_path("k1")] = codec.encode(key)
    documents.down = True
    with pytest.raises(StoreDown):
        await published.api_key("k1")
    documents.down = False
    assert await published.api_key("k1") == key


def test_reading_what_is_published_and_checking_keys_imports_no_sql() -> None:
    code = (
        "import sys, shared.published, shared.auth.api_key, shared.secrets.keyfile;"
        "print({name.partition('.')[0] for name in sys.modules} & {'sqlalchemy', 'alembic', 'pg8000', 'cryptography'})"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "set()"
