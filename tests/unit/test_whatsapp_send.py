"""The channel against the simulator over real HTTP: what arrives, and what each failure becomes."""

from __future__ import annotations

import base64
import socket
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send

from shared.channels.split import split
from shared.channels.whatsapp import WhatsApp, entries, parse, receipts
from shared.cli.simulators.whatsapp import WhatsAppSimulator
from shared.domain import Button, Connection, Delivery, session_key
from shared.errors import NotSent, Refused, SendError, SendUnknown
from shared.secrets.keyfile import KeyFile
from tests.clock import NOON
from tests.servers.loopback import served

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN, NUMBER = "EAA-secret_token", "1065"
PHONE, BSUID = "16505551234", "US.13491208655302741918"
BOX = KeyFile(Path("unused"), base64.urlsafe_b64encode(bytes(32)).decode())
BUTTONS = (Button(label="Approve", data="a:t1:y"), Button(label="Deny", data="a:t1:n"))


@dataclass(frozen=True)
class Bench:
    simulator: WhatsAppSimulator
    channel: WhatsApp
    connection: Connection

    async def send(self, text: str, *, to: str = PHONE, buttons: tuple[Button, ...] = (), attempts: int = 1) -> str:
        delivery = Delivery(id="1/reply/1", text=text, buttons=buttons, attempts=attempts)
        return await self.channel.send(self.connection, to, delivery)

    async def settle(self, text: str, *, message: str = "", tap: str = "") -> None:
        delivery = Delivery(id="1/ask/settled", text=text, replaces=message, tap=tap)
        await self.channel.settle(self.connection, PHONE, delivery)

    @property
    def texts(self) -> list[str]:
        return [shown.text for shown in self.simulator.messages(PHONE)]


class Door:
    """One server for all tests here, as stopping one takes a fifth of a second; each puts its simulator behind it."""

    def __init__(self) -> None:
        self.simulator = WhatsAppSimulator(TOKEN, NUMBER, "app-secret")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.simulator.app(scope, receive, send)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[tuple[Door, str]]:
    door = Door()
    async with served(door) as url:
        yield door, url


def connected(api_root: str, token: str = TOKEN) -> Connection:
    sealed = BOX.seal(token, bound_to="demo/shop/token")
    return Connection(
        id="shop",
        tenant="demo",
        channel="whatsapp",
        agent="demo",
        plan="0" * 64,
        api_root=api_root,
        secrets={"token": sealed},
        app="meta",
        number=NUMBER,
    )


@pytest_asyncio.fixture(loop_scope="module")
async def bench(door: tuple[Door, str]) -> AsyncIterator[Bench]:
    door[0].simulator = simulator = WhatsAppSimulator(TOKEN, NUMBER, "app-secret")
    simulator.payload_message(PHONE, "Hello")  # opens the service window
    async with httpx.AsyncClient(timeout=httpx.Timeout(5, read=0.3)) as client:
        yield Bench(simulator, WhatsApp(client, BOX), connected(f"{door[1]}/v25.0"))


def assert_silent(error: BaseException) -> None:
    """Neither the error nor anything that hangs on it may show the token."""
    shown = "".join(traceback.format_exception(error)) + repr(error)
    assert "secret_token" not in shown
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_a_text_arrives_formatted_and_its_id_comes_back(bench: Bench) -> None:
    provider_id = await bench.send("**Order 1042** is on its way.")

    [shown] = bench.simulator.messages(PHONE)
    assert (shown.text, shown.message_id) == ("*Order 1042* is on its way.", provider_id)


async def test_statuses_lead_back_to_the_delivery(bench: Bench) -> None:
    await bench.send("Hi")

    payloads = [bench.simulator.signed(payload)[0] for payload in bench.simulator.make_statuses()]
    found = [receipt for body in payloads for change in parse(body) for receipt in receipts(change, bench.connection)]
    assert [receipt.status for receipt in found] == ["sent", "delivered", "read"]
    assert {(receipt.key, receipt.delivery) for receipt in found} == {(session_key("demo", "shop", PHONE), "1/reply/1")}


async def test_links_are_not_fetched_for_a_preview(bench: Bench) -> None:
    await bench.send("https://example.com/?order=1042")

    assert bench.simulator.calls[0].parameters["text"]["preview_url"] is False


async def test_a_user_id_is_addressed_as_one_because_as_a_number_it_would_never_arrive(bench: Bench) -> None:
    bench.simulator.payload_message(BSUID, "Hello")

    await bench.send("Hi", to=BSUID)
    await bench.send("Hi", to=PHONE)

    first, second = (call.parameters for call in bench.simulator.calls)
    assert ("to" in first, first["recipient"]) == (False, BSUID)
    assert (second["to"], "recipient" in second) == (PHONE, False)
    assert len(bench.simulator.messages(BSUID)) == len(bench.simulator.messages(PHONE)) == 1


async def test_buttons_arrive_under_the_question(bench: Bench) -> None:
    await bench.send("May I **refund**?", buttons=(*BUTTONS, Button(label="A label of many words", data="more")))

    [shown] = bench.simulator.messages(PHONE)
    assert shown.text == "May I *refund*?"
    assert [(button["id"], button["title"]) for button in shown.buttons] == [
        ("a:t1:y", "Approve"),
        ("a:t1:n", "Deny"),
        ("more", "A label of many word"),
    ]


async def test_a_question_too_long_for_buttons_goes_before_them_whole(bench: Bench) -> None:
    question = "May I do this? " + "x" * 1010

    provider_id = await bench.send(question, buttons=BUTTONS)

    first, second = bench.simulator.messages(PHONE)
    assert (first.text, first.buttons) == (question, [])
    assert (second.message_id, second.quotes, len(second.buttons)) == (provider_id, first.message_id, 2)


async def test_twenty_thousand_characters_arrive_in_pieces(bench: Bench) -> None:
    answer = ("*Order* 1042 & its <items> are on their way to 😀 you.\n" * 20 + "\n```py\nprint('<&>')\n```\n\n") * 20

    for piece in split(answer[:20_000], bench.channel.text_limit):
        await bench.send(piece)

    assert "".join(bench.texts).count("Order") == answer[:20_000].count("Order")


async def test_a_table_that_formatting_would_make_too_long_is_sent_as_it_was_written(bench: Bench) -> None:
    table = "|a|b|\n|-|-|\n" + f"|{'x' * 200}|y|\n" + "|1|2|\n" * 100

    await bench.send(table.strip())

    assert bench.texts == [table.strip()]


async def test_typing_marks_the_contacts_message_as_read(bench: Bench) -> None:
    (change,) = parse(bench.simulator.signed(bench.simulator.payload_message(PHONE, "Hello"))[0])
    (entry,) = entries(change, bench.connection, NOON)

    await bench.channel.typing(bench.connection, PHONE, entry.provider_id)
    await bench.channel.typing(bench.connection, PHONE)

    assert bench.simulator.read == [entry.provider_id]
    assert len(bench.simulator.calls) == 1


async def test_the_outcome_of_an_approval_quotes_the_tap_or_else_the_question(bench: Bench) -> None:
    question = await bench.send("May I?", buttons=BUTTONS)

    await bench.settle("Approved (refund), by **Ana**.", message=question, tap="wamid.tap")
    await bench.settle("Denied, by deadline.", message=question)

    _, tapped, expired = bench.simulator.messages(PHONE)
    assert (tapped.text, tapped.quotes) == ("Approved (refund), by *Ana*.", "wamid.tap")
    assert expired.quotes == question


@pytest.mark.parametrize(
    ("status", "code", "seconds"),
    [
        (400, 131056, 1),
        (400, 130429, 5),
        (400, 80007, 60),
        (500, 131057, 60),
        (400, 1, 1),
        (503, 2, 1),
        (500, 131000, 1),
        (500, 999_999, 1),
        (429, 999_999, 1),
    ],
)
async def test_what_passes_by_itself_was_not_sent(bench: Bench, status: int, code: int, seconds: float) -> None:
    bench.simulator.fail_next("message", status, code, "Later")

    with pytest.raises(NotSent, match=f"{code} .*Later") as failed:
        await bench.send("hi")

    assert failed.value.retry_after == seconds
    assert bench.texts == []


async def test_too_many_messages_to_one_person_wait_ever_longer(bench: Bench) -> None:
    waits = []
    for attempts in (1, 2, 3, 4):
        bench.simulator.fail_next("message", 400, 131056, "pair rate limit hit")
        with pytest.raises(NotSent) as failed:
            await bench.send("hi", attempts=attempts)
        waits.append(failed.value.retry_after)

    assert waits == [1, 4, 16, 64]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, 190),
        (403, 200),
        (403, 299),
        (401, 0),
        (500, 3),
        (403, 368),
        (500, 131045),
        (400, 131042),
        (400, 131026),
        (400, 131047),
        (400, 131048),
        (400, 131051),
        (400, 131062),
        (404, 132001),
        (400, 100),
        (404, 999_999),
    ],
)
async def test_a_refusal_is_final_and_gives_code_and_title(bench: Bench, status: int, code: int) -> None:
    bench.simulator.fail_next("message", status, code, "The title")

    with pytest.raises(Refused, match=f"{code} .*The title") as failed:
        await bench.send("hi")

    assert len(bench.simulator.calls) == 1
    assert_silent(failed.value)


async def test_an_answer_that_never_comes_leaves_a_send_unknown_and_it_is_not_repeated(bench: Bench) -> None:
    bench.simulator.drop_next("message")

    with pytest.raises(SendUnknown) as failed:
        await bench.send("hi")

    assert (bench.texts, len(bench.simulator.calls)) == (["hi"], 1)
    assert_silent(failed.value)


async def test_a_gateway_that_gave_up_waiting_leaves_a_send_unknown_but_typing_repeatable(bench: Bench) -> None:
    bench.simulator.fail_next("message", 504, 2, "Gateway Timeout")
    bench.simulator.fail_next("read", 504, 2, "Gateway Timeout")

    with pytest.raises(SendUnknown):
        await bench.send("hi")
    with pytest.raises(NotSent):
        await bench.channel.typing(bench.connection, PHONE, "wamid.1")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"{}", SendUnknown),
        (200, b"<html>", SendUnknown),
        (200, b'{"messages": []}', SendUnknown),
        (302, b"", SendUnknown),
        (502, b"<html>", NotSent),
        (400, b'{"error": "no"}', Refused),
        (400, b'{"error": {"code": [1]}}', Refused),
    ],
)
async def test_an_answer_that_is_not_the_graph_apis_is_judged_by_its_status(
    status: int, body: bytes, error: type[SendError]
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(error):
            await WhatsApp(client, BOX).send(connected("http://graph"), PHONE, Delivery(id="1", text="hi"))


async def test_a_server_that_is_not_there_was_not_sent_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with httpx.AsyncClient() as client:
        with pytest.raises(NotSent) as failed:
            await WhatsApp(client, BOX).send(connected(f"http://127.0.0.1:{port}"), PHONE, Delivery(id="1", text="hi"))

    assert_silent(failed.value)


async def test_a_wrong_token_is_refused_and_not_shown(bench: Bench) -> None:
    wrong = connected(bench.connection.api_root, token="another_secret_token")

    with pytest.raises(Refused, match="190") as failed:
        await bench.channel.send(wrong, PHONE, Delivery(id="1", text="hi"))

    assert_silent(failed.value)


async def test_a_server_that_repeats_the_token_does_not_bring_it_into_an_error(bench: Bench) -> None:
    bench.simulator.fail_next("message", 401, 190, f"Malformed access token {TOKEN}")

    with pytest.raises(Refused, match="Malformed access token <token>") as failed:
        await bench.send("hi")

    assert_silent(failed.value)


@pytest.mark.parametrize("token", ["", "EAA secret_token", "secret_token\n", "secret_tokén"])
async def test_a_token_that_no_header_can_carry_is_refused_by_name(bench: Bench, token: str) -> None:
    with pytest.raises(Refused, match="secret `token`") as failed:
        await bench.channel.send(connected(bench.connection.api_root, token), PHONE, Delivery(id="1", text="hi"))

    assert_silent(failed.value)


@pytest.mark.parametrize("secrets", [{}, {"token": "not ours"}])
async def test_a_token_that_cannot_be_opened_is_refused_by_name(bench: Bench, secrets: dict[str, str]) -> None:
    with pytest.raises(Refused, match="secret `token`"):
        await bench.channel.send(replace(bench.connection, secrets=secrets), PHONE, Delivery(id="1", text="hi"))

    assert bench.simulator.calls == []
