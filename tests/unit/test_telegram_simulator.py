"""The simulator of the Bot API is as strict as the real one, and tells the command line what a contact sees."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from shared.channels.telegram import secret_for
from shared.cli.simulators.telegram import TelegramSimulator
from shared.secrets.keyfile import KeyFile
from tests.clock import FakeClock

TOKEN = "4242:AAE"
BOX = KeyFile(Path("unused"), base64.urlsafe_b64encode(bytes(32)).decode())
APPROVAL = {"inline_keyboard": [[{"text": "Approve", "callback_data": "a:t1:y"}]]}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def simulator(clock: FakeClock) -> TelegramSimulator:
    return TelegramSimulator(TOKEN, burst=3, clock=clock)


@pytest.fixture
async def client(simulator: TelegramSimulator) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(simulator.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as made:
        yield made


async def test_the_webhooks_secret_is_one_that_telegram_takes(client: httpx.AsyncClient) -> None:
    parameters = {"url": "https://recado.example/telegram/shop-bot", "secret_token": secret_for(BOX, "shop-bot")}

    taken = await client.post(f"/bot{TOKEN}/setWebhook", data=parameters)
    refused = await client.post(f"/bot{TOKEN}/setWebhook", json={"secret_token": "ü"})
    info = await client.get(f"/bot{TOKEN}/getWebhookInfo")

    assert taken.json() == {"ok": True, "result": True}
    assert refused.status_code == 400
    assert info.json()["result"]["url"] == "https://recado.example/telegram/shop-bot"


async def test_another_token_an_unknown_method_and_a_broken_body_are_refused(client: httpx.AsyncClient) -> None:
    as_json = {"content-type": "application/json"}

    assert (await client.get("/bot1:B/getMe")).status_code == 401
    assert (await client.get(f"/bot{TOKEN}/getYou")).status_code == 404
    assert (await client.post(f"/bot{TOKEN}/getMe", content=b"[", headers=as_json)).status_code == 400
    assert (await client.get(f"/bot{TOKEN}/getMe")).json()["result"]["is_bot"] is True


@pytest.mark.parametrize(
    ("method", "parameters", "description"),
    [
        ("sendMessage", {"text": "hi"}, "chat_id is empty"),
        ("sendMessage", {"chat_id": 77}, "message text is empty"),
        ("sendMessage", {"chat_id": 77, "text": "<b></b>", "parse_mode": "HTML"}, "text must be non-empty"),
        ("sendMessage", {"chat_id": 77, "text": "x" * 4097}, "message is too long"),
        ("sendMessage", {"chat_id": 77, "text": "<h1>x</h1>", "parse_mode": "HTML"}, "can't parse entities: Unsupp"),
        ("sendMessage", {"chat_id": 77, "text": "x", "message_thread_id": 1}, "message thread not found"),
        (
            "sendMessage",
            {
                "chat_id": 77,
                "text": "x",
                "reply_markup": {"inline_keyboard": [[{"text": "Yes", "callback_data": "ü" * 33}]]},
            },
            "BUTTON_DATA_INVALID",
        ),
        (
            "sendMessage",
            {"chat_id": 77, "text": "x", "reply_markup": {"inline_keyboard": [[{"text": "Yes"}]]}},
            "Text buttons are unallowed",
        ),
        ("sendChatAction", {"chat_id": 77, "action": "dancing"}, "wrong parameter action"),
        ("editMessageText", {"chat_id": 77, "message_id": 1, "text": "x"}, "message to edit not found"),
        ("answerCallbackQuery", {"callback_query_id": "1"}, "query is too old"),
    ],
)
async def test_the_simulator_refuses_what_telegram_refuses(
    client: httpx.AsyncClient, method: str, parameters: dict[str, object], description: str
) -> None:
    answer = await client.post(f"/bot{TOKEN}/{method}", json=parameters)

    assert answer.status_code == answer.json()["error_code"] == 400
    assert description in answer.json()["description"]


async def test_a_form_says_the_same_as_json(client: httpx.AsyncClient, simulator: TelegramSimulator) -> None:
    form = {
        "chat_id": "77",
        "text": "Refund?",
        "reply_markup": '{"inline_keyboard": [[{"text": "A", "url": "https://a.b"}]]}',
    }

    answer = await client.post(f"/bot{TOKEN}/sendMessage", data=form)

    assert answer.json()["result"]["text"] == "Refund?"
    assert simulator.messages(77)[0].buttons == [[{"text": "A", "url": "https://a.b"}]]


async def test_flood_control_takes_a_burst_and_then_one_a_second(client: httpx.AsyncClient, clock: FakeClock) -> None:
    async def send(chat: int) -> httpx.Response:
        return await client.post(f"/bot{TOKEN}/sendMessage", json={"chat_id": chat, "text": "hi"})

    burst = [(await send(77)).status_code for _ in range(3)]
    flooded, elsewhere = await send(77), await send(78)
    clock.advance(1)
    later = await send(77)

    assert burst == [200, 200, 200]
    assert (flooded.status_code, flooded.json()["parameters"]) == (429, {"retry_after": 1})
    assert (elsewhere.status_code, later.status_code) == (200, 200)


async def test_the_command_line_makes_updates_and_reads_what_the_contact_sees(client: httpx.AsyncClient) -> None:
    first = (await client.post("/simulator/updates", json={"chat": -100, "text": "hi", "name": "Zé"})).json()
    question = {"chat_id": -100, "text": "Refund?", "reply_markup": APPROVAL}
    seen = (await client.post(f"/bot{TOKEN}/sendMessage", json=question)).json()["result"]["message_id"]
    tapped = (await client.post("/simulator/updates", json={"chat": -100, "tap": "a:t1:y"})).json()
    shown = (await client.get(f"/simulator/chats/-100/messages?after={seen - 1}")).json()
    later = (await client.get(f"/simulator/chats/-100/messages?after={seen}")).json()

    assert (first["message"]["text"], first["message"]["from"]["first_name"]) == ("hi", "Zé")
    assert tapped["update_id"] > first["update_id"]
    assert tapped["callback_query"]["message"]["message_id"] == seen
    buttons = APPROVAL["inline_keyboard"]
    assert shown == [{"message_id": seen, "text": "Refund?", "buttons": buttons, "edited": False}]
    assert later == []


@pytest.mark.parametrize(
    ("body", "status"), [({}, 400), ({"chat": "x"}, 400), ([], 400), ({"chat": 77, "tap": "gone"}, 404)]
)
async def test_the_command_line_is_told_what_it_got_wrong(client: httpx.AsyncClient, body: object, status: int) -> None:
    answer = await client.post("/simulator/updates", json=body)

    assert answer.status_code == status


async def test_a_call_can_be_delayed(client: httpx.AsyncClient, simulator: TelegramSimulator, clock: FakeClock) -> None:
    simulator.delay_next("sendChatAction", 5)

    await client.post(f"/bot{TOKEN}/sendChatAction", json={"chat_id": 77, "action": "typing"})

    assert clock.slept == [5]
    assert [call.status for call in simulator.calls] == [200]


def test_ids_grow_across_restarts() -> None:
    clock = FakeClock()
    before = TelegramSimulator(TOKEN, clock=clock).update_message(77, "hi")
    clock.advance(2)
    after = TelegramSimulator(TOKEN, clock=clock).update_message(77, "hi")

    assert after["update_id"] > before["update_id"]
    assert after["message"]["message_id"] > before["message"]["message_id"]
