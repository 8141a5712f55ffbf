"""What ends a wait from outside: whoever holds the token decides, once, in time."""

from __future__ import annotations

import pytest

from shared.auth import callback_token
from shared.cli.embedded import TENANT
from shared.domain import SessionKey
from tests.functions.conftest import Lines, Stack, is_problem

DAY = 86_400


async def test_an_approval_lets_the_run_go_on_and_answer(stack: Stack) -> None:
    session, path = await stack.waiting()
    answer = await stack.http.post(path, json={"approved": True})
    await stack.idle()
    (run,) = (await stack.read(f"/v1/sessions/{session}/runs")).json()

    assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "session_id": session})
    assert run["reply"] == "Order 1042 is refunded: 49.90 EUR is on its way back to you."
    assert [step["key"] for step in run["steps"]] == ["model-1", "approve-tool-1.0", "tool-1.0", "model-2"]
    assert len(stack.refunded) == 1


async def test_a_denial_is_told_to_the_model_and_nothing_is_paid(stack: Stack) -> None:
    session, path = await stack.waiting()
    await stack.http.post(path, json={"approved": False})
    await stack.idle()
    (run,) = (await stack.read(f"/v1/sessions/{session}/runs")).json()

    assert run["reply"].startswith("I may not do that: not approved by")
    assert stack.refunded == []


async def test_two_verdicts_at_once_pay_once(stack: Stack) -> None:
    _, path = await stack.waiting()
    first = await stack.http.post(path, json={"approved": True})
    second = await stack.http.post(path, json={"approved": True})
    await stack.idle()

    assert (first.status_code, second.status_code) == (202, 202)
    assert len(stack.refunded) == 1


async def test_a_second_verdict_after_the_first_is_gone(stack: Stack) -> None:
    _, path = await stack.waiting()
    await stack.http.post(path, json={"approved": True})
    await stack.idle()

    assert is_problem(await stack.http.post(path, json={"approved": False}), 410, "already decided")
    assert len(stack.refunded) == 1


async def test_a_verdict_after_the_deadline_is_gone(stack: Stack) -> None:
    _, path = await stack.waiting()
    stack.clock.advance(DAY)

    assert is_problem(await stack.http.post(path, json={"approved": True}), 410, "expired at 2026-11-21T12:00")
    assert stack.refunded == []


async def test_an_approval_that_nobody_gives_in_time_is_a_denial(stack: Stack) -> None:
    session, _ = await stack.waiting()
    stack.clock.advance(DAY)
    assert await stack.here.wake_due() == 1
    await stack.idle()
    (run,) = (await stack.read(f"/v1/sessions/{session}/runs")).json()

    assert run["reply"].startswith("I may not do that: not approved by deadline")
    assert stack.refunded == []


@pytest.mark.parametrize("session", ["0" * 32, "not-a-session"])
async def test_a_token_of_ours_for_a_wait_that_never_was_is_gone(stack: Stack, session: str) -> None:
    token = callback_token.issue(stack.here.box, SessionKey(TENANT, session), "w")
    assert is_problem(await stack.http.post(f"/v1/callbacks/{token}", json={"approved": True}), 410)


async def test_a_token_for_another_wait_of_the_session_is_gone(stack: Stack) -> None:
    session, _ = await stack.waiting()
    token = callback_token.issue(stack.here.box, SessionKey(TENANT, session), "another")
    assert is_problem(await stack.http.post(f"/v1/callbacks/{token}", json={"approved": True}), 410)


async def test_a_forged_token_is_refused_and_nothing_is_written(stack: Stack, log: Lines) -> None:
    _, path = await stack.waiting()
    before, seen = stack.rows(), len(log.lines)
    forged = path[:-1] + ("0" if path[-1] != "0" else "1")

    assert is_problem(await stack.http.post(forged, json={"approved": True}), 401, "token: ")
    assert stack.rows() == before
    assert len(log.lines) == seen + 1
    assert not log.holding(forged.rpartition(".")[2])


async def test_a_token_whose_session_was_changed_is_refused(stack: Stack) -> None:
    session, path = await stack.waiting()
    assert is_problem(await stack.http.post(path.replace(session, "0" * 32), json={"approved": True}), 401)


@pytest.mark.parametrize("token", ["x", "...", "a.b.c", "a.b.c.d", "a.b.c.%C3%BC", "x" * 5000])
async def test_a_malformed_token_is_refused(stack: Stack, token: str) -> None:
    assert is_problem(await stack.http.post(f"/v1/callbacks/{token}", json={"approved": True}), 401, "token: ")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"approved", "body"),
        (b"[true]", "body"),
        (b"[" * 60_000, "body"),
        (b"{}", "approved"),
        (b'{"approved": "true"}', "approved"),
        (b'{"approved": 1}', "approved"),
        (b'{"approved": null}', "approved"),
    ],
)
async def test_a_body_that_does_not_decide_is_refused_and_the_wait_goes_on(
    stack: Stack, body: bytes, field: str
) -> None:
    session, path = await stack.waiting()
    answer = await stack.http.post(path, content=body)

    assert is_problem(answer, 400)
    assert answer.json()["detail"].startswith(f"{field}: ")
    assert (await stack.read(f"/v1/sessions/{session}")).json()["status"] == "waiting"


async def test_a_body_that_is_too_large_is_refused(stack: Stack) -> None:
    _, path = await stack.waiting()
    assert is_problem(await stack.http.post(path, content=b" " * (1 << 16) + b"{}"), 413)


async def test_a_verdict_that_the_store_does_not_take_shall_be_sent_again(
    stack: Stack, request: pytest.FixtureRequest
) -> None:
    session, path = await stack.waiting()
    request.getfixturevalue("locked")

    assert is_problem(await stack.http.post(path, json={"approved": True}), 503)
    assert (await stack.read(f"/v1/sessions/{session}")).json()["status"] == "waiting"
