"""When the views of a held session are written: at most once a second, and with the commit that lets it go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil

import pytest

from shared.domain import Message
from shared.errors import StoreDown
from shared.sessions.document import Lease, Run, Session
from shared.sessions.projection import PartialText, console_view, contact_view
from shared.sessions.showing import Showing
from tests.clock import NOON, FakeClock
from tests.fakes import FakeDocuments

LEASE = Lease(holder="h", wake="w", until=NOON + timedelta(seconds=30))
RUN = Run(
    number=1, plan="p", inputs=(Message(role="contact", text="Hi", sequence=1),), first_sequence=1, started_at=NOON
)
HELD = Session(
    tenant="acme", id="s" * 32, connection="web", conversation="ana/main", viewer="ana", run=RUN, lease=LEASE, epoch=1
)
UNSEEN = replace(HELD, viewer="")
VIEW, CONSOLE = contact_view("acme", "ana", HELD.id), console_view(HELD.key)


class Stores(FakeDocuments):
    """Keeps when each view was written; a `put` waits for `go`."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self.shown: list[tuple[float, str, str]] = []
        """Second, status and text of each write, in order."""
        self.go = asyncio.Event()
        self.go.set()

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        await self.go.wait()
        await super().put(path, body, expires_at)
        self.note(body)

    def note(self, body: bytes) -> None:
        view = json.loads(body)
        seconds = (self._clock.now() - NOON).total_seconds()
        self.shown.append((seconds, view["status"], view["text"]["text"] if view["text"] else ""))


class Holder:
    """Of one session: what it commits is stored, with the views that the commit carries."""

    def __init__(self, session: Session = HELD) -> None:
        self.clock = FakeClock(manual=True)
        self.store = Stores(self.clock)
        self.session = session
        self.showing = Showing(self.store, self.clock, 1.0, lambda: self.session)

    async def commit(self, session: Session) -> None:
        async with self.showing.carried(session) as shown:
            for body in shown.values():
                self.store.note(body)
        self.session = session

    def text(self, text: str) -> None:
        self.showing.grew(PartialText(step="model-1", attempt=1, text=text))

    async def after(self, seconds: float) -> None:
        """Let so much time pass."""
        await settled()
        self.clock.advance(seconds)
        await settled()

    @property
    def next(self) -> Session:
        return replace(self.session, sequence=self.session.sequence + 1)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def holder() -> AsyncIterator[Holder]:
    holder = Holder()
    await holder.commit(HELD)
    yield holder
    await holder.showing.stop()
    await settled()
    assert len(asyncio.all_tasks()) == 1, "nothing goes on"


@pytest.mark.parametrize("seconds", [0.3, 0.9, 1.2, 4.9, 5.1])
async def test_a_turn_makes_at_most_one_write_for_each_second_that_began(holder: Holder, seconds: float) -> None:
    for tenth in range(1, round(seconds * 10) + 1):
        await holder.after(0.1)
        holder.text("x" * tenth)
    holder.showing.text = None
    await holder.commit(holder.next)  # the reply, which is being sent
    await holder.commit(replace(holder.session, run=None, lease=None))
    whole = [(float(second), "running", second * 10 - 1) for second in range(1, ceil(seconds))]
    shown = [(round(second, 3), status, len(text)) for second, status, text in holder.store.shown]
    assert shown == [*whole, (seconds, "idle", 0)]


async def test_a_burst_of_commits_is_shown_once_and_then_what_came_after_it(holder: Holder) -> None:
    for _ in range(5):
        await holder.commit(holder.next)
        await holder.after(0.3)
    assert [second for second, *_ in holder.store.shown] == [1.2]
    await holder.after(10)
    assert [second for second, *_ in holder.store.shown] == [1.2, 11.5]


async def test_a_commit_carries_the_views_when_they_are_due_unless_they_are_the_same(holder: Holder) -> None:
    await holder.after(2)
    holder.store.shown.clear()
    await holder.after(2)
    await holder.commit(replace(holder.session, lease=replace(LEASE, until=NOON + timedelta(seconds=60))))
    assert holder.store.shown == [], "an extended lease shows nowhere"
    await holder.commit(holder.next)
    assert [second for second, *_ in holder.store.shown] == [4.0]


async def test_text_that_grew_during_a_commit_that_carried_them_waits_for_the_next_second(holder: Holder) -> None:
    await holder.after(1)
    holder.text("Hel")
    holder.clock.advance(1)
    async with holder.showing.carried(holder.next) as shown:
        assert shown
        await settled()  # whoever writes by itself now waits for this commit
        holder.text("Hello")
    await holder.after(0)
    assert holder.store.shown == [(1.0, "running", "")]
    await holder.after(1)
    assert holder.store.shown[1:] == [(3.0, "running", "Hello")]


async def test_the_last_commit_comes_after_a_write_that_is_under_way(holder: Holder) -> None:
    holder.store.go.clear()
    await holder.after(1)
    last = asyncio.create_task(holder.commit(replace(HELD, run=None, lease=None)))
    await settled()
    assert not last.done()
    holder.store.go.set()
    await last
    assert [status for _, status, _ in holder.store.shown] == ["running", "idle"]


async def test_nothing_is_written_after_a_last_commit_whose_answer_was_lost(holder: Holder) -> None:
    async def last_commit() -> None:
        async with holder.showing.carried(replace(HELD, run=None, lease=None)):
            await holder.after(1)  # whoever writes by itself would now wait for this commit
            raise StoreDown("the answer is lost")

    holder.text("Hel")
    with pytest.raises(StoreDown):
        await last_commit()
    await holder.after(1)
    assert holder.store.shown == []


async def test_what_changes_during_a_write_is_written_after_it(holder: Holder) -> None:
    holder.store.go.clear()
    holder.text("Hel")
    await holder.after(3)
    await holder.commit(holder.next)
    holder.text("Hello")
    assert holder.store.shown == [], "no second write beside the first"
    holder.store.go.set()
    await holder.after(1)
    await holder.after(0)
    assert [(second, text) for second, _, text in holder.store.shown] == [(3.0, "Hel"), (4.0, "Hello")]


async def test_views_that_could_not_be_written_are_with_the_next_change(holder: Holder) -> None:
    holder.store.down = True
    await holder.after(1)
    assert holder.store.shown == []
    holder.store.down = False
    await holder.after(60)
    assert holder.store.shown == []
    holder.text("Hello")
    await holder.after(0)
    assert [text for *_, text in holder.store.shown] == ["Hello"]


async def test_a_commit_that_fails_counts_as_no_write(holder: Holder) -> None:
    await holder.after(1)
    await holder.after(1)
    with pytest.raises(StoreDown):
        async with holder.showing.carried(holder.next) as lost:
            raise StoreDown("the answer is lost")
    async with holder.showing.carried(holder.next) as again:
        assert again == lost != {}


async def test_nobody_is_shown_what_nobody_watches_and_a_console_what_it_comes_to(holder: Holder) -> None:
    holder.store.shown.clear()
    await holder.showing.stop()
    await holder.commit(UNSEEN)
    holder.text("Hel")
    await holder.after(5)
    await holder.commit(holder.next)
    assert holder.store.shown == []
    watched = replace(holder.session, watched_until=holder.clock.now() + timedelta(seconds=3))
    async with holder.showing.carried(watched) as shown:
        assert set(shown) == {CONSOLE}
    holder.session = watched
    holder.text("Hello")
    await holder.after(1)
    assert (holder.store.writes, holder.store.shown[-1][2]) == ([CONSOLE], "Hello")
    await holder.after(5)
    holder.text("Hello!")
    await holder.after(5)
    assert holder.store.writes == [CONSOLE]


async def test_a_clock_that_is_set_back_holds_nothing_up(holder: Holder) -> None:
    await holder.after(1)
    await holder.after(1)
    holder.clock.advance(-3_600)
    holder.text("Hello")
    await holder.after(1)
    assert [text for *_, text in holder.store.shown] == ["", "Hello"]
