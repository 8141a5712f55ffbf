"""The four functions as processes of their own: Pub/Sub pushes, Firestore stores, Postgres is the configuration.

One set of processes serves all tests, each of which has a chat of its own. The last one stops the database.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.auth.signature import HEADER, verify
from shared.config.demo import AGENT, CONNECTION, TENANT
from shared.domain import Contact, Entry, JsonObject, digest, session_key
from shared.sessions.accept import pending
from shared.store.firestore import FirestoreStore
from tests import engines
from tests.e2e.cloud import BOT_TOKEN, FUNCTIONS, MODEL_KEY, Cloud, cloud_in
from tests.servers.loopback import served
from tests.servers.model_server import Fault

RECOVERY = timedelta(seconds=15)
"""From the new start until the run goes on."""
INVOKE = f"/v1/agents/{AGENT}/invoke"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def cloud(
    tmp_path_factory: pytest.TempPathFactory, firestore_host: str, pubsub_host: str, postgres: engines.Postgres
) -> Iterator[Cloud]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FIRESTORE_EMULATOR_HOST", firestore_host)
        with cloud_in(tmp_path_factory.mktemp("cloud"), firestore_host, pubsub_host) as started:
            yield started


async def test_an_update_is_answered_and_every_step_can_be_followed(cloud: Cloud) -> None:
    chat = 101
    await cloud.write(chat, "Where is order 1042?")
    seen = await cloud.until(cloud.session(chat), "text")
    assert [(event.sequence, event.kind, event.data.get("step", "")) for event in seen] == [
        (1, "message", ""),
        (2, "step", "model-1"),
        (3, "step", "tool-1.0"),
        (4, "step", "model-2"),
        (5, "text", ""),
    ]
    assert "Correos" in seen[-1].data["text"]
    assert cloud.shown(chat) == [seen[-1].data["text"]]
    assert [event.sequence for event in await cloud.until(cloud.session(chat), "text", after=3)] == [4, 5]
    run = await cloud.run(cloud.session(chat))
    assert (run["outcome"], run["attempt"]) == ("answered", 1)


async def test_the_contact_approves_by_a_button(cloud: Cloud) -> None:
    chat = 102
    await cloud.write(chat, "Please refund order 1042")
    asked = await cloud.until(cloud.session(chat), "wait")
    await asked_in(cloud, chat)
    await cloud.tap(chat, "Approve")
    answered = await cloud.until(cloud.session(chat), "text", after=asked[-1].sequence)
    assert cloud.shown(chat) == ["Approved (refund_order), by Ana.", answered[-1].data["text"]]
    assert '"refunded":true' in answered[-1].data["text"].replace(" ", "")


async def test_an_invoke_waits_for_the_answer_and_repeated_gets_the_same(cloud: Cloud) -> None:
    body, once = {"input": "Where is order 1042?", "session": "invoked"}, {"Idempotency-Key": "a"}
    answers = [await cloud.request("run_agent", INVOKE, json=body, headers=once) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert "Correos" in answers[0].json()["text"]
    assert answers[0].json() == answers[1].json()


async def test_a_callback_approves_what_an_invoke_waits_for(cloud: Cloud) -> None:
    body, once = {"input": "Please refund order 1042", "session": "approved"}, {"Idempotency-Key": "b"}
    waiting = await cloud.request("run_agent", INVOKE, json=body, headers=once)
    assert (waiting.status_code, waiting.json()["wait"]["tool"]) == (202, "refund_order")
    session = waiting.json()["session_id"]
    async with cloud.operator() as client:
        found = await client.get(f"/v1/sessions/{session}")
    assert found is not None
    callback = found["wait"]["callback"]
    assert (await cloud.request("callbacks", callback, json={"approved": True})).status_code == 202
    await cloud.until(session, "text")
    answered = await cloud.request("run_agent", INVOKE, json=body, headers=once)
    assert (answered.status_code, answered.json()["status"]) == (200, "answered")
    assert (await cloud.request("callbacks", callback, json={"approved": True})).status_code == 410


async def test_who_does_not_wait_gets_the_result_posted_again_until_it_is_taken_and_can_ask_for_it(
    cloud: Cloud,
) -> None:
    posted, statuses = asyncio.Queue[tuple[bytes, str]](), iter((503, 204))

    async def take(request: Request) -> Response:
        posted.put_nowait((await request.body(), request.headers[HEADER]))
        return Response(status_code=next(statuses))

    async with served(Starlette(routes=[Route("/results", take, methods=["POST"])])) as url:
        body: JsonObject = {"input": "Where is order 1042?", "session": "posted", "callback_url": f"{url}/results"}
        accepted = await cloud.request("run_agent", INVOKE, json=body, headers={"Prefer": "respond-async"})
        assert (accepted.status_code, accepted.json()["status"]) == (202, "accepted")
        results = [await asyncio.wait_for(posted.get(), 60) for _ in range(2)]
    key = await cloud.request("api", "/v1/signing-key", method="GET")
    assert all(verify(key.json()["key"], body, header, datetime.now(UTC).timestamp()) for body, header in results)
    first, again = (json.loads(body) for body, _ in results)
    assert first == again
    asked = await cloud.request("api", accepted.json()["run"], method="GET")
    assert (asked.status_code, asked.json()["text"]) == (200, first["text"])
    assert "Correos" in first["text"]


async def test_the_tick_finds_a_message_whose_wake_was_lost(cloud: Cloud) -> None:
    chat, now = 103, datetime.now(UTC)
    entry = Entry(
        id=digest(CONNECTION, "lost"),
        kind="message",
        connection=CONNECTION,
        conversation=str(chat),
        order=1,
        received_at=now,
        contact=Contact(id=str(chat), name="Ana"),
        text="Where is order 1042?",
    )
    store = FirestoreStore(cloud.project)
    await store.append(session_key(TENANT, CONNECTION, str(chat)), {entry.id: pending(entry)}, now)
    await store.aclose()
    ticked = await cloud.request("callbacks", "/tick")
    assert (ticked.status_code, ticked.json()) == (200, {"woken": 1})
    await cloud.until(cloud.session(chat), "text")
    assert len(cloud.shown(chat)) == 1


async def test_an_invoke_streams_the_growing_text_and_its_run_outlives_the_reader(cloud: Cloud) -> None:
    cloud.model.fail(Fault(kind="hold", message="Order 1042 is on its way to you."))
    headers = {"Authorization": f"Bearer {cloud.api_key}", "Accept": "text/event-stream", "Idempotency-Key": "streamed"}
    asked = {"input": "Tell me about 1042", "session": "streamed"}
    url = cloud.functions["run_agent"].url
    names: list[str] = []
    async with (
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        http.stream("POST", INVOKE, headers=headers, json=asked) as response,
    ):
        async for line in response.aiter_lines():
            names += [line.removeprefix("event: ")] if line.startswith("event: ") else []
            if "text.reset" in names and line.startswith("data: "):
                break
    assert names == ["message", "text.reset"]  # in mid-answer: the model is held
    cloud.model.go_on.set()
    again = await cloud.request("run_agent", INVOKE, json=asked, headers={"Idempotency-Key": "streamed"})
    assert (again.status_code, again.json()["text"]) == (200, "Order 1042 is on its way to you.")
    assert again.json()["run"].endswith("/runs/1")


async def test_run_agent_killed_in_mid_run_answers_once_and_takes_no_recorded_step_again(cloud: Cloud) -> None:
    chat, session, run_agent = 104, cloud.session(104), cloud.functions["run_agent"]
    await cloud.write(chat, "Please refund order 1042")
    asked = await cloud.until(session, "wait")
    await cloud.until_it_waits(session)  # a tap before that would be seen by the first attempt
    cloud.model.reset()
    cloud.model.fail(Fault(kind="hang"))
    await cloud.tap(chat, "Approve")
    assert await asyncio.to_thread(cloud.model.hanging.wait, 60)
    run_agent.kill()
    assert cloud.shown(chat) == ["Approved (refund_order), by Ana."]

    begun = datetime.now(UTC)
    await asyncio.to_thread(run_agent.start)
    seen = await cloud.until(session, "text", after=asked[-1].sequence)
    assert cloud.shown(chat) == ["Approved (refund_order), by Ana.", seen[-1].data["text"]]
    run = await cloud.run(session)
    assert datetime.fromisoformat(run["steps"][-1]["started_at"]) - begun < RECOVERY
    assert [(step["key"], step["attempt"]) for step in run["steps"]] == [
        ("model-1", 1),
        ("approve-tool-1.0", 2),
        ("tool-1.0", 2),
        ("model-2", 3),
    ]
    assert len(cloud.model.requests) == 2  # the one that was cut, and its repetition
    assert len(run["deliveries"]) == len({delivery["id"] for delivery in run["deliveries"]}) == 3


async def test_every_line_of_every_function_is_json_with_its_context_and_says_nothing_private(cloud: Cloud) -> None:
    await cloud.write(105, "Where is order 1042?")
    await cloud.until(cloud.session(105), "text")
    of_the_session = await said_of(cloud, cloud.session(105))
    assert (await cloud.request("callbacks", "/v1/callbacks/made.up")).status_code == 401
    made_up = {"Authorization": "Bearer rk_made_up"}
    assert (await cloud.request("api", "/v1/sessions", method="GET", headers=made_up)).status_code == 401
    for name in FUNCTIONS:
        output = cloud.functions[name].output
        lines = [json.loads(line) for line in output.splitlines()]
        assert lines
        assert all({"time", "severity", "message", "tenant", "session", "run", "step"} <= line.keys() for line in lines)
        for private in ("Where is", "Correos", BOT_TOKEN, MODEL_KEY, cloud.api_key, cloud.box.derive("callbacks")):
            assert private not in output
    assert [(line["message"], line["tenant"], line["run"]) for line in of_the_session] == [
        ("message accepted", TENANT, ""),
        ("run finished", TENANT, "1"),
    ]


async def said_of(cloud: Cloud, session: str) -> list[JsonObject]:
    """What the functions that drive runs said of a session, once they have said that its run is over: they say it
    after they have stored it."""
    async with asyncio.timeout(10):
        while True:
            outputs = [cloud.functions[name].output.rpartition("\n")[0] for name in ("ingest", "run_agent")]
            said = [json.loads(line) for output in outputs for line in output.splitlines()]
            of_the_session = [line for line in said if line["session"] == session]
            if any(line["message"] == "run finished" for line in of_the_session):
                return of_the_session
            await asyncio.sleep(0.02)


async def test_messages_are_answered_while_the_database_is_stopped(cloud: Cloud) -> None:
    async with cloud.operator() as client:
        healthy = await client.request("GET", "/health/detailed")
        assert (healthy.status_code, healthy.json()["status"]) == (200, "ok")
        await asyncio.to_thread(cloud.database.stop)
        await cloud.write(106, "Where is order 1042?")
        await cloud.until(cloud.session(106), "text")
        assert len(cloud.shown(106)) == 1
        degraded = await client.request("GET", "/health/detailed")
    working = {name: part["ok"] for name, part in degraded.json()["parts"].items()}
    assert (degraded.status_code, working) == (503, {"sessions": True, "bus": True, "configuration": False})


async def asked_in(cloud: Cloud, chat: int) -> None:
    """Return once the question with its buttons has come in."""
    async with asyncio.timeout(10):
        while not cloud.shown(chat):  # noqa: ASYNC110  the simulator lives in another thread
            await asyncio.sleep(0.02)
