"""An inbox that outgrows its document: what Firestore alone makes hard about it, and what it costs."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from google.cloud.firestore_v1.types import CommitResponse, RunQueryResponse

from shared.domain import SessionKey, session_key
from shared.errors import Conflict, TooLarge
from shared.store.firestore import FirestoreStore
from tests.contract.conftest import pending
from tests.contract.passing import Passing, passed_on

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
KEY = session_key("tenant", "connection", "conversation")


class Counting(Passing):
    """Counts what Firestore bills: documents written or deleted, and documents read."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self._writes = self._reads = 0

    def spent(self) -> tuple[int, int]:
        """(writes and deletes, reads) since it was last asked."""
        spent = (self._writes, self._reads)
        self._writes = self._reads = 0
        return spent

    async def after(self, method: str, response: bytes) -> AsyncIterator[bytes]:
        if method.endswith("/Commit"):
            self._writes += len(CommitResponse.deserialize(response).write_results)
        elif method.endswith("/BatchGetDocuments"):
            self._reads += 1
        elif method.endswith("/RunQuery"):
            self._reads += "document" in RunQueryResponse.deserialize(response)
        else:
            raise AssertionError(f"{method} is not counted")
        yield response


@pytest.fixture
async def store(firestore_host: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FirestoreStore]:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_host)
    store = FirestoreStore(f"firestore-{secrets.token_hex(6)}")
    yield store
    await store.aclose()


async def marked(store: FirestoreStore, key: SessionKey) -> bool:
    return "overflow" in ((await store._session(key).get()).to_dict() or {})


async def fill(store: FirestoreStore, key: SessionKey) -> None:
    """Make the document so full that it has room for no mark; found by halving, on documents of other sessions."""

    async def fits(size: int) -> bool:
        other = session_key(key.tenant, "connection", str(size))
        await append(other, size)
        return not await marked(store, other)

    async def append(to: SessionKey, size: int) -> None:
        for id_, body in (("half", b"x" * 524_288), ("rest", b"x" * size)):
            await store.append(to, pending({id_: body}, 1), None)

    fitting, refused = 500_000, 524_288
    while refused - fitting > 1:
        size = (fitting + refused) // 2
        fitting, refused = (size, refused) if await fits(size) else (fitting, size)
    await append(key, fitting)


async def found(store: FirestoreStore, key: SessionKey) -> set[str]:
    stored = await store.load(key)
    return set(stored.inbox) if stored else set()


async def test_an_entry_is_found_although_the_document_was_too_full_to_be_marked(store: FirestoreStore) -> None:
    await fill(store, KEY)
    before = await store.load(KEY)
    assert before
    await store.append(KEY, pending({"late": b"1"}), NOW)
    assert not await marked(store, KEY)
    assert await found(store, KEY) == {"half", "rest", "late"}
    version = await store.commit(KEY, before.version, state=b"knows nothing of it", remove=before.inbox, due=NOW)
    await store.commit(KEY, version, state=b"has not looked since", due=NOW)
    stored = await store.load(KEY)
    assert stored
    assert stored.inbox == {"late": b"1"}
    await store.commit(KEY, stored.version, state=b"", remove=["late"], due=None)
    assert (await found(store, KEY), await marked(store, KEY)) == (set(), False)


async def test_an_entry_is_found_although_a_commit_had_filled_the_document(store: FirestoreStore) -> None:
    version = await store.commit(KEY, None, state=b"x" * 1_048_300, due=None)
    await store.append(KEY, pending({"late": b"1" * 500}), None)
    with pytest.raises(Conflict):
        await store.commit(KEY, version, state=b"small", due=None)
    other = session_key("tenant", "connection", "with no mark for the entry itself")
    version = await store.commit(other, None, state=b"x" * 1_048_300, due=None)
    await store._client.document(f"tenants/tenant/sessions/{other.session}/inbox/late").set({"rank": 1, "body": b"1"})
    await store.commit(other, version, state=b"small", due=None)
    assert (await found(store, KEY), await found(store, other)) == ({"late"}, {"late"})


async def test_an_entry_that_no_document_can_hold_is_too_large_and_changes_nothing(store: FirestoreStore) -> None:
    await store.append(KEY, pending({"a": b"1"}), NOW)
    before = await store.load(KEY)
    with pytest.raises(TooLarge, match="1 MiB"):
        await store.append(KEY, pending({"b": b"2", "c": b"x" * 1_048_577}), NOW)
    assert await store.load(KEY) == before


async def test_a_state_that_the_inbox_leaves_no_room_for_fits_once_entries_spill(store: FirestoreStore) -> None:
    entries = pending({f"{number:032x}": b"x" * 10_000 for number in range(100)}, 1)
    await store.append(KEY, entries, NOW)
    stored = await store.load(KEY)
    assert stored
    state = b"x" * 600_000
    with pytest.raises(TooLarge):
        await store.commit(KEY, stored.version, state=state, due=NOW)
    await store.commit(KEY, stored.version, state=state, spill=dict(list(entries.items())[-80:]), due=NOW)
    stored = await store.load(KEY)
    assert stored
    assert (len(stored.state or b""), stored.inbox.keys()) == (600_000, entries.keys())


async def test_what_is_billed_without_overflow_is_1_write_1_write_and_1_read(
    firestore_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(firestore_host)
    async with passed_on(counting, monkeypatch) as store:
        await store.append(KEY, pending({f"{number:032x}": b"x" * 600 for number in range(100)}, 1), NOW)
        assert counting.spent() == (1, 0)
        stored = await store.load(KEY)
        assert counting.spent() == (0, 1)
        assert stored
        await store.commit(KEY, stored.version, state=b"x" * 500_000, remove=stored.inbox, due=NOW)
        assert counting.spent() == (1, 0)


async def test_what_is_billed_with_overflow_ends_with_it(firestore_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(firestore_host)
    async with passed_on(counting, monkeypatch) as store:
        for number in range(52):
            await store.append(KEY, pending({f"{number:032x}": b"x" * 20_000}, 1), NOW)
        assert counting.spent() == (52, 0)
        await store.append(KEY, pending({"late": b"x" * 20_000}, 1), NOW)
        assert counting.spent() == (2, 0)
        stored = await store.load(KEY)
        assert stored
        assert counting.spent() == (0, 2)
        await store.commit(KEY, stored.version, state=b"", remove=stored.inbox, due=NOW)
        assert counting.spent() == (2, 0)
        stored = await store.load(KEY)  # an entry put beside the large document might not be marked
        assert stored
        await store.commit(KEY, stored.version, state=b"", due=NOW)
        counting.spent()
        assert await store.load(KEY)
        assert counting.spent() == (0, 1)
