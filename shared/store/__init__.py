"""Where sessions and published configuration live: the ports that `firestore` and `sqlite` implement.

Stores move bytes. What the bytes mean (the session's state, an inbox entry, an archived run) is decided above, so a
store can be proved by a small contract suite and an old journal is a matter of the reader.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.domain import SessionKey

SHARDS = 16
"""`due` is prefixed by one of so many values, so that no index range takes all writes (Firestore: 500/s a range)."""

SPILL_MOST = 500
"""How many entries one commit may spill: it is one batch of writes, of at most 10 MiB in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One read of a session document."""

    state: bytes | None
    """What the executor wrote last; None while only `append` has written."""
    inbox: Mapping[str, bytes]
    """Entries that no run has claimed, by id: all that the document holds and, of those that did not fit into it, the
    first by rank."""
    version: object
    """Opaque: give it back to `commit`. Changes with every write, also by `append`; but an entry that found the
    document full to the last bytes changes nothing except the inbox of the next `load`."""
    more: bool = False
    """Whether entries may be left that were not read: load again once some of these are removed."""
    read_to: int | None = None
    """With `more`: the rank up to which all was read. Entries of a higher rank are in `inbox` too, but others that
    were not read may come before them."""
    due: bool = False
    """Whether the tick sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One entry on its way into an inbox."""

    body: bytes
    rank: int
    """Of the entries that do not fit into one read, those of lower rank are read first; equal ones in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document to be written with a commit, as by `Documents.put`."""

    body: bytes
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """A finished run, to be written with the commit that ends it."""

    number: int
    body: bytes
    expires_at: datetime | None = None
    """As in `Documents.put`."""


class SessionStore(Protocol):
    """The session document, changed only by compare-and-swap.

    Every method raises `StoreDown` when the store does not answer within its time limit (a few seconds); a write may
    then have happened or not. No method retries longer than that.
    """

    async def append(self, key: SessionKey, entries: Mapping[str, Pending], due: datetime | None) -> None:
        """Put entries into the inbox in one write and without a read; the same id again changes nothing but `version`.

        An inbox takes any number of entries: those that do not fit into the session's document lie beside it, at more
        writes. Makes the session document if there is none. Marks it as due at `due` (kept to the second; callers
        round it, so that the value seldom changes): the tick finds it if its wake is lost; None leaves that as it is.
        Returns only once the entries are durable. Raises `TooLarge` for an entry that no document can hold.
        """

    async def load(self, key: SessionKey) -> Stored | None:
        """The document as it is now; None when nothing was ever written. One read, and one more for each entry
        beside the document."""

    async def commit(
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
        """Replace state and due if the document still has this version, else raise `Conflict`.

        The entries with the ids in `remove`, of those that came with the version, leave the inbox. Those in `spill`
        stay in it, but no longer need room in the session's document: a caller gives entries that it will not take
        soon when an inbox is large, at most `SPILL_MOST`.
        `version` None asserts that there is no document. The `archive`d run and the `documents`, by path as in
        `Documents`, are written in the same commit: all or nothing. `due` None takes the session out of the tick's
        sight. Returns the new version. A commit whose answer was lost may raise `Conflict` although it was applied:
        the caller tells by a nonce in its state.
        """

    def due(self, before: datetime) -> AsyncGenerator[SessionKey]:
        """Sessions of every tenant that are due before or at `before`, each once, read in pages until none is left;
        the longest due first in each of the `SHARDS` ranges. Only the tick may call this."""

    def watch(self, key: SessionKey) -> AsyncGenerator[Stored]:
        """The document now, if there is one, and again after each change; intermediate states may be skipped.

        Entries beside the document may be left out (`more`). Ends when the caller closes it. For watching, never for
        correctness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One session in a listing."""

    key: SessionKey
    state: bytes
    changed_at: datetime


class Archive(Protocol):
    """What people and evaluations read: finished runs and the list of sessions."""

    async def run(self, key: SessionKey, number: int) -> bytes | None:
        """The archived run with that number, or None."""

    async def runs(self, key: SessionKey, *, before: int | None = None, limit: int = 20) -> Sequence[bytes]:
        """Archived runs, the newest first, with numbers below `before`; at most `limit`."""

    async def sessions(self, tenant: str, *, limit: int = 50) -> Sequence[SessionRow]:
        """The tenant's sessions that a run has ever claimed, the most recently changed first; at most `limit`."""


class Documents(Protocol):
    """Small documents by path: published configuration, updates kept aside.

    A path is `collection/id` or `collection/id/collection/id` with ids of `[A-Za-z0-9_.:-]`. Raises `StoreDown` as
    `SessionStore` does.
    """

    async def get(self, path: str) -> bytes | None:
        """The document, or None."""

    async def put(self, path: str, body: bytes, expires_at: datetime | None = None) -> None:
        """Write or replace it. It is removed some time after `expires_at`: Firestore says within a day, the embedded
        store with the next such write; None keeps it for ever."""

    async def delete(self, path: str) -> None:
        """Remove it; nothing happens when it is not there."""

    def follow(self, path: str) -> AsyncGenerator[bytes]:
        """The document now, if there is one, and again after each change; intermediate states may be skipped.

        Ends when the caller closes it. For watching, never for correctness."""

    async def list(self, collection: str, limit: int = 100) -> Sequence[tuple[str, bytes]]:
        """(path, body) of the documents directly in the collection, ordered by id; at most `limit`."""


def shard(key: SessionKey) -> int:
    """Which of the `SHARDS` ranges of `due` the session is in: equal in every process and store."""
    return int(key.session[:8], 16) % SHARDS
