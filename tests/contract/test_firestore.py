"""What is Firestore's own, beyond the suite that every store passes."""

import asyncio
import json
import secrets
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import httpx
import pytest

from shared.domain import session_key
from shared.errors import StoreDown, TooLarge
from shared.store import Archived, Document
from shared.store.firestore import REOPEN_SECONDS, FirestoreStore
from tests.contract.conftest import pending
from tests.contract.passing import Passing, passed_on
from tests.engines import free_port

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
KEY = session_key("tenant", "connection", "conversation")
WAIT_SECONDS = 10


class Line:
    """A loopback port through which the emulator is reached, until the test cuts the connections."""

    def __init__(self, host: str) -> None:
        self._target = host.rsplit(":", 1)
        self._writers: list[asyncio.StreamWriter] = []
        self._pipes: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._target[0], int(self._target[1]))
        self._writers += [writer, far_writer]
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pipe(source, target))
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        target.close()

    def cut(self) -> None:
        """Break every connection; new ones work."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def aclose(self) -> None:
        self.cut()
        await asyncio.gather(*self._pipes)


class Spoiling(Passing):
    """Does once what the emulator does now and then: the first write is cancelled, as when a watcher leaves at that
    moment; the first stream of changes begins with bytes that are no message."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.cancelled = False
        self.spoilt = asyncio.Event()

    async def before(self, method: str, context: Any) -> None:
        if method.endswith("/Commit") and not self.cancelled:
            self.cancelled = True
            await context.abort(grpc.StatusCode.CANCELLED, "call already cancelled")

    async def after(self, method: str, response: bytes) -> AsyncIterator[bytes]:
        if method.endswith("/Listen") and not self.spoilt.is_set():
            yield b"\xff"
            self.spoilt.set()
        yield response


class Refusing(Passing):
    """Counts the calls of each kind. While it refuses, a stream is told that Firestore has removed its target."""

    def __init__(self, host: str, *, refuses: bool = False) -> None:
        super().__init__(host)
        self.refuses = refuses
        self.calls: Counter[str] = Counter()

    async def before(self, method: str, context: Any) -> None:
        self.calls[method.rpartition("/")[2]] += 1

    async def after(self, method: str, response: bytes) -> AsyncIterator[bytes]:
        if self.refuses and method.endswith("/Listen"):
            response = _removed()
        yield response


def _removed() -> bytes:
    from google.cloud.firestore_v1.types import ListenResponse, TargetChange
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no types

    change = TargetChange(
        target_change_type=TargetChange.TargetChangeType.REMOVE, cause=Status(code=7, message="not for you")
    )
    return bytes(ListenResponse.serialize(ListenResponse(target_change=change)))


@pytest.fixture
async def spoilt(
    firestore_host: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FirestoreStore, Spoiling]]:
    spoiling = Spoiling(firestore_host)
    async with passed_on(spoiling, monkeypatch) as store:
        yield store, spoiling


@pytest.fixture
async def line(firestore_host: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    line = Line(firestore_host)
    server = await asyncio.start_server(line, "127.0.0.1", 0)
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    yield line
    server.close()
    await line.aclose()


@pytest.fixture
async def store(line: Line) -> AsyncIterator[FirestoreStore]:
    store = FirestoreStore(f"firestore-{secrets.token_hex(6)}")
    yield store
    await store.aclose()


async def test_a_state_that_firestore_cannot_hold_is_too_large_and_changes_nothing(store: FirestoreStore) -> None:
    await store.append(KEY, pending({"a": b"1"}), NOW)
    before = await store.load(KEY)
    assert before is not None
    with pytest.raises(TooLarge, match="1 MiB"):
        await store.commit(KEY, before.version, state=b"x" * 1_048_577, due=None)
    assert await store.load(KEY) == before


async def test_an_append_of_nothing_takes_nothing_away(store: FirestoreStore) -> None:
    await store.append(KEY, pending({"a": b"1"}), NOW)
    await store.append(KEY, {}, NOW)
    stored = await store.load(KEY)
    assert stored is not None
    assert stored.inbox == {"a": b"1"}


async def test_a_write_that_the_emulator_cancelled_is_written_again(spoilt: tuple[FirestoreStore, Spoiling]) -> None:
    store, spoiling = spoilt
    await store.append(KEY, pending({"a": b"1"}), NOW)
    assert spoiling.cancelled
    stored = await store.load(KEY)
    assert stored is not None
    assert stored.inbox == {"a": b"1"}


async def test_a_watch_goes_on_after_its_stream_broke(store: FirestoreStore, line: Line) -> None:
    await store.commit(KEY, None, state=b"first", due=None)
    watched = store.watch(KEY)
    assert (await anext(watched)).state == b"first"
    await store.append(KEY, pending({"a": b"1"}), NOW)
    assert (await anext(watched)).inbox == {"a": b"1"}  # only a stream that is open could tell
    following = asyncio.ensure_future(anext(watched))
    await asyncio.sleep(0)  # it listens again
    line.cut()
    await store.append(KEY, pending({"b": b"2"}), NOW)
    assert (await asyncio.wait_for(following, WAIT_SECONDS)).inbox == {"a": b"1", "b": b"2"}


async def test_a_watch_goes_on_after_a_message_that_nobody_can_read(
    spoilt: tuple[FirestoreStore, Spoiling],
) -> None:
    store, spoiling = spoilt
    await store.commit(KEY, None, state=b"first", due=None)
    watched = store.watch(KEY)
    assert (await anext(watched)).state == b"first"
    following = asyncio.ensure_future(anext(watched))
    await spoiling.spoilt.wait()
    await store.append(KEY, pending({"a": b"1"}), NOW)
    assert (await asyncio.wait_for(following, WAIT_SECONDS)).inbox == {"a": b"1"}


async def test_a_watch_listens_where_rules_let_nobody_in(firestore_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passing = Refusing(firestore_host)
    async with passed_on(passing, monkeypatch) as store:
        await _forbid_everything(firestore_host, store)
        await store.commit(KEY, None, state=b"first", due=None)
        watched = store.watch(KEY)
        assert (await anext(watched)).state == b"first"
        for entry in "ab":
            following = asyncio.ensure_future(anext(watched))
            await asyncio.sleep(0.1)
            await store.append(KEY, pending({entry: b"1"}), NOW)
            assert entry in (await asyncio.wait_for(following, WAIT_SECONDS)).inbox
        await watched.aclose()
    assert (passing.calls["Listen"], passing.calls["BatchGetDocuments"]) == (1, 1)


async def test_a_watch_that_is_ended_asks_again_after_a_while_and_says_why(
    firestore_host: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passing = Refusing(firestore_host, refuses=True)
    async with passed_on(passing, monkeypatch) as store:
        await store.commit(KEY, None, state=b"first", due=None)
        watched = store.watch(KEY)
        assert (await anext(watched)).state == b"first"
        following = asyncio.ensure_future(anext(watched))
        await asyncio.sleep(REOPEN_SECONDS / 2)
        assert (passing.calls["Listen"], passing.calls["BatchGetDocuments"]) == (1, 1)
        passing.refuses = False
        await asyncio.sleep(REOPEN_SECONDS)
        await store.append(KEY, pending({"a": b"1"}), NOW)
        assert (await asyncio.wait_for(following, WAIT_SECONDS)).inbox == {"a": b"1"}
        await watched.aclose()
    (record,) = caplog.records
    assert "not for you" in str(vars(record)["fields"])


async def _forbid_everything(host: str, store: FirestoreStore) -> None:
    """Browsers may read nothing any more; services are none of the rules' business."""
    rules = "service cloud.firestore { match /databases/{d}/documents { match /{any=**} { allow read: if false; } } }"
    body = {"rules": {"files": [{"name": "firestore.rules", "content": rules}]}}
    async with httpx.AsyncClient() as http:
        address = f"http://{host}/emulator/v1/projects/{store._project}:securityRules"
        (await http.put(address, json=body)).raise_for_status()


async def test_a_watch_reads_again_what_a_silent_stream_kept_back(store: FirestoreStore) -> None:
    store.silence_seconds = 0  # no stream is given the time to say anything
    await store.commit(KEY, None, state=b"before", due=None)
    watched = store.watch(KEY)
    assert (await anext(watched)).state == b"before"
    following = asyncio.ensure_future(anext(watched))
    await store.append(KEY, pending({"a": b"1"}), NOW)
    assert (await asyncio.wait_for(following, WAIT_SECONDS)).inbox == {"a": b"1"}


@pytest.mark.parametrize("listening", [True, False])
async def test_every_method_gives_up_within_its_limit(monkeypatch: pytest.MonkeyPatch, listening: bool) -> None:  # noqa: FBT001
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it takes connections and never answers
        port = listener.getsockname()[1] if listening else free_port()
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{port}")
        store = FirestoreStore("project")
        store.limit_seconds = 1
        began = time.monotonic()
        errors = await asyncio.gather(
            store.append(KEY, pending({"a": b"1"}), NOW),
            store.load(KEY),
            store.commit(KEY, None, state=b"", due=None),
            anext(store.due(NOW)),
            anext(store.watch(KEY)),
            store.run(KEY, 1),
            store.runs(KEY),
            store.sessions(KEY.tenant),
            store.get("connections/1"),
            store.put("connections/1", b""),
            store.delete("connections/1"),
            store.list("connections"),
            return_exceptions=True,
        )
        assert [type(error) for error in errors] == [StoreDown] * 12
        assert time.monotonic() - began < 4
        await store.aclose()


@pytest.mark.usefixtures("line")
async def test_what_expires_says_when_in_the_field_of_the_ttl_policies(firestore_host: str) -> None:
    project = f"firestore-{secrets.token_hex(6)}"
    store = FirestoreStore(project)
    overrides = json.loads((ROOT / "firestore.indexes.json").read_text(encoding="utf-8"))["fieldOverrides"]
    field = {override["collectionGroup"]: override["fieldPath"] for override in overrides if override.get("ttl")}
    archive = Archived(number=1, body=b"run", expires_at=NOW)
    documents = {"tenants/t/dead_runs/1": Document(body=b"run", expires_at=NOW)}
    await store.commit(KEY, None, state=b"", due=None, archive=archive, documents=documents)
    await store.put("tenants/t/receipts/1", b"receipt", NOW)
    await store.put("tenants/t/unreadable/1", b"kept for ever")
    await store.aclose()
    async with httpx.AsyncClient(
        base_url=f"http://{firestore_host}", headers={"Authorization": "Bearer owner"}
    ) as http:
        root = f"/v1/projects/{project}/databases/(default)/documents"
        paths = [f"tenants/tenant/sessions/{KEY.session}/runs/1", "tenants/t/receipts/1", "tenants/t/unreadable/1"]
        paths.append("tenants/t/dead_runs/1")
        found = [(await http.get(f"{root}/{path}")).json()["fields"] for path in paths]
    expiring = [found[0][field["runs"]], found[1][field["receipts"]], found[3][field["dead_runs"]]]
    assert expiring == [{"timestampValue": "2026-11-20T12:00:00Z"}] * 3
    assert field["unreadable"] not in found[2]
