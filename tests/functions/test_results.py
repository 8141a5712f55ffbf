"""An invoke whose caller does not wait: where the run can be asked for, and the result that is posted."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.auth.signature import HEADER, verify
from shared.bus.local_results import KEPT
from shared.cli.embedded import TENANT
from shared.codec import encode
from shared.domain import JsonObject, ModelReply, ModelRequest, Result, session_key
from shared.errors import ModelRefused
from shared.llm import OnText
from shared.llm.scripted import Scripted
from tests.functions.conftest import Stack, is_problem
from tests.servers.loopback import served

ANSWER = "Order 1042 is shipped with Correos and should arrive on 2026-11-24."
ASYNC = {"prefer": "respond-async"}


class Receiver:
    """A caller's server: what was posted to it, and the status that it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.url = ""
        self.posted: asyncio.Queue[tuple[bytes, dict[str, str]]] = asyncio.Queue()
        self.app = Starlette(routes=[Route("/{name}", self._take, methods=["POST"])])

    async def next(self) -> tuple[JsonObject, bytes, dict[str, str]]:
        body, headers = await asyncio.wait_for(self.posted.get(), 10)
        return json.loads(body), body, headers

    async def _take(self, request: Request) -> Response:
        self.posted.put_nowait((await request.body(), {**request.headers, "path": request.url.path}))
        return Response(status_code=self.status)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    async with served(made.app) as made.url:
        yield made


@pytest.fixture
def emulator(stack: Stack) -> None:
    """Pushes come without a token, as the Pub/Sub emulator sends them."""
    stack.here.settings = replace(stack.here.settings, pubsub_emulator="127.0.0.1:1")


class Held(Scripted):
    """The scripted model, which begins to answer only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        self.asked.set()
        await self.may.wait()
        return await super().complete(request, on_text)


async def test_who_does_not_wait_is_told_where_to_ask_and_polls_until_the_run_is_over(stack: Stack) -> None:
    stack.model = held = Held()
    answer = await stack.invoke({"input": "Where is order 1042?", "session": "s"}, **ASYNC)
    accepted = answer.json()
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert answer.headers["location"] == accepted["run"]
    assert accepted["run"] == f"/v1/sessions/{accepted['session_id']}/messages/{accepted['message']}"
    assert (accepted["status"], accepted["session"]) == ("accepted", "s")

    await asyncio.wait_for(held.asked.wait(), 10)
    running = await stack.read(accepted["run"], key=stack.keys.invoker)
    assert (running.status_code, running.json()) == (202, {**accepted, "status": "running"})
    assert running.headers["retry-after"] == "1"
    held.may.set()
    await stack.idle()
    over = await stack.read(accepted["run"], key=stack.keys.invoker)
    assert (over.status_code, over.json()["status"], over.json()["text"]) == (200, "answered", ANSWER)
    assert (await stack.read(over.json()["run"])).json()["reply"] == ANSWER
    waited = await stack.invoke({"input": "Where is order 1042?", "session": "s"})
    assert over.json().keys() - waited.json().keys() == {"message"}


@pytest.mark.parametrize("prefer", ["wait=10, Respond-Async", "respond-async;x=1", "handling=strict,respond-async"])
async def test_the_preference_may_stand_among_others(stack: Stack, prefer: str) -> None:
    assert (await stack.invoke({"input": "Hello"}, prefer=prefer)).json()["status"] == "accepted"


async def test_another_preference_changes_nothing(stack: Stack) -> None:
    answer = await stack.invoke({"input": "Hello"}, prefer="return=minimal, x-respond-async")
    assert (answer.status_code, "preference-applied" in answer.headers) == (200, False)


async def test_the_address_is_the_api_functions_where_that_is_another(stack: Stack) -> None:
    stack.here.settings = replace(stack.here.settings, addresses='{"api": "https://api.example"}')
    answer = await stack.invoke({"input": "Hello"}, **ASYNC)
    assert answer.headers["location"] == f"https://api.example{answer.json()['run']}"


async def test_the_same_key_again_is_the_same_message(stack: Stack) -> None:
    answers = [await stack.invoke({"input": "Hello"}, idempotency_key="k", **ASYNC) for _ in range(2)]
    await stack.idle()
    assert answers[0].json() == answers[1].json()
    assert (await stack.invoke({"input": "Hello"}, idempotency_key="k")).json()["status"] == "answered"
    assert len(stack.model.history) == 1


async def test_a_message_is_shown_to_its_key_and_to_operators_alone(stack: Stack) -> None:
    mine = (await stack.invoke({"input": "Hello", "session": "s", "contact": "ana"}, **ASYNC)).json()
    theirs = (await stack.invoke({"input": "Hello", "session": "s"}, key=stack.keys.operator, **ASYNC)).json()
    await stack.idle()

    assert (await stack.read(mine["run"])).json()["status"] == "answered"
    assert (await stack.read(mine["run"], key=stack.keys.invoker)).json()["status"] == "answered"
    assert is_problem(await stack.read(theirs["run"], key=stack.keys.invoker), 404, "message")
    assert is_problem(await stack.read(mine["run"], key=stack.keys.stranger), 404)
    assert is_problem(await stack.read(mine["run"].replace(mine["message"], "0" * 32)), 404, "message")
    assert (await stack.http.get(mine["run"])).status_code == 401
    assert is_problem(await stack.read(f"{mine['run']}0"), 400, "message")


async def test_a_message_behind_a_run_that_waits_is_accepted_and_the_one_in_it_waits(stack: Stack) -> None:
    first = (await stack.invoke({"input": "Please refund order 1042", "session": "s"}, **ASYNC)).json()
    await stack.idle()
    second = (await stack.invoke({"input": "Hello?", "session": "s"}, **ASYNC)).json()
    await stack.idle()
    waiting, accepted = [await stack.read(asked["run"], key=stack.keys.invoker) for asked in (first, second)]
    assert (waiting.status_code, waiting.json()["status"]) == (202, "waiting")
    assert waiting.json()["wait"]["tool"] == "refund_order"
    assert "callback" not in waiting.json()["wait"]
    assert (accepted.status_code, accepted.json()) == (202, second)


async def test_a_run_that_failed_is_over_as_well(stack: Stack) -> None:
    stack.model = Scripted([ModelRefused("scripted/demo: bad key")])
    asked = (await stack.invoke({"input": "Hello"}, **ASYNC)).json()
    await stack.idle()
    over = await stack.read(asked["run"], key=stack.keys.invoker)
    assert (over.status_code, over.json()["status"]) == (200, "failed")
    assert "bad key" in over.json()["reason"]


@pytest.mark.usefixtures("locked")
async def test_nothing_is_accepted_that_is_not_in_the_store(stack: Stack) -> None:
    assert is_problem(await stack.invoke({"input": "Hello"}, **ASYNC), 503)


@pytest.mark.parametrize("wait", [True, False])
async def test_the_result_is_posted_with_a_signature_of_the_tenants_key(
    stack: Stack, receiver: Receiver, *, wait: bool
) -> None:
    asked = {"input": "Where is order 1042?", "session": "s", "callback_url": f"{receiver.url}/results"}
    answer = (await stack.invoke(asked, **({} if wait else ASYNC))).json()
    result, body, headers = await receiver.next()
    key = (await stack.read("/v1/signing-key")).json()["key"]

    assert (headers["path"], result["status"], result["text"]) == ("/results", "answered", ANSWER)
    assert (result["session"], result["session_id"]) == ("s", answer["session_id"])
    assert verify(key, body, headers[HEADER.lower()], stack.clock.now().timestamp())
    assert headers["idempotency-key"] == result["id"]
    await stack.here.local_results.idle()
    assert await stack.here.store.list(KEPT) == []
    assert receiver.posted.empty()


async def test_a_run_that_took_several_messages_tells_each_of_their_addresses(stack: Stack, receiver: Receiver) -> None:
    stack.model = held = Held()
    for name in ("first", "second", "third"):
        asked = {"input": name, "session": "s"} | (
            {} if name == "first" else {"callback_url": f"{receiver.url}/{name}"}
        )
        await stack.invoke(asked, **ASYNC)
        await asyncio.wait_for(held.asked.wait(), 10)
    held.may.set()
    told = [await receiver.next() for _ in range(2)]
    assert {headers["path"] for _, _, headers in told} == {"/second", "/third"}
    assert len({result["run"] for result, _, _ in told}) == 1
    assert len({result["id"] for result, _, _ in told}) == 2


async def test_the_result_arrives_although_its_caller_went_away(stack: Stack, server: str, receiver: Receiver) -> None:
    stack.model = held = Held()
    async with httpx.AsyncClient(base_url=server, headers={"Authorization": f"Bearer {stack.keys.invoker}"}) as http:
        body = {"input": "Where is order 1042?", "callback_url": f"{receiver.url}/results"}
        call = asyncio.create_task(http.post("/v1/agents/shop/invoke", json=body))
        await asyncio.wait_for(held.asked.wait(), 10)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    held.may.set()
    result, _, _ = await receiver.next()
    assert result["text"] == ANSWER
    await stack.here.local_results.idle()


@pytest.mark.parametrize(
    "url", ["http://shop.example/", "https://10.0.0.1/", "https://u:p@shop.example/", "shop", "https://x/#y"]
)
async def test_an_address_that_no_result_may_go_to_is_refused_at_the_door(stack: Stack, url: str) -> None:
    before = stack.rows()
    answer = await stack.invoke({"input": "Hello", "callback_url": url})
    assert is_problem(answer, 400)
    assert answer.json()["detail"].startswith("callback_url: ")
    assert stack.rows() == before


async def test_on_a_service_loopback_is_refused_at_the_door(stack: Stack) -> None:
    stack.here.settings = replace(stack.here.settings, project="shop")
    answer = await stack.invoke({"input": "Hello", "callback_url": "https://127.0.0.1/"})
    assert is_problem(answer, 400, "callback_url", "public")


def envelope(url: str) -> JsonObject:
    result = Result(
        key=session_key(TENANT, "demo-shop", "s"), conversation="s", run=1, message="0" * 32, url=url,
        outcome="answered", text="x" * 100_000,
    )  # fmt: skip
    return {"message": {"messageId": "1", "data": base64.b64encode(encode(result)).decode()}, "subscription": "s"}


@pytest.mark.usefixtures("emulator")
async def test_a_push_comes_again_until_the_caller_takes_the_result(stack: Stack, receiver: Receiver) -> None:
    receiver.status = 500
    assert is_problem(await stack.http.post("/results", json=envelope(f"{receiver.url}/r")), 503)
    receiver.status = 204
    assert (await stack.http.post("/results", json=envelope(f"{receiver.url}/r"))).status_code == 204
    first, again = await receiver.next(), await receiver.next()
    assert first[0] == again[0]
    assert (await stack.read("/v1/dead-results")).json() == []


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize(
    ("make", "path", "reason"),
    [
        (lambda url: f"{url}/r", "/results/dead", "every attempt failed"),
        (lambda url: f"{url}/r", "/results", "answered 410: nobody wants it any more"),
        (lambda _: "https://10.0.0.1/r", "/results", "callback_url: not a public address; use one on the internet"),
    ],
)
async def test_a_result_that_is_given_up_is_listed_for_the_tenants_operators(
    stack: Stack, receiver: Receiver, make: Callable[[str], str], path: str, reason: str
) -> None:
    receiver.status = 410
    url = make(receiver.url)
    assert (await stack.http.post(path, json=envelope(url))).status_code == 204
    (dead,) = (await stack.read("/v1/dead-results")).json()
    assert (dead["callback_url"], dead["reason"], dead["run"]) == (url, reason, 1)
    assert (await stack.read("/v1/dead-results", key=stack.keys.stranger)).json() == []


@pytest.mark.parametrize("path", ["/results", "/results/dead"])
async def test_off_the_emulator_a_push_without_a_token_is_refused(stack: Stack, path: str) -> None:
    assert is_problem(await stack.http.post(path, json=envelope("https://shop.example/")), 401, "push: ")


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("path", ["/results", "/results/dead"])
async def test_a_push_that_is_no_result_is_refused(stack: Stack, path: str) -> None:
    assert is_problem(await stack.http.post(path, content=b'{"message": {"data": "e30="}}'), 400, "not a Pub/Sub push")


@pytest.mark.parametrize("path", ["/v1/signing-key", "/v1/dead-results"])
async def test_only_operators_see_the_key_and_what_was_lost(stack: Stack, path: str) -> None:
    assert is_problem(await stack.read(path, key=stack.keys.invoker), 403, "operator")


async def test_each_tenant_has_a_signing_key_of_its_own(stack: Stack) -> None:
    keys = {(await stack.read("/v1/signing-key", key=key)).text for key in (stack.keys.operator, stack.keys.stranger)}
    assert len(keys) == 2
