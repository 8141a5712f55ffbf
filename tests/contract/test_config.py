"""The configuration on SQLite and on Postgres: one suite, two databases."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared import codec
from shared.auth.api_key import authenticate
from shared.config import demo
from shared.config.database import open_engine
from shared.config.drafts import AgentDraft, ConnectionDraft
from shared.config.publishing import publish
from shared.config.repository import ConfigRepository
from shared.domain import Budget, Connection, ExecutionPlan, Queueing, Rule, Texts, api_connection
from shared.errors import BadRequest, NotFound, TooLarge, Unauthenticated
from shared.published import Published, connection_path, member_path
from shared.secrets.keyfile import KeyFile
from tests.clock import FakeClock
from tests.contract.config_values import BOT, LOOKUP, SHOP, connection_of, plan_of
from tests.fakes import FakeDocuments

# What a change publishes


async def test_an_agent_is_published_with_its_own_api_connection(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    lookup = replace(LOOKUP, timeout_seconds=2.5)
    await repository.put_tool("demo", lookup)
    rule = Rule(tool="lookup", decision="ask", approvers=("contact",))
    draft = AgentDraft(
        id="shop",
        name="The shop",
        instructions="Sé breve: ¿qué pedido?",
        models=("a/b", "c/d"),
        tools=("lookup",),
        rules=(rule,),
        budget=Budget(model_calls=3),
        texts=Texts(failed="Uy.", busy="Ya voy."),
        queueing=Queueing(mode="collect", debounce_seconds=1.5),
    )
    assert await repository.put_agent("demo", draft) == 1
    assert await publish(repository, documents) == 2
    assert [path.partition("/")[0] for path in documents.writes] == ["tenants", "connections"], "the plan comes first"
    assert plan_of(documents, "api-demo-shop") == ExecutionPlan(
        tenant="demo",
        agent="shop",
        agent_version=1,
        instructions=draft.instructions,
        models=draft.models,
        tools=(lookup,),
        rules=draft.rules,
        budget=draft.budget,
        texts=draft.texts,
        queueing=draft.queueing,
    )
    assert connection_of(documents, "api-demo-shop").channel == "api"
    assert [(agent.version, agent.draft) for agent in await repository.agents("demo")] == [(1, draft)]


async def test_a_new_version_reaches_every_connection_of_its_agent_and_leaves_the_old_plan(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.put_agent("demo", SHOP)
    await repository.put_agent("demo", replace(SHOP, id="other"))
    await repository.put_connection("demo", BOT)
    await publish(repository, documents)
    before = dict(documents.bodies)
    assert await repository.put_agent("demo", replace(SHOP, instructions="Help more.")) == 2
    await publish(repository, documents)
    assert plan_of(documents, "bot").agent_version == plan_of(documents, "api-demo-shop").agent_version == 2
    changed = {path for path, body in before.items() if documents.bodies[path] != body}
    assert changed == {connection_path("bot"), connection_path("api-demo-shop")}


async def test_the_same_draft_again_changes_nothing(repository: ConfigRepository, documents: FakeDocuments) -> None:
    await repository.put_tool("demo", LOOKUP)
    await repository.put_agent("demo", replace(SHOP, tools=("lookup",)))
    await publish(repository, documents)
    await repository.put_tool("demo", LOOKUP)
    assert await repository.put_agent("demo", replace(SHOP, tools=("lookup",))) == 1
    assert await publish(repository, documents) == 0


async def test_a_changed_tool_gives_new_plans_to_the_agents_that_have_it(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.put_tool("demo", LOOKUP)
    await repository.put_agent("demo", replace(SHOP, tools=("lookup",)))
    await repository.put_agent("demo", replace(SHOP, id="plain"))
    await publish(repository, documents)
    plain = documents.bodies[connection_path("api-demo-plain")]
    await repository.put_tool("demo", replace(LOOKUP, description="Look it up well."))
    await publish(repository, documents)
    assert plan_of(documents, "api-demo-shop").tools[0].description == "Look it up well."
    assert documents.bodies[connection_path("api-demo-plain")] == plain


async def test_a_disabled_connection_stays_so_when_it_is_put_again(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.put_agent("demo", SHOP)
    await repository.put_connection("demo", BOT)
    await repository.set_connection_enabled("demo", "bot", enabled=False)
    await repository.put_connection("demo", replace(BOT, api_root=""))
    await publish(repository, documents)
    assert connection_of(documents, "bot") == Connection(
        id="bot",
        tenant="demo",
        channel="telegram",
        agent="shop",
        plan=connection_of(documents, "api-demo-shop").plan,
        enabled=False,
    )
    await repository.set_connection_enabled("demo", "bot", enabled=True)
    await publish(repository, documents)
    assert connection_of(documents, "bot").enabled


async def test_a_connection_carries_its_secrets_and_no_others(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.put_agent("demo", SHOP)
    await repository.put_secret("demo", "bot/token", "first")
    await repository.put_connection("demo", BOT)
    await repository.put_connection("demo", replace(BOT, id="b_t"))  # _ matches any character in LIKE
    await repository.put_secret("demo", "bot2/token", "of a longer name")
    await repository.put_secret("demo", "loose", "of no connection")
    await publish(repository, documents)
    assert connection_of(documents, "bot").secrets == {"token": "first"}
    assert connection_of(documents, "b_t").secrets == {}
    await repository.put_secret("demo", "bot/token", "second")
    await publish(repository, documents)
    assert connection_of(documents, "bot").secrets == {"token": "second"}


async def test_an_api_key_works_until_it_is_disabled_and_its_secret_is_kept_nowhere(
    repository: ConfigRepository, documents: FakeDocuments, database_url: str
) -> None:
    key = await repository.create_api_key("demo", "operator")
    _, id_, secret = key.split("_")
    await publish(repository, documents)
    principal = await authenticate(f"Bearer {key}", Published(documents, FakeClock()))
    assert (principal.tenant, principal.id, principal.role) == ("demo", id_, "operator")
    engine = open_engine(database_url)
    with engine.begin() as connection:
        kept = connection.execute(text("SELECT * FROM api_keys")).one()
    engine.dispose()
    assert secret not in str(kept)
    assert secret.encode() not in b"".join(documents.bodies.values())
    await repository.set_api_key_enabled("demo", id_, enabled=False)
    await publish(repository, documents)
    with pytest.raises(Unauthenticated):
        await authenticate(f"Bearer {key}", Published(documents, FakeClock()))


async def test_a_user_is_published_where_the_rules_look_until_they_are_removed(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.create_tenant("other")
    for tenant in ("demo", "other", "other"):
        await repository.put_user(tenant, "Olga_1")
    assert await publish(repository, documents) == 2
    assert documents.bodies == {
        "tenants/demo/members/Olga_1": b'{"role":"operator"}',
        "tenants/other/members/Olga_1": b'{"role":"operator"}',
    }
    await repository.remove_user("demo", "Olga_1")
    await publish(repository, documents)
    assert list(documents.bodies) == [member_path("other", "Olga_1")]
    with pytest.raises(NotFound):
        await repository.remove_user("demo", "Olga_1")


async def test_what_the_release_before_wrote_reads_with_the_defaults_of_what_came_since(
    repository: ConfigRepository, documents: FakeDocuments, database_url: str
) -> None:
    written = """
        INSERT INTO agents (tenant_id, id, name, version) VALUES ('demo', 'shop', 'shop', 1);
        INSERT INTO agent_versions (tenant_id, agent_id, version, instructions, models, tools, rules, budget, texts)
        VALUES ('demo', 'shop', 1, 'Help.', '["scripted/demo"]', '["lookup"]', '[]', '{"model_calls":3}',
                '{"failed":"Uy.","stopped":"Basta.","blocked":"No."}');
        INSERT INTO tools (tenant_id, name, description, parameters, effect, implementation)
        VALUES ('demo', 'lookup', 'Look it up.', '{"type":"object"}', 'pure', 'builtin:x')"""
    engine = open_engine(database_url)
    with engine.begin() as connection:
        for statement in written.split(";"):
            connection.exec_driver_sql(statement)
    engine.dispose()
    texts = Texts(failed="Uy.", stopped="Basta.", blocked="No.")
    as_it_is = replace(SHOP, name="shop", tools=("lookup",), budget=Budget(model_calls=3), texts=texts)
    assert [agent.draft for agent in await repository.agents("demo")] == [as_it_is]
    await repository.put_connection("demo", BOT)
    await publish(repository, documents)
    plan = plan_of(documents, "bot")
    assert (plan.queueing, plan.texts, plan.tools) == (Queueing(), texts, (LOOKUP,))


# Bad input


@pytest.mark.parametrize("uid", ["", "a/b", "x" * 129, ".", "..", "__all__", "a\0", "a\n", "\ud800"])
async def test_a_uid_that_cannot_name_a_document_is_refused(
    repository: ConfigRepository, documents: FakeDocuments, uid: str
) -> None:
    for change in (repository.put_user("demo", uid), repository.remove_user("demo", uid)):
        with pytest.raises(BadRequest, match=r"^uid is .*: use the user's Firebase uid"):
            await change
    assert await publish(repository, documents) == 0


@pytest.mark.parametrize("uid", ["x" * 128, ".a", "__a", "olga@example.org", "Ольга"])
async def test_any_other_uid_is_taken(repository: ConfigRepository, documents: FakeDocuments, uid: str) -> None:
    await repository.put_user("demo", uid)
    await publish(repository, documents)
    assert list(documents.bodies) == [member_path("demo", uid)]


async def test_a_tool_that_is_not_there_is_named_and_nothing_is_half_done(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    await repository.put_tool("demo", LOOKUP)
    with pytest.raises(BadRequest, match="tools: this tenant has no nothing, nowhere: put it first"):
        await repository.put_agent("demo", replace(SHOP, tools=("lookup", "nothing", "nowhere")))
    with pytest.raises(BadRequest, match="agent: 'shop' is no agent"):
        await repository.put_connection("demo", BOT)
    assert await repository.agents("demo") == []
    assert await publish(repository, documents) == 0


async def test_a_plan_that_no_store_would_take_is_refused(
    repository: ConfigRepository, documents: FakeDocuments
) -> None:
    with pytest.raises(TooLarge, match="shorten the instructions"):
        await repository.put_agent("demo", replace(SHOP, instructions="x" * 900_000))
    assert await repository.agents("demo") == []


async def test_the_channel_of_a_connection_stays(repository: ConfigRepository) -> None:
    await repository.put_agent("demo", SHOP)
    await repository.put_connection("demo", BOT)
    with pytest.raises(BadRequest, match="id: bot is taken"):
        await repository.put_connection("demo", replace(BOT, channel="web"))


async def test_an_unknown_tenant_is_told_so(repository: ConfigRepository) -> None:
    for change in (repository.put_agent("nobody", SHOP), repository.put_tool("nobody", LOOKUP)):
        with pytest.raises(NotFound, match="no tenant 'nobody'"):
            await change
    with pytest.raises(BadRequest, match="role is 'root'"):
        await repository.create_api_key("demo", "root")  # type: ignore[arg-type]  # what an untyped caller may send


async def test_a_tenant_is_made_once(repository: ConfigRepository) -> None:
    assert not await repository.create_tenant("demo", "Somebody else's")
    made = await asyncio.gather(*(repository.create_tenant("new") for _ in range(4)), return_exceptions=True)
    assert made.count(True) == 1


# One tenant sees only its own


async def test_nothing_of_another_tenant_can_be_named(repository: ConfigRepository, documents: FakeDocuments) -> None:
    await repository.create_tenant("other")
    await repository.put_tool("demo", LOOKUP)
    await repository.put_agent("demo", replace(SHOP, tools=("lookup",)))
    await repository.put_connection("demo", BOT)
    key = (await repository.create_api_key("demo")).split("_")[1]
    await repository.put_user("demo", "olga")
    await publish(repository, documents)
    before = dict(documents.bodies)
    refused = [
        repository.put_agent("other", replace(SHOP, tools=("lookup",))),
        repository.put_connection("other", replace(BOT, id="mine")),
        repository.set_connection_enabled("other", "bot", enabled=False),
        repository.set_connection_enabled("other", api_connection("demo", "shop"), enabled=False),
        repository.set_api_key_enabled("other", key, enabled=False),
        repository.remove_user("other", "olga"),
    ]
    for attempt in refused:
        with pytest.raises((BadRequest, NotFound)):
            await attempt
    await repository.put_agent("other", SHOP)
    with pytest.raises(BadRequest, match="taken"):
        await repository.put_connection("other", BOT)
    await repository.put_secret("other", "bot/token", "planted")
    await repository.set_connection_enabled("demo", "bot", enabled=True)
    await publish(repository, documents)
    assert {path: documents.bodies[path] for path in before} == before
    assert [agent.draft for agent in await repository.agents("other")] == [replace(SHOP, name="shop")]


async def test_the_database_itself_refuses_a_connection_to_another_tenants_agent(
    repository: ConfigRepository, database_url: str
) -> None:
    await repository.create_tenant("other")
    await repository.put_agent("demo", SHOP)
    engine = open_engine(database_url)
    columns = "id, tenant_id, channel, agent_id, enabled, api_root, settings"
    planted = f"INSERT INTO connections ({columns}) VALUES ('mine', 'other', 'web', 'shop', true, '', '{{}}')"  # noqa: S608  the line above
    with pytest.raises(DBAPIError, match=r"(?i)foreign key"), engine.begin() as connection:
        connection.execute(text(planted))
    engine.dispose()


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_tenants_do_what_is_published_mixes_nothing(
    repository: ConfigRepository, documents: FakeDocuments, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  the same in every run
    tenants = ("a", "a_b", "b")
    for tenant in tenants:
        await repository.create_tenant(tenant)
    for _ in range(40):
        await anything(repository, chance, chance.choice(tenants))
    await publish(repository, documents)
    for path, body in documents.bodies.items():
        marks = set(re.findall(rb"of-([a-z_]+)-only", body))
        owner = codec.decode(Connection, body).tenant if path.startswith("connections/") else path.split("/")[1]
        assert marks <= {owner.encode()}, path
        if path.startswith("connections/"):
            plan = plan_of(documents, path.removeprefix("connections/"))
            assert (plan.tenant, plan.agent) == (owner, codec.decode(Connection, body).agent)


async def anything(repository: ConfigRepository, chance: random.Random, tenant: str) -> None:
    """One change with names that every tenant uses, marked as this tenant's; refused ones change nothing."""
    mark = f"of-{tenant}-only {chance.randrange(3)}"
    name = chance.choice(["b", "b-b", "a-b", "b_b"])
    tools = tuple(chance.sample(["t1", "t2"], chance.randrange(3)))
    tool = replace(LOOKUP, name=chance.choice(["t1", "t2"]), description=mark)
    enabled = chance.random() < 0.5
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: repository.put_tool(tenant, tool),
        lambda: repository.put_agent(tenant, replace(SHOP, id=name, instructions=mark, tools=tools)),
        lambda: repository.put_connection(tenant, ConnectionDraft(id=f"c-{name}", channel="web", agent=name)),
        lambda: repository.put_secret(tenant, f"c-{name}/token", mark),
        lambda: repository.set_connection_enabled(tenant, f"c-{name}", enabled=enabled),
    ]
    with suppress(BadRequest):
        await chance.choice(changes)()


# The demo


@pytest.fixture
def box(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "key")


async def seed(repository: ConfigRepository, box: KeyFile, model: str = "scripted/demo") -> Sequence[int]:
    await demo.seed(repository, box, telegram_token="1:t", model=model, telegram_api="http://127.0.0.1:9")
    return [agent.version for agent in await repository.agents("demo")]


async def test_the_demo_is_ready_to_answer(
    repository: ConfigRepository, documents: FakeDocuments, box: KeyFile
) -> None:
    assert await seed(repository, box) == [1]
    await publish(repository, documents)
    connection = connection_of(documents, "demo-telegram")
    assert (connection.channel, connection.api_root) == ("telegram", "http://127.0.0.1:9")
    assert box.open(connection.secrets["token"], bound_to="demo/demo-telegram/token") == "1:t"
    plan = plan_of(documents, "demo-telegram")
    assert {(tool.name, tool.effect) for tool in plan.tools} == {("lookup_order", "pure"), ("refund_order", "once")}
    assert [(rule.tool, rule.decision) for rule in plan.rules] == [("refund_order", "ask"), ("*", "allow")]


async def test_seeding_again_makes_a_version_only_for_another_model_and_keeps_what_was_edited(
    repository: ConfigRepository, documents: FakeDocuments, box: KeyFile
) -> None:
    await seed(repository, box)
    assert await seed(repository, box) == [1]
    [agent] = await repository.agents("demo")
    await repository.put_agent("demo", replace(agent.draft, instructions="Edited."))
    await repository.set_connection_enabled("demo", "demo-telegram", enabled=False)
    assert await seed(repository, box) == [2]
    assert await seed(repository, box, model="openai/gpt-5-mini") == [3]
    await publish(repository, documents)
    plan = plan_of(documents, "demo-telegram")
    assert (plan.instructions, plan.models) == ("Edited.", ("openai/gpt-5-mini",))
    assert not connection_of(documents, "demo-telegram").enabled
