"""The web client's routes: one user's thread is one session, and nobody else's."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import httpx
import pytest

from shared.codec import decode
from shared.domain import JsonObject
from shared.sessions.document import Run
from tests.functions.conftest import Stack, is_problem
from tests.functions.test_events import following, take

WEB: JsonObject = {"connection": "demo-web", "thread": "main"}


async def post(stack: Stack, path: str, body: JsonObject, key: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key or stack.keys.operator}"}
    return await stack.http.post(path, headers=headers, json=body)


@pytest.fixture
async def session(stack: Stack) -> str:
    return str((await post(stack, "/v1/sessions", WEB)).json()["session"])


async def say(stack: Stack, session: str, text: str, id_: str = "message-1") -> httpx.Response:
    answer = await post(stack, f"/v1/sessions/{session}/messages", {**WEB, "id": id_, "text": text})
    await stack.idle()
    return answer


async def test_the_configuration_of_the_page_is_public(stack: Stack) -> None:
    answer = await stack.http.get("/v1/client-config")
    assert (answer.status_code, answer.json()["connection"], answer.json()["live"]) == (200, "demo-web", "events")


async def test_opening_a_session_writes_nothing_and_gives_the_same_each_time(stack: Stack, session: str) -> None:
    before = stack.rows()
    again = (await post(stack, "/v1/sessions", WEB)).json()
    assert again["session"] == session
    assert again["view"].endswith(f"/views/{session}")
    assert stack.rows() == before
    other = (await post(stack, "/v1/sessions", {**WEB, "thread": "other"})).json()
    assert other["session"] != session


async def test_a_message_is_answered_and_shown_in_the_users_view(stack: Stack, session: str) -> None:
    view = (await post(stack, "/v1/sessions", WEB)).json()["view"]
    answer = await say(stack, session, "Where is order 1042?")
    shown = await stack.here.store.get(view)
    assert (answer.status_code, shown is not None) == (202, True)
    texts = [message["text"] for message in httpx.Response(200, content=shown).json()["messages"]]
    assert texts == ["Where is order 1042?", "Order 1042 is shipped with Correos and should arrive on 2026-11-24."]


async def test_the_same_message_again_is_answered_once(stack: Stack, session: str) -> None:
    for _ in range(3):
        await say(stack, session, "Hello")
    runs = (await stack.read(f"/v1/sessions/{session}/runs")).json()
    assert len(runs) == 1


async def test_a_contact_decides_where_the_policy_lets_them(stack: Stack, session: str) -> None:
    await say(stack, session, "Please refund order 1042")
    key = stack.keys.operator
    found = await stack.read(f"/v1/sessions/{session}", key=key)
    assert found.json()["status"] == "waiting"
    stored = await stack.here.store.get((await post(stack, "/v1/sessions", WEB)).json()["view"])
    wait = httpx.Response(200, content=stored).json()["wait"]
    answer = await post(stack, f"/v1/sessions/{session}/verdicts", {**WEB, "wait": wait["id"], "approved": True})
    await stack.idle()
    assert (answer.status_code, len(stack.refunded)) == (202, 1)


async def test_a_user_stops_a_run_by_a_command(stack: Stack, session: str) -> None:
    await say(stack, session, "Please refund order 1042")
    await say(stack, session, "/stop", "message-2")
    (run,) = (await stack.read(f"/v1/sessions/{session}/runs")).json()

    assert (run["outcome"], run["reply"], stack.refunded) == ("cancelled", "Stopped.", [])


@pytest.mark.parametrize("what", ["messages", "verdicts"])
async def test_another_users_session_is_not_found_and_nothing_is_written(stack: Stack, session: str, what: str) -> None:
    bodies: dict[str, JsonObject] = {
        "messages": {"id": "message-1", "text": "Hi"},
        "verdicts": {"wait": "w", "approved": True},
    }
    before = stack.rows()
    for key in (stack.keys.invoker, stack.keys.stranger):
        answer = await post(stack, f"/v1/sessions/{session}/{what}", {**WEB, **bodies[what]}, key)
        assert is_problem(answer, 404)
    assert stack.rows() == before


async def test_a_key_of_another_tenant_opens_no_session_on_the_connection(stack: Stack) -> None:
    assert is_problem(await post(stack, "/v1/sessions", WEB, stack.keys.stranger), 404, "connection")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": 1}, "text"),
        ({"id": "short"}, "id"),
        ({"thread": "a b"}, "thread"),
        ({"x": 1}, "x"),
    ],
)
async def test_a_field_that_does_not_fit_is_named(stack: Stack, session: str, change: JsonObject, field: str) -> None:
    body = {**WEB, "id": "message-1", "text": "Hi", **change}
    assert is_problem(await post(stack, f"/v1/sessions/{session}/messages", body), 400, field)


async def test_a_contact_sees_no_results_of_tools(stack: Stack, server: str, session: str) -> None:
    await say(stack, session, "Where is order 1042?")
    async with following(stack, server, session, query="?connection=demo-web") as events:
        seen = await take(events, 5)
    assert [event["event"] for event in seen] == ["message", "step", "step", "step", "text"]
    assert seen[0]["message"] == "message-1"
    assert not any("result" in event or "reason" in event for event in seen)


async def test_watching_a_run_that_waits_writes_once_and_leaves_its_deadline(stack: Stack, server: str) -> None:
    session, _ = await stack.waiting()
    query = "SELECT version, due FROM sessions WHERE session = ?"

    def row() -> tuple[int, str]:
        with closing(sqlite3.connect(stack.home / "sessions.db")) as db:
            found: tuple[int, str] = db.execute(query, (session,)).fetchone()
            return found

    version, due = row()
    async with following(stack, server, session) as events:
        await take(events, 3)
        await asyncio.sleep(0.7)  # several looks at the store: each used to be answered by another write
    assert row() == (version + 1, due)


async def test_a_run_watched_by_an_operator_is_shown_in_the_console(stack: Stack, server: str) -> None:
    session, callback = await stack.waiting()
    async with following(stack, server, session) as events:
        await take(events, 3)
        await stack.http.post(callback, json={"approved": True})
        rest = await take(events, 4)
    assert rest[-1]["event"] == "text"
    await stack.idle()  # the text is there before it is delivered and archived
    run = decode(Run, (await stack.read(f"/v1/sessions/{session}/runs/1")).content)
    console = await stack.here.store.get(f"tenants/demo/consoles/{session}")
    assert console is not None
    assert run.reply in console.decode()
