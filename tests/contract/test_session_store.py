import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from shared.domain import SessionKey
from shared.errors import Conflict
from shared.store import SHARDS, Archived, Pending, Stored
from tests.contract.conftest import OpenStore, Store, pending

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WATCH_SECONDS = 10


async def load(store: Store, key: SessionKey) -> Stored:
    stored = await store.load(key)
    assert stored is not None
    return stored


async def commit(store: Store, key: SessionKey, version: object, state: bytes, due: datetime | None = None) -> object:
    return await store.commit(key, version, state=state, due=due)


async def test_the_first_append_makes_the_document(store: Store, key: SessionKey) -> None:
    assert await store.load(key) is None
    await store.append(key, pending({"a": b"1", "b": b"2"}), NOW)
    stored = await load(store, key)
    assert stored.state is None
    assert stored.inbox == {"a": b"1", "b": b"2"}


async def test_the_same_entry_again_changes_nothing_but_the_version(store: Store, key: SessionKey) -> None:
    await store.append(key, pending({"a": b"1"}), NOW)
    before = await load(store, key)
    await store.append(key, pending({"a": b"1"}), NOW + timedelta(seconds=1))
    after = await load(store, key)
    assert after.inbox == {"a": b"1"}
    assert after.version != before.version


async def test_an_append_leaves_the_state_and_the_entries_before_it(store: Store, key: SessionKey) -> None:
    await commit(store, key, None, b"state")
    await store.append(key, pending({"a": b"1"}), NOW)
    await store.append(key, pending({"b": b"2"}), NOW)
    stored = await load(store, key)
    assert (stored.state, stored.inbox) == (b"state", {"a": b"1", "b": b"2"})


async def test_appends_at_once_and_in_any_order_all_land(store: Store, tenant: str) -> None:
    forwards, backwards = SessionKey(tenant, "a" * 32), SessionKey(tenant, "b" * 32)
    entries = [{f"{number:032x}": b"%d" % number} for number in range(20)]
    await asyncio.gather(*(store.append(forwards, pending(entry), NOW) for entry in entries))
    await asyncio.gather(*(store.append(backwards, pending(entry), NOW) for entry in reversed(entries)))
    expected = {id_: body for entry in entries for id_, body in entry.items()}
    assert (await load(store, forwards)).inbox == (await load(store, backwards)).inbox == expected


async def test_a_commit_replaces_the_state_and_takes_entries_away(store: Store, key: SessionKey) -> None:
    await store.append(key, pending({"a": b"1", "b": b"2"}), NOW)
    version = (await load(store, key)).version
    await store.commit(key, version, state=b"claimed a", remove=["a"], due=None)
    stored = await load(store, key)
    assert (stored.state, stored.inbox) == (b"claimed a", {"b": b"2"})


async def test_a_commit_gives_the_version_for_the_next_one_and_spends_the_old(store: Store, key: SessionKey) -> None:
    first = await commit(store, key, None, b"1")
    second = await commit(store, key, first, b"2")
    await commit(store, key, second, b"3")
    with pytest.raises(Conflict):
        await commit(store, key, second, b"never")
    assert (await load(store, key)).state == b"3"


async def test_an_append_during_a_run_makes_its_commit_conflict(store: Store, key: SessionKey) -> None:
    version = await commit(store, key, None, b"running")
    await store.append(key, pending({"a": b"wait, I meant"}), NOW)
    with pytest.raises(Conflict):
        await commit(store, key, version, b"done")
    stored = await load(store, key)
    assert (stored.state, stored.inbox) == (b"running", {"a": b"wait, I meant"})
    await commit(store, key, stored.version, b"done")


async def test_of_many_commits_at_once_exactly_one_wins(store: Store, key: SessionKey) -> None:
    version: object = None
    for _ in range(3):  # the first round makes the document
        results = await asyncio.gather(
            *(commit(store, key, version, b"%d" % number) for number in range(20)), return_exceptions=True
        )
        winners = [number for number, result in enumerate(results) if not isinstance(result, BaseException)]
        assert len(winners) == 1
        assert all(isinstance(result, Conflict) for number, result in enumerate(results) if number not in winners)
        assert (await load(store, key)).state == b"%d" % winners[0]
        version = results[winners[0]]


async def test_increments_of_many_writers_all_land(open_store: OpenStore, key: SessionKey) -> None:
    async def count(store: Store, times: int) -> None:
        while times:
            stored = await load(store, key)
            try:
                await commit(store, key, stored.version, b"%d" % (int(stored.state or b"0") + 1))
            except Conflict:
                continue
            times -= 1

    stores = [open_store(), open_store()]
    await commit(stores[0], key, None, b"0")
    await asyncio.gather(*(count(store, 10) for store in stores for _ in range(4)))
    assert (await load(stores[0], key)).state == b"80"


async def test_no_version_asserts_that_not_even_an_append_has_written(store: Store, key: SessionKey) -> None:
    await store.append(key, pending({"a": b"1"}), NOW)
    with pytest.raises(Conflict):
        await commit(store, key, None, b"claimed")
    assert (await load(store, key)).state is None


async def test_a_commit_and_its_archived_run_are_written_together(store: Store, key: SessionKey) -> None:
    version = await commit(store, key, None, b"running")
    await store.commit(key, version, state=b"done", due=None, archive=Archived(number=1, body=b"run 1"))
    assert (await load(store, key)).state == b"done"
    assert await store.run(key, 1) == b"run 1"


async def test_a_refused_commit_archives_nothing(store: Store, key: SessionKey) -> None:
    version = await commit(store, key, None, b"running")
    await store.append(key, pending({"a": b"1"}), NOW)
    for stale in (version, None):
        with pytest.raises(Conflict):
            await store.commit(key, stale, state=b"done", due=None, archive=Archived(number=1, body=b"run"))
    assert await store.run(key, 1) is None


async def test_tenants_with_the_same_session_id_see_only_their_own(store: Store, tenant: str) -> None:
    mine, theirs = SessionKey(tenant, "a" * 32), SessionKey(f"{tenant}-2", "a" * 32)
    await store.commit(mine, None, state=b"mine", due=NOW, archive=Archived(number=1, body=b"my run"))
    assert await store.load(theirs) is None
    assert await store.run(theirs, 1) is None
    assert list(await store.runs(theirs)) == []
    await store.append(theirs, pending({"a": b"theirs"}), NOW)
    version = (await load(store, theirs)).version
    await commit(store, theirs, version, b"theirs")
    stored = await load(store, mine)
    assert (stored.state, stored.inbox) == (b"mine", {})
    assert [row.key for row in await store.sessions(tenant)] == [mine]
    assert await store.run(mine, 1) == b"my run"


async def test_values_come_back_byte_for_byte_up_to_600_kilobytes(store: Store, key: SessionKey) -> None:
    state = (bytes(range(256)) + "olá, ñandú 🦤\0".encode()) * 2150
    assert 590_000 < len(state) < 600_000
    entry, run = bytes(reversed(range(256))), state[1:]
    version = await store.commit(key, None, state=b"", due=None, archive=Archived(number=1, body=run))
    await commit(store, key, version, state)
    await store.append(key, pending({"a": entry}), None)
    stored = await load(store, key)
    assert stored.state == state
    assert stored.inbox == {"a": entry}
    assert await store.run(key, 1) == run


# An inbox of any size


def numbered(numbers: range) -> dict[str, Pending]:
    """Entries of 580 bytes, ranked by their number, with ids that begin with digits and with letters."""
    bodies = {number: b"%06d" % number + b"." * 574 for number in numbers}
    return {sha256(body).hexdigest()[:32]: Pending(body=body, rank=number) for number, body in bodies.items()}


async def append_each(store: Store, key: SessionKey, entries: Mapping[str, Pending]) -> None:
    for id_, entry in entries.items():
        await store.append(key, {id_: entry}, NOW)


async def drain(store: Store, key: SessionKey, at_once: int = 150) -> list[int]:
    """Takes all entries out, the lowest ranks first: their numbers in the order in which they were taken."""
    taken: list[int] = []
    while (stored := await load(store, key)).inbox:
        ranks = sorted((int(body[:6]), id_) for id_, body in stored.inbox.items())
        part = [(rank, id_) for rank, id_ in ranks if stored.read_to is None or rank <= stored.read_to][:at_once]
        with suppress(Conflict):
            remove = [id_ for _, id_ in part]
            await store.commit(key, stored.version, state=b"%d" % len(taken), remove=remove, due=NOW)
            taken += [rank for rank, _ in part]
    return taken


async def test_2000_entries_are_taken_and_come_out_in_their_order_while_more_come_in(
    open_store: OpenStore, key: SessionKey
) -> None:
    store, elsewhere = open_store(), open_store()
    for start in range(0, 2000, 100):  # by 20 at once, each with 5
        parts = [numbered(range(first, first + 5)) for first in range(start, start + 100, 5)]
        await asyncio.gather(*(store.append(key, part, NOW) for part in parts))
    more = asyncio.create_task(append_each(elsewhere, key, numbered(range(2000, 2100))))
    taken = await drain(store, key)
    await more
    taken += await drain(store, key)
    assert taken == list(range(2100))


async def test_a_control_entry_comes_with_the_next_load_however_many_wait(store: Store, key: SessionKey) -> None:
    await append_each(store, key, pending({f"{number:032x}": b"x" * 20_000 for number in range(60)}, 1))
    await store.append(key, pending({f"f{number:031x}": b"x" * 100 for number in range(600)}, 2), NOW)
    await store.append(key, pending({"stop": b"stop"}), NOW)
    stored = await load(store, key)
    assert stored.more
    assert stored.inbox["stop"] == b"stop"
    await store.commit(key, stored.version, state=b"stopped", remove=["stop"], due=NOW)
    assert "stop" not in (await load(store, key)).inbox


async def test_an_entry_that_the_document_had_no_room_for_makes_a_commit_conflict(
    store: Store, key: SessionKey
) -> None:
    await append_each(store, key, pending({f"{number:032x}": b"x" * 20_000 for number in range(52)}, 1))
    stored = await load(store, key)
    await store.append(key, pending({"late": b"x" * 20_000}), NOW)
    with pytest.raises(Conflict):
        await commit(store, key, stored.version, b"has not seen it")
    assert (await load(store, key)).inbox.keys() == stored.inbox.keys() | {"late"}


async def test_the_same_entry_again_is_in_the_inbox_once_wherever_it_lies(store: Store, key: SessionKey) -> None:
    full = pending({f"{number:032x}": b"x" * 20_000 for number in range(53)}, 1)
    await append_each(store, key, full)
    await append_each(store, key, full)
    stored = await load(store, key)
    assert stored.inbox.keys() == full.keys()
    version = await store.commit(key, stored.version, state=b"", remove=list(full)[:20], due=NOW)
    await append_each(store, key, dict(list(full.items())[50:]))  # now there is room
    with pytest.raises(Conflict):
        await commit(store, key, version, b"")
    stored = await load(store, key)
    assert stored.inbox.keys() == set(list(full)[20:])
    await store.commit(key, stored.version, state=b"", remove=stored.inbox.keys(), due=None)
    assert (await load(store, key)).inbox == {}


async def test_an_inbox_that_fills_the_document_makes_room_by_what_it_spills(store: Store, key: SessionKey) -> None:
    entries = numbered(range(1700))
    await store.append(key, entries, NOW)
    stored = await load(store, key)
    ids = sorted(stored.inbox, key=lambda id_: stored.inbox[id_])
    assert len(ids) >= 500  # Firestore: all, in one document
    spill = {id_: entries[id_] for id_ in ids[50:450]}
    version = await store.commit(key, stored.version, state=b"x" * 200_000, remove=ids[:10], spill=spill, due=NOW)
    await store.commit(key, version, state=b"x" * 200_001, remove=ids[10:20], due=NOW)
    assert await drain(store, key, at_once=1700) == list(range(20, 1700))


async def test_what_is_removed_does_not_spill(store: Store, key: SessionKey) -> None:
    entries = pending({"a": b"1", "b": b"2", "0c": b"3"})
    await store.append(key, entries, NOW)
    version = (await load(store, key)).version
    await store.commit(key, version, state=b"", remove=["a", "unknown"], spill=entries, due=NOW)
    assert (await load(store, key)).inbox == {"b": b"2", "0c": b"3"}


# What the tick sees


def in_range(tenant: str, number: int, session: int = 0) -> SessionKey:
    """A session of the range with that number."""
    return SessionKey(tenant, f"{number:08x}{session:024x}")


async def due(store: Store, before: datetime) -> list[SessionKey]:
    return [key async for key in store.due(before)]


async def test_due_finds_what_is_due_in_every_range_and_of_every_tenant(store: Store, tenant: str) -> None:
    keys = [in_range(f"{tenant}-{number % 2}", number) for number in range(SHARDS)]
    await asyncio.gather(*(store.append(key, pending({"a": b"1"}), NOW) for key in keys))
    assert sorted(await due(store, NOW), key=repr) == sorted(keys, key=repr)
    assert await due(store, NOW - timedelta(minutes=1)) == []


async def test_due_finds_a_session_at_the_very_instant_it_is_due(store: Store, key: SessionKey) -> None:
    instant = NOW + timedelta(microseconds=999_999)
    await store.append(key, pending({"a": b"1"}), instant)
    assert await due(store, NOW - timedelta(seconds=1)) == []
    assert await due(store, instant) == [key]


async def test_due_gives_the_longest_due_of_a_range_first(store: Store, tenant: str) -> None:
    keys = [in_range(tenant, 5, session) for session in range(4)]
    for minutes, key in enumerate(reversed(keys)):
        await commit(store, key, None, b"waits", NOW + timedelta(minutes=minutes))
    assert await due(store, NOW + timedelta(hours=1)) == keys[::-1]
    assert await due(store, NOW + timedelta(minutes=1)) == [keys[3], keys[2]]


async def test_due_gives_250_sessions_of_one_instant_once_each(store: Store, tenant: str) -> None:
    keys = {in_range(tenant, 5, session) for session in range(250)} | {in_range(tenant, 6)}
    await asyncio.gather(*(store.append(key, pending({"a": b"1"}), NOW) for key in keys))
    found = await due(store, NOW)
    assert len(found) == 251
    assert set(found) == keys


async def test_due_gives_a_session_once_that_becomes_due_anew_while_it_is_read(store: Store, tenant: str) -> None:
    keys = [in_range(tenant, 5, session) for session in range(150)]
    await asyncio.gather(*(store.append(key, pending({"a": b"1"}), NOW) for key in keys))
    found: list[SessionKey] = []
    async for key in store.due(NOW + timedelta(hours=1)):
        if not found:
            await store.append(key, pending({"b": b"2"}), NOW + timedelta(minutes=1))
        found.append(key)
    assert sorted(found, key=repr) == sorted(keys, key=repr)


async def test_every_write_decides_anew_when_the_session_is_due(store: Store, key: SessionKey) -> None:
    async def due_at() -> Sequence[datetime]:
        times = [NOW + timedelta(hours=hour) for hour in range(4)]
        return [time for time in times if key in await due(store, time)][:1]

    await store.append(key, pending({"a": b"1"}), NOW + timedelta(hours=2))
    assert await due_at() == [NOW + timedelta(hours=2)]
    await store.append(key, pending({"b": b"2"}), NOW + timedelta(hours=1))
    assert await due_at() == [NOW + timedelta(hours=1)]
    version = await commit(store, key, (await load(store, key)).version, b"waits", NOW + timedelta(hours=3))
    assert await due_at() == [NOW + timedelta(hours=3)]
    await commit(store, key, version, b"quiescent", None)
    assert await due_at() == []


# Watching


async def until(watch: AsyncIterator[Stored], state: bytes | None, inbox: Sequence[str] = ()) -> None:
    async with asyncio.timeout(WATCH_SECONDS):
        async for stored in watch:
            if stored.state == state and set(stored.inbox) == set(inbox):
                return


async def test_a_watch_gives_the_document_as_it_is_at_first(store: Store, key: SessionKey) -> None:
    await store.append(key, pending({"a": b"1"}), None)
    await commit(store, key, (await load(store, key)).version, b"state")
    async with aclosing(store.watch(key)) as watch, asyncio.timeout(WATCH_SECONDS):
        stored = await anext(watch)
    assert (stored.state, stored.inbox) == (b"state", {"a": b"1"})
    assert await commit(store, key, stored.version, b"next") != stored.version


async def test_a_watch_that_began_before_the_document_sees_what_others_write(
    open_store: OpenStore, key: SessionKey
) -> None:
    here, elsewhere = open_store(), open_store()
    async with aclosing(here.watch(key)) as watch:
        first = asyncio.create_task(until(watch, None, ["a"]))
        await asyncio.sleep(0)  # the watch has asked before there is anything
        await elsewhere.append(key, pending({"a": b"1"}), NOW)
        await first
        version = await commit(elsewhere, key, (await load(elsewhere, key)).version, b"1")
        await until(watch, b"1", ["a"])
        await commit(here, key, version, b"2")
        await until(watch, b"2", ["a"])


async def test_a_watch_is_silent_while_its_session_does_not_change(store: Store, tenant: str) -> None:
    mine, other = SessionKey(tenant, "a" * 32), SessionKey(tenant, "b" * 32)
    version = await commit(store, mine, None, b"1")
    async with aclosing(store.watch(mine)) as watch:
        await until(watch, b"1")
        following = asyncio.ensure_future(anext(watch))
        await commit(store, other, None, b"2")
        assert await asyncio.wait([following], timeout=0.3) == (set(), {following})
        await commit(store, mine, version, b"2")
        assert (await asyncio.wait_for(following, WATCH_SECONDS)).state == b"2"


async def test_watchers_of_one_session_do_not_disturb_each_other(store: Store, key: SessionKey) -> None:
    async with aclosing(store.watch(key)) as one:
        async with aclosing(store.watch(key)) as two:
            version = await commit(store, key, None, b"1")
            await asyncio.gather(until(one, b"1"), until(two, b"1"))
        await commit(store, key, version, b"2")
        await until(one, b"2")
