"""What is published for the suites: one connection for each way in which an agent takes its messages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from shared.codec import encode, fingerprint
from shared.domain import (
    Budget,
    Connection,
    ExecutionPlan,
    Queueing,
    QueueMode,
    Rule,
    ToolSpec,
    api_connection,
)
from shared.published import ApiKey, App, api_key_path, app_path, connection_path, number_path, plan_path
from shared.secrets import SecretBox
from shared.store import Documents

TENANT = "acme"
BOT_TOKEN = "1234567890:the-token-of-the-bot-of-the-chaos-00"
APP, NUMBER, APP_SECRET = "meta", "106540352242922", "the-secret-of-the-app"
MODEL = "world/model"
ONCE_SECONDS = 1.5
"""How long a tool with effect `once` may take: after a crash its outcome is unknown no sooner."""
INVOKE_AGENT, INVOKE_KEY = "chaos", "rk_chaos_the-secret-of-the-caller"


def _tool(name: str, effect: Any, **more: Any) -> ToolSpec:
    return ToolSpec(name=name, description=name, parameters={}, effect=effect, implementation=f"builtin:{name}", **more)


PLAN = ExecutionPlan(
    tenant=TENANT,
    agent="chaos",
    agent_version=1,
    instructions="",
    models=(MODEL,),
    tools=(
        _tool("pure", "pure"),
        _tool("keyed", "keyed"),
        _tool("once", "once", timeout_seconds=ONCE_SECONDS),
        _tool("ask", "keyed"),
        _tool("timer", "pure"),
        _tool("callback", "keyed"),
        _tool("early", "keyed"),
    ),
    rules=(Rule(tool="ask", decision="ask", approvers=("contact",)),),
    budget=Budget(model_calls=200, tool_calls=400, tokens=10**9),
    queueing=Queueing(debounce_seconds=0.0),
)
PLANS: Mapping[str, ExecutionPlan] = {
    "bot": PLAN,
    "patient": replace(PLAN, queueing=Queueing(debounce_seconds=0.4, debounce_most_seconds=1.5)),
    **{mode: replace(PLAN, queueing=Queueing(mode=mode, debounce_seconds=0.0)) for mode in get_args(QueueMode)},
}
"""By the connection that has it."""


def telegram(box: SecretBox, world: str, connection: str, plan: ExecutionPlan) -> Connection:
    """A connection of Telegram."""
    sealed = box.seal(BOT_TOKEN, bound_to=f"{TENANT}/{connection}/token")
    return Connection(
        id=connection,
        tenant=TENANT,
        channel="telegram",
        agent=plan.agent,
        plan=fingerprint(plan),
        secrets={"token": sealed},
        api_root=world,
    )


async def publish(documents: Documents, box: SecretBox, world: str) -> None:
    """Write all of it."""
    for name, plan in PLANS.items():
        await documents.put(plan_path(TENANT, fingerprint(plan)), encode(plan))
        await documents.put(connection_path(name), encode(telegram(box, world, name, plan)))
    await _publish_whatsapp(documents, box, world)
    door = api_connection(TENANT, INVOKE_AGENT)
    await documents.put(
        connection_path(door),
        encode(Connection(id=door, tenant=TENANT, channel="api", agent=INVOKE_AGENT, plan=fingerprint(PLAN))),
    )
    _, name, secret = INVOKE_KEY.split("_")
    sha256 = hashlib.sha256(secret.encode()).hexdigest()
    await documents.put(api_key_path(name), encode(ApiKey(id=name, tenant=TENANT, secret_sha256=sha256)))


async def _publish_whatsapp(documents: Documents, box: SecretBox, world: str) -> None:
    name = "whatsapp"
    connection = Connection(
        id=name,
        tenant=TENANT,
        channel="whatsapp",
        agent=PLAN.agent,
        plan=fingerprint(PLAN),
        secrets={"token": box.seal("the-token", bound_to=f"{TENANT}/{name}/token")},
        api_root=f"{world}/v25.0",
        app=APP,
        number=NUMBER,
    )
    secrets = {
        secret: box.seal(value, bound_to=f"{TENANT}/{APP}/{secret}")
        for secret, value in (("app_secret", APP_SECRET), ("verify_token", "the-verify-token"))
    }
    await documents.put(connection_path(name), encode(connection))
    await documents.put(app_path(APP), encode(App(id=APP, tenant=TENANT, secrets=secrets)))
    await documents.put(number_path(APP, NUMBER), encode(name))
