import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shared.domain import Entry, Queueing, SessionKey, Texts, Wake
from shared.errors import Conflict, Fenced, NotFound, StoreDown
from shared.sessions.accept import pending
from shared.sessions.actor import Actor
from shared.sessions.document import Run, Session, Step
from shared.sessions.journal import record
from shared.sessions.pace import Pace
from shared.sessions.projection import contact_view
from shared.sessions.transitions import Work, finish, mark, release, respond
from shared.store.sqlite import SqliteStore
from tests.clock import NOON, FakeClock
from tests.fakes import FakeFiles
from tests.stage import PACE, message

KEY = SessionKey("acme", "a" * 32)
BRISK = Pace(lease=0.03, due=60.0)
"""Its heartbeat comes every 10 ms of real time."""
AT_ONCE = Queueing(debounce_seconds=0)


class UnsteadyStore(SqliteStore):
    """Does what the next of `commits` says: nothing, `lose` the answer, `repeat` (and be refused), be `down`, or
    `wait` for `go`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, clock=FakeClock())
        self.commits: list[str] = []
        self.written = 0
        self.carried: list[bool] = []
        """Of each commit, whether it carried a view."""
        self.turn = asyncio.Event()
        self.go = asyncio.Event()
        self.waits = asyncio.Event()
        self.after: list[Entry] = []
        """Messages that come in right after the next commit."""
        self.before_put: list[Callable[[], Awaitable[None]]] = []
        """What others do right before a document is put."""

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        while self.before_put:
            await self.before_put.pop()()
        await super().put(path, body, expires_at)

    async def until(self, happened: Callable[[], bool]) -> None:
        """Return once the commits so far have made that so."""
        while not happened():
            self.turn.clear()
            await asyncio.wait_for(self.turn.wait(), 5)

    async def commit(self, key: SessionKey, version: object, **written: Any) -> object:
        fate = self.commits.pop(0) if self.commits else ""
        self.turn.set()
        if fate == "down":
            raise StoreDown("not written")
        if fate == "wait":
            self.waits.set()
            await self.go.wait()
        new = await super().commit(key, version, **written)
        self.written += 1
        self.carried.append(bool(written["documents"]))
        self.turn.set()
        while self.after:
            await put(self, self.after.pop())
        if fate == "lose":
            raise StoreDown("written, but the answer was lost")
        if fate == "repeat":
            raise Conflict("written, and refused the second time")
        return new


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[UnsteadyStore]:
    store = UnsteadyStore(tmp_path / "sessions.db")
    yield store
    await store.aclose()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def put(store: SqliteStore, entry: Entry) -> None:
    await store.append(KEY, {entry.id: pending(entry)}, NOON)


async def claimed(store: SqliteStore, clock: FakeClock, pace: Pace = PACE, wake: str = "w", viewer: str = "") -> Actor:
    """An actor that holds the session, in a run for message 1 (unless there is one)."""
    await put(store, replace(message(1), viewer=viewer))
    actor = await loaded(store, clock, pace)
    assert await claim(actor, wake) is Work.READY
    return actor


async def claim(actor: Actor, wake: str) -> Work:
    return await actor.claim(Wake(key=KEY, id=wake), "plan", AT_ONCE, Texts())


async def loaded(store: SqliteStore, clock: FakeClock, pace: Pace = PACE) -> Actor:
    actor = Actor(store, FakeFiles(lambda _: None), clock, KEY, pace)
    assert await actor.load()
    return actor


def run_of(session: Session) -> Run:
    assert session.run is not None
    return session.run


async def stored_run(store: SqliteStore, clock: FakeClock) -> Run:
    return run_of((await loaded(store, clock)).session)


def steps(run: Run) -> list[str]:
    return [step.key for step in run.steps]


def step(key: str) -> partial[Session]:
    return partial(record, step=Step(key=key, kind="tool", name="t", attempt=1, started_at=NOON, result="1"))


REPLY = partial(respond, outcome="answered", reply="Hello", parts=("Hello",))


async def test_a_message_that_comes_during_a_run_survives_beside_its_steps(
    store: UnsteadyStore, clock: FakeClock
) -> None:
    actor = await claimed(store, clock)
    await put(store, message(2))
    await actor.commit(step("a"))
    for session in (actor.session, (await loaded(store, clock)).session):
        assert list(session.inbox) == [message(2).id]
        assert steps(run_of(session)) == ["a"]


@pytest.mark.parametrize("also", [[], [message(2)]], ids=["alone", "a message right after"])
async def test_a_commit_that_was_repeated_and_refused_is_recognised(
    store: UnsteadyStore, clock: FakeClock, also: list[Entry]
) -> None:
    actor = await claimed(store, clock)
    store.commits, store.after = ["repeat"], list(also)
    await actor.commit(REPLY)
    assert store.written == 2, "the claim, and the reply once"
    assert [delivery.id for delivery in actor.session.outbox] == ["1/reply/1"]
    assert list(actor.session.inbox) == [entry.id for entry in also]


async def test_a_claim_that_was_repeated_and_refused_is_recognised(store: UnsteadyStore, clock: FakeClock) -> None:
    store.commits, store.after = ["repeat"], [message(2)]
    actor = await claimed(store, clock)
    assert (actor.session.epoch, store.written) == (1, 1)
    await actor.commit(step("a"))
    assert list(actor.session.inbox) == [message(2).id]


@pytest.mark.parametrize("lost", [["lose"], ["lose", "down"], ["lose", "down", "repeat"]], ids="-".join)
async def test_what_a_lost_heartbeat_wrote_is_not_written_again(
    store: UnsteadyStore, clock: FakeClock, lost: list[str]
) -> None:
    actor = await claimed(store, clock, BRISK)
    actor.hold(REPLY)
    store.commits, store.after = list(lost), [message(2)]

    async def effect() -> str:
        clock.advance(BRISK.lease / 3)
        await store.until(lambda: not store.commits)
        return "sent"

    assert await actor.keep(effect()) == "sent"
    (delivery,) = actor.session.outbox
    actor.hold(partial(mark, delivery=replace(delivery, status="sent"), now=NOON))
    await actor.commit(release)
    session = (await loaded(store, clock)).session
    assert session == actor.session
    assert (session.outbox, session.lease, session.sequence) == ((), None, 2)
    assert [sent.id for sent in run_of(session).deliveries] == ["1/reply/1"]


async def test_a_second_holder_fences_the_first_which_writes_nothing_more(
    store: UnsteadyStore, clock: FakeClock
) -> None:
    first = await claimed(store, clock)
    clock.advance(PACE.lease)
    second = await claimed(store, clock, wake="another")
    written = store.written
    for _ in range(2):
        with pytest.raises(Fenced):
            await first.commit(step("mine"))
    assert store.written == written
    await second.commit(step("theirs"))
    assert steps(await stored_run(store, clock)) == ["theirs"]
    assert second.session.epoch == 2


async def test_a_view_written_by_who_was_fenced_ends_as_the_session_is(store: UnsteadyStore, clock: FakeClock) -> None:
    first = await claimed(store, clock, viewer="ana")
    second = await claimed(store, clock, viewer="ana")
    await second.stop_showing()  # between the commits, so that the next write is the first's
    path = contact_view(KEY.tenant, "ana", KEY.session)

    async def end() -> None:  # between what the first read and what it writes
        await second.commit(REPLY)
        await second.commit(lambda session: release(finish(replace(session, outbox=()), clock.now())))

    store.before_put = [end]
    await first.show_anew()
    view = json.loads(await store.get(path) or b"")
    assert (view["status"], view["sequence"]) == ("idle", second.session.sequence)


async def test_commits_carry_the_view_when_it_is_due_and_the_last_one_does(store: UnsteadyStore) -> None:
    clock = FakeClock(manual=True)
    actor = await claimed(store, clock, viewer="ana")
    await actor.commit(step("a"))
    clock.advance(PACE.views)
    await actor.commit(step("b"))
    await actor.commit(REPLY)
    await actor.commit(lambda session: release(finish(replace(session, outbox=()), clock.now())))
    assert store.carried == [False, False, True, False, True]
    view = json.loads(await store.get(contact_view(KEY.tenant, "ana", KEY.session)) or b"")
    assert (view["status"], view["sequence"]) == ("idle", actor.session.sequence)


async def test_another_wake_finds_a_live_lease_held(store: UnsteadyStore, clock: FakeClock) -> None:
    first = await claimed(store, clock)
    second = await loaded(store, clock)
    clock.advance(PACE.lease - 1)
    assert await claim(second, "another") is Work.HELD
    assert store.written == 1
    await first.commit(step("a"))  # extends the lease
    clock.advance(PACE.lease - 1)
    second = await loaded(store, clock)
    assert await claim(second, "another") is Work.HELD


async def test_the_same_wake_takes_over_at_once(store: UnsteadyStore, clock: FakeClock) -> None:
    first = await claimed(store, clock)
    second = await claimed(store, clock)
    assert run_of(second.session).attempt == 2
    with pytest.raises(Fenced):
        await first.commit()


async def test_of_two_that_claim_at_once_one_wins(store: UnsteadyStore, clock: FakeClock) -> None:
    await put(store, message(1))
    actors = [await loaded(store, clock) for _ in range(2)]
    found = await asyncio.gather(*(claim(actor, f"w{number}") for number, actor in enumerate(actors)))
    assert sorted(work.value for work in found) == ["held", "ready"]


async def test_there_is_nothing_to_claim_in_a_session_at_rest(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = await claimed(store, clock)
    await actor.commit(lambda session: replace(session, run=None, lease=None))
    assert await claim(await loaded(store, clock), "w2") is Work.NOTHING
    assert store.written == 2


async def test_a_session_that_does_not_exist_is_said_to(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = Actor(store, FakeFiles(lambda _: None), clock, KEY, PACE)
    assert not await actor.load()
    with pytest.raises(NotFound, match="there is none with id"):
        assert actor.session


async def test_a_long_effect_extends_the_lease(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = await claimed(store, clock, BRISK)
    before = store.written

    async def effect() -> str:
        for beats in (1, 2):
            clock.advance(5)
            await store.until(lambda: store.written == before + beats)  # noqa: B023  awaited within the loop
        return "done"

    assert await actor.keep(effect()) == "done"
    lease = (await loaded(store, clock)).session.lease
    assert lease is not None
    assert lease.until == BRISK.lease_end(NOON + timedelta(seconds=10))


async def test_effects_side_by_side_extend_the_lease_once(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = await claimed(store, clock, BRISK)
    before = store.written
    clock.advance(BRISK.lease / 3)

    over = asyncio.Event()
    effects = [asyncio.create_task(actor.keep(over.wait())) for _ in range(8)]
    await asyncio.wait(effects, timeout=BRISK.lease * 3)  # nine heartbeats of each
    assert store.written == before + 1
    over.set()
    assert await asyncio.gather(*effects) == [True] * 8


async def test_a_fence_ends_a_long_effect(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = await claimed(store, clock, BRISK)
    ended = asyncio.Event()

    async def effect() -> None:
        await claimed(store, clock)
        clock.advance(BRISK.lease / 3)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(Fenced):
        await actor.keep(effect())
    await asyncio.wait_for(ended.wait(), 5)


async def test_an_effect_outlives_a_store_that_is_down(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = await claimed(store, clock, BRISK)
    store.commits = ["down", "down"]

    async def effect() -> str:
        clock.advance(BRISK.lease / 3)
        await store.until(lambda: not store.commits)
        return "done"

    assert await actor.keep(effect()) == "done"
    await actor.commit(step("a"))
    assert steps(await stored_run(store, clock)) == ["a"]


async def test_an_effect_fails_as_itself(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = await claimed(store, clock)

    async def effect() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await actor.keep(effect())


async def test_what_is_held_back_is_shown_at_once_and_forgotten_in_a_crash(
    store: UnsteadyStore, clock: FakeClock
) -> None:
    actor = await claimed(store, clock)
    actor.hold(step("a"))
    actor.hold(step("b"))
    assert steps(run_of(actor.session)) == ["a", "b"]
    assert steps(await stored_run(store, clock)) == []
    await actor.commit(step("c"))
    assert store.written == 2
    assert steps(await stored_run(store, clock)) == ["a", "b", "c"]


async def test_what_is_held_back_during_a_commit_is_not_lost(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = await claimed(store, clock)
    store.commits = ["wait"]
    committing = asyncio.create_task(actor.commit(step("a")))
    await store.waits.wait()
    actor.hold(step("b"))
    assert steps(run_of(actor.session)) == ["a", "b"]
    store.go.set()
    await committing
    assert steps(run_of(actor.session)) == ["a", "b"]
    assert steps(await stored_run(store, clock)) == ["a"]
    await actor.commit()
    assert steps(await stored_run(store, clock)) == ["a", "b"]


async def test_two_commits_at_once_are_both_made(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = await claimed(store, clock)
    await asyncio.gather(actor.commit(step("a")), actor.commit(step("b")))
    assert sorted(steps(await stored_run(store, clock))) == ["a", "b"]


async def test_commits_get_through_a_rain_of_messages(store: UnsteadyStore, clock: FakeClock) -> None:
    actor = await claimed(store, clock)

    async def rain() -> None:
        for order in range(2, 22):
            await put(store, message(order))

    async def work() -> None:
        for number in range(5):
            await actor.commit(step(f"s{number}"))

    await asyncio.gather(rain(), work())
    session = (await loaded(store, clock)).session
    assert steps(run_of(session)) == [f"s{number}" for number in range(5)]
    assert len(session.inbox) == 20


async def test_the_tick_finds_a_holder_that_fell_silent(store: UnsteadyStore, clock: FakeClock) -> None:
    await claimed(store, clock)
    assert [key async for key in store.due(NOON + timedelta(seconds=59))] == []
    assert [key async for key in store.due(NOON + timedelta(seconds=60))] == [KEY]
