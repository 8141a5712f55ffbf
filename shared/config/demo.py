"""What `make dev` starts with: a tenant whose agent answers about orders on a Telegram bot and a WhatsApp number."""

from __future__ import annotations

from dataclasses import replace

from shared.config.drafts import AgentDraft, ConnectionDraft
from shared.config.repository import ConfigRepository
from shared.domain import Effect, Rule, ToolSpec
from shared.secrets import SecretBox

TENANT, AGENT, CONNECTION = "demo", "shop", "demo-telegram"
WHATSAPP_CONNECTION, WHATSAPP_APP = "demo-whatsapp", "demo-app"

_INSTRUCTIONS = """\
You help customers of a shop with their orders.
Answer in the language in which the contact writes, in a few friendly sentences.
Look an order up with lookup_order before you say anything about it. If the contact gave no order number, ask for it.
Never invent an order, a date, a price or a promise: what the tools do not tell you, you do not know, and you say so.
Call refund_order only when the contact asks for a refund of an order that you have looked up.
"""


async def seed(
    repository: ConfigRepository, box: SecretBox, *, telegram_token: str, model: str, telegram_api: str
) -> None:
    """Make the demo, or bring token, address and model up to date; safe to repeat.

    An agent that is there keeps what an operator made of it, except that it runs on `model`; a new version is made
    only when that changes something. A connection that an operator disabled stays so.
    """
    await repository.create_tenant(TENANT, "Demo")
    await repository.put_tool(TENANT, _tool("lookup_order", "Look up an order: status, carrier, date, total.", "pure"))
    await repository.put_tool(TENANT, _tool("refund_order", "Pay the whole amount of an order back.", "once"))
    there = next((agent.draft for agent in await repository.agents(TENANT) if agent.draft.id == AGENT), None)
    await repository.put_agent(TENANT, replace(there or _shop(model), models=(model,)))
    token = box.seal(telegram_token, bound_to=f"{TENANT}/{CONNECTION}/token")
    await repository.put_secret(TENANT, f"{CONNECTION}/token", token)
    await repository.put_connection(
        TENANT, ConnectionDraft(id=CONNECTION, channel="telegram", agent=AGENT, api_root=telegram_api)
    )
    await repository.put_connection(TENANT, ConnectionDraft(id="demo-web", channel="web", agent=AGENT))


async def seed_whatsapp(
    repository: ConfigRepository,
    box: SecretBox,
    *,
    token: str,
    number: str,
    app_secret: str,
    verify_token: str,
    api: str,
) -> None:
    """Connect a number, after `seed`, through a Meta app of its own; safe to repeat."""
    secrets = {
        f"{WHATSAPP_APP}/app_secret": app_secret,
        f"{WHATSAPP_APP}/verify_token": verify_token,
        f"{WHATSAPP_CONNECTION}/token": token,
    }
    for name, value in secrets.items():
        await repository.put_secret(TENANT, name, box.seal(value, bound_to=f"{TENANT}/{name}"))
    await repository.put_app(TENANT, WHATSAPP_APP)
    draft = ConnectionDraft(
        id=WHATSAPP_CONNECTION, channel="whatsapp", agent=AGENT, api_root=api, app=WHATSAPP_APP, number=number
    )
    await repository.put_connection(TENANT, draft)


def _shop(model: str) -> AgentDraft:
    return AgentDraft(
        id=AGENT,
        name="Shop",
        instructions=_INSTRUCTIONS,
        models=(model,),
        tools=("lookup_order", "refund_order"),
        rules=(
            Rule(tool="refund_order", decision="ask", approvers=("contact",), reason="money is paid back"),
            Rule(tool="*", decision="allow"),
        ),
    )


def _tool(name: str, description: str, effect: Effect) -> ToolSpec:
    order_id = {"type": "string", "description": "The number of the order, such as 1042."}
    return ToolSpec(
        name=name,
        description=description,
        parameters={
            "type": "object",
            "properties": {"order_id": order_id},
            "required": ["order_id"],
            "additionalProperties": False,
        },
        effect=effect,
        implementation=f"builtin:{name}",
    )
