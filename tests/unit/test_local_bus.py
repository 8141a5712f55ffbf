import asyncio
import logging
from collections.abc import Callable

import pytest

from shared.bus.local import LocalBus
from shared.domain import Receipt, SessionKey, Wake
from shared.errors import BusDown, Conflict
from tests.clock import FakeClock

ONE, TWO = SessionKey("tenant", "1" * 32), SessionKey("tenant", "2" * 32)


class Handler:
    """Records what it is given; `answers` are raised in turn, and while `open` is unset nothing is answered."""

    def __init__(self, *answers: Exception | None) -> None:
        self.wakes: list[Wake] = []
        self.running: list[SessionKey] = []
        self.most = 0
        self.open = asyncio.Event()
        self.open.set()
        self._answers = list(answers)

    async def __call__(self, wake: Wake) -> None:
        assert wake.key not in self.running, "two wakes of one session at once"
        self.wakes.append(wake)
        self.running.append(wake.key)
        self.most = max(self.most, len(self.running))
        try:
            await self.open.wait()
        finally:
            self.running.remove(wake.key)
        if self._answers and (error := self._answers.pop(0)):
            raise error


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # the bus has no event for it, and nothing here takes time
            await asyncio.sleep(0)


async def test_a_wake_is_delivered_once_with_an_id_of_its_own() -> None:
    handler = Handler()
    bus = LocalBus(handler, FakeClock())
    await bus.wake(ONE)
    await bus.wake(TWO)
    await bus.idle()
    await bus.wake(ONE)
    await bus.idle()
    assert [wake.key for wake in handler.wakes] == [ONE, TWO, ONE]
    assert len({wake.id for wake in handler.wakes}) == 3


async def test_wakes_that_wait_behind_one_in_flight_become_one() -> None:
    handler = Handler()
    handler.open.clear()
    bus = LocalBus(handler, FakeClock())
    await bus.wake(ONE)
    await until(lambda: handler.running == [ONE])
    for _ in range(3):
        await bus.wake(ONE)
    handler.open.set()
    await bus.idle()
    first, second = handler.wakes
    assert first.key == second.key == ONE
    assert first.id != second.id


async def test_a_wake_that_the_handler_itself_asks_for_is_delivered_after_it() -> None:
    seen: list[str] = []

    async def hand_on(wake: Wake) -> None:
        seen.append(wake.id)
        if len(seen) < 3:
            await bus.wake(wake.key)

    bus = LocalBus(hand_on, FakeClock())
    await bus.wake(ONE)
    await bus.idle()
    assert len(set(seen)) == 3


async def test_a_retryable_error_brings_the_same_wake_again_ever_later() -> None:
    clock, handler = FakeClock(), Handler(*[Conflict("not now")] * 8)
    bus = LocalBus(handler, clock)
    await bus.wake(ONE)
    await bus.idle()
    assert len(handler.wakes) == 9
    assert len(set(handler.wakes)) == 1
    assert clock.slept == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])


async def test_a_session_that_waits_for_its_redelivery_holds_up_nobody() -> None:
    handler = Handler(Conflict("not now"))
    clock = FakeClock(manual=True)
    bus = LocalBus(handler, clock, sessions=1)
    await bus.wake(ONE)
    await bus.wake(TWO)
    await until(lambda: [wake.key for wake in handler.wakes] == [ONE, TWO])
    clock.advance(0.2)
    await bus.idle()
    assert [wake.key for wake in handler.wakes] == [ONE, TWO, ONE]
    assert handler.wakes[0] == handler.wakes[2]


async def test_any_other_error_is_logged_and_left_to_the_tick(caplog: pytest.LogCaptureFixture) -> None:
    handler = Handler(KeyError("steps"))
    bus = LocalBus(handler, FakeClock())
    await bus.wake(ONE)
    await bus.idle()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("shared.bus.local", logging.ERROR)
    assert ONE.session in record.getMessage()
    assert record.exc_info is not None
    assert len(handler.wakes) == 1
    await bus.wake(ONE)
    await bus.idle()
    assert len(handler.wakes) == 2


async def test_no_more_sessions_than_allowed_run_at_once() -> None:
    handler = Handler()
    handler.open.clear()
    bus = LocalBus(handler, FakeClock(), sessions=3)
    keys = [SessionKey("tenant", f"{number:032x}") for number in range(10)]
    for key in keys:
        await bus.wake(key)
    await until(lambda: len(handler.running) == 3)
    handler.open.set()
    await bus.idle()
    assert handler.most == 3
    assert [wake.key for wake in handler.wakes] == keys


async def test_closing_cancels_what_is_in_flight_and_takes_no_more() -> None:
    handler = Handler()
    handler.open.clear()
    bus = LocalBus(handler, FakeClock())
    await bus.wake(ONE)
    await until(lambda: handler.running == [ONE])
    await bus.wake(ONE)
    await bus.wake(TWO)  # its task has not begun
    await bus.aclose()
    await bus.idle()
    assert handler.running == []
    assert [wake.key for wake in handler.wakes] == [ONE]
    with pytest.raises(BusDown):
        await bus.wake(ONE)


RECEIPT = Receipt(key=ONE, delivery="1/reply/1", provider_id="w", status="failed", at=FakeClock().now())


async def test_a_receipt_is_taken_before_its_publisher_goes_on() -> None:
    taken: list[Receipt] = []

    async def take(receipt: Receipt) -> None:
        taken.append(receipt)

    bus = LocalBus(Handler(), FakeClock(), receipts=take)
    await bus.receipt(RECEIPT)
    assert taken == [RECEIPT]
    await bus.aclose()
    with pytest.raises(BusDown):
        await bus.receipt(RECEIPT)


async def test_a_receipt_that_is_not_taken_has_to_be_reported_again() -> None:
    async def refuse(_: Receipt) -> None:
        raise Conflict("not now")

    with pytest.raises(BusDown, match="not now"):
        await LocalBus(Handler(), FakeClock(), receipts=refuse).receipt(RECEIPT)
    with pytest.raises(BusDown, match="nobody"):
        await LocalBus(Handler(), FakeClock()).receipt(RECEIPT)
