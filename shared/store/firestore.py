"""The store on Google Cloud: google-cloud-firestore's asynchronous client, made on first use in the running loop.

What a session's document holds, `tenants/{tenant}/sessions/{session}`:

    tenant, state        the state in bytes; absent until the first commit
    inbox                a map of id to bytes
    overflow             true while entries may lie beside the document; else absent
    due                  `{shard:x}/{second}`; absent when nothing is due
    changed_at           of the last commit, so that a list in its order has only sessions that a run has claimed
    appended_at          of the last append: without it a repeated one would not change the version

An entry that finds the document full is `…/inbox/{id}` with `rank` and `body`; `firestore_inbox` says how it is found.
A finished run is `…/runs/{number}` with `number` and `body`. What shall be removed has `expires_at`, the field of the
TTL policies in firestore.indexes.json, and its removal is billed as 1 delete. What is billed besides, failures and
conflicts aside:

    append            1 write                    run, get       1 read
    load              1 read                     runs, list     1 read a document, at least 1
    commit            1 write                    sessions       1 read a session, at least 1
    … with archive    2 writes                   put, delete    1 write, 1 delete
    due               16 queries a page: 1 read a session found, at least 16
    watch             2 reads to begin, 1 a change, 2 after each 30 s without one
    overflow          append: 2 writes more for one entry; load: 1 read an entry beside, at least 1;
                      commit: 1 write an entry that spills, 1 delete an entry beside that is removed

`FIRESTORE_EMULATOR_HOST` is read by the client library itself, which offers no other way to name an emulator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shared.clock import SystemClock
from shared.domain import SessionKey
from shared.errors import Conflict, StoreDown, TooLarge
from shared.store import SHARDS, Archived, Document, Pending, SessionRow, Stored, shard
from shared.store.firestore_inbox import NOTHING, Placing, small

if TYPE_CHECKING:
    from google.cloud.firestore import AsyncClient, AsyncDocumentReference, AsyncWriteBatch, DocumentSnapshot
    from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient

logger = logging.getLogger(__name__)

BESIDE = 200
"""How many of the entries beside a document one `load` reads."""

PAGE = 100
"""How many sessions of a range are asked for at a time."""

REOPEN_SECONDS = 1.0
"""How long a watch waits before it opens another stream after one that broke or was ended."""


@dataclass(frozen=True, slots=True)
class _Version:
    """Equal when the document did not change between."""

    at: object
    placing: Placing = field(compare=False)


class FirestoreStore:
    """`SessionStore`, `Archive` and `Documents` in one Firestore database, for one event loop.

    Besides what the ports say, a commit or `put` raises `TooLarge` when a document would pass Firestore's 1 MiB.
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

    async def append(self, key: SessionKey, entries: Mapping[str, Pending], due: datetime | None) -> None:
        inbox = {id_: entry.body for id_, entry in entries.items()}
        marks = {"appended_at": self._clock.now(), **_address(key, due)}
        fields = {"inbox": inbox, **marks} if inbox else marks  # an empty map would replace the whole inbox
        try:
            with _answered("append to the inbox", writing=True):
                await self._session(key).set(fields, merge=True, **self._limits)
        except TooLarge:
            if not entries:
                raise
            await self._append_beside(key, entries, marks)

    async def load(self, key: SessionKey) -> Stored | None:
        with _answered("load a session"):
            found = await self._session(key).get(**self._limits)
        if not found.exists:
            return None
        fields = found.to_dict() or {}
        stored = _stored(fields, found.update_time)
        if not stored.more:
            return stored
        query = self._session(key).collection("inbox").order_by("rank").limit(BESIDE)
        with _answered("load an inbox"):
            return _stored(fields, found.update_time, await query.get(**self._limits))

    async def commit(  # the port's
        self,
        key: SessionKey,
        version: object,
        *,
        state: bytes,
        remove: Collection[str] = (),
        spill: Mapping[str, Pending] | None = None,
        due: datetime | None,
        archive: Archived | None = None,
        documents: Mapping[str, Document] | None = None,
    ) -> object:
        from google.api_core.exceptions import AlreadyExists, FailedPrecondition, NotFound
        from google.cloud.firestore import DELETE_FIELD

        session, batch = self._session(key), self._client.batch()
        base = _Version(None, NOTHING) if version is None else version
        assert isinstance(base, _Version), "a version that another store gave"
        after = base.placing.after(len(state), remove, spill or ())
        fields = {"state": state, "changed_at": self._clock.now(), **_address(key, due)}
        if version is None:
            batch.create(session, fields | ({"overflow": True} if after.marked else {}))
        else:
            changes = fields | ({} if due else {"due": DELETE_FIELD}) | _inbox_changes(base.placing, after)
            batch.update(session, changes, option=self._client.write_option(last_update_time=base.at))
        for id_ in base.placing.beside - after.beside:
            batch.delete(session.collection("inbox").document(id_))
        moved = after.beside - base.placing.beside
        _put_beside(batch, session, {id_: entry for id_, entry in (spill or {}).items() if id_ in moved})
        if archive:
            run = session.collection("runs").document(str(archive.number))
            batch.set(run, {"number": archive.number, **_document(archive.body, archive.expires_at)})
        for path, document in (documents or {}).items():
            batch.set(self._client.document(path), _document(document.body, document.expires_at))
        with _answered("commit a session", writing=True):
            try:
                results = await batch.commit(**self._limits)
            except (AlreadyExists, FailedPrecondition, NotFound) as error:
                raise Conflict(f"session {key.session} changed since it was read: read it again") from error
        return _Version(results[0].update_time, after)

    async def due(self, before: datetime) -> AsyncGenerator[SessionKey]:
        seen: set[SessionKey] = set()  # a session that is appended to meanwhile can come up again
        after: dict[int, DocumentSnapshot[Any] | None] = dict.fromkeys(range(SHARDS))
        while after:
            with _answered("list what is due"):
                pages = await asyncio.gather(*(self._due(number, before, last) for number, last in after.items()))
            after = {number: page[-1] for number, page in zip(after, pages, strict=True) if len(page) == PAGE}
            for key in (_key(row) for page in pages for row in page):
                if key not in seen:
                    seen.add(key)
                    yield key

    async def watch(self, key: SessionKey) -> AsyncGenerator[Stored]:
        seen: object = None
        while True:
            now = await self.load(key)  # waits while the store is down, and sees what a dead stream kept back
            if now and now.version != seen:
                seen = now.version
                yield now
            async with aclosing(self._changes(self._session(key).path)) as changes:
                async for fields, update_time in changes:
                    now = _stored(fields, update_time)
                    if now.version != seen:
                        seen = now.version
                        yield now

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

    async def _append_beside(
        self, key: SessionKey, entries: Mapping[str, Pending], marks: Mapping[str, object]
    ) -> None:
        batch = self._client.batch()
        _put_beside(batch, self._session(key), entries)
        with _answered("append beside the session", writing=True):
            await batch.commit(**self._limits)
        # not before: who sees the mark must see the entries
        with suppress(TooLarge), _answered("mark the session", writing=True):
            await self._session(key).set({"overflow": True, **marks}, merge=True, **self._limits)

    async def _due(
        self, number: int, before: datetime, last: DocumentSnapshot[Any] | None
    ) -> Sequence[DocumentSnapshot[Any]]:
        """The first page of what is due in a range, or the one after its `last`."""
        query = self._client.collection_group("sessions").order_by("due").limit(PAGE).select(["due"])
        query = query.start_after(last) if last else query.start_at({"due": f"{number:x}/"})
        return await query.end_at({"due": f"{number:x}/{_second(before)}"}).get(**self._limits)

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
            metadata = self._client._rpc_metadata  # noqa: SLF001  the emulator's rules let nobody in without it
            call = await self._api.listen(requests=requests(), retry=None, timeout=None, metadata=metadata)
            responses = aiter(call)
            until = self._silence_ends()
            while True:
                async with asyncio.timeout_at(until):  # wait_for of Python 3.11 can swallow a cancellation
                    response = await anext(responses)
                if response is None:  # spoilt, as the emulator does now and then (firebase-js-sdk#6724)
                    return
                if response.target_change.target_change_type == TargetChange.TargetChangeType.REMOVE:
                    raise GoogleAPIError(response.target_change.cause.message)  # noqa: TRY301  as the others end it
                if "document_change" in response:
                    document = response.document_change.document
                    fields: dict[str, Any] = decode_dict(document.fields, self._client)  # type: ignore[assignment]  # a map
                    yield fields, document.update_time
                    until = self._silence_ends()
        except (StopAsyncIteration, TimeoutError):
            return
        except GoogleAPIError as error:
            logger.warning("a watch broke", extra={"fields": {"path": path, "reason": str(error)}})
            await asyncio.sleep(REOPEN_SECONDS)  # the reason may still hold, and a watch begins with a read
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


def _put_beside(batch: AsyncWriteBatch, session: AsyncDocumentReference, entries: Mapping[str, Pending]) -> None:
    for id_, entry in entries.items():
        batch.set(session.collection("inbox").document(id_), {"rank": entry.rank, "body": entry.body})


def _inbox_changes(base: Placing, after: Placing) -> dict[str, object]:
    """Fields to be updated. Single keys leave the map: to write it anew would cost all its bytes."""
    from google.cloud.firestore import DELETE_FIELD
    from google.cloud.firestore_v1.field_path import FieldPath

    gone = base.inside.keys() - after.inside.keys()
    changes: dict[str, object] = {FieldPath("inbox", id_).to_api_repr(): DELETE_FIELD for id_ in gone}
    if after.marked != base.marked:
        changes["overflow"] = True if after.marked else DELETE_FIELD
    return changes


def _stored(fields: Mapping[str, Any], at: object, beside: Sequence[DocumentSnapshot[Any]] | None = None) -> Stored:
    """What was read; `beside` None while nobody has looked there."""
    state, inbox, marked = fields.get("state"), fields.get("inbox", {}), "overflow" in fields
    inside = {id_: len(body) for id_, body in inbox.items()}
    fits, rows = small(len(state or b""), inside), beside or ()
    more = marked or not fits if beside is None else len(rows) == BESIDE
    found = {row.id: _body(row) for row in rows}
    placing = Placing(inside=inside, beside=frozenset(found), settled=fits and not more, marked=marked)
    read_to = rows[-1].get("rank") if rows and more else None
    return Stored(
        state=state,
        inbox={**inbox, **found},
        version=_Version(at, placing),
        more=more,
        read_to=read_to,
        due="due" in fields,
    )


def _key(row: DocumentSnapshot[Any]) -> SessionKey:
    _, tenant, _, session = row.reference.path.split("/")
    return SessionKey(tenant, session)


def _document(body: bytes, expires_at: datetime | None) -> dict[str, object]:
    return {"body": body} if expires_at is None else {"body": body, "expires_at": expires_at}


def _body(found: DocumentSnapshot[Any]) -> bytes:
    return bytes(found.get("body"))


def _second(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
