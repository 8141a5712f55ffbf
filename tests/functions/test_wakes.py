"""The push of wakes: 204 acknowledges, 503 brings the wake again, and nobody but Pub/Sub gets in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from shared.cli.embedded import TENANT
from shared.domain import JsonObject, SessionKey
from tests.functions.conftest import Stack, is_problem
from tests.unit.test_oidc import ACCOUNT, AUDIENCE, Issuer

ISSUER = "https://issuer.example"


@pytest.fixture
def emulator(stack: Stack) -> None:
    """Pushes come without a token, as the Pub/Sub emulator sends them."""
    stack.here.settings = replace(stack.here.settings, pubsub_emulator="127.0.0.1:1")


@pytest.fixture
def issuer(stack: Stack) -> Issuer:
    """Signs the pushes; its certificates are where the settings say."""
    issuer = Issuer(f"{ISSUER}/certificates")
    stack.here.settings = replace(
        stack.here.settings,
        push_audience=AUDIENCE,
        push_service_account=ACCOUNT,
        push_issuer=ISSUER,
        push_certificates_url=issuer.url,
    )
    stack.here.http = httpx.AsyncClient(transport=httpx.ASGITransport(issuer))
    return issuer


async def inbox(stack: Stack) -> SessionKey:
    """A session with a message that nobody has been woken for."""
    body = stack.simulator.update_message(77, "Hello")
    await stack.here.bus.aclose()  # the wake is lost: the webhook says so, the message stays
    assert (await stack.update(body)).status_code == 503
    (key,) = [key async for key in stack.here.store.due(stack.clock.now().replace(year=2027))]
    return key


def envelope(key: SessionKey) -> JsonObject:
    attributes = {"tenant": key.tenant, "session": key.session}
    return {"message": {"messageId": "1", "attributes": attributes}, "subscription": "projects/p/subscriptions/wakes"}


NOBODY = SessionKey(TENANT, "0" * 32)


@pytest.mark.usefixtures("emulator")
async def test_a_push_drives_its_session(stack: Stack) -> None:
    key = await inbox(stack)
    answer = await stack.http.post("/wakes", json=envelope(key))

    assert (answer.status_code, answer.content) == (204, b"")
    assert stack.rows()["runs"] == 1


@pytest.mark.usefixtures("emulator")
async def test_a_push_for_a_session_that_is_not_there_is_acknowledged(stack: Stack) -> None:
    assert (await stack.http.post("/wakes", json=envelope(NOBODY))).status_code == 204


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 50_000,
        b'{"message": {}}',
        b'{"message": {"messageId": "1", "attributes": {"tenant": "demo", "session": "../x"}}}',
    ],
)
async def test_a_push_that_is_not_an_envelope_is_refused(stack: Stack, body: bytes) -> None:
    assert is_problem(await stack.http.post("/wakes", content=body), 400, "not a Pub/Sub push")


@pytest.mark.usefixtures("emulator")
async def test_a_push_that_is_too_large_is_refused(stack: Stack) -> None:
    assert is_problem(await stack.http.post("/wakes", content=b" " * (1 << 20) + b"{}"), 413)


@pytest.mark.parametrize("path", ["/wakes", "/tick"])
async def test_off_the_emulator_a_push_without_a_token_is_refused(stack: Stack, path: str) -> None:
    key = await inbox(stack)
    assert is_problem(await stack.http.post(path, json=envelope(key)), 401, "token")
    assert stack.rows()["runs"] == 0


@pytest.mark.parametrize(("path", "status"), [("/wakes", 204), ("/tick", 200)])
async def test_a_push_with_the_issuers_token_is_taken(stack: Stack, issuer: Issuer, path: str, status: int) -> None:
    answer = await stack.http.post(path, json=envelope(NOBODY), headers={"Authorization": issuer.token()})
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/wakes", "/tick"])
@pytest.mark.parametrize("claim", [{"aud": "https://other.example"}, {"email": "someone@example.com"}, {"exp": 1}])
async def test_a_token_for_something_else_is_refused_and_not_repeated_back(
    stack: Stack, issuer: Issuer, path: str, claim: dict[str, Any]
) -> None:
    token = issuer.token(**claim)
    answer = await stack.http.post(path, json=envelope(NOBODY), headers={"Authorization": token})

    assert is_problem(answer, 401, "token")
    assert token.partition(" ")[2] not in answer.text


async def test_a_token_that_nobody_can_check_now_shall_be_sent_again(stack: Stack, issuer: Issuer) -> None:
    issuer.published = {"first": "no certificate"}
    answer = await stack.http.post("/wakes", json=envelope(NOBODY), headers={"Authorization": issuer.token()})
    assert is_problem(answer, 503)


@pytest.mark.usefixtures("emulator")
async def test_a_push_that_finds_the_store_down_comes_again(stack: Stack, request: pytest.FixtureRequest) -> None:
    key = await inbox(stack)
    request.getfixturevalue("locked")
    answer = await stack.http.post("/wakes", json=envelope(key))

    assert is_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"


@pytest.mark.usefixtures("emulator")
async def test_the_tick_wakes_what_is_due_and_nothing_else(stack: Stack) -> None:
    assert (await stack.http.post("/tick")).json() == {"woken": 0}
    await inbox(stack)
    del stack.here.bus  # closed by `inbox`; the next one is open
    stack.clock.advance(1)
    first = await stack.http.post("/tick")
    await stack.idle()
    again = await stack.http.post("/tick")

    assert (first.status_code, first.json()) == (200, {"woken": 1})
    assert again.json() == {"woken": 0}
    assert len(stack.shown()) == 1
