"""The checks of a real project, tried on the embedded functions and the emulators: they see what is right and wrong."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scripts import smoke_firestore, smoke_functions, smoke_gcp, smoke_pubsub
from scripts.smoke import Row, Target
from scripts.smoke_functions import PUSHES
from tests.contract.test_rules import RULES, Browser
from tests.functions.conftest import URL, Stack
from tests.servers.loopback import served

URLS = dict.fromkeys(("ingest", "run_agent", "callbacks", "api"), URL)


@pytest.fixture
def target(stack: Stack) -> Target:
    return Target(project="embedded", urls=URLS, http=stack.http, api_key=stack.keys.operator)


@pytest.fixture
async def emulated(
    firestore_host: str, pubsub_host: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Target, Browser]]:
    """A project of the emulators with the rules in force."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_host)
    project = f"smoke-{secrets.token_hex(6)}"
    async with httpx.AsyncClient(base_url=f"http://{firestore_host}", timeout=20) as http:
        browser = Browser(http, project)
        assert (await browser.set_rules(RULES.read_text())).status_code == 200
        yield (
            Target(
                project=project,
                urls=URLS,
                http=http,
                firestore_emulator=firestore_host,
                pubsub_emulator=pubsub_host,
                seconds=0.5,
            ),
            browser,
        )


def results(rows: list[Row]) -> list[str]:
    return [row.result for row in rows]


async def test_a_conversation_is_answered_and_a_repeated_message_is_one_run(target: Target) -> None:
    assert results(await smoke_functions.conversation(target)) == ["ok"]


async def test_without_a_key_the_conversation_fails_in_one_line(
    target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await smoke_gcp.run(replace(target, api_key=""), ["conversation", "tokens"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (rows[0]["check"], rows[0]["result"]) == ("conversation", "failed")
    assert "401" in rows[0]["reason"]
    assert {row["result"] for row in rows[1:]} == {"ok"}  # the next check is made all the same


async def test_every_forged_push_is_refused(target: Target) -> None:
    rows = await smoke_functions.tokens(target)
    assert [(row.result, row.values["status"]) for row in rows] == [("ok", 401)] * 3 * len(PUSHES)


async def test_a_push_that_is_taken_without_a_token_is_a_failure(stack: Stack, target: Target) -> None:
    stack.here.settings = replace(stack.here.settings, pubsub_emulator="127.0.0.1:1")
    assert set(results(await smoke_functions.tokens(target))) == {"failed"}


async def test_a_token_that_google_does_not_give_is_not_measured(target: Target) -> None:
    async def none(audience: str) -> str:
        return ""

    rows = await smoke_functions.tokens(replace(target, id_token=none))
    others = [row.result for row in rows if row.values["token"].startswith("another")]
    assert others == ["not measured"] * 2 * len(PUSHES)


async def test_health_is_what_the_control_plane_says(target: Target) -> None:
    assert results(await smoke_functions.health(target)) == ["ok"]
    assert results(await smoke_functions.health(replace(target, api_key=""))) == ["failed"]


async def test_a_refused_push_comes_again_until_its_subscription_is_gone(emulated: tuple[Target, Browser]) -> None:
    target, _ = emulated
    attempts: list[datetime] = []

    async def refuse(request: Request) -> Response:
        attempts.append(datetime.now(UTC))
        return Response(status_code=401)

    async with served(Starlette(routes=[Route("/wakes", refuse, methods=["POST"])])) as url:
        await smoke_pubsub.refused(target, f"smoke-{secrets.token_hex(4)}", f"{url}/wakes", seconds=3.5)
    assert len(attempts) >= 2
    assert all(0.8 < pause < 3 for pause in smoke_pubsub.pauses(attempts))
    assert results(await smoke_pubsub.backoff(target)) == ["not measured"]


@pytest.mark.parametrize(
    ("pauses", "result"),
    [
        ([1.1, 2.3, 4.0, 8.1], "ok"),
        ([0.1, 0.1, 0.1, 0.1], "failed"),  # repeated at once: no policy
        ([10.2, 20.1, 40.3], "failed"),  # the default minimum
        ([1.0, 1.0, 1.0], "failed"),  # does not grow
        ([1.0], "failed"),  # too few to tell
    ],
)
def test_pauses_are_judged_by_the_policy(pauses: list[float], result: str) -> None:
    assert smoke_pubsub.judge(pauses).result == result


async def test_what_outlives_its_expiry_by_days_is_a_failure(emulated: tuple[Target, Browser]) -> None:
    target, _ = emulated
    now = datetime.now(UTC)
    assert (await smoke_firestore.canaries(target, now - timedelta(days=4))).result == "ok"
    row = await smoke_firestore.canaries(target, now)
    assert (row.result, row.values) == ("failed", {"waiting": 2, "outlived": 1})
    assert results(await smoke_firestore.ttl(target))[:3] == ["not measured"] * 3


async def test_a_contact_is_held_by_the_rules(emulated: tuple[Target, Browser]) -> None:
    target, browser = emulated
    token, root = browser.token("ana"), browser.root
    assert set(results(await smoke_firestore.as_contact(target, root, "ana", token))) == {"ok"}
    open_to_all = RULES.read_text().replace("request.auth.uid == uid", "true")
    await browser.set_rules(open_to_all)
    assert "failed" in results(await smoke_firestore.as_contact(target, root, "ana", token))
    assert results(await smoke_firestore.rules(target)) == ["not measured"]


async def test_writes_are_paced_and_counted(emulated: tuple[Target, Browser]) -> None:
    rows = await smoke_firestore.writes(emulated[0])
    assert [(row.values["kb"], row.values["per_second"]) for row in rows] == [
        (kb, rate) for kb in (10, 100, 500) for rate in (1, 2, 5, 10)
    ]
    assert [row.values["writes"] for row in rows] == [1, 1, 2, 5] * 3
    assert all(row.result == "not measured" and row.values["done"] == row.values["writes"] for row in rows)
    assert all(0 < row.values["p50_ms"] <= row.values["p95_ms"] for row in rows)


def test_aborts_and_other_errors_are_counted_apart() -> None:
    ended = [("done", float(number)) for number in range(1, 21)] + [("Aborted", 9.0)] * 2 + [("DeadlineExceeded", 1.0)]
    assert smoke_firestore.summary(ended) == {
        "writes": 23,
        "done": 20,
        "p50_ms": 10.5,
        "p95_ms": 20.0,
        "aborts": 2,
        "errors": {"DeadlineExceeded": 1},
    }
    assert smoke_firestore.summary([("Aborted", 1.0)]) == {"writes": 1, "done": 0, "aborts": 1, "errors": {}}


def test_the_table_is_one_json_object_a_line(tmp_path: Path) -> None:
    row = Row(check="writes", result="ok", values={"kb": 10})
    assert json.loads(row.line()) == {"check": "writes", "result": "ok", "kb": 10}
