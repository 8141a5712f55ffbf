"""What an agent waits for outside: callbacks that tools hand out, questions to an operator, and who may end them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import httpx
import pytest

from shared.auth import callback_token
from shared.config.demo import TENANT
from shared.config.publishing import publish
from shared.domain import JsonObject, ModelReply, SessionKey, ToolCall, ToolSpec, WaitRequest
from shared.llm.scripted import Scripted
from shared.tools import Toolbox, ToolContext, ToolResult
from tests.functions.conftest import Stack, is_problem

MODEL, NOBODY = "scripted/demo", "0" * 32


class Shop:
    """A carrier that answers later, and a colleague who is asked."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.address = ""
        self.executions = 0

    async def ship(self, arguments: JsonObject, context: ToolContext) -> ToolResult:
        self.executions += 1
        self.address = context.callback().removeprefix("http://127.0.0.1:8080")
        self.asked.set()
        await self.go_on.wait()
        return WaitRequest(kind="callback", until=self.until)

    async def ask(self, arguments: JsonObject, context: ToolContext) -> ToolResult:
        return WaitRequest(kind="operator", until=self.until, question="May it be red?")

    @property
    def until(self) -> datetime:
        return self.stack.clock.now() + timedelta(hours=1)

    async def waiting(self, *tools: str) -> str:
        """The id of a session whose agent used these tools."""
        calls = tuple(ToolCall(id=f"c{place}", name=name, arguments={}) for place, name in enumerate(tools))
        done = [ModelReply(model=MODEL, text=f"Done {number}") for number in range(5)]
        self.stack.model = Scripted([ModelReply(model=MODEL, text="", tool_calls=calls), *done])
        return await self.stack.say("Ship it")

    async def results(self, session: str) -> dict[str, str]:
        """What the first run's tools gave, by step."""
        run = (await self.stack.read(f"/v1/sessions/{session}/runs/1")).json()
        return {step["key"]: step["result"] for step in run["steps"] if step["kind"] == "tool"}

    async def seen(self, session: str) -> JsonObject:
        return dict((await self.stack.read(f"/v1/sessions/{session}")).json())

    async def operate(self, path: str, body: JsonObject | None = None, key: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.stack.keys.operator}"}
        answer = await self.stack.http.post(f"/v1/sessions/{path}", headers=headers, json=body)
        await self.stack.idle()
        return answer


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    made = Shop(stack)
    names = ("ship", "ask")
    (agent,) = await stack.here.repository.agents(TENANT)
    for name in names:
        parameters: JsonObject = {"type": "object"}
        tool = ToolSpec(name=name, description=name, parameters=parameters, implementation=f"builtin:{name}")
        await stack.here.repository.put_tool(TENANT, tool)
    draft = replace(agent.draft, tools=(*agent.draft.tools, *names))
    await stack.here.repository.put_agent(TENANT, draft)
    await publish(stack.here.repository, stack.here.store)
    tools = {"builtin:ship": made.ship, "builtin:ask": made.ask, "builtin:refund_order": stack._refund}
    stack.here.driver = replace(stack.here.driver, toolbox=Toolbox(tools, callback=stack.here.callback_address))
    yield made
    made.go_on.set()


async def test_a_callback_brings_the_result_that_the_model_gets(stack: Stack, shop: Shop) -> None:
    session = await shop.waiting("ship")
    before = await shop.seen(session)
    answer = await stack.http.post(shop.address, json={"result": {"parcel": "P1"}})
    await stack.idle()

    (wait,) = before["waits"]
    assert (before["status"], wait["kind"], wait["tool"], wait["callback"]) == (
        "waiting",
        "callback",
        "ship",
        shop.address,
    )
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "session_id": session})
    assert await shop.results(session) == {"tool-1.0": '{"parcel":"P1"}'}
    assert (stack.shown(), shop.executions) == (["Done 0"], 1)


async def test_a_callback_that_is_faster_than_its_tool_is_not_lost(stack: Stack, shop: Shop) -> None:
    shop.go_on.clear()
    saying = asyncio.create_task(shop.waiting("ship"))
    await shop.asked.wait()
    answer = await stack.http.post(shop.address, json={"result": {"parcel": "P1"}})
    shop.go_on.set()
    session = await saying

    assert answer.status_code == 202
    assert await shop.results(session) == {"tool-1.0": '{"parcel":"P1"}'}
    assert stack.shown() == ["Done 0"]


async def test_a_callback_that_comes_twice_counts_once_and_afterwards_is_gone(stack: Stack, shop: Shop) -> None:
    shop.go_on.clear()
    saying = asyncio.create_task(shop.waiting("ship"))
    await shop.asked.wait()
    answers = []
    for name in ("P1", "P1", "P2"):
        answers.append(await stack.http.post(shop.address, json={"result": {"parcel": name}}))
        stack.clock.advance(1)
    shop.go_on.set()
    session = await saying
    late = await stack.http.post(shop.address, json={"result": {"parcel": "P3"}})

    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert await shop.results(session) == {"tool-1.0": '{"parcel":"P1"}'}
    assert is_problem(late, 410, "wait: ")
    assert stack.shown() == ["Done 0"]


async def test_a_callback_after_the_deadline_is_gone_and_the_model_was_told(stack: Stack, shop: Shop) -> None:
    session = await shop.waiting("ship")
    stack.clock.advance(3600)
    late = await stack.http.post(shop.address, json={"result": {}})
    await stack.here.wake_due()
    await stack.idle()

    assert is_problem(late, 410, "2026-11-20T13:00")
    assert "no answer came" in (await shop.results(session))["tool-1.0"]


async def test_several_waits_are_open_at_once_and_the_run_goes_on_after_the_last(stack: Stack, shop: Shop) -> None:
    session = await shop.waiting("ship", "ask", "refund_order")
    waits = {wait["kind"]: wait for wait in (await shop.seen(session))["waits"]}
    assert set(waits) == {"callback", "operator", "approval"}
    assert (waits["operator"]["question"], "callback" in waits["operator"]) == ("May it be red?", False)

    await stack.http.post(shop.address, json={"result": {"parcel": "P1"}})
    await shop.operate(f"{session}/waits/{waits['operator']['id']}", {"answer": "Yes"})
    assert (await shop.seen(session))["status"] == "waiting"
    await shop.operate(f"{session}/waits/{waits['approval']['id']}", {"approved": False})

    results = await shop.results(session)
    assert results["tool-1.0"] == '{"parcel":"P1"}'
    assert results["tool-1.1"].startswith('{"answer":"Yes","by":"')
    assert "denied" in results["tool-1.2"]
    assert stack.shown()[-1] == "Done 0"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "result"),
        (b'{"approved": true}', "result"),
        (b'{"result": "P1"}', "result"),
        (b'{"result": [1]}', "result"),
        (b'{"result": {"a": "\\ud800"}}', "result"),
        (b'{"result": {"a": NaN}}', "result"),
        (b'{"result": ' + b'{"a":' * 60 + b"1" + b"}" * 60 + b"}", "result"),
    ],
)
async def test_a_body_that_is_no_result_is_refused_and_the_wait_goes_on(
    stack: Stack, shop: Shop, body: bytes, field: str
) -> None:
    session = await shop.waiting("ship")
    answer = await stack.http.post(shop.address, content=body)

    assert is_problem(answer, 400)
    assert answer.json()["detail"].startswith(f"{field}: ")
    assert (await shop.seen(session))["status"] == "waiting"


async def test_a_result_that_is_too_large_is_refused(stack: Stack, shop: Shop) -> None:
    await shop.waiting("ship")
    assert is_problem(await stack.http.post(shop.address, json={"result": {"a": "x" * 30_000}}), 413, "result: ")


async def test_a_forged_callback_is_refused(stack: Stack, shop: Shop) -> None:
    await shop.waiting("ship")
    forged = shop.address[:-1] + ("0" if shop.address[-1] != "0" else "1")

    assert is_problem(await stack.http.post(forged, json={"result": {}}), 401, "token: ")


async def test_a_token_for_a_call_that_never_was_is_gone(stack: Stack, shop: Shop) -> None:
    session = await shop.waiting("ship")
    token = callback_token.issue(stack.here.box, SessionKey(TENANT, session), "c1-tool-9-9")

    assert is_problem(await stack.http.post(f"/v1/callbacks/{token}", json={"result": {}}), 410)


async def test_a_result_for_an_approval_says_what_it_takes(stack: Stack) -> None:
    _, path = await stack.waiting()
    assert is_problem(await stack.http.post(path, json={"result": {}}), 400, "approved: ", "approval")


# What an operator may do


async def test_an_operator_decides_on_an_approval_that_is_not_theirs(stack: Stack, shop: Shop) -> None:
    session = await shop.waiting("refund_order")
    (wait,) = (await shop.seen(session))["waits"]
    answer = await shop.operate(f"{session}/waits/{wait['id']}", {"approved": True})

    assert (answer.status_code, len(stack.refunded)) == (202, 1)
    assert is_problem(await shop.operate(f"{session}/waits/{wait['id']}", {"approved": True}), 410, "already decided")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "approved, answer: send one"),
        ({"approved": True, "answer": "Yes"}, "approved, answer: send one"),
        ({"approved": "yes"}, "approved: "),
        ({"answer": ""}, "answer: "),
        ({"answer": 1}, "answer: "),
        ({"verdict": True}, "verdict: "),
        ({"approved": True}, "approved: this wait is for an operator"),
    ],
)
async def test_a_decision_that_does_not_fit_is_refused_by_name(shop: Shop, body: JsonObject, words: str) -> None:
    session = await shop.waiting("ask")
    (wait,) = (await shop.seen(session))["waits"]

    assert is_problem(await shop.operate(f"{session}/waits/{wait['id']}", body), 400, words)
    assert (await shop.seen(session))["status"] == "waiting"


async def test_a_wait_or_session_that_is_not_there_is_said_so(shop: Shop) -> None:
    session = await shop.waiting("ask")

    assert is_problem(await shop.operate(f"{session}/waits/nothing", {"answer": "Yes"}), 410)
    assert is_problem(await shop.operate(f"{NOBODY}/waits/nothing", {"answer": "Yes"}), 404)
    assert is_problem(await shop.operate(f"{NOBODY}/stop"), 404)


async def test_only_operators_of_the_tenant_may(stack: Stack, shop: Shop) -> None:
    session = await shop.waiting("ask")
    (wait,) = (await shop.seen(session))["waits"]
    before = stack.rows()

    for path, body in ((f"{session}/waits/{wait['id']}", {"answer": "Yes"}), (f"{session}/stop", None)):
        assert is_problem(await shop.operate(path, body, stack.keys.invoker), 403)
        assert is_problem(await shop.operate(path, body, stack.keys.stranger), 404)
        assert is_problem(await stack.http.post(f"/v1/sessions/{path}", json=body), 401)
    assert stack.rows() == before


async def test_an_operator_stops_a_run_and_its_contact_is_told(stack: Stack, shop: Shop) -> None:
    session = await shop.waiting("ship")
    answer = await shop.operate(f"{session}/stop")
    run = (await stack.read(f"/v1/sessions/{session}/runs/1")).json()

    assert answer.status_code == 202
    assert (run["outcome"], stack.shown()) == ("cancelled", ["Stopped."])
    assert (await shop.seen(session))["status"] == "idle"
    assert is_problem(await stack.http.post(shop.address, json={"result": {}}), 410)


async def test_a_contact_stops_a_run_by_a_command(stack: Stack, shop: Shop) -> None:
    session = await shop.waiting("ship")
    await stack.say("/stop")
    await stack.say("/stop")

    assert stack.shown() == ["Stopped.", "There is nothing to stop."]
    assert (await shop.seen(session))["runs"] == 1


async def test_a_callback_that_the_store_does_not_take_shall_be_sent_again(
    stack: Stack, shop: Shop, request: pytest.FixtureRequest
) -> None:
    await shop.waiting("ship")
    request.getfixturevalue("locked")

    assert is_problem(await stack.http.post(shop.address, json={"result": {}}), 503)
