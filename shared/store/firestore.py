"""The store on Google Cloud: google-cloud-firestore's asynchronous client, made on first use in the running loop.

What a session's document holds, `tenants/{tenant}/sessions/{session}`:

    tenant, state        the state in bytes; absent until the first commit
    inbox                a map of id to bytes
    due                  `{shard:x}/{second}`; absent when nothing is due
    changed_at           of the last commit, so that a list in its order has only sessions that a run has claimed
    appended_at          of the last append: without it a repeated one would not change the version

A finished run is `…/runs/{number}` with `number` and `body`. What shall be removed has `expires_at`, the field of the
TTL policies in firestore.indexes.json, and its removal is billed as 1 delete. What is billed besides, failures and
conflicts aside:

    append            1 write                    run, get       1 read
    load              1 read                     runs, list     1 read a document, at least 1
    commit            1 write                    sessions       1 read a session, at least 1
    … with archive    2 writes                   put, delete    1 write, 1 delete
    due               16 queries: 1 read a session found, at least 16
    watch             2 reads to begin, 1 a change, 2 after each 30 s without one

`FIRESTORE_EMULATOR_HOST` is read by the client library itself, which offers no other way to name an emulator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shared.clock import SystemClock
from shared.domain import SessionKey
from shared.errors import Conflict, StoreDown, TooLarge
from shared.store import SHARDS, Archived, SessionRow, Stored, shard

if TYPE_CHECKING:
    from google.cloud.firestore import AsyncClient, AsyncDocumentReference, AsyncQuery, DocumentSnapshot
    from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient

REOPEN_SECONDS = 1.0
"""How long a watch waits before it opens another stream after one that broke."""


class FirestoreStore:
    """`SessionStore`, `Archive` and `Documents` in one Firestore database, for one event loop.

    Besides what the ports say, a write raises `TooLarge` when the document would pass Firestore's 1 MiB.
    """

    limit_seconds = 6.0
    """How long a method tries before `StoreDown`; the library's own default is 60 s for a commit, 300 s for a read."""

    silence_seconds = 30.0
    """How long a watch trusts a stream that tells of no change; they die unnoticed (python-firestore#18, #399)."""

    def __init__(self, project: str, database: str = "(default)") -> None:
        self._project = project
        self._database = database
        self._clock = SystemClock()

    async def aclose(self) -> None:
        """Close the connection if one was opened. A later use fails."""
        if "_client" in self.__dict__:
            await self._api.transport.close()  # type: ignore[no-untyped-call]  # the library's

    async def append(self, key: SessionKey, entries: Mapping[str, bytes], due: datetime | None) -> None:
        inbox = {"inbox": dict(entries)} if entries else {}  # an empty map would replace the whole inbox
        fields = {**inbox, "appended_at": self._clock.now(), **_address(key, due)}
        with _answered("append to the inbox", writing=True):
            await self._session(key).set(fields, merge=True, **self._limits)

    async def load(self, key: SessionKey) -> Stored | None:
        with _answered("load a session"):
            found = await self._session(key).get(**self._limits)
        return _stored(found.to_dict() or {}, found.update_time) if found.exists else None

    async def commit(  # the port's
        self,
        key: SessionKey,
        version: object,
        *,
        state: bytes,
        inbox: Mapping[str, bytes],
        due: datetime | None,
        archive: Archived | None = None,
        documents: Mapping[str, bytes] | None = None,
    ) -> object:
        from google.api_core.exceptions import AlreadyExists, FailedPrecondition, NotFound
        from google.cloud.firestore import DELETE_FIELD

        session, batch = self._session(key), self._client.batch()
        fields = {"state": state, "inbox": dict(inbox), "changed_at": self._clock.now(), **_address(key, due)}
        if version is None:
            batch.create(session, fields)
        else:
            unset = {} if due else {"due": DELETE_FIELD}
            batch.update(session, fields | unset, option=self._client.write_option(last_update_time=version))
        if archive:
            run = session.collection("runs").document(str(archive.number))
            batch.set(run, {"number": archive.number, **_document(archive.body, archive.expires_at)})
        for path, body in (documents or {}).items():
            batch.set(self._client.document(path), _document(body, None))
        with _answered("commit a session", writing=True):
            try:
                results = await batch.commit(**self._limits)
            except (AlreadyExists, FailedPrecondition, NotFound) as error:
                raise Conflict(f"session {key.session} changed since it was read: read it again") from error
        return results[0].update_time

    async def due(self, before: datetime, limit: int = 100) -> Sequence[SessionKey]:
        def due_in(number: int) -> AsyncQuery:
            sessions = self._client.collection_group("sessions").order_by("due").limit(limit).select(["due"])
            return sessions.start_at({"due": f"{number:x}/"}).end_at({"due": f"{number:x}/{_second(before)}"})

        with _answered("list what is due"):
            found = await asyncio.gather(*(due_in(number).get(**self._limits) for number in range(SHARDS)))
        rows = sorted((row for part in found for row in part), key=lambda row: str(row.get("due")).partition("/")[2])
        return [_key(row) for row in rows[:limit]]

    async def watch(self, key: SessionKey) -> AsyncGenerator[Stored]:
        seen: object = None
        while True:
            now = await self.load(key)  # waits while the store is down, and sees what a dead stream kept back
            if now and now.version != seen:
                seen = now.version
                yield now
            async with aclosing(self._changes(self._session(key).path)) as changes:
                async for fields, version in changes:
                    if version != seen:
                        seen = version
                        yield _stored(fields, version)

    async def run(self, key: SessionKey, number: int) -> bytes | None:
        with _answered("read a run"):
            found = await self._session(key).collection("runs").document(str(number)).get(**self._limits)
        return _body(found) if found.exists else None

    async def runs(self, key: SessionKey, *, before: int | None = None, limit: int = 20) -> Sequence[bytes]:
        query = self._session(key).collection("runs").order_by("number", direction="DESCENDING").limit(limit)
        if before is not None:
            query = query.start_after({"number": before})
        with _answered("list runs"):
            return [_body(found) for found in await query.get(**self._limits)]

    async def sessions(self, tenant: str, *, limit: int = 50) -> Sequence[SessionRow]:
        sessions = self._client.collection("tenants", tenant, "sessions")
        query = sessions.order_by("changed_at", direction="DESCENDING").limit(limit).select(["state", "changed_at"])
        with _answered("list sessions"):
            found = await query.get(**self._limits)
        return [SessionRow(key=_key(row), state=row.get("state"), changed_at=row.get("changed_at")) for row in found]

    async def get(self, path: str) -> bytes | None:
        with _answered("read a document"):
            found = await self._client.document(path).get(**self._limits)
        return _body(found) if found.exists else None

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        with _answered("write a document", writing=True):
            await self._client.document(path).set(_document(body, expires_at), **self._limits)

    async def delete(self, path: str) -> None:
        with _answered("delete a document"):
            await self._client.document(path).delete(**self._limits)

    async def follow(self, path: str) -> AsyncGenerator[bytes]:
        seen: bytes | None = None
        while True:
            now = await self.get(path)
            if now is not None and now != seen:
                seen = now
                yield now
            async with aclosing(self._changes(path)) as changes:
                async for fields, _ in changes:
                    if fields["body"] != seen:
                        seen = bytes(fields["body"])
                        yield seen

    async def list(self, collection: str, limit: int = 100) -> Sequence[tuple[str, bytes]]:
        query = self._client.collection(collection).order_by("__name__").limit(limit)
        with _answered("list documents"):
            return [(f"{collection}/{found.id}", _body(found)) for found in await query.get(**self._limits)]

    @cached_property
    def _client(self) -> AsyncClient:
        from google.cloud.firestore import AsyncClient

        return AsyncClient(project=self._project, database=self._database)

    @property
    def _api(self) -> FirestoreAsyncClient:
        api: FirestoreAsyncClient = self._client._firestore_api  # noqa: SLF001  the public client cannot listen or close
        return api

    @cached_property
    def _limits(self) -> dict[str, Any]:
        from google.api_core import exceptions
        from google.api_core.retry import AsyncRetry, if_exception_type

        passing = if_exception_type(
            exceptions.Aborted,  # contention: nothing was written, and a precondition still holds or does not
            exceptions.Cancelled,  # the emulator gives it to a writer when a watcher leaves at that moment
            exceptions.InternalServerError,
            exceptions.ResourceExhausted,
            exceptions.ServiceUnavailable,
        )
        retry = AsyncRetry(passing, initial=0.1, maximum=1.0, multiplier=2.0, timeout=self.limit_seconds)
        return {"retry": retry, "timeout": self.limit_seconds}

    def _session(self, key: SessionKey) -> AsyncDocumentReference:
        return self._client.document("tenants", key.tenant, "sessions", key.session)

    def _silence_ends(self) -> float:
        return asyncio.get_running_loop().time() + self.silence_seconds

    async def _changes(self, path: str) -> AsyncGenerator[tuple[dict[str, Any], object]]:
        """The document's fields and version, now and after each change, until the stream breaks or is long silent.

        The client library's `on_snapshot` exists only with threads; this is the call beneath it, in the loop.
        """
        from google.api_core.exceptions import GoogleAPIError
        from google.cloud.firestore_v1._helpers import decode_dict
        from google.cloud.firestore_v1.types import ListenRequest, Target, TargetChange

        database = f"projects/{self._project}/databases/{self._database}"
        name = f"{database}/documents/{path}"
        target = Target(documents=Target.DocumentsTarget(documents=[name]), target_id=1)

        async def requests() -> AsyncIterator[ListenRequest]:
            yield ListenRequest(database=database, add_target=target)
            await over.wait()  # the stream ends with its requests

        over = asyncio.Event()
        call: Any = None
        try:
            metadata = [("google-cloud-resource-prefix", database)]
            call = await self._api.listen(requests=requests(), retry=None, timeout=None, metadata=metadata)
            responses = aiter(call)
            until = self._silence_ends()
            while True:
                async with asyncio.timeout_at(until):  # wait_for of Python 3.11 can swallow a cancellation
                    response = await anext(responses)
                if response is None:  # spoilt, as the emulator does now and then (firebase-js-sdk#6724)
                    return
                if response.target_change.target_change_type == TargetChange.TargetChangeType.REMOVE:
                    return  # the server has stopped: nothing more would come
                if "document_change" in response:
                    document = response.document_change.document
                    fields: dict[str, Any] = decode_dict(document.fields, self._client)  # type: ignore[assignment]  # a map
                    yield fields, document.update_time
                    until = self._silence_ends()
        except (StopAsyncIteration, TimeoutError):
            return
        except GoogleAPIError:
            await asyncio.sleep(REOPEN_SECONDS)
        finally:
            over.set()
            if call:
                call.cancel()


@contextmanager
def _answered(what: str, *, writing: bool = False) -> Iterator[None]:
    """The library's errors as ours. `what` completes "Firestore did not …"."""
    from google.api_core.exceptions import GoogleAPIError, InvalidArgument, RetryError

    try:
        yield
    except GoogleAPIError as error:
        if writing and isinstance(error, InvalidArgument):  # all else that it may mean was decided in this module
            raise TooLarge("the document would pass Firestore's 1 MiB: write less into it") from error
        cause = error.cause if isinstance(error, RetryError) else error
        raise StoreDown(f"Firestore did not {what}: {type(cause).__name__}") from error


def _address(key: SessionKey, due: datetime | None) -> dict[str, Any]:
    return {"tenant": key.tenant} | ({"due": f"{shard(key):x}/{_second(due)}"} if due else {})


def _stored(fields: Mapping[str, Any], version: object) -> Stored:
    return Stored(state=fields.get("state"), inbox=fields.get("inbox", {}), version=version)


def _key(row: DocumentSnapshot[Any]) -> SessionKey:
    _, tenant, _, session = row.reference.path.split("/")
    return SessionKey(tenant, session)


def _document(body: bytes, expires_at: datetime | None) -> dict[str, object]:
    return {"body": body} if expires_at is None else {"body": body, "expires_at": expires_at}


def _body(found: DocumentSnapshot[Any]) -> bytes:
    return bytes(found.get("body"))


def _second(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
