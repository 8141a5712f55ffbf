"""The simulation: it runs the same way each time, its store behaves as a real one, and it finds what is broken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from shared.domain import SessionKey
from shared.errors import Conflict
from shared.store import Archived, Document, Pending, Stored
from shared.store.sqlite import SqliteStore
from tests.chaos.memory import MemoryStore
from tests.chaos.simulation.broken import BROKEN
from tests.chaos.simulation.loop import Deadlock, VirtualLoop, run
from tests.chaos.simulation.program import program
from tests.chaos.simulation.simulate import simulate
from tests.chaos.simulation.stories import STORIES, singles, told
from tests.clock import NOON, FakeClock

KEYS = [SessionKey("acme", letter * 32) for letter in "ab"]
Store = MemoryStore | SqliteStore
SEEDS = range(1, 51)


def test_time_jumps_to_the_next_timer_and_timers_end_in_order() -> None:
    ended: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append((name, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(sleep("day", 86_400.0), sleep("second", 1.0))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10.0):
                await asyncio.Event().wait()

    run(main())
    assert ended == [("second", 1.0), ("day", 86_400.0)]


def test_a_program_in_which_everybody_waits_ends() -> None:
    with pytest.raises(Deadlock):
        run(asyncio.Event().wait())


def test_a_loop_begins_at_zero() -> None:
    loop = VirtualLoop()
    assert loop.time() == 0.0
    loop.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_violated(seed: int) -> None:
    assert simulate(program(seed)).violations == ()


def test_the_same_seed_always_has_the_same_outcome() -> None:
    for seed in (3, 4, 5):
        assert simulate(program(seed)) == simulate(program(seed))
        assert program(seed) != program(seed + 1)


@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_broken_protocol_is_found(broken: str) -> None:
    assert any(simulate(program(seed), store=BROKEN[broken]).violations for seed in range(10, 60))


@pytest.mark.parametrize("story", sorted(STORIES))
def test_a_story_survives_a_crash_at_every_point(story: str) -> None:
    outcomes = [told(story, at) for at in singles(story)]
    assert [outcome.violations for outcome in outcomes] == [()] * len(outcomes)
    calm, *crashed = outcomes
    assert (calm.faults, calm.duplicate_sends) == (0, 0)
    assert all(outcome.faults == 1 for outcome in crashed)


def test_a_channel_that_loses_messages_is_found() -> None:
    """Whoever says that a message was accepted before it is stored loses it in a crash."""
    lost = replace(STORIES["plain"], accepts_early=True)
    outcomes = [simulate(replace(lost, kills_at=frozenset({at}))) for at in range(4)]
    assert "lost" in {kind for outcome in outcomes for kind, _ in outcome.violations}


async def test_the_store_in_memory_behaves_as_the_embedded_one(tmp_path: Path) -> None:
    real = SqliteStore(tmp_path / "sessions.db", clock=FakeClock())
    for seed in range(20):
        memory = MemoryStore(FakeClock(), room=3, page=1000)
        keys = [SessionKey(f"t{seed}", key.session) for key in KEYS]
        assert await _use(memory, Random(seed), keys) == await _use(real, Random(seed), keys)  # noqa: S311
    await real.aclose()


async def test_what_has_no_room_is_read_in_pages_by_rank() -> None:
    store = MemoryStore(FakeClock(), room=1, page=2)
    entries = {f"e{rank}": Pending(body=b"%d" % rank, rank=rank) for rank in (0, 4, 3, 2, 1)}
    await store.append(KEYS[0], entries, NOON)
    first = await store.load(KEYS[0])
    assert first is not None
    assert (set(first.inbox), first.more, first.read_to) == ({"e0", "e1", "e2"}, True, 2)
    await store.commit(KEYS[0], first.version, state=b"", remove=first.inbox.keys(), due=None)
    second = await store.load(KEYS[0])
    assert second is not None
    assert (set(second.inbox), second.more) == ({"e3", "e4"}, False)


async def _use(store: Store, random: Random, keys: Sequence[SessionKey]) -> list[object]:
    """What a caller sees of a random sequence of operations. Versions are opaque: which of them are equal is seen."""
    seen: list[object] = []
    versions: dict[SessionKey, list[object]] = {key: [None] for key in keys}
    for number in range(60):
        key = random.choice(keys)
        what = random.choice(("append", "load", "commit", "commit", "due", "runs", "put", "list"))
        at = NOON + timedelta(seconds=random.randrange(100) + 0.5)
        if what == "append":
            due = random.choice((at, None))
            await store.append(key, dict(_entry(random) for _ in range(2)), due)
        elif what == "load":
            stored = await store.load(key)
            seen.append(_shown(stored))
            if stored is not None:
                versions[key].append(stored.version)
        elif what == "commit":
            seen.append(await _commit(store, random, key, versions[key], number))
        elif what == "due":
            async with aclosing(store.due(at)) as found:
                seen.append([due.session async for due in found if due in keys])
        elif what == "runs":
            seen.append((await store.runs(key, before=random.choice((None, 2)), limit=2), await store.run(key, 1)))
        elif what == "put":
            await store.put(f"tenants/{keys[0].tenant}/x/{random.randrange(4)}", b"%d" % number)
        else:
            seen.append(await store.list(f"tenants/{keys[0].tenant}/x", limit=3))
    seen += [_shown(await store.load(key)) for key in keys]
    seen.append(
        [(row.key, row.state) for row in sorted(await store.sessions(keys[0].tenant), key=lambda row: row.key.session)]
    )
    return seen


async def _commit(store: Store, random: Random, key: SessionKey, versions: list[object], number: int) -> object:
    version = random.choice(versions[-2:])
    remove = [f"e{random.randrange(6)}" for _ in range(2)]
    spill = dict([_entry(random)])
    try:
        new = await store.commit(
            key,
            version,
            state=b"state %d" % number,
            remove=remove,
            spill={id_: entry for id_, entry in spill.items() if id_ not in remove},
            due=random.choice((None, NOON + timedelta(seconds=number))),
            archive=Archived(number=random.randrange(4), body=b"run %d" % number) if random.random() < 0.3 else None,
            documents={f"tenants/{key.tenant}/x/{random.randrange(4)}": Document(body=b"%d" % number)},
        )
    except Conflict:
        return "conflict"
    versions.append(new)
    return "committed"


def _entry(random: Random) -> tuple[str, Pending]:
    number = random.randrange(6)
    return f"e{number}", Pending(body=b"entry %d" % number, rank=number)


def _shown(stored: Stored | None) -> object:
    return None if stored is None else (stored.state, dict(stored.inbox), stored.more)
