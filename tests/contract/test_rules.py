"""firestore.rules on the real emulator, as each kind of reader.

The emulator looks at a token's claims only: that a token of another project is refused, Firestore itself sees to.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from shared.domain import JsonObject
from tests.engines import unsigned_token

RULES = Path(__file__).parents[2] / "firestore.rules"

VIEW = "tenants/shop/contacts/ana/views/s1"
CONSOLE = "tenants/shop/consoles/s1"
OURS = (
    "tenants/shop/sessions/s1",
    "tenants/shop/sessions/s1/runs/1",
    "tenants/shop/sessions/s1/inbox/1",
    "tenants/shop/members/olga",
    "tenants/shop/contacts/ana",
    "tenants/shop/plans/p1",
    "tenants/shop/unreadable/u1",
    "connections/c1",
    "api_keys/k1",
)
"""What no browser ever reads, whoever is signed in."""

NOBODY, CONTACT, OTHER_CONTACT, STRANGER, OPERATOR, OTHER_OPERATOR = None, "ana", "ben", "eve", "olga", "otto"
EVERYBODY = (NOBODY, CONTACT, OTHER_CONTACT, STRANGER, OPERATOR, OTHER_OPERATOR)
"""`ana` and `ben` are contacts and `olga` is an operator of the tenant shop, `otto` is an operator of bakery."""


class Browser:
    """Firestore's REST interface for one project, as whoever is signed in."""

    def __init__(self, http: httpx.AsyncClient, project: str) -> None:
        self._http = http
        self._project = project
        self.root = f"/v1/projects/{project}/databases/(default)/documents"

    async def ask(self, method: str, path: str, who: str | None, body: JsonObject | None = None) -> int:
        headers = {} if who is None else {"authorization": f"Bearer {self.token(who)}"}
        answer = await self._http.request(method, f"{self.root}{path}", json=body, headers=headers)
        return answer.status_code

    async def get(self, path: str, who: str | None) -> int:
        return await self.ask("GET", f"/{path}", who)

    async def query(self, parent: str, collection: str, who: str | None, *, everywhere: bool = False) -> int:
        selected = {"collectionId": collection, "allDescendants": everywhere}
        return await self.ask("POST", f"{parent}:runQuery", who, {"structuredQuery": {"from": [selected]}})

    async def set_rules(self, rules: str) -> httpx.Response:
        files = [{"name": "firestore.rules", "content": rules}]
        address = f"/emulator/v1/projects/{self._project}:securityRules"
        return await self._http.put(address, json={"rules": {"files": files}})

    async def coverage(self) -> JsonObject:
        answer = await self._http.get(f"/emulator/v1/projects/{self._project}:ruleCoverage")
        return dict(answer.json())

    def token(self, who: str) -> str:
        if who == "owner":  # the emulator's word for the functions, which no rule binds
            return who
        return unsigned_token(self._project, who)


@pytest.fixture
async def browser(firestore_host: str) -> AsyncIterator[Browser]:
    """A project of its own with the rules in force and one document of each kind."""
    async with httpx.AsyncClient(base_url=f"http://{firestore_host}", timeout=20) as http:
        browser = Browser(http, f"rules-{secrets.token_hex(6)}")
        answer = await browser.set_rules(RULES.read_text())
        assert answer.status_code == 200, answer.text
        for path in (VIEW, CONSOLE, "tenants/bakery/members/otto", "tenants/bakery/consoles/s2", *OURS):
            assert await browser.ask("PATCH", f"/{path}", "owner", {"fields": {}}) == 200
        yield browser


async def test_a_contact_reads_their_own_views_and_nobody_else_does(browser: Browser) -> None:
    assert {who: await browser.get(VIEW, who) for who in EVERYBODY} == {
        who: 200 if who == CONTACT else 403 for who in EVERYBODY
    }


async def test_a_contact_lists_their_own_views_and_nobody_else_does(browser: Browser) -> None:
    parent = "/tenants/shop/contacts/ana"
    assert {who: await browser.query(parent, "views", who) for who in EVERYBODY} == {
        who: 200 if who == CONTACT else 403 for who in EVERYBODY
    }


async def test_the_operators_of_a_tenant_read_its_consoles_and_nobody_else_does(browser: Browser) -> None:
    assert {who: await browser.get(CONSOLE, who) for who in EVERYBODY} == {
        who: 200 if who == OPERATOR else 403 for who in EVERYBODY
    }
    assert await browser.get("tenants/bakery/consoles/s2", OTHER_OPERATOR) == 200
    assert await browser.get("tenants/bakery/consoles/s2", OPERATOR) == 403


async def test_the_operators_of_a_tenant_list_its_consoles_and_nobody_else_does(browser: Browser) -> None:
    assert {who: await browser.query("/tenants/shop", "consoles", who) for who in EVERYBODY} == {
        who: 200 if who == OPERATOR else 403 for who in EVERYBODY
    }


async def test_who_is_no_longer_a_member_reads_no_console(browser: Browser) -> None:
    assert await browser.ask("DELETE", "/tenants/shop/members/olga", "owner") == 200
    assert await browser.get(CONSOLE, OPERATOR) == 403


async def test_no_browser_reads_what_is_the_functions(browser: Browser) -> None:
    answers = {(path, who): await browser.get(path, who) for path in OURS for who in EVERYBODY}
    assert answers == dict.fromkeys(answers, 403)


async def test_no_browser_queries_across_tenants(browser: Browser) -> None:
    collections = ("sessions", "views", "consoles", "runs", "members")
    answers = {
        (name, who): await browser.query("", name, who, everywhere=True) for name in collections for who in EVERYBODY
    }
    assert answers == dict.fromkeys(answers, 403)


async def test_no_browser_writes_anything(browser: Browser) -> None:
    change: JsonObject = {"fields": {"body": {"stringValue": "mine"}}}
    for path in (VIEW, CONSOLE, *OURS):
        for who in EVERYBODY:
            assert await browser.ask("PATCH", f"/{path}", who, change) == 403, (path, who)
            assert await browser.ask("PATCH", f"/{path}-new", who, change) == 403, (path, who)
            assert await browser.ask("DELETE", f"/{path}", who) == 403, (path, who)


async def test_every_rule_was_seen_to_allow_and_to_refuse(browser: Browser) -> None:
    for who in EVERYBODY:
        await browser.get(VIEW, who)
        await browser.get(CONSOLE, who)
    seen: dict[int, set[bool | None]] = {}
    for expression in (await browser.coverage())["report"]:
        values = {value["value"].get("boolValue") for value in expression["values"]}
        seen.setdefault(expression["sourcePosition"]["line"], values)
    lines = enumerate(RULES.read_text().splitlines(), start=1)
    allows = [number for number, line in lines if line.strip().startswith("allow")]
    unseen = [number for number in allows if not {True, False} <= seen.get(number, set())]
    assert (len(allows), unseen) == (2, [])


async def test_rules_with_a_mistake_are_refused_with_its_place(browser: Browser) -> None:
    answer = await browser.set_rules(RULES.read_text().replace("allow read: if", "allow read: of", 1))
    assert answer.status_code == 400
    assert "L10" in answer.json()["error"]["message"]
