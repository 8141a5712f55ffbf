import asyncio
from datetime import UTC, datetime

from shared.domain import SessionKey, session_key
from shared.store import Archived
from tests.contract.conftest import Store, pending


async def archive(store: Store, key: SessionKey, numbers: list[int]) -> None:
    version: object = None
    for number in numbers:
        run = Archived(number=number, body=b"run %d" % number)
        version = await store.commit(key, version, state=b"done", due=None, archive=run)


async def test_a_run_that_was_never_archived_is_none(store: Store, key: SessionKey) -> None:
    await archive(store, key, [1])
    assert await store.run(key, 2) is None
    assert list(await store.runs(SessionKey(key.tenant, "f" * 32))) == []


async def test_runs_are_paged_from_the_newest_by_number_not_by_text(store: Store, key: SessionKey) -> None:
    await archive(store, key, [1, 2, 9, 10, 11, 99, 100, 101, 1000])
    pages = [await store.runs(key, before=before, limit=3) for before in (None, 100, 9)]
    assert [list(page) for page in pages] == [
        [b"run 1000", b"run 101", b"run 100"],
        [b"run 99", b"run 11", b"run 10"],
        [b"run 2", b"run 1"],
    ]
    assert list(await store.runs(key, before=1)) == []


async def test_runs_of_another_session_of_the_tenant_are_not_listed(store: Store, tenant: str) -> None:
    mine, other = (session_key(tenant, "connection", name) for name in ("mine", "other"))
    await archive(store, mine, [1])
    await archive(store, other, [2, 3])
    assert list(await store.runs(mine)) == [b"run 1"]


async def test_sessions_are_listed_from_the_last_changed_with_their_state(store: Store, tenant: str) -> None:
    keys = [session_key(tenant, "connection", str(number)) for number in range(3)]
    begun = datetime.now(UTC)
    versions = [await store.commit(key, None, state=b"claimed", due=None) for key in keys]
    assert [row.key for row in await store.sessions(tenant)] == keys[::-1]
    await store.commit(keys[0], versions[0], state=b"changed", due=None)
    rows = await store.sessions(tenant, limit=2)
    assert [(row.key, row.state) for row in rows] == [(keys[0], b"changed"), (keys[2], b"claimed")]
    assert begun <= rows[1].changed_at < rows[0].changed_at <= datetime.now(UTC)


async def test_a_session_is_listed_only_once_a_run_has_claimed_it(store: Store, tenant: str, key: SessionKey) -> None:
    claimed = session_key(tenant, "connection", "claimed before")
    await store.commit(claimed, None, state=b"claimed", due=None)
    await store.append(key, pending({"a": b"1"}), datetime.now(UTC))
    assert [row.key for row in await store.sessions(tenant, limit=1)] == [claimed]
    stored = await store.load(key)
    assert stored is not None
    await store.commit(key, stored.version, state=b"claimed", due=None)
    await store.append(key, pending({"b": b"2"}), datetime.now(UTC))
    assert [row.key for row in await store.sessions(tenant)] == [key, claimed]


async def test_a_tenant_without_sessions_has_an_empty_list(store: Store, tenant: str) -> None:
    others = [session_key(f"{tenant}{suffix}", "connection", "1") for suffix in ("-2", "0")]
    await asyncio.gather(*(store.commit(other, None, state=b"theirs", due=None) for other in others))
    assert list(await store.sessions(tenant)) == []
