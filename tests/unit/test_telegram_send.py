"""The channel against the simulator over real HTTP: what arrives, and what each failure becomes."""

from __future__ import annotations

import asyncio
import base64
import socket
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import uvicorn
from starlette.types import Receive, Scope, Send

from shared.channels.split import split
from shared.channels.telegram import Telegram
from shared.cli.simulators.telegram import TelegramSimulator
from shared.domain import Button, Connection, Delivery
from shared.errors import NotSent, Refused, SendError, SendUnknown
from shared.secrets.keyfile import KeyFile

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "4242:AAE-secret_token"
BOX = KeyFile(Path("unused"), base64.urlsafe_b64encode(bytes(32)).decode())
BUTTONS = (Button(label="Approve", data="a:t1:y"), Button(label="Deny", data="a:t1:n"))


@dataclass(frozen=True)
class Bench:
    simulator: TelegramSimulator
    channel: Telegram
    connection: Connection
    client: httpx.AsyncClient

    async def send(self, text: str, *, to: str = "77", buttons: tuple[Button, ...] = ()) -> str:
        return await self.channel.send(self.connection, to, Delivery(id="1/reply/0", text=text, buttons=buttons))

    async def settle(self, text: str, *, message: str = "", tap: str = "") -> None:
        delivery = Delivery(id="1/settle/0", text=text, replaces=message, tap=tap)
        await self.channel.settle(self.connection, "77", delivery)

    @property
    def methods(self) -> list[str]:
        return [call.method for call in self.simulator.calls]


class Door:
    """One server for all tests here, as stopping one takes a fifth of a second; each puts its simulator behind it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.simulator = TelegramSimulator(TOKEN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.simulator.app(scope, receive, send)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[Door]:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it listens already: nobody has to wait for the server
        door = Door(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(door, log_level="warning", lifespan="off", ws="none"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield door
        server.should_exit = True
        await task


def connected(api_root: str, token: str = TOKEN) -> Connection:
    sealed = BOX.seal(token, bound_to="demo/shop-bot/token")
    return Connection(
        id="shop-bot",
        tenant="demo",
        channel="telegram",
        agent="demo",
        plan="0" * 64,
        api_root=api_root,
        secrets={"token": sealed},
    )


@pytest_asyncio.fixture(loop_scope="module")
async def bench(door: Door) -> AsyncIterator[Bench]:
    door.simulator = TelegramSimulator(TOKEN)
    async with httpx.AsyncClient(timeout=httpx.Timeout(5, read=0.3)) as client:
        yield Bench(door.simulator, Telegram(client, BOX), connected(door.root), client)


def assert_silent(error: BaseException) -> None:
    """Neither the error nor anything that hangs on it may show the token."""
    shown = "".join(traceback.format_exception(error)) + repr(error)
    assert "secret_token" not in shown
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_a_text_arrives_formatted_and_its_id_comes_back(bench: Bench) -> None:
    provider_id = await bench.send("**Order 1042** is <on> its way.")

    [shown] = bench.simulator.messages(77)
    assert shown.text == "Order 1042 is <on> its way."
    assert shown.markup == "<b>Order 1042</b> is &lt;on&gt; its way."
    assert provider_id == str(shown.message_id)


async def test_buttons_arrive_in_one_row(bench: Bench) -> None:
    await bench.send("Refund?", buttons=BUTTONS)

    [shown] = bench.simulator.messages(77)
    row = [{"text": "Approve", "callback_data": "a:t1:y"}, {"text": "Deny", "callback_data": "a:t1:n"}]
    assert shown.buttons == [row]


async def test_links_are_not_fetched_for_a_preview(bench: Bench) -> None:
    await bench.send("[here](https://example.com/?order=1042)")

    assert bench.simulator.calls[0].parameters["link_preview_options"] == {"is_disabled": True}


@pytest.mark.parametrize(
    ("conversation", "sent_to", "typing_in"), [("-100:12", 12, 12), ("-100:1", None, 1), ("-100", None, None)]
)
async def test_a_topic_is_named_except_to_send_into_the_general_one(
    bench: Bench, conversation: str, sent_to: int | None, typing_in: int | None
) -> None:
    await bench.send("hi", to=conversation)
    await bench.channel.typing(bench.connection, conversation)

    sent, typed = (call.parameters for call in bench.simulator.calls)
    assert sent["chat_id"] == typed["chat_id"] == -100
    assert sent.get("message_thread_id") == sent_to
    assert typed.get("message_thread_id") == typing_in
    assert typed["action"] == "typing"


async def test_twenty_thousand_characters_arrive_in_pieces(bench: Bench) -> None:
    answer = ("*Order* 1042 & its <items> are on their way to 😀 you.\n" * 20 + "\n```py\nprint('<&>')\n```\n\n") * 20

    for piece in split(answer[:20_000], bench.channel.text_limit):
        await bench.send(piece)

    assert "".join(shown.text for shown in bench.simulator.messages(77)).count("Order") == answer[:20_000].count(
        "Order"
    )


async def test_a_table_that_formatting_would_make_too_long_is_sent_as_it_was_written(bench: Bench) -> None:
    table = "|a|b|\n|-|-|\n" + f"|{'x' * 200}|y|\n" + "|1|2|\n" * 100

    await bench.send(table)

    assert bench.simulator.messages(77)[0].text == table.strip()


async def test_markup_that_telegram_cannot_parse_is_sent_once_more_as_plain_text(bench: Bench) -> None:
    bench.simulator.fail_next("sendMessage", 400, "Bad Request: can't parse entities: Unsupported start tag")

    await bench.send("**bold**")

    assert [shown.text for shown in bench.simulator.messages(77)] == ["**bold**"]
    assert bench.methods == ["sendMessage", "sendMessage"]


async def test_plain_text_that_is_refused_as_well_is_not_tried_a_third_time(bench: Bench) -> None:
    for _ in range(2):
        bench.simulator.fail_next("sendMessage", 400, "Bad Request: can't parse entities: whatever")

    with pytest.raises(Refused):
        await bench.send("**bold**")

    assert len(bench.simulator.calls) == 2


async def test_a_topic_that_was_closed_does_not_keep_the_answer_back(bench: Bench) -> None:
    bench.simulator.fail_next("sendMessage", 400, "Bad Request: message thread not found")

    await bench.send("hi", to="-100:12")

    assert [shown.thread for shown in bench.simulator.messages(-100)] == [0]


async def test_a_group_that_became_a_supergroup_gets_the_answer_there(bench: Bench) -> None:
    description = "Bad Request: group chat was upgraded to a supergroup chat"
    bench.simulator.fail_next("sendMessage", 400, description, migrate_to_chat_id=-100555)

    await bench.send("hi", to="-55")

    assert [shown.text for shown in bench.simulator.messages(-100555)] == ["hi"]


async def test_flood_control_says_exactly_how_long_to_wait(bench: Bench) -> None:
    bench.simulator.fail_next("sendMessage", 429, "Too Many Requests: retry after 37", retry_after=37)

    with pytest.raises(NotSent) as failed:
        await bench.send("hi")

    assert failed.value.retry_after == 37
    assert bench.simulator.messages(77) == []


@pytest.mark.parametrize(
    ("status", "description"),
    [
        (400, "Bad Request: chat not found"),
        (401, "Unauthorized"),
        (403, "Forbidden: bot was blocked by the user"),
        (404, "Not Found"),
        (409, "Conflict: terminated by other getUpdates request"),
    ],
)
async def test_a_refusal_is_final_and_gives_the_reason(bench: Bench, status: int, description: str) -> None:
    bench.simulator.fail_next("sendMessage", status, description)

    with pytest.raises(Refused, match=description):
        await bench.send("hi")

    assert len(bench.simulator.calls) == 1


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_error_was_not_sent(bench: Bench, status: int) -> None:
    bench.simulator.fail_next("sendMessage", status, "Internal Server Error")

    with pytest.raises(NotSent) as failed:
        await bench.send("hi")

    assert_silent(failed.value)


async def test_a_gateway_that_gave_up_waiting_leaves_a_send_unknown_but_typing_repeatable(bench: Bench) -> None:
    bench.simulator.fail_next("sendMessage", 504, "Gateway Timeout")
    bench.simulator.fail_next("sendChatAction", 504, "Gateway Timeout")

    with pytest.raises(SendUnknown):
        await bench.send("hi")
    with pytest.raises(NotSent):
        await bench.channel.typing(bench.connection, "77")


async def test_an_answer_that_never_comes_leaves_a_send_unknown_and_it_is_not_repeated(bench: Bench) -> None:
    bench.simulator.drop_next("sendMessage")

    with pytest.raises(SendUnknown) as failed:
        await bench.send("hi")

    assert [shown.text for shown in bench.simulator.messages(77)] == ["hi"]
    assert len(bench.simulator.calls) == 1
    assert_silent(failed.value)


async def test_an_edit_whose_answer_is_lost_may_be_repeated(bench: Bench) -> None:
    message = await bench.send("Refund?", buttons=BUTTONS)
    bench.simulator.drop_next("editMessageText")

    with pytest.raises(NotSent) as failed:
        await bench.settle("Refunded.", message=message)
    await bench.settle("Refunded.", message=message)

    assert bench.simulator.messages(77)[0].text == "Refunded."
    assert_silent(failed.value)


async def test_a_server_that_is_not_there_was_not_sent_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with httpx.AsyncClient() as client:
        with pytest.raises(NotSent) as failed:
            await Telegram(client, BOX).send(connected(f"http://127.0.0.1:{port}"), "77", Delivery(id="1", text="hi"))

    assert_silent(failed.value)


@pytest.mark.parametrize("root", ["ftp://127.0.0.1", "127.0.0.1:99", "http://[::"])
async def test_an_api_root_that_is_no_address_is_refused_by_name(root: str) -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(Refused, match="api_root") as failed:
            await Telegram(client, BOX).send(connected(root), "77", Delivery(id="1", text="hi"))

    assert_silent(failed.value)


async def test_a_wrong_token_is_refused_and_not_shown(bench: Bench) -> None:
    wrong = connected(bench.connection.api_root, token="1:other_secret_token")

    with pytest.raises(Refused, match="401 Unauthorized") as failed:
        await bench.channel.send(wrong, "77", Delivery(id="1", text="hi"))

    assert_silent(failed.value)


async def test_a_server_that_repeats_the_token_does_not_bring_it_into_an_error(bench: Bench) -> None:
    bench.simulator.fail_next("sendMessage", 404, f"Not Found: /bot{TOKEN}/sendMessage")

    with pytest.raises(Refused) as failed:
        await bench.send("hi")

    assert_silent(failed.value)


@pytest.mark.parametrize("secrets", [{}, {"token": "not ours"}])
async def test_a_token_that_cannot_be_opened_is_refused_by_name(bench: Bench, secrets: dict[str, str]) -> None:
    with pytest.raises(Refused, match="secret `token`"):
        await bench.channel.send(replace(bench.connection, secrets=secrets), "77", Delivery(id="1", text="hi"))

    assert bench.simulator.calls == []


async def test_a_tap_is_answered_and_its_question_loses_the_buttons(bench: Bench) -> None:
    message = await bench.send("Refund?", buttons=BUTTONS)
    update = bench.simulator.update_tap(77, int(message), "a:t1:y")

    await bench.settle("Approved by **Ana**.", message=message, tap=update["callback_query"]["id"])

    [shown] = bench.simulator.messages(77)
    assert (shown.text, shown.buttons, shown.edited) == ("Approved by Ana.", [], True)
    assert bench.methods == ["sendMessage", "answerCallbackQuery", "editMessageText"]


async def test_settling_twice_is_as_settling_once(bench: Bench) -> None:
    message = await bench.send("Refund?", buttons=BUTTONS)
    query = bench.simulator.update_tap(77, int(message), "a:t1:y")["callback_query"]["id"]

    await bench.settle("Approved.", message=message, tap=query)
    await bench.settle("Approved.", message=message, tap=query)

    assert [call.status for call in bench.simulator.calls] == [200, 200, 200, 400, 400]
    assert bench.simulator.messages(77)[0].text == "Approved."


async def test_settling_leaves_out_what_is_empty(bench: Bench) -> None:
    await bench.settle("Denied.", tap="1")
    message = await bench.send("Refund?")
    await bench.settle("Denied.", message=message)

    assert bench.methods == ["answerCallbackQuery", "sendMessage", "editMessageText"]


async def test_an_edit_of_a_message_that_is_gone_is_refused(bench: Bench) -> None:
    with pytest.raises(Refused, match="message to edit not found"):
        await bench.settle("Denied.", message="5")


async def test_no_failure_is_anything_but_a_send_error(bench: Bench) -> None:
    for status in (300, 400, 402, 418, 421, 429, 500, 599):
        bench.simulator.fail_next("sendMessage", status, "whatever")
        with pytest.raises(SendError):
            await bench.send("hi")
