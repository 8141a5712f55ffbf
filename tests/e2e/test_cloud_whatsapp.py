"""WhatsApp through the four functions as processes: two tenants' numbers on one app, and what Meta reports of replies.

One set of processes serves all tests, each of which has contacts of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from shared.channels.whatsapp import SIGNATURE_HEADER
from shared.cli.simulators.whatsapp import WINDOW, WhatsAppSimulator, envelope
from shared.config.demo import TENANT, WHATSAPP_APP, WHATSAPP_CONNECTION, seed_whatsapp
from shared.config.drafts import AgentDraft, ConnectionDraft
from shared.domain import JsonObject, session_key
from tests import engines
from tests.clock import FakeClock
from tests.e2e.cloud import MODEL, PATIENCE_SECONDS, Cloud, cloud_in
from tests.e2e.processes import served

PATH = f"/whatsapp/{WHATSAPP_APP}"
TOKEN, OTHER_TOKEN = "EAA0the0token0of0the0tests", "EAA0the0token0of0the0other0tenant"
APP_SECRET, VERIFY_TOKEN = "the-secret-of-the-app", "the-token-of-the-handshake"
OTHER_TENANT, OTHER_CONNECTION = "other", "other-whatsapp"
NUMBER, OTHER_NUMBER = "106540352242922", "206540352242922"

pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True, kw_only=True)
class Number:
    """A connected number, its Graph API, and the cloud as an operator of its tenant sees it."""

    tenant: str
    connection: str
    simulator: WhatsAppSimulator
    clock: FakeClock
    cloud: Cloud

    def session(self, contact: str) -> str:
        """Id of the contact's session; one who has a BSUID is named by it."""
        return session_key(self.tenant, self.connection, contact).session

    def shown(self, contact: str) -> list[str]:
        """What the contact was shown, the oldest first."""
        return [message.text for message in self.simulator.messages(contact)]

    async def post(self, payload: JsonObject, signature: str = "") -> httpx.Response:
        """Meta posts that to the app's callback, signed as it should be unless a signature is given."""
        body, right = self.simulator.signed(payload)
        headers = {SIGNATURE_HEADER: signature or right}
        return await self.cloud.request("ingest", PATH, content=body, headers=headers)

    async def say(self, contact: str, text: str) -> int:
        """The contact writes, and has been answered; the number of the answer's event."""
        assert (await self.post(self.simulator.payload_message(contact, text))).status_code == 200
        return await self.answered(contact)

    async def answered(self, contact: str, after: int = 0) -> int:
        """Return once the contact's session has an answer later than that event; the number of its event."""
        return (await self.cloud.until(self.session(contact), "text", after))[-1].sequence

    def reported(self, contact: str) -> list[str]:
        """Which statuses of deliveries to the contact `callbacks` has taken off the topic, in any order."""
        whole_lines = self.cloud.functions["callbacks"].output.rpartition("\n")[0]
        lines = [json.loads(line) for line in whole_lines.splitlines()]
        return sorted(line["status"] for line in lines if line["session"] == self.session(contact) and "status" in line)

    async def failed(self) -> list[JsonObject]:
        """The tenant's failed deliveries."""
        answer = await self.cloud.request("api", "/v1/receipts", method="GET")
        assert answer.status_code == 200
        found: list[JsonObject] = answer.json()
        return found


@pytest.fixture(scope="module")
def numbers(
    tmp_path_factory: pytest.TempPathFactory, firestore_host: str, pubsub_host: str, postgres: engines.Postgres
) -> Iterator[tuple[Number, Number]]:
    """The number of the app's owner, and one of another tenant whose agent has no tools."""
    clock = FakeClock()
    ours, theirs = (
        WhatsAppSimulator(token, number, APP_SECRET, clock=clock)
        for token, number in ((TOKEN, NUMBER), (OTHER_TOKEN, OTHER_NUMBER))
    )
    with (
        pytest.MonkeyPatch.context() as environment,
        served(ours.app) as our_api,
        served(theirs.app) as their_api,
    ):
        environment.setenv("FIRESTORE_EMULATOR_HOST", firestore_host)
        with cloud_in(tmp_path_factory.mktemp("whatsapp"), firestore_host, pubsub_host) as cloud:
            other = replace(cloud, api_key=asyncio.run(connect(cloud, f"{our_api}/v25.0", f"{their_api}/v25.0")))
            yield (
                Number(tenant=TENANT, connection=WHATSAPP_CONNECTION, simulator=ours, clock=clock, cloud=cloud),
                Number(tenant=OTHER_TENANT, connection=OTHER_CONNECTION, simulator=theirs, clock=clock, cloud=other),
            )


async def connect(cloud: Cloud, our_api: str, their_api: str) -> str:
    """Connect both numbers to the app; the API key of an operator of the other tenant."""
    async with cloud.configuring() as repository:
        await seed_whatsapp(
            repository,
            cloud.box,
            token=TOKEN,
            number=NUMBER,
            app_secret=APP_SECRET,
            verify_token=VERIFY_TOKEN,
            api=our_api,
        )
        await repository.put_app(TENANT, WHATSAPP_APP, shared=True)
        await repository.create_tenant(OTHER_TENANT)
        await repository.put_agent(OTHER_TENANT, AgentDraft(id="clerk", instructions="Be brief.", models=(MODEL,)))
        name = f"{OTHER_CONNECTION}/token"
        await repository.put_secret(OTHER_TENANT, name, cloud.box.seal(OTHER_TOKEN, bound_to=f"{OTHER_TENANT}/{name}"))
        draft = ConnectionDraft(
            id=OTHER_CONNECTION,
            channel="whatsapp",
            agent="clerk",
            api_root=their_api,
            app=WHATSAPP_APP,
            number=OTHER_NUMBER,
        )
        await repository.put_connection(OTHER_TENANT, draft)
        return await repository.create_api_key(OTHER_TENANT, "operator")


@pytest.fixture
def ours(numbers: tuple[Number, Number]) -> Number:
    return numbers[0]


@pytest.fixture
def theirs(numbers: tuple[Number, Number]) -> Number:
    return numbers[1]


@pytest.mark.parametrize(("token", "status"), [(VERIFY_TOKEN, 200), ("a-guess", 403), ("", 403)])
async def test_only_whoever_knows_the_verify_token_gets_the_challenge_back(
    ours: Number, token: str, status: int
) -> None:
    query = f"hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1158201444"
    answer = await ours.cloud.request("ingest", f"{PATH}?{query}", method="GET")
    assert (answer.status_code, answer.text == "1158201444") == (status, status == 200)


async def test_contacts_of_two_tenants_in_one_post_are_each_answered_on_their_number(
    ours: Number, theirs: Number
) -> None:
    phone, with_both, without_phone = "16505550101", "US.13491208655302741918", "ES.20491208655302741919"
    mixed = envelope(
        ours.simulator.payload_message(phone, "Where is order 1042?", user_id=with_both),
        theirs.simulator.payload_message(phone, "Hello"),
        ours.simulator.payload_message(without_phone, "Where is order 1042?"),
    )
    answer = await ours.post(mixed)
    sessions = {ours.session(with_both), theirs.session(phone), ours.session(without_phone)}
    assert (answer.status_code, set(answer.json()["sessions"])) == (200, sessions)

    await asyncio.gather(ours.answered(with_both), theirs.answered(phone), ours.answered(without_phone))
    for contact in (phone, with_both, without_phone):
        (text,) = ours.shown(contact)
        assert "Correos" in text
    assert theirs.shown(phone) == ["Hello, I am the test model."]
    sent = [call.parameters for call in ours.simulator.calls if call.method == "message"]
    assert {message["recipient"] for message in sent} == {with_both, without_phone}
    async with ours.cloud.operator() as client:
        assert await client.get(f"/v1/sessions/{theirs.session(phone)}") is None


async def test_what_meta_did_not_sign_changes_nothing(ours: Number) -> None:
    contact = "16505550102"
    _, of_other_bytes = ours.simulator.signed(ours.simulator.payload_message(contact, "Hello"))
    forged = ours.simulator.payload_message(contact, "Please refund order 1042")
    for signature in ("sha256=00", of_other_bytes):
        assert (await ours.post(forged, signature)).status_code == 401
    async with ours.cloud.operator() as client:
        assert await client.get(f"/v1/sessions/{ours.session(contact)}") is None

    await ours.say(contact, "Where is order 1042?")
    run = await ours.cloud.run(ours.session(contact))
    assert [message["text"] for message in run["inputs"]] == ["Where is order 1042?"]


async def test_the_contact_approves_by_a_reply_button(ours: Number) -> None:
    contact = "16505550103"
    await ours.post(ours.simulator.payload_message(contact, "Please refund order 1042"))
    asked = await ours.cloud.until(ours.session(contact), "wait")
    await until(lambda: ours.shown(contact))
    (question,) = ours.simulator.messages(contact)
    (approve,) = [button["id"] for button in question.buttons if button["title"] == "Approve"]
    tap = ours.simulator.payload_tap(contact, approve)
    assert (await ours.post(tap)).status_code == 200
    await ours.answered(contact, asked[-1].sequence)

    _, settled, reply = ours.simulator.messages(contact)
    (tapped,) = tap["entry"][0]["changes"][0]["value"]["messages"]
    assert (settled.text, settled.quotes) == ("Approved (refund_order), by Ana.", tapped["id"])
    assert '"refunded":true' in reply.text.replace(" ", "")


async def test_what_meta_reports_of_a_reply_goes_over_the_topic_to_callbacks(ours: Number) -> None:
    contact = "16505550104"
    ours.simulator.make_statuses()  # those of other tests
    await ours.say(contact, "Where is order 1042?")
    for status in ours.simulator.make_statuses():
        answer = await ours.post(status)
        assert (answer.status_code, answer.json()["receipts"]) == (200, 1)
    await until(lambda: len(ours.reported(contact)) >= 3)
    assert set(ours.reported(contact)) == {"delivered", "read", "sent"}


async def test_a_reply_after_the_service_window_is_listed_as_failed_for_its_tenant_alone(
    ours: Number, theirs: Number
) -> None:
    contact = "16505550105"
    theirs.simulator.make_statuses()
    late = theirs.simulator.payload_message(contact, "Hello")
    theirs.clock.advance(WINDOW.total_seconds() + 1)  # Meta could not reach the callback for so long
    await theirs.post(late)
    await theirs.answered(contact)
    assert theirs.shown(contact) == []
    (status,) = theirs.simulator.make_statuses()
    assert (await theirs.post(status)).status_code == 200

    await until(lambda: theirs.reported(contact))
    (failed,) = await theirs.failed()
    assert (failed["session"], failed["delivery"]) == (theirs.session(contact), "1/reply/1")
    assert failed["reason"] == "131047 Re-engagement message"
    assert await ours.failed() == []


async def test_a_message_among_fifty_statuses_is_answered_while_nobody_takes_receipts(ours: Number) -> None:
    contact, callbacks = "16505550106", ours.cloud.functions["callbacks"]
    ours.simulator.make_statuses()
    first = await ours.say(contact, "Where is order 1042?")
    statuses = (ours.simulator.make_statuses() * 17)[:50]
    callbacks.kill()
    answer = await ours.post(envelope(*statuses, ours.simulator.payload_message(contact, "And order 1043?")))
    assert (answer.status_code, answer.json()["receipts"]) == (200, 50)
    await ours.answered(contact, after=first)
    assert len(ours.shown(contact)) == 2

    await asyncio.to_thread(callbacks.start)
    await until(lambda: len(ours.reported(contact)) >= 50)


async def until(holds: Callable[[], object]) -> None:
    """Return once that is so; what it depends on happens in other threads and processes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110  see above
            await asyncio.sleep(0.05)
