import asyncio
import secrets
import time
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.bus import Bus
from shared.bus.local import LocalBus
from shared.bus.pubsub import PubSubBus
from shared.bus.push import parse_push, parse_receipt, parse_result
from shared.domain import Receipt, Result, SessionKey, Wake
from shared.errors import BusDown, Retryable
from tests import engines
from tests.clock import NOON, FakeClock
from tests.servers.loopback import served

ONE, TWO = SessionKey("tenant-1", "1" * 32), SessionKey("tenant-2", "2" * 32)
WAIT_SECONDS = 15


class Receiver:
    """Takes wakes. Turns as many away as `failures` says; answers none while `open` is unset."""

    def __init__(self) -> None:
        self.failures = 0
        self.open = asyncio.Event()
        self.open.set()
        self._wakes: asyncio.Queue[Wake] = asyncio.Queue()

    async def __call__(self, wake: Wake) -> None:
        self._wakes.put_nowait(wake)
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise Retryable

    async def next(self) -> Wake:
        """The next wake that arrives, or that arrived and was not yet asked for."""
        return await asyncio.wait_for(self._wakes.get(), WAIT_SECONDS)

    def arrived(self) -> int:
        return self._wakes.qsize()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture(params=["local", "pubsub"])
async def bus(request: pytest.FixtureRequest, receiver: Receiver) -> AsyncIterator[Bus]:
    if request.param == "local":
        local = LocalBus(receiver, FakeClock())
        yield local
        await local.aclose()
        return
    host, project = request.getfixturevalue("pubsub_host"), f"bus-{secrets.token_hex(6)}"

    async def push(http: Request) -> Response:
        try:
            await receiver(parse_push(await http.body()))
        except Retryable:
            return Response(status_code=503)
        return Response(status_code=204)

    async with served(Starlette(routes=[Route("/wakes", push, methods=["POST"])])) as url:
        engines.subscribe(host, project, "wakes", f"{url}/wakes")
        pubsub = PubSubBus(project, "wakes", emulator=host)
        yield pubsub
        receiver.open.set()
        await pubsub.aclose()
        engines.unsubscribe(host, project, "wakes")


async def test_a_wake_arrives_with_its_session_and_an_id(bus: Bus, receiver: Receiver) -> None:
    await bus.wake(ONE)
    wake = await receiver.next()
    assert wake.key == ONE
    assert wake.id


async def test_a_wake_that_was_taken_does_not_come_again(bus: Bus, receiver: Receiver) -> None:
    ids = set()
    for _ in range(3):
        await bus.wake(ONE)
        ids.add((await receiver.next()).id)
    assert len(ids) == 3
    assert receiver.arrived() == 0


async def test_a_wake_that_was_turned_away_comes_again_with_its_id(bus: Bus, receiver: Receiver) -> None:
    receiver.failures = 2
    await bus.wake(ONE)
    assert len({(await receiver.next()).id for _ in range(3)}) == 1


async def test_a_later_wake_of_the_session_waits_until_the_first_is_taken(bus: Bus, receiver: Receiver) -> None:
    receiver.failures = 1
    receiver.open.clear()
    await bus.wake(ONE)
    first = await receiver.next()
    await bus.wake(ONE)
    receiver.open.set()
    again, second = await receiver.next(), await receiver.next()
    assert again.id == first.id != second.id


async def test_a_session_does_not_wait_for_another(bus: Bus, receiver: Receiver) -> None:
    receiver.open.clear()
    await bus.wake(ONE)
    await bus.wake(TWO)
    assert {(await receiver.next()).key for _ in range(2)} == {ONE, TWO}


async def test_a_topic_that_does_not_exist_is_a_bus_that_is_down(pubsub_host: str) -> None:
    bus = PubSubBus("bus-without-topics", "wakes", emulator=pubsub_host)
    with pytest.raises(BusDown, match="projects/bus-without-topics/topics/wakes did not answer publish: NotFound"):
        await bus.wake(ONE)
    await bus.aclose()


async def test_a_service_that_is_not_there_is_a_bus_that_is_down_within_its_limit() -> None:
    bus = PubSubBus("project", "wakes", emulator=f"127.0.0.1:{engines.free_port()}")
    bus.limit_seconds = 1
    began = time.monotonic()
    with pytest.raises(BusDown, match="ServiceUnavailable"):
        await bus.wake(ONE)
    assert time.monotonic() - began < 4
    await bus.aclose()


async def test_a_receipt_is_pushed_to_its_own_topic_as_it_was_given(pubsub_host: str) -> None:
    project, pushed = f"bus-{secrets.token_hex(6)}", asyncio.Queue[Receipt]()

    async def push(http: Request) -> Response:
        pushed.put_nowait(parse_receipt(await http.body()))
        return Response(status_code=204)

    receipt = Receipt(key=ONE, delivery="3/reply/1", provider_id="wamid.1", status="failed", at=NOON, reason="Ü")
    async with served(Starlette(routes=[Route("/deliveries", push, methods=["POST"])])) as url:
        engines.subscribe(pubsub_host, project, "receipts", f"{url}/deliveries")
        bus = PubSubBus(project, "wakes", "receipts", emulator=pubsub_host)
        await bus.receipt(receipt)
        assert await asyncio.wait_for(pushed.get(), WAIT_SECONDS) == receipt
        await bus.aclose()
        engines.unsubscribe(pubsub_host, project, "receipts")


async def test_a_result_is_pushed_to_its_own_topic_as_it_was_given(pubsub_host: str) -> None:
    project, pushed = f"bus-{secrets.token_hex(6)}", asyncio.Queue[Result]()

    async def push(http: Request) -> Response:
        pushed.put_nowait(parse_result(await http.body()))
        return Response(status_code=204)

    result = Result(
        key=ONE, conversation="s", run=3, message="m", url="https://shop.example/", outcome="answered", text="Ü"
    )
    async with served(Starlette(routes=[Route("/results", push, methods=["POST"])])) as url:
        engines.subscribe(pubsub_host, project, "answers", f"{url}/results")
        bus = PubSubBus(project, "wakes", result_topic="answers", emulator=pubsub_host)
        await bus.result(result)
        assert await asyncio.wait_for(pushed.get(), WAIT_SECONDS) == result
        await bus.aclose()
        engines.unsubscribe(pubsub_host, project, "answers")


async def test_a_topic_of_receipts_that_does_not_exist_is_named(pubsub_host: str) -> None:
    bus = PubSubBus("bus-without-topics", "wakes", emulator=pubsub_host)
    receipt = Receipt(key=ONE, delivery="3/reply/1", provider_id="wamid.1", status="failed", at=NOON)
    with pytest.raises(BusDown, match="topics/deliveries did not answer publish: NotFound"):
        await bus.receipt(receipt)
    await bus.aclose()
