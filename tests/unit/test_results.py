"""Results for callers: where they may go, what arrives there, and what becomes of those that are not taken."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.auth.signature import HEADER, verify
from shared.bus.local import LocalBus
from shared.bus.local_results import ATTEMPTS, LocalResults
from shared.channels.api import Api
from shared.channels.results import ResultPoster, check_url, is_public, signing_key
from shared.domain import Connection, Delivery, ModelReply, Result, Texts, Wake, session_key
from shared.errors import BusDown, NotSent, Refused, Retryable
from shared.secrets.keyfile import KeyFile
from shared.sessions.results import DeadResult, buried, bury, tell
from tests.clock import NOON, FakeClock
from tests.fakes import FakeDocuments
from tests.servers.loopback import served
from tests.stage import PLAN, Crash, PointedStore, Stage, message, says

RESULT = Result(
    key=session_key("demo", "demo-shop", "s"),
    conversation="s",
    run=3,
    message="0123456789abcdef" * 2,
    url="https://shop.example/results?token=sesame",
    outcome="answered",
    text="Grüße",
)


class Caller:
    """The server of somebody who wants results: answers with these statuses in turn, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.app = Starlette(routes=[Route("/{path:path}", self._take, methods=["GET", "POST"])])

    async def _take(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        self.headers.append({**request.headers, "method": request.method, "path": request.url.path})
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return Response(status_code=status, headers={"Location": "/elsewhere"})


class Names:
    """A resolver that knows these addresses, and counts how often it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if not self.addresses:
            raise OSError("no such host")
        return self.addresses


@pytest.fixture
def box(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "key")


@pytest.fixture
async def poster(box: KeyFile) -> AsyncIterator[ResultPoster]:
    made = ResultPoster(box, FakeClock(), development=True)
    yield made
    await made.aclose()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104  nothing is bound to it
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%2",
        "fec0::1",
        "fd00:ec2::254",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
async def test_a_name_of_an_address_that_is_not_public_is_refused(box: KeyFile, address: str) -> None:
    assert not is_public(ip_address(address))
    poster = ResultPoster(box, FakeClock(), development=False, resolver=Names("93.184.216.34", address))
    with pytest.raises(Refused, match="not a public address"):
        await poster.post(RESULT)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111"])
def test_addresses_on_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("shop.example/results", "https"),
        ("http://shop.example/results", "https"),
        ("http://127.0.0.1/results", "https"),
        ("ftp://shop.example/", "https"),
        ("https://", "https"),
        ("https:///results", "https"),
        ("https://shop.example:port/", "not an address"),
        ("https://shop.example/\n", "not an address"),
        ("https://user:word@shop.example/", "user"),
        ("https://shop.example/#top", "fragment"),
        ("https://127.0.0.1/", "public"),
        ("https://[::1]/", "public"),
        ("https://169.254.169.254/computeMetadata/v1/", "public"),
        ("https://localhost/" + "x" * 2000, "2000"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_at_the_door(url: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        check_url(url, development=False)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/", "http://localhost/x", "https://[::1]/", "https://a.example/"]
)
def test_in_development_loopback_may_be_named(url: str) -> None:
    check_url(url, development=True)


@pytest.mark.parametrize("url", ["http://shop.example/", "http://10.0.0.1/", "https://10.0.0.1/"])
def test_in_development_nothing_else_is_allowed_more(url: str) -> None:
    with pytest.raises(ValueError, match=r"https|public"):
        check_url(url, development=True)


async def test_a_name_that_leads_to_loopback_only_now_and_then_is_never_connected_to(box: KeyFile) -> None:
    names = Names("127.0.0.1")
    poster = ResultPoster(box, FakeClock(), development=False, resolver=names)
    async with served(Caller(200).app) as url:
        with pytest.raises(Refused):
            await poster.post(replace(RESULT, url=url.replace("http://127.0.0.1", "https://shop.example")))
    assert names.asked == ["shop.example"]


async def test_the_caller_gets_the_result_signed_with_its_tenants_key(poster: ResultPoster, box: KeyFile) -> None:
    caller = Caller(204)
    async with served(caller.app) as url:
        await poster.post(replace(RESULT, url=f"{url}/results"))
    (body,), (headers,) = caller.bodies, caller.headers
    assert json.loads(body) == {
        "id": RESULT.id,
        "status": "answered",
        "text": "Grüße",
        "reason": "",
        "session": "s",
        "session_id": RESULT.key.session,
        "message": RESULT.message,
        "run": f"/v1/sessions/{RESULT.key.session}/runs/3",
    }
    assert (headers["method"], headers["path"], headers["host"]) == ("POST", "/results", url.removeprefix("http://"))
    assert headers["idempotency-key"] == RESULT.id
    signed = headers[HEADER.lower()]
    assert verify(signing_key(box, "demo"), body, signed, NOON.timestamp())
    assert not verify(signing_key(box, "other"), body, signed, NOON.timestamp())


async def test_the_name_is_asked_for_once_and_connected_to_as_it_was_checked(box: KeyFile) -> None:
    names, hosts = Names("127.0.0.1"), list[str | None]()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: hosts.append(name)
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    poster = ResultPoster(box, FakeClock(), development=True, resolver=names)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotSent, match="ConnectError"):  # the server has no certificate for that name
            await poster.post(replace(RESULT, url=f"https://shop.example:{port}/"))
    await poster.aclose()
    assert (names.asked, hosts) == (["shop.example"], ["shop.example"])


async def test_a_redirect_is_not_followed(poster: ResultPoster) -> None:
    caller = Caller(307)
    async with served(caller.app) as url:
        with pytest.raises(NotSent, match="answered 307"):
            await poster.post(replace(RESULT, url=f"{url}/results"))
    assert [headers["path"] for headers in caller.headers] == ["/results"]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_an_error_brings_it_again(poster: ResultPoster, status: int) -> None:
    async with served(Caller(status).app) as url:
        with pytest.raises(NotSent, match=f"answered {status}"):
            await poster.post(replace(RESULT, url=url))


async def test_a_host_that_is_not_there_brings_it_again_and_is_not_named(box: KeyFile) -> None:
    poster = ResultPoster(box, FakeClock(), development=False, resolver=Names())
    with pytest.raises(NotSent, match="OSError") as failed:
        await poster.post(RESULT)
    assert "sesame" not in str(failed.value)
    assert "example" not in str(failed.value)


async def test_gone_is_final_and_listed_without_the_text(
    poster: ResultPoster, caplog: pytest.LogCaptureFixture
) -> None:
    documents = FakeDocuments()
    async with served(Caller(410).app) as url:
        gone = replace(RESULT, url=f"{url}/?token=sesame")
        await tell(poster, documents, FakeClock(), gone)
    kept = DeadResult(result=replace(gone, text=""), reason="answered 410: nobody wants it any more", at=NOON)
    assert await buried(documents, "demo", 10) == [kept]
    assert await buried(documents, "other", 10) == []
    assert "sesame" not in caplog.text


async def test_what_is_not_taken_is_retryable(poster: ResultPoster) -> None:
    documents = FakeDocuments()
    async with served(Caller(500).app) as url:
        with pytest.raises(Retryable, match="answered 500"):
            await tell(poster, documents, FakeClock(), replace(RESULT, url=url))
    assert documents.writes == []


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PointedStore]:
    made = PointedStore(tmp_path / "sessions.db")
    yield made
    await made.aclose()


async def answering(stage: Stage, wake: str = "w") -> None:
    """A process that just started answers a caller who named an address."""
    driver = replace(stage.driver(), channels={"telegram": Api(stage.bus)})
    await driver.drive(Wake(key=stage.key, id=wake))


ASKED = replace(message(1, "Hello"), callback_url="https://shop.example/results")


@pytest.mark.parametrize("point", ["before result", "after result"])
async def test_a_process_that_is_killed_at_the_result_publishes_the_same_again(store: PointedStore, point: str) -> None:
    dry = Stage(store, FakeClock(), [says("One")])
    await dry.put(ASKED)
    await answering(dry)
    number = dry.faults.passed.index(point)

    stage = Stage(store, FakeClock(), [says("One"), says("Two")])
    stage.conversation = "2"
    stage.faults.at = {number}
    await stage.put(replace(ASKED, conversation="2"))
    with pytest.raises(Crash):
        await answering(stage)
    stage.faults.restart()
    await answering(stage)
    assert len({result.id for result in stage.bus.results}) == 1
    run = await stage.run()
    assert (run.reply, run.outcome) == (stage.bus.results[-1].text, "answered")
    assert await stage.is_quiet()


async def test_a_caller_is_told_of_a_run_that_failed_without_a_word(store: PointedStore) -> None:
    stage = Stage(store, FakeClock(), [ModelReply(model="scripted/queue", text=" ")])
    stage.publish(replace(PLAN, texts=Texts(failed="")))
    await stage.put(ASKED)
    await answering(stage)
    (result,) = stage.bus.results
    assert (result.outcome, result.text, result.message) == ("failed", "", ASKED.id)
    assert "neither with text" in result.reason


class Taker:
    """Takes results after it failed so often; the dead ones lie in `dead`."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or Retryable("not now")
        self.told: list[Result] = []
        self.dead: list[Result] = []

    async def tell(self, result: Result) -> None:
        self.told.append(result)
        if len(self.told) <= self.failures:
            raise self.error

    async def bury(self, result: Result) -> None:
        self.dead.append(result)


@pytest.mark.parametrize("error", [Retryable("not now"), ZeroDivisionError()])
async def test_the_embedded_bus_repeats_a_result_until_it_is_taken(error: Exception) -> None:
    taker, documents, clock = Taker(2, error), FakeDocuments(), FakeClock()
    results = LocalResults(documents, taker.tell, taker.bury, clock)
    await results.put(RESULT)
    assert list(documents.bodies) == [f"results/{RESULT.id}"]
    await results.idle()
    assert (taker.told, taker.dead, documents.bodies) == ([RESULT] * 3, [], {})
    assert clock.slept == [0.2, 0.4]


async def test_the_embedded_bus_gives_up_after_eight_attempts() -> None:
    taker, documents, clock = Taker(99), FakeDocuments(), FakeClock()
    results = LocalResults(documents, taker.tell, taker.bury, clock)
    await results.put(RESULT)
    await results.idle()
    assert (len(taker.told), taker.dead, documents.bodies) == (ATTEMPTS, [RESULT], {})
    assert clock.slept == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]


async def test_a_result_that_a_killed_process_left_is_taken_up_by_the_next() -> None:
    documents, first, second = FakeDocuments(), Taker(99), Taker(0)
    killed = LocalResults(documents, first.tell, first.bury, FakeClock(manual=True))
    await killed.put(RESULT)
    await killed.aclose()

    results = LocalResults(documents, second.tell, second.bury, FakeClock())
    await results.resume()
    await results.resume()
    await results.idle()
    assert (second.told, documents.bodies) == ([RESULT], {})


async def test_a_result_that_cannot_be_written_down_keeps_its_run_open() -> None:
    async def nothing(_: Wake) -> None: ...

    documents, taker = FakeDocuments(), Taker(0)
    results = LocalResults(documents, taker.tell, taker.bury, FakeClock())
    bus = LocalBus(nothing, FakeClock(), results=results)
    api = Api(bus)
    connection = Connection(id="demo-shop", tenant="demo", channel="api", agent="shop", plan="")
    delivery = Delivery(id="3/reply/1", text="Grüße", results=(replace(RESULT, text=""),))
    documents.down = True
    with pytest.raises(BusDown):
        await api.send(connection, "s", delivery)
    documents.down = False
    await api.send(connection, "s", delivery)
    await results.idle()
    assert taker.told == [RESULT]
    await bus.aclose()
    with pytest.raises(BusDown):
        await bus.result(RESULT)
    with pytest.raises(BusDown, match="nobody"):
        await LocalBus(nothing, FakeClock()).result(RESULT)


async def test_what_is_given_up_is_told_once_and_kept_once(caplog: pytest.LogCaptureFixture) -> None:
    documents = FakeDocuments()
    for _ in range(2):
        await bury(documents, FakeClock(), RESULT, "every attempt failed")
    assert len(await buried(documents, "demo", 10)) == 1
    assert [line.levelno for line in caplog.records] == [logging.ERROR] * 2
