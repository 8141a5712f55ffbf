import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain import SessionKey
from shared.errors import Conflict
from shared.store import Archived, Document
from tests.contract.conftest import OpenStore, Store


async def test_a_document_is_there_until_it_is_deleted(store: Store, tenant: str) -> None:
    path = f"tenants/{tenant}/plans/one"
    assert await store.get(path) is None
    await store.put(path, b"first")
    await store.put(path, b"second")
    assert await store.get(path) == b"second"
    await store.delete(path)
    assert await store.get(path) is None
    await store.delete(path)


async def test_a_list_has_the_documents_directly_in_the_collection_in_the_order_of_their_ids(
    store: Store, tenant: str
) -> None:
    root = f"tenants/{tenant}"
    for path in (f"{root}/plans/b", f"{root}/plans/a", f"{root}/plans/c", f"{root}/planets/a", root):
        await store.put(path, path.encode())
    await store.put("plans/d", b"of nobody")
    expected = [f"{root}/plans/{id_}" for id_ in "abc"]
    assert list(await store.list(f"{root}/plans")) == [(path, path.encode()) for path in expected]
    assert [path for path, _ in await store.list(f"{root}/plans", limit=2)] == expected[:2]
    assert [path for path, _ in await store.list("tenants")] == [root]
    assert list(await store.list(f"tenants/{tenant}-2/plans")) == []


async def test_every_character_that_an_id_may_have_is_kept_and_ordered_by_its_code(store: Store, tenant: str) -> None:
    ids = ["-", ".hidden", "0", "10", "9", ":", "A-b_c.d:e", "_", "a", "a.b", "a:b", "ab", "f" * 64]
    for id_ in reversed(ids):
        await store.put(f"tenants/{tenant}/things/{id_}", id_.encode())
    collection = f"tenants/{tenant}/things"
    assert list(await store.list(collection)) == [(f"{collection}/{id_}", id_.encode()) for id_ in ids]
    assert [await store.get(f"{collection}/{id_}") for id_ in ids] == [id_.encode() for id_ in ids]


@pytest.mark.parametrize(
    "body", [b"", bytes(range(256)), "água 🦤".encode() * 50_000], ids=["empty", "binary", "large"]
)
async def test_a_body_comes_back_byte_for_byte(store: Store, tenant: str, body: bytes) -> None:
    await store.put(f"tenants/{tenant}", body)
    assert await store.get(f"tenants/{tenant}") == body


async def test_whoever_follows_a_document_sees_what_others_write_to_it(open_store: OpenStore, tenant: str) -> None:
    here, elsewhere = open_store(), open_store()
    path = f"tenants/{tenant}/views/one"
    async with aclosing(here.follow(path)) as bodies, asyncio.timeout(20):
        first = asyncio.create_task(anext(bodies))
        await asyncio.sleep(0)  # it has asked before there is anything
        await elsewhere.put(path, b"1")
        assert await first == b"1"
        await elsewhere.put(f"tenants/{tenant}/views/two", b"other")
        await elsewhere.put(path, b"2")
        assert await anext(bodies) == b"2"


async def test_documents_are_written_with_the_commit_or_not_at_all(store: Store, key: SessionKey, tenant: str) -> None:
    path = f"tenants/{tenant}/views/one"
    version = await store.commit(key, None, state=b"{}", due=None, documents={path: Document(body=b"1")})
    assert await store.get(path) == b"1"
    with pytest.raises(Conflict):
        await store.commit(key, None, state=b"{}", due=None, documents={path: Document(body=b"2")})
    assert await store.get(path) == b"1"
    await store.commit(key, version, state=b"{}", due=None, documents={path: Document(body=b"3")})
    assert await store.get(path) == b"3"


async def test_what_will_expire_is_there_until_then(store: Store, key: SessionKey, tenant: str) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    archive = Archived(number=1, body=b"run", expires_at=until)
    one, two = (f"tenants/{tenant}/receipts/{name}" for name in ("one", "two"))
    documents = {one: Document(body=b"first", expires_at=until)}
    await store.commit(key, None, state=b"{}", due=None, archive=archive, documents=documents)
    await store.put(two, b"second", until)
    assert await store.run(key, 1) == b"run"
    assert [body for _, body in await store.list(f"tenants/{tenant}/receipts")] == [b"first", b"second"]
