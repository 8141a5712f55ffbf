"""Invoke: a message in, the run that answered it out, and an error that says what to do about it."""

from __future__ import annotations

import pytest

from shared.domain import ModelReply, ToolCall
from shared.errors import ModelRefused
from shared.llm.scripted import Scripted
from tests.functions.conftest import OTHER_AGENT, Stack, is_problem

ANSWER = "Order 1042 is shipped with Correos and should arrive on 2026-11-24."


async def test_the_answer_comes_with_its_steps_and_where_its_run_is(stack: Stack) -> None:
    answer = await stack.invoke({"input": "Where is order 1042?"})
    body = answer.json()

    assert (answer.status_code, body["status"], body["text"]) == (200, "answered", ANSWER)
    assert [step["key"] for step in body["steps"]] == ["model-1", "tool-1.0", "model-2"]
    assert body["usage"]["input_tokens"] > 0
    assert (await stack.read(body["run"])).json()["reply"] == ANSWER


async def test_an_operator_may_invoke_as_well(stack: Stack) -> None:
    assert (await stack.invoke({"input": "Hello"}, key=stack.keys.operator)).status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer rk_nobody_wrong", "Basic dXNlcjpwYXNz", "Bearer rk_", "rk_a_b", "Bearer ü"]
)
async def test_without_a_valid_key_nobody_gets_in(stack: Stack, header: str | None) -> None:
    before = stack.rows()
    headers = {} if header is None else {b"authorization": header.encode()}
    answer = await stack.http.post("/v1/agents/shop/invoke", json={"input": "Hello"}, headers=headers)

    assert is_problem(answer, 401, "Authorization")
    assert stack.rows() == before


async def test_a_key_with_another_secret_is_refused_without_naming_it(stack: Stack) -> None:
    wrong = stack.keys.invoker[:-1] + ("a" if stack.keys.invoker[-1] != "a" else "b")
    answer = await stack.invoke({"input": "Hello"}, key=wrong)

    assert is_problem(answer, 401, "not valid")
    assert wrong not in answer.text


@pytest.mark.parametrize("agent", ["nobody", OTHER_AGENT, "a.b", "%C3%BC", "x" * 300])
async def test_an_agent_that_the_tenant_does_not_have_is_not_found(stack: Stack, agent: str) -> None:
    assert is_problem(await stack.invoke({"input": "Hello"}, agent=agent), 404, "agent")


async def test_another_tenant_cannot_invoke_the_agent(stack: Stack) -> None:
    before = stack.rows()
    assert is_problem(await stack.invoke({"input": "Hello"}, key=stack.keys.stranger), 404, "agent")
    assert (await stack.invoke({"input": "Hello"}, key=stack.keys.stranger, agent=OTHER_AGENT)).status_code == 200
    assert is_problem(await stack.invoke({"input": "Hello"}, agent=OTHER_AGENT), 404)
    assert stack.rows()["runs"] == before["runs"] + 1


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b'"input"'])
async def test_a_body_that_is_not_a_json_object_is_refused(stack: Stack, body: bytes) -> None:
    assert is_problem(await stack.invoke(body), 400, "body: not")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": None}, "input"),
        ({"input": 7}, "input"),
        ({"input": "x" * 65_537}, "input"),
        (b'{"input": "\\ud800"}', "input"),
        ({"input": "Hello", "sesion": "s"}, "sesion"),
        ({"input": "Hello", "session": "x" * 201}, "session"),
        ({"input": "Hello", "contact": 7}, "contact"),
    ],
)
async def test_a_field_that_does_not_fit_is_named(stack: Stack, body: object, field: str) -> None:
    before = stack.rows()
    answer = await stack.invoke(body)

    assert is_problem(answer, 400)
    assert answer.json()["detail"].startswith(f"{field}: ")
    assert stack.rows() == before


@pytest.mark.parametrize("key", ["", "x" * 201])
async def test_an_idempotency_key_of_another_length_is_refused(stack: Stack, key: str) -> None:
    assert is_problem(await stack.invoke({"input": "Hello"}, idempotency_key=key), 400, "Idempotency-Key: ")


async def test_a_body_that_is_too_large_is_refused(stack: Stack) -> None:
    assert is_problem(await stack.invoke(b" " * (1 << 18) + b"{}"), 413, "262144")


async def test_the_longest_input_is_taken(stack: Stack) -> None:
    assert (await stack.invoke({"input": "x" * 65_536})).status_code == 200


async def test_the_same_idempotency_key_is_the_same_run_and_asks_the_model_once(stack: Stack) -> None:
    first = await stack.invoke({"input": "Hello"}, idempotency_key="k1")
    second = await stack.invoke({"input": "Hello"}, idempotency_key="k1")

    assert first.json() == second.json()
    assert len(stack.model.history) == 1
    assert stack.rows()["runs"] == 1


async def test_another_idempotency_key_or_another_caller_is_another_run(stack: Stack) -> None:
    answers = [
        await stack.invoke({"input": "Hello"}, idempotency_key="k1"),
        await stack.invoke({"input": "Hello"}, idempotency_key="k2"),
        await stack.invoke({"input": "Hello"}, idempotency_key="k1", key=stack.keys.operator),
    ]

    assert len({answer.json()["run"] for answer in answers}) == len(stack.model.history) == 3


async def test_a_session_goes_on_and_the_model_sees_what_was_said(stack: Stack) -> None:
    first = await stack.invoke({"input": "I am Ana", "session": "s"})
    second = await stack.invoke({"input": "Who am I?", "session": "s"})
    seen = [(message.role, message.text) for message in stack.model.history[-1].messages]

    assert first.json()["session_id"] == second.json()["session_id"]
    assert seen == [("contact", "I am Ana"), ("agent", first.json()["text"]), ("contact", "Who am I?")]


async def test_without_a_session_each_message_has_its_own(stack: Stack) -> None:
    first, second = [await stack.invoke({"input": "Hello"}) for _ in range(2)]

    assert first.json()["session_id"] != second.json()["session_id"]
    assert len(stack.model.history[-1].messages) == 1


async def test_a_run_that_waits_says_for_what(stack: Stack) -> None:
    answer = await stack.invoke({"input": "Please refund order 1042", "session": "s"})
    body = answer.json()

    assert (answer.status_code, body["status"]) == (202, "waiting")
    assert (body["wait"]["tool"], body["wait"]["arguments"]) == ("refund_order", {"order_id": "1042"})
    assert body["wait"]["until"] == "2026-11-21T12:00:00+00:00"
    assert stack.refunded == []


async def test_a_model_that_fails_is_a_problem_that_names_the_run(stack: Stack) -> None:
    stack.model = Scripted([ModelRefused("scripted/demo: bad key")])
    answer = await stack.invoke({"input": "Hello"})
    body = answer.json()
    run = (await stack.read(body["run"])).json()

    assert is_problem(answer, 502, "scripted/demo: bad key")
    assert body["text"].startswith("Sorry")
    assert (run["outcome"], run["reason"]) == ("failed", "scripted/demo: bad key")
    assert run["reply"] == body["text"]


async def test_a_contact_whose_model_failed_is_told_in_words(stack: Stack) -> None:
    stack.model = Scripted([ModelRefused("scripted/demo: bad key")])
    session = await stack.say("Hello")
    (run,) = (await stack.read(f"/v1/sessions/{session}/runs")).json()

    assert (run["outcome"], run["reason"]) == ("failed", "scripted/demo: bad key")
    assert len(stack.shown()) == 1
    assert stack.shown()[0].startswith("Sorry")


async def test_a_model_that_says_nothing_has_failed(stack: Stack) -> None:
    stack.model = Scripted([ModelReply(model="scripted/demo", text=" ")])
    assert is_problem(await stack.invoke({"input": "Hello"}), 502, "neither with text nor with a tool call")


async def test_a_run_that_spends_its_budget_is_a_problem_that_names_the_limit(stack: Stack) -> None:
    call = ToolCall(id="c", name="lookup_order", arguments={"order_id": "1042"})
    stack.model = Scripted([ModelReply(model="scripted/demo", text="", tool_calls=(call,))] * 30)
    assert is_problem(await stack.invoke({"input": "Hello"}), 422, "model")
    assert len(stack.model.history) == 20


@pytest.mark.usefixtures("locked")
async def test_a_message_that_the_store_does_not_take_shall_be_sent_again(stack: Stack) -> None:
    answer = await stack.invoke({"input": "Hello"})

    assert is_problem(answer, 503, "Send the same request again")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "shop/invoke", 405), ("POST", "shop/call", 404)])
async def test_another_method_or_path_is_a_problem(stack: Stack, method: str, path: str, status: int) -> None:
    assert is_problem(await stack.http.request(method, f"/v1/agents/{path}"), status)
