"""The control plane: who may read, what of the parts works, sessions and runs of one's own tenant."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shared.store.sqlite import SqliteStore
from tests.functions.conftest import Lines, Stack, is_problem

NOBODY = "0" * 32


async def test_health_is_for_everybody(stack: Stack) -> None:
    answer = await stack.http.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_an_operator_sees_each_part_and_how_long_it_took(stack: Stack) -> None:
    answer = await stack.read("/health/detailed")
    body = answer.json()

    assert (answer.status_code, body["status"], body["unreadable_updates"]) == (200, "ok", 0)
    assert set(body["parts"]) == {"sessions", "bus", "configuration"}
    assert all(part["ok"] and part["milliseconds"] >= 0 for part in body["parts"].values())


async def test_a_broken_bus_degrades_the_service(stack: Stack) -> None:
    await stack.here.bus.aclose()
    answer = await stack.read("/health/detailed")
    parts = answer.json()["parts"]

    assert (answer.status_code, answer.json()["status"]) == (503, "degraded")
    assert parts["bus"] == {"ok": False, "error": "BusDown"}
    assert parts["sessions"]["ok"]
    assert parts["configuration"]["ok"]


async def test_a_broken_store_degrades_the_service_and_the_other_parts_are_still_told(
    stack: Stack, tmp_path: Path
) -> None:
    assert stack.here.published  # reads what is published from the store that works
    stack.here.store = SqliteStore(tmp_path)
    answer = await stack.read("/health/detailed")
    body = answer.json()

    assert (answer.status_code, body["status"], body["unreadable_updates"]) == (503, "degraded", None)
    assert not body["parts"]["sessions"]["ok"]
    assert body["parts"]["bus"]["ok"]


async def test_a_broken_database_degrades_the_service(stack: Stack) -> None:
    (stack.home / "config.db").write_bytes(b"not a database, but long enough to be looked at")
    answer = await stack.read("/health/detailed")

    assert answer.status_code == 503
    assert not answer.json()["parts"]["configuration"]["ok"]


@pytest.mark.parametrize("path", ["/health/detailed", "/v1/sessions", f"/v1/sessions/{NOBODY}/events"])
async def test_reading_needs_an_operators_key(stack: Stack, path: str) -> None:
    assert is_problem(await stack.http.get(path), 401, "Authorization")
    assert is_problem(await stack.read(path, key=stack.keys.invoker), 403, "operator")


async def test_sessions_are_listed_the_latest_first(stack: Stack) -> None:
    first = await stack.say("Hello", chat=77)
    second = await stack.say("Hello", chat=78)
    listed = (await stack.read("/v1/sessions")).json()
    one = (await stack.read("/v1/sessions?limit=1")).json()

    assert [session["id"] for session in listed] == [second, first]
    assert [session["id"] for session in one] == [second]
    assert {session["status"] for session in listed} == {"idle"}


async def test_a_session_says_where_it_stands(stack: Stack) -> None:
    session = await stack.say("Hello")
    body = (await stack.read(f"/v1/sessions/{session}")).json()

    assert (body["id"], body["connection"], body["conversation"]) == (session, "demo-telegram", "77")
    assert (body["status"], body["runs"], body["inbox"], body["wait"]) == ("idle", 1, 0, None)
    assert body["usage"]["output_tokens"] > 0


async def test_a_waiting_session_says_for_what_and_where_to_decide(stack: Stack) -> None:
    session, path = await stack.waiting()
    body = (await stack.read(f"/v1/sessions/{session}")).json()

    assert body["status"] == "waiting"
    assert (body["wait"]["tool"], body["wait"]["callback"]) == ("refund_order", path)


async def test_a_message_that_nobody_took_yet_is_in_the_inbox(stack: Stack) -> None:
    await stack.here.bus.aclose()
    await stack.update(stack.simulator.update_message(77, "Hello"))
    (key,) = [key async for key in stack.here.store.due(stack.clock.now().replace(year=2027))]
    body = (await stack.read(f"/v1/sessions/{key.session}")).json()

    assert (body["status"], body["runs"], body["inbox"]) == ("idle", 0, 1)


async def test_runs_come_in_pages_the_newest_first(stack: Stack) -> None:
    for number in range(1, 6):
        session = await stack.say(f"Hello {number}")
    first = (await stack.read(f"/v1/sessions/{session}/runs?limit=2")).json()
    second = (await stack.read(f"/v1/sessions/{session}/runs?limit=2&before=4")).json()
    last = (await stack.read(f"/v1/sessions/{session}/runs?before=1")).json()

    assert [[run["number"] for run in page] for page in (first, second, last)] == [[5, 4], [3, 2], []]


async def test_a_finished_run_shows_what_happened(stack: Stack) -> None:
    session = await stack.say("Where is order 1042?")
    run = (await stack.read(f"/v1/sessions/{session}/runs/1")).json()

    assert (run["number"], run["outcome"], run["inputs"][0]["text"]) == (1, "answered", "Where is order 1042?")
    assert [(step["key"], step["name"]) for step in run["steps"]][1] == ("tool-1.0", "lookup_order")
    assert [delivery["status"] for delivery in run["deliveries"]] == ["sent"]


async def test_what_is_not_there_is_not_found(stack: Stack) -> None:
    session = await stack.say("Hello")

    for path in (f"{NOBODY}", f"{NOBODY}/runs", f"{NOBODY}/runs/1", f"{NOBODY}/events", f"{session}/runs/2"):
        assert is_problem(await stack.read(f"/v1/sessions/{path}"), 404)


async def test_a_session_of_another_tenant_is_not_found(stack: Stack) -> None:
    session = await stack.say("Hello")

    assert (await stack.read("/v1/sessions", key=stack.keys.stranger)).json() == []
    for path in ("", "/runs", "/runs/1", "/events"):
        assert is_problem(await stack.read(f"/v1/sessions/{session}{path}", key=stack.keys.stranger), 404)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/sessions/xyz", "session"),
        (f"/v1/sessions/{NOBODY.replace('0', 'A')}", "session"),
        ("/v1/sessions?limit=0", "limit"),
        ("/v1/sessions?limit=many", "limit"),
        (f"/v1/sessions/{NOBODY}/runs?before=0", "before"),
        (f"/v1/sessions/{NOBODY}/runs?before={10**30}", "before"),
        (f"/v1/sessions/{NOBODY}/runs/0", "number"),
        (f"/v1/sessions/{NOBODY}/runs/{10**30}", "number"),
        (f"/v1/sessions/{NOBODY}/runs/latest", "number"),
    ],
)
async def test_what_does_not_fit_is_named(stack: Stack, path: str, field: str) -> None:
    answer = await stack.read(path)

    assert is_problem(answer, 400)
    assert answer.json()["detail"].startswith(f"{field}: ")


@pytest.mark.parametrize(("method", "path", "status"), [("DELETE", "/v1/sessions", 405), ("GET", "/v1/nothing", 404)])
async def test_another_method_or_path_is_a_problem(stack: Stack, method: str, path: str, status: int) -> None:
    assert is_problem(await stack.http.request(method, path), status)


async def test_a_store_that_is_down_is_a_problem_and_one_line(stack: Stack, log: Lines, tmp_path: Path) -> None:
    assert stack.here.published
    stack.here.store = SqliteStore(tmp_path)

    assert is_problem(await stack.read("/v1/sessions"), 503)
    assert len(log.holding("asked to repeat")) == 1


async def test_a_fault_is_a_problem_without_details_and_one_line(stack: Stack, log: Lines) -> None:
    session = await stack.say("Hello, I am Xaviera")
    with closing(sqlite3.connect(stack.home / "sessions.db")) as db, db:
        db.execute("UPDATE sessions SET state = replace(state, '\"schema_version\":', '\"tenant\":')")
    answer = await stack.read(f"/v1/sessions/{session}")

    assert is_problem(answer, 500)
    assert set(answer.json()) == {"type", "status", "title", "detail"}
    assert len(log.holding(" fault ")) == 1
    assert not log.holding("Xaviera")


async def test_the_api_describes_itself(stack: Stack) -> None:
    described = (await stack.http.get("/openapi.json")).json()
    paths = described["paths"]

    assert set(paths) >= {
        "/health",
        "/health/detailed",
        "/v1/sessions",
        "/v1/sessions/{session}",
        "/v1/sessions/{session}/runs",
        "/v1/sessions/{session}/runs/{number}",
        "/v1/sessions/{session}/events",
    }
    assert all(operation["description"] for methods in paths.values() for operation in methods.values())
    assert "text/event-stream" in paths["/v1/sessions/{session}/events"]["get"]["responses"]["200"]["content"]
    assert (await stack.http.get("/docs")).status_code == 200


async def test_every_reference_in_the_description_leads_somewhere(stack: Stack) -> None:
    answer = await stack.http.get("/openapi.json")
    names = set(re.findall(r"#/components/schemas/(\w+)", answer.text))

    assert {"Run", "SessionSummary", "Step"} <= names <= set(answer.json()["components"]["schemas"])
