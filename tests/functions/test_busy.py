"""What callers are told of messages that an agent does not take, and of runs that somebody stops."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from shared.config.demo import TENANT
from shared.config.publishing import publish
from shared.domain import Queueing
from tests.functions.conftest import Stack, is_problem

REFUND = {"input": "Please refund order 1042", "session": "s"}
HELLO = {"input": "Hello?", "session": "s"}


@pytest.fixture
async def busy(stack: Stack) -> str:
    """The path of a session whose agent waits for an approval, and takes nothing meanwhile."""
    (agent,) = await stack.here.repository.agents(TENANT)
    queueing = Queueing(mode="reject", debounce_seconds=0)
    await stack.here.repository.put_agent(TENANT, replace(agent.draft, queueing=queueing))
    await publish(stack.here.repository, stack.here.store)
    return f"/v1/sessions/{(await stack.invoke(REFUND, Idempotency_Key='first')).json()['session_id']}"


async def stop(stack: Stack, path: str) -> None:
    headers = {"Authorization": f"Bearer {stack.keys.operator}"}
    assert (await stack.http.post(f"{path}/stop", headers=headers)).status_code == 202
    await stack.idle()


async def test_a_message_that_the_agent_does_not_take_is_answered_so(stack: Stack, busy: str) -> None:
    answers = [await stack.invoke(HELLO, Idempotency_Key="k") for _ in range(2)]
    session = (await stack.read(busy)).json()

    for answer in answers:
        assert is_problem(answer, 409, "input: ", "send it as a new one afterwards")
        assert (answer.json()["title"], answer.json()["run"]) == ("Busy", f"{busy}/runs/1")
    assert (session["rejected"], session["status"], session["runs"]) == (1, "waiting", 1)


async def test_the_stream_of_a_message_that_is_not_taken_is_nothing_but_that(stack: Stack, busy: str) -> None:
    answer = await stack.invoke(HELLO, accept="text/event-stream")

    assert [line for line in answer.text.splitlines() if line.startswith("event: ")] == ["event: result"]
    assert '"status": 409' in answer.text


async def test_who_asks_later_is_told_that_the_message_was_not_taken(stack: Stack, busy: str) -> None:
    where = (await stack.invoke(HELLO, prefer="respond-async")).json()["run"]
    await stack.idle()
    found = await stack.read(where, key=stack.keys.invoker)

    assert (found.status_code, found.json()["status"], found.json()["run"]) == (200, "rejected", f"{busy}/runs/1")
    assert (await stack.read(where, key=stack.keys.stranger)).status_code == 404


async def test_afterwards_the_agent_takes_messages_again(stack: Stack, busy: str) -> None:
    await stack.http.post((await stack.read(busy)).json()["wait"]["callback"], json={"approved": False})
    await stack.idle()

    assert (await stack.invoke(HELLO)).status_code == 200


async def test_a_run_that_was_stopped_is_told_with_what_the_contact_was_told(stack: Stack, busy: str) -> None:
    await stop(stack, busy)
    again: httpx.Response = await stack.invoke(REFUND, Idempotency_Key="first")

    assert is_problem(again, 409)
    assert (again.json()["title"], again.json()["text"]) == ("The run ended as cancelled", "Stopped.")
    assert stack.refunded == []
