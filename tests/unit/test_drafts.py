from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.config.drafts import (
    AgentDraft,
    ConnectionDraft,
    check_agent,
    check_connection,
    check_secret_name,
    check_tenant,
    check_tool,
)
from shared.domain import Budget, Queueing, Rule, Texts, ToolSpec, api_connection
from shared.errors import BadRequest

AGENT = AgentDraft(id="shop", instructions="Help.", models=("a/b",), tools=("t",))
TOOL = ToolSpec(name="t", description="Does it.", parameters={"type": "object"}, implementation="builtin:t")
CONNECTION = ConnectionDraft(id="bot", channel="telegram", agent="shop", api_root="http://127.0.0.1:1")


def test_good_drafts_pass() -> None:
    check_agent(replace(AGENT, rules=(Rule(tool="t", decision="deny"), Rule(tool="*", decision="allow"))))
    check_agent(replace(AGENT, queueing=Queueing(mode="interrupt", debounce_seconds=0, debounce_most_seconds=0)))
    check_agent(replace(AGENT, queueing=Queueing(debounce_seconds=10, debounce_most_seconds=30)))
    check_tool(TOOL)
    check_tool(replace(TOOL, timeout_seconds=300))
    check_connection(CONNECTION)
    check_connection(replace(CONNECTION, channel="whatsapp", app="meta", number="106540352242922"))
    check_tenant("demo_2")
    check_secret_name("bot/token")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "Shop!"}, "id is 'Shop!': use"),
        ({"id": "a/b"}, "id is"),
        ({"id": "shop\n"}, "id is"),
        ({"instructions": " "}, "instructions are empty"),
        ({"models": ()}, "models is empty"),
        ({"models": ("",)}, "models: one has an empty name"),
        ({"tools": ("t", "t")}, "tools: a name stands there twice"),
        (
            {"rules": (Rule(tool="*", decision="allow"), Rule(tool="typo", decision="deny"))},
            r"rules\[1\].tool is 'typo'",
        ),
        ({"rules": (Rule(tool="t", decision="may"),)}, r"rules\[0\].decision is 'may': use one of allow, deny, ask"),  # type: ignore[arg-type]  # untyped input
        ({"rules": (Rule(tool="t", decision="ask"),)}, r"rules\[0\].approvers is empty"),
        ({"budget": Budget(model_calls=0)}, "budget.model_calls is 0"),
        ({"texts": Texts(failed="")}, "texts.failed is empty"),
        ({"texts": Texts(busy=" ")}, "texts.busy is empty"),
        (
            {"queueing": Queueing(mode="queue")},  # type: ignore[arg-type]  # untyped input
            "queueing.mode is 'queue': use one of steer, followup, collect, interrupt, reject",
        ),
        (
            {"queueing": Queueing(debounce_seconds=-0.1)},
            "queueing.debounce_seconds is -0.1: use a number of seconds from 0 to 10",
        ),
        ({"queueing": Queueing(debounce_seconds=10.5, debounce_most_seconds=20)}, "queueing.debounce_seconds is 10.5"),
        ({"queueing": Queueing(debounce_seconds=float("nan"))}, "queueing.debounce_seconds is nan"),
        (
            {"queueing": Queueing(debounce_seconds=3)},
            "queueing.debounce_most_seconds is 2.5: use a number of seconds from queueing.debounce_seconds to 30",
        ),
        ({"queueing": Queueing(debounce_most_seconds=31)}, "queueing.debounce_most_seconds is 31"),
    ],
)
def test_a_bad_agent_is_refused_naming_field_and_fix(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        check_agent(replace(AGENT, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "look up"}, "name is 'look up'"),
        ({"description": ""}, "description is empty"),
        ({"parameters": {}}, '"type": "object"'),
        ({"effect": "twice"}, "effect is 'twice': use one of pure, keyed, once"),
        ({"timeout_seconds": 0}, "timeout_seconds is 0: use a number of seconds above 0, at most 300"),
        ({"timeout_seconds": 301}, "timeout_seconds is 301"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds is inf"),
        ({"implementation": "os.system"}, "implementation is 'os.system': use builtin:<name>"),
    ],
)
def test_a_bad_tool_is_refused_naming_field_and_fix(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        check_tool(replace(TOOL, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "a/b"}, "id is 'a/b'"),
        ({"id": "api-other-shop"}, "api connections are made with their agent"),
        ({"channel": "api"}, "api connections are made with their agent"),
        ({"channel": "fax"}, "channel is 'fax': use one of telegram"),
        ({"api_root": "ftp://x"}, "api_root: use an address"),
        ({"api_root": "https://"}, "api_root: use an address"),
        ({"app": "meta"}, "app and number: WhatsApp's alone"),
        ({"number": "1065"}, "app and number: WhatsApp's alone"),
        ({"channel": "whatsapp", "number": "1065"}, "app is '': use"),
        ({"channel": "whatsapp", "app": "a/b", "number": "1065"}, "app is 'a/b': use"),
        ({"channel": "whatsapp", "app": "meta"}, "number is '': use Meta's phone_number_id"),
        ({"channel": "whatsapp", "app": "meta", "number": "+1 650"}, "number is"),
    ],
)
def test_a_bad_connection_is_refused_naming_field_and_fix(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        check_connection(replace(CONNECTION, **change))


@pytest.mark.parametrize("tenant", ["", "a-b", "A", "1a", "a/b", "a" * 41])
def test_a_tenants_id_holds_no_hyphen_so_that_api_connections_never_meet(tenant: str) -> None:
    with pytest.raises(BadRequest, match="tenant is"):
        check_tenant(tenant)
    assert api_connection("a", "b-c") != api_connection("a_b", "c")


@pytest.mark.parametrize("name", ["", "/token", "a/b/c", "bot/", "Bot/token"])
def test_a_bad_name_of_a_secret_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="name is"):
        check_secret_name(name)
