"""Meta apps and the numbers that are connected through them, on SQLite and on Postgres: one suite, two databases."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from shared import codec
from shared.config import demo
from shared.config.database import migrate, migrations, open_engine
from shared.config.drafts import ConnectionDraft
from shared.config.publishing import publish
from shared.config.repository import ConfigRepository
from shared.errors import BadRequest
from shared.published import App, Published, app_path, number_path
from shared.secrets.keyfile import KeyFile
from tests.clock import FakeClock
from tests.contract.config_values import BOT, SHOP, connection_of
from tests.fakes import FakeDocuments

BOX = KeyFile(Path("unused"), base64.urlsafe_b64encode(bytes(32)).decode())
LINE = ConnectionDraft(id="line", channel="whatsapp", agent="shop", app="meta", number="1065")


@pytest.fixture
async def shop(repository: ConfigRepository) -> ConfigRepository:
    """Two tenants with an agent each, and an app of the first."""
    for tenant in ("demo", "other"):
        await repository.create_tenant(tenant)
        await repository.put_agent(tenant, SHOP)
    await repository.put_app("demo", "meta")
    return repository


async def number_of(documents: FakeDocuments, number: str, app: str = "meta") -> str:
    """The id of the connection that a function finds for this number."""
    found = await Published(documents, FakeClock()).number(app, number)
    return found.id if found is not None else ""


async def test_a_number_is_published_after_its_connection(shop: ConfigRepository, documents: FakeDocuments) -> None:
    await publish(shop, documents)
    documents.writes.clear()
    await shop.put_connection("demo", LINE)
    await publish(shop, documents)

    assert documents.writes[-2:] == ["connections/line", number_path("meta", "1065")]
    assert await number_of(documents, "1065") == "line"
    assert (connection_of(documents, "line").app, connection_of(documents, "line").number) == ("meta", "1065")


async def test_a_number_that_is_given_up_leads_nowhere_and_can_be_taken(
    shop: ConfigRepository, documents: FakeDocuments
) -> None:
    await shop.put_connection("demo", LINE)
    await publish(shop, documents)
    await shop.put_connection("demo", replace(LINE, number="2065"))
    await publish(shop, documents)

    assert number_path("meta", "1065") not in documents.bodies
    assert [await number_of(documents, number) for number in ("1065", "2065")] == ["", "line"]
    await shop.put_connection("demo", replace(LINE, id="second"))
    await publish(shop, documents)
    assert await number_of(documents, "1065") == "second"


async def test_a_number_is_connected_to_an_app_once(shop: ConfigRepository) -> None:
    await shop.put_connection("demo", LINE)
    await shop.put_connection("demo", LINE)
    with pytest.raises(BadRequest, match="number: 1065 is connected already"):
        await shop.put_connection("demo", replace(LINE, id="second"))
    await shop.put_app("demo", "another")
    await shop.put_connection("demo", replace(LINE, id="second", app="another"))


async def test_only_a_shared_app_takes_numbers_of_other_tenants(
    shop: ConfigRepository, documents: FakeDocuments
) -> None:
    theirs = replace(LINE, id="theirs", number="3065")
    for draft in (theirs, replace(theirs, app="nobodys")):
        with pytest.raises(BadRequest, match=f"app: {draft.app} is no app of this tenant, nor a shared one"):
            await shop.put_connection("other", draft)
    await shop.put_app("demo", "meta", shared=True)
    await shop.put_connection("other", theirs)
    await publish(shop, documents)

    assert connection_of(documents, "theirs").tenant == "other"
    assert await number_of(documents, "3065") == "theirs"
    with pytest.raises(BadRequest, match="number: 3065 is connected already"):
        await shop.put_connection("demo", replace(LINE, number="3065"))


async def test_an_app_carries_its_secrets_and_belongs_to_one_tenant(
    shop: ConfigRepository, documents: FakeDocuments
) -> None:
    await shop.put_secret("demo", "meta/app_secret", "first")
    await shop.put_secret("demo", "metal/app_secret", "of a longer name")
    await shop.put_secret("other", "meta/app_secret", "a stranger's")
    await publish(shop, documents)

    app = codec.decode(App, documents.bodies[app_path("meta")])
    assert app == App(id="meta", tenant="demo", secrets={"app_secret": "first"})
    with pytest.raises(BadRequest, match="app: meta is taken"):
        await shop.put_app("other", "meta")


async def test_an_app_and_a_connection_never_have_the_same_id(shop: ConfigRepository) -> None:
    await shop.put_connection("demo", BOT)
    with pytest.raises(BadRequest, match="app: bot is taken"):
        await shop.put_app("demo", "bot")
    with pytest.raises(BadRequest, match="id: meta is taken"):
        await shop.put_connection("demo", replace(BOT, id="meta"))


async def test_what_was_published_and_lost_is_published_again(shop: ConfigRepository, documents: FakeDocuments) -> None:
    await shop.put_secret("demo", "meta/app_secret", "sealed")
    await shop.put_connection("demo", LINE)
    await publish(shop, documents)
    lost = FakeDocuments()
    for tenant in ("demo", "other"):
        await shop.republish(tenant)
    await publish(shop, lost)

    assert lost.bodies == documents.bodies


@pytest.mark.parametrize("path", [number_path("meta", "1065"), app_path("meta")])
async def test_a_publisher_that_comes_late_leaves_the_truth(
    shop: ConfigRepository, documents: FakeDocuments, path: str
) -> None:
    await shop.put_connection("demo", LINE)
    (late,) = [change for change in await shop.pending() if change.path == path]
    await publish(shop, documents)
    await shop.put_connection("demo", replace(LINE, number="2065"))
    await shop.put_secret("demo", "meta/app_secret", "sealed")
    await publish(shop, documents)
    truth = dict(documents.bodies)
    assert late.body is not None
    await documents.put(path, late.body)
    await shop.published(late)
    await publish(shop, documents)

    assert documents.bodies == truth


async def test_the_demo_can_be_seeded_with_a_number_again_and_again(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    for _ in range(2):
        await demo.seed(repository, BOX, telegram_token="1:t", model="scripted/demo", telegram_api="http://127.0.0.1:9")
        await demo.seed_whatsapp(
            repository, BOX, token="t", number="1065", app_secret="s", verify_token="v", api="http://127.0.0.1:9/v25.0"
        )
    await publish(repository, documents)
    app = await Published(documents, FakeClock()).app(demo.WHATSAPP_APP)

    assert await number_of(documents, "1065", demo.WHATSAPP_APP) == demo.WHATSAPP_CONNECTION
    assert BOX.open(app.secrets["app_secret"], bound_to="demo/demo-app/app_secret") == "s"


def test_connections_of_the_release_before_stay_as_they_are(database_url: str) -> None:
    with migrations(database_url) as config:
        command.upgrade(config, "0001")
    engine = open_engine(database_url)
    with engine.begin() as db:
        db.execute(text("INSERT INTO tenants (id, name) VALUES ('demo', 'Demo')"))
        db.execute(text("INSERT INTO agents VALUES ('demo', 'shop', 'shop', 1)"))
        old = "INSERT INTO connections VALUES (:id, 'demo', 'telegram', 'shop', true, '', '{}')"
        db.execute(text(old), [{"id": "a"}, {"id": "b"}])
    migrate(database_url)
    columns = "id, tenant_id, channel, agent_id, enabled, api_root, settings"
    with engine.begin() as db:  # and the release before still writes
        db.execute(text(f"INSERT INTO connections ({columns}) VALUES ('c', 'demo', 'web', 'shop', true, '', '{{}}')"))  # noqa: S608
        assert db.execute(text("SELECT id, app_id, number FROM connections ORDER BY id")).all() == [
            (id_, None, None) for id_ in "abc"
        ]
    engine.dispose()
