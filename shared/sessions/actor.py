"""One process's hold on one session: claim it, keep a journal, change it by compare-and-swap, let it go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import accumulate
from typing import Any, Protocol, TypeVar

from shared.clock import Clock
from shared.codec import encode
from shared.domain import Queueing, SessionKey, Texts, Wake
from shared.errors import Conflict, Fenced, NotFound, StoreDown
from shared.files import Files
from shared.sessions import dead
from shared.sessions.accept import pending
from shared.sessions.arrivals import Prepared, Taking, pause, wanted
from shared.sessions.blobs import blob_path
from shared.sessions.document import Session, read, state_bytes
from shared.sessions.pace import Pace
from shared.sessions.pages import page_document
from shared.sessions.projection import PartialText, is_viewed
from shared.sessions.seen import run_of, segment_document
from shared.sessions.showing import Showing
from shared.sessions.transitions import Claimant, Work, absorb, claim, due, intend, work
from shared.store import SPILL_MOST, Archived, Document, Documents, Pending, SessionStore

logger = logging.getLogger(__name__)
Value = TypeVar("Value")
Change = Callable[[Session], Session]
ATTEMPTS = 100
"""Lost races in a row before giving up: each one means that somebody else's write succeeded."""


class Listener(Protocol):
    """Somebody in this process who follows an attempt. Both methods return at once."""

    def committed(self, session: Session) -> None:
        """This is stored now; `finished` is the run that ended with it."""

    def grew(self, partial: PartialText, offset: int) -> None:
        """The text of a model call, of which everything before `offset` was shown before."""


class Store(SessionStore, Documents, Protocol):
    """Sessions, and the views that are shown of them."""


class Cut(Exception):
    """An effect was given up because of what came in."""


class Actor:
    """What one attempt may do with a session."""

    def __init__(
        self, store: Store, files: Files, clock: Clock, key: SessionKey, pace: Pace, listener: Listener | None = None
    ) -> None:
        self.key = key
        self.pace = pace
        self.listener = listener
        self._store = store
        self._files = files
        self._clock = clock
        self._prepared = Prepared()
        self._held: list[Change] = []
        self._tried: dict[str, int] = {}  # nonces of commits without an answer yet, and how many held changes each has
        self._stored: Session | None = None
        self._shown: Session | None = None
        self._version: object = None
        self._due = False
        self._epoch = 0
        self._showing = Showing(store, clock, pace.views, lambda: self._stored)
        self._lock = asyncio.Lock()

    @property
    def session(self) -> Session:
        """What the store holds, with the changes that this attempt keeps back for its next commit.

        Raises `NotFound` when there is no such session.
        """
        if self._shown is None:
            raise NotFound(f"session: there is none with id {self.key.session}")
        return self._shown

    @property
    def watched(self) -> bool:
        """Whether anybody sees text before it is stored."""
        return self.listener is not None or is_viewed(self.session, self._clock.now())

    def grew(self, partial: PartialText, offset: int) -> None:
        """The text of a model call has come this far; everything before `offset` is as it was."""
        if self.listener is not None:
            self.listener.grew(partial, offset)
        self._showing.grew(partial)

    def outgrown(self) -> None:
        """The model call is over, and its text is no longer shown."""
        self._showing.text = None

    async def stop_showing(self) -> None:
        """Leave the session's views as they are from now on; nothing is under way when this returns."""
        await self._showing.stop()

    async def show_anew(self) -> None:
        """Write the views as the store's document says, after an attempt that may have written them too late.

        Whoever holds the session by now may commit at any time: what was written over that is written again. Two reads
        and a write, if nobody did. Raises `StoreDown`.
        """
        await self.stop_showing()
        await self.load()
        for _ in range(ATTEMPTS):
            version = self._version
            await self._showing.write()
            await self.load()
            if self._version == version:
                return

    async def load(self) -> bool:
        """Read the document; False when there is none. One read."""
        await self._read()
        self._show()
        return self._stored is not None

    async def claim(self, wake: Wake, plan: str, queueing: Queueing, texts: Texts) -> Work:
        """Become the holder if there is something to do: `READY` means that this attempt now holds the session.

        Anything else says why there is nothing to do. Before a run begins this waits until a burst of messages is
        over. One write; one read more for each message that extends the burst.
        """
        holder = self._clock.new_id()
        for _ in range(ATTEMPTS):
            now = self._clock.now()
            found = work(self.session, wake=wake.id, now=now)
            due_for_nothing = found is Work.NOTHING and self._due
            if due_for_nothing or (found is Work.WAITING and self.session.inbox):
                await self._swap(_same, self._clock.new_id())  # `append` made it due now, and it is not
            if found is not Work.READY:
                return found
            if (seconds := pause(self.session, queueing, now)) > 0:
                await self._clock.sleep(seconds)
                now = self._clock.now()
            taking = await self.taking(plan, queueing, texts)
            who = Claimant(holder=holder, wake=wake.id, now=now, until=self.pace.lease_end(now))
            nonce = self._clock.new_id()
            await self._swap(partial(_claim, who=who, taking=taking), nonce)
            self._show()
            if self.session.nonce == nonce:
                self._epoch = self.session.epoch
                return Work.READY
        raise Conflict(f"session {self.key.session} changed {ATTEMPTS} times while it was claimed")

    async def taking(self, plan: str, queueing: Queueing, texts: Texts) -> Taking:
        """What a change needs to take messages from the inbox as it is now. Reads what lies outside the document."""
        blobs, ids = wanted(self.session)
        known, repeats = dict(self._prepared.texts), dict(self._prepared.repeats)
        new = [blob for blob in blobs if blob not in known]
        bodies = await asyncio.gather(*(self._files.get(blob_path(self.key, blob)) for blob in new))
        # A blob is there before its entry is; one that is not any more was removed by hand.
        known |= {blob: (body or b"[a text that is lost]").decode() for blob, body in zip(new, bodies, strict=True)}
        for id_ in ids:
            if id_ not in repeats:
                repeats[id_] = await run_of(self._store, self.session, id_) is not None
        self._prepared = Prepared(texts={blob: known[blob] for blob in blobs}, repeats=repeats)
        now = self._clock.now()
        return Taking(now=now, plan=plan, queueing=queueing, texts=texts, prepared=self._prepared)

    def hold(self, change: Change) -> None:
        """Make this change with the next commit; `session` shows it at once. A crash before then forgets it."""
        self._held.append(change)
        self._show()

    async def commit(self, change: Change | None = None) -> None:
        """Write what was held back, and this change, in one compare-and-swap; extends the lease if it is kept.

        What others hold back or commit while another commit is under way shares the next one. Raises `Fenced` when
        another process holds the session by now: nothing was written then.
        """
        mine: Change = partial(change or _same)
        self._held.append(mine)
        async with self._lock:
            for _ in range(ATTEMPTS):
                if not any(held is mine for held in self._held):
                    return
                if self._stored is None or self._stored.epoch != self._epoch:
                    raise Fenced(f"session {self.key.session} has another holder")
                changes = tuple(self._held)
                nonce = self._clock.new_id()
                self._tried[nonce] = len(changes)
                await self._swap(partial(self._held_back, changes), nonce)
                written = self._tried.get(self._stored.nonce) if self._stored is not None else None
                if written is not None:  # by this commit, or by an earlier one that seemed to fail
                    del self._held[:written]  # not clear(): more may have been held back meanwhile
                    self._tried.clear()
                    self._show()
        raise Conflict(f"session {self.key.session} changed {ATTEMPTS} times during one commit")

    async def keep(self, effect: Coroutine[Any, Any, Value], cut: Callable[[Session], bool] = lambda _: False) -> Value:
        """What the effect returns, with the lease extended for as long as that takes.

        Raises `Cut`, and cancels the effect, when what came in meanwhile makes it pointless; that is looked at
        whenever the lease is extended.
        """
        task = asyncio.create_task(effect)
        try:
            while not (await asyncio.wait({task}, timeout=self.pace.lease / 3))[0]:
                with suppress(StoreDown):  # the effect may be worth more than the lease; its own commit will tell
                    await self._extend()
                if cut(self.session):
                    raise Cut
            return task.result()
        finally:
            task.cancel()  # does nothing to a finished task
            await asyncio.wait({task})  # what it writes at its end must not come after our next commit

    async def _extend(self) -> None:
        lease = self.session.lease
        left = (lease.until - self._clock.now()).total_seconds() if lease is not None else 0.0
        if left < self.pace.lease * 0.8 and not self._lock.locked():  # effects side by side need it once
            await self.commit()

    async def _read(self) -> None:
        stored = await self._store.load(self.key)
        self._stored = read(self.key, stored)
        self._version = stored.version if stored is not None else None
        self._due = stored is not None and stored.due

    async def _swap(self, change: Change, nonce: str) -> None:
        """Try the change once and have the document as it is then. Its nonce tells whose write was the last: a commit
        whose answer was lost may have been sent twice by the store's client, and is refused although it was applied.
        """
        assert self._stored is not None
        now = self._clock.now()
        changed = replace(absorb(change(self._stored)), nonce=nonce)
        due_at = due(changed, now)
        try:
            async with self._showing.carried(changed) as shown:
                self._version = await self._store.commit(
                    self.key,
                    self._version,
                    state=state_bytes(changed),
                    remove=self._stored.inbox.keys() - changed.inbox.keys(),
                    spill=_spill(changed),
                    due=self.pace.due_at(due_at) if due_at is not None else None,
                    archive=self._archived(changed, now),
                    documents=self._documents(changed, now, shown),
                )
        except Conflict:
            await self._read()
        else:
            taken = [entry.blob for key, entry in self._stored.inbox.items() if entry.blob and key not in changed.inbox]
            more = self._stored.more
            self._stored = replace(changed, finished=None, paged=None, forgotten=())
            if self.listener is not None:
                self.listener.committed(changed)
            await asyncio.gather(*(self._forget(blob) for blob in taken))
            if more:  # there is room for what did not fit
                await self._read()

    async def _forget(self, blob: str) -> None:
        """Remove a blob whose text a run has now. One that stays, after a crash or an outage, does no harm."""
        try:
            await self._files.delete(blob_path(self.key, blob))
        except StoreDown as error:
            logger.info("a blob stays", extra={"fields": {"blob": blob, "reason": str(error)}})

    def _archived(self, session: Session, now: datetime) -> Archived | None:
        run = session.finished
        if run is None:
            return None
        return Archived(number=run.number, body=encode(run), expires_at=self.pace.expiry(now))

    def _documents(self, session: Session, now: datetime, shown: Mapping[str, bytes]) -> dict[str, Document]:
        found = {path: Document(body=body) for path, body in shown.items()}
        beside = [page_document(session, self.pace.expiry(now)), segment_document(session)]
        run = session.finished
        if run is not None and run.set_aside:
            aside = dead.of(session, run, run.reason, now)
            beside.append(
                (dead.path(self.key, run.number), Document(body=encode(aside), expires_at=self.pace.expiry(now)))
            )
        return found | dict(document for document in beside if document is not None)

    def _held_back(self, changes: tuple[Change, ...], session: Session) -> Session:
        for change in changes:
            session = change(session)
        if session.lease is None:
            return session
        lease = replace(session.lease, until=self.pace.lease_end(self._clock.now()))
        return replace(intend(session), lease=lease)

    def _show(self) -> None:
        shown = self._stored
        if shown is not None and shown.epoch == self._epoch:
            for change in self._held:
                shown = change(shown)
        self._shown = shown


INBOX_BYTES = 300_000
"""An inbox that takes more of its document than this is moved out of it, but for its beginning."""


def _spill(session: Session) -> dict[str, Pending]:
    """The entries that leave the document: the last by rank, once the inbox is large."""
    if len(session.inbox) < INBOX_BYTES // 35_000:  # no entry is larger: a long text lies in a blob
        return {}
    entries = sorted(((key, pending(entry)) for key, entry in session.inbox.items()), key=lambda item: item[1].rank)
    sizes = accumulate(len(entry.body) + 40 for _, entry in entries)
    beyond = [item for item, size in zip(entries, sizes, strict=True) if size > INBOX_BYTES]
    return dict(beyond[-SPILL_MOST:])


def _claim(session: Session, who: Claimant, taking: Taking) -> Session:
    return intend(claim(session, who, taking))


def _same(session: Session) -> Session:
    return session
