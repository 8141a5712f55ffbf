"""The chat page in a real browser: on `recado dev` by server-sent events, and on the emulators by Firestore's listener.

Screenshots of each stage are left in the folder that pytest keeps of the latest runs (`--basetemp`).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests import engines
from tests.conftest import started
from tests.e2e.browser import PHONE, AuthEmulator, Chat, Hosting, built, chromium
from tests.e2e.cloud import Cloud, cloud_in, new_project
from tests.e2e.processes import ROOT, served
from tests.e2e.test_embedded import Embedded
from tests.servers.model_server import Fault, ModelServer, running

if TYPE_CHECKING:
    from playwright.async_api import Browser

ANSWER = """\
Order **1042** is on its way with *Correos*.

| day | what happened |
| --- | --- |
| 18 November | packed in Zaragoza |
| 19 November | handed to the carrier |

It should arrive on **24 November**. Until then you can:

1. follow it at [correos.es](https://www.correos.es),
2. have it brought to another address,
3. or ask me for a refund.
"""
FIRST_HALF, LAST_WORDS = "Order 1042 is on its way", "ask me for a refund."
Texts = list[str | re.Pattern[str]]
REFUNDED = "Here is what I found:"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with running() as server:
        yield server
        server.go_on.set()


@pytest.fixture
def embedded(tmp_path: Path, model: ModelServer) -> Iterator[Embedded]:
    built()
    name = "openai/of-the-test"
    with Embedded(tmp_path, OPENAI_BASE_URL=model.url, OPENAI_API_KEY="sk-of-the-test", RECADO_MODEL=name) as server:
        yield server


@pytest.fixture(scope="module")
def auth() -> Iterator[AuthEmulator]:
    emulator = started(AuthEmulator(new_project()))
    yield emulator
    emulator.stop()


@pytest.fixture(scope="module")
def firebase(
    tmp_path_factory: pytest.TempPathFactory,
    firestore_host: str,
    pubsub_host: str,
    postgres: engines.Postgres,
    auth: AuthEmulator,
) -> Iterator[tuple[Cloud, str]]:
    """The functions on the emulators with the rules in force, and the address at which the page is served."""
    hosting, project = Hosting(), auth.project
    with served(hosting.app) as origin, pytest.MonkeyPatch.context() as environment:
        environment.setenv("FIRESTORE_EMULATOR_HOST", firestore_host)
        configuration = {
            "apiKey": "of-the-test",
            "authDomain": "",
            "projectId": project,
            "appId": "1:1:web:1",
            "authEmulator": f"http://{auth.host}",
            "firestoreEmulator": firestore_host,
        }
        more = {
            "FIREBASE_AUTH_EMULATOR_HOST": auth.host,
            "RECADO_FIREBASE_CONFIG": json.dumps(configuration),
            "RECADO_WEB_ORIGIN": origin,
        }
        set_rules(firestore_host, project)
        with cloud_in(tmp_path_factory.mktemp("web"), firestore_host, pubsub_host, project, more) as cloud:
            hosting.api = cloud.functions["api"].url
            yield cloud, origin


def set_rules(firestore: str, project: str) -> None:
    """Put `firestore.rules` in force; with them nobody reads a view without having signed in."""
    files = [{"name": "firestore.rules", "content": (ROOT / "firestore.rules").read_text()}]
    url = f"http://{firestore}/emulator/v1/projects/{project}:securityRules"
    body = json.dumps({"rules": {"files": files}}).encode()
    with urlopen(Request(url, body, {"Content-Type": "application/json"}, method="PUT")) as answer:
        assert answer.status == 200
    view = "tenants/demo/contacts/ana/views/s1"
    with pytest.raises(HTTPError, match="403"):
        urlopen(f"http://{firestore}/v1/projects/{project}/databases/(default)/documents/{view}")


async def test_a_contact_is_answered_word_by_word_through_server_sent_events(
    embedded: Embedded, model: ModelServer, browser: Browser, tmp_path: Path
) -> None:
    chat = await Chat.open(browser, one_time_address(embedded))
    await conversation(chat, model, tmp_path)
    assert chat.errors == [], "\n".join(chat.errors)


async def test_a_contact_is_answered_through_the_firestore_listener(
    firebase: tuple[Cloud, str], browser: Browser, tmp_path: Path
) -> None:
    cloud, origin = firebase
    chat = await Chat.open(browser, origin)
    await sign_up(chat, "ana@example.org")
    await conversation(chat, cloud.model, tmp_path)
    assert chat.errors == [], "\n".join(chat.errors)


async def test_each_contact_has_a_conversation_of_their_own(
    firebase: tuple[Cloud, str], browser: Browser, tmp_path: Path
) -> None:
    cloud, origin = firebase
    cloud.model.reset()
    ben, guest = [await Chat.open(browser, origin, size=PHONE, dark=True) for _ in range(2)]
    await ben.page.screenshot(path=tmp_path / "sign-in.png")
    await sign_up(ben, "ben@example.org")
    cloud.model.fail(Fault(kind="text", message="Hello Ben."))
    await ben.write("I am Ben")
    await ben.sees("I am Ben", "Hello Ben.")
    await guest.page.get_by_role("button", name="Continue as a guest").click()
    await guest.page.get_by_role("heading", name="How can we help?").wait_for()
    await ben.page.get_by_role("button", name="Sign out").click()
    await sign_in(ben, "ben@example.org")
    await ben.sees("I am Ben", "Hello Ben.")
    await ben.page.screenshot(path=tmp_path / "phone.png")
    assert await ben.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    assert ben.errors == guest.errors == []


async def test_a_browser_without_the_one_time_key_is_told_what_to_do(embedded: Embedded, browser: Browser) -> None:
    chat = await Chat.open(browser, embedded.url)
    await chat.page.get_by_role("heading", name="Please sign in").wait_for()
    assert await chat.page.get_by_label("Message", exact=True).count() == 0


async def test_an_outage_of_the_server_loses_no_message_and_repeats_none(
    embedded: Embedded, model: ModelServer, browser: Browser
) -> None:
    chat = await Chat.open(browser, one_time_address(embedded))
    await chat.page.get_by_role("heading", name="How can we help?").wait_for()
    model.fail(Fault(kind="text", message="First."))
    await chat.write("One")
    await chat.sees("One", "First.")
    embedded.kill()
    await chat.page.get_by_text("Offline, will reconnect").wait_for()
    await chat.write("Two")
    await chat.page.get_by_text("Not sent").wait_for()
    model.fail(Fault(kind="text", message="Second."))
    embedded.start()
    await chat.page.get_by_role("heading", name="Please sign in").wait_for()  # its key is another one now
    await chat.page.goto(one_time_address(embedded))
    await chat.sees("One", "First.", "Two", "Second.")


async def conversation(chat: Chat, model: ModelServer, pictures: Path) -> None:
    """Write, see steps and words come, approve, reload, lose the network and have it back."""
    page = chat.page
    await page.get_by_role("heading", name="How can we help?").wait_for()
    await page.screenshot(path=pictures / "1-empty.png")

    model.fail(Fault(kind="delay"))  # the model asks for a tool
    model.fail(Fault(kind="hold", message=ANSWER))
    await chat.write("Where is order 1042?")
    await page.get_by_text("Looked up order").wait_for()
    await page.locator(".growing .text", has_text=FIRST_HALF).wait_for()
    assert LAST_WORDS not in await page.locator(".growing").inner_text()
    await page.screenshot(path=pictures / "2-mid-answer.png")
    model.go_on.set()
    await page.locator(".message.agent:not(.growing)", has_text=LAST_WORDS).wait_for()
    await page.screenshot(path=pictures / "3-answer.png")
    first: Texts = ["Where is order 1042?", re.compile(f"{FIRST_HALF}.*{re.escape(LAST_WORDS)}", re.DOTALL)]

    await chat.write("Please refund order 1042")
    await page.get_by_role("button", name="Approve").wait_for()
    await page.screenshot(path=pictures / "4-approval.png")
    await page.reload()
    await page.get_by_role("button", name="Approve").click()
    second: Texts = ["Please refund order 1042", re.compile(REFUNDED)]
    await chat.sees(*first, *second)

    await chat.lose_network()
    await page.get_by_text("Offline, will reconnect").wait_for()
    model.fail(Fault(kind="text", message="Good that you are back."))
    await chat.write("Can you hear me?")
    await page.get_by_text("Not sent").wait_for()
    await page.screenshot(path=pictures / "5-offline.png")
    await chat.regain_network()
    third: Texts = ["Can you hear me?", "Good that you are back."]
    await chat.sees(*first, *second, *third)
    await page.get_by_text("Offline").wait_for(state="hidden")
    await page.reload()
    await chat.sees(*first, *second, *third)
    await page.screenshot(path=pictures / "6-reloaded.png")


def one_time_address(server: Embedded) -> str:
    """The latest address that the server printed."""
    return str(re.findall(r"http://\S+\?key=\S+", server.output)[-1])


async def sign_up(chat: Chat, email: str) -> None:
    await _sign(chat, email, "Create an account")


async def sign_in(chat: Chat, email: str) -> None:
    await _sign(chat, email, "Sign in")


async def _sign(chat: Chat, email: str, button: str) -> None:
    await chat.page.get_by_label("E-mail").fill(email)
    await chat.page.get_by_label("Password").fill("a long password")
    await chat.page.get_by_role("button", name=button, exact=True).click()
    await chat.page.get_by_label("Message", exact=True).wait_for()
