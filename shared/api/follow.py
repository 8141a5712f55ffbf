"""Follow a session from any event on: what was missed, then what happens, and the text of an answer while it grows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from shared.codec import decode
from shared.domain import SessionKey
from shared.sessions.document import Run, Session, read
from shared.sessions.events import Event, events
from shared.sessions.pages import whole
from shared.sessions.projection import PartialText
from shared.sessions.transcript import turn_of
from shared.store import Archive, Documents, SessionStore

Item = TypeVar("Item")
Running = Callable[[Session], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a source ended."""

    error: Exception


class History(Archive, Documents, Protocol):
    """Finished runs, and the pages of long ones."""


class Store(SessionStore, History, Protocol):
    """Sessions, their finished runs, and what is shown of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Partial text: the reader's text of this step and attempt is cut at `offset` and goes on with `text`.

    With `reset` the reader forgets whatever partial text it has. Such a piece has no number and is never replayed.
    """

    run: int
    step: str
    attempt: int
    offset: int
    text: str
    reset: bool


class TextCursor:
    """What one reader has of the partial text, and the piece that brings it up to date."""

    def __init__(self) -> None:
        self._shown: PartialText | None = None

    def advance(self, run: int, partial: PartialText) -> Text | None:
        """The next piece for this reader; None when it has everything."""
        shown, self._shown = self._shown, partial
        same = shown is not None and (shown.step, shown.attempt) == (partial.step, partial.attempt)
        if shown is None or not same or not partial.text.startswith(shown.text):
            return Text(run=run, step=partial.step, attempt=partial.attempt, offset=0, text=partial.text, reset=True)
        offset = len(shown.text)
        if offset == len(partial.text):
            return None
        text = partial.text[offset:]
        return Text(run=run, step=partial.step, attempt=partial.attempt, offset=offset, text=text, reset=False)


async def follow(
    store: SessionStore, archive: History, key: SessionKey, after: int, running: Running | None = None
) -> AsyncGenerator[Event]:
    """Every event later than number `after`, in order and once, first the missed ones, then each as it happens.

    `running` is called with the session at each change while a run is active. Goes on until the caller closes it.
    """
    async with aclosing(_changes(store, archive, key, after)) as changes:
        async for session, found in changes:
            for event in found:
                yield event
            if running is not None and session.run is not None:
                await running(session)


async def live(
    store: Store, key: SessionKey, after: int, view: str, running: Running | None = None
) -> AsyncGenerator[Event | Text]:
    """What `follow` gives, and between the events the partial text that the view at that path shows."""
    cursor = TextCursor()
    happening = follow(store, store, key, after, running)
    both: AsyncGenerator[Event | bytes] = merged(happening, store.follow(view))
    async with aclosing(both) as items:
        async for item in items:
            if isinstance(item, Event):
                after = item.sequence
                yield item
            elif (piece := _piece(cursor, item, after)) is not None:
                yield piece


async def later(documents: Documents, key: SessionKey, run: Run, after: int) -> list[Event]:
    """The run's events later than number `after`, in order; its pages are read only when some of them lie there."""
    first = run.steps[0] if run.steps else None
    joined = first is not None and turn_of(first.key) <= run.moved.turns
    if run.moved.pages and not joined and (first is None or first.sequence > after + 1):
        run = await whole(documents, key, run)
    return [event for event in events(run) if event.sequence > after]


async def merged(*sources: AsyncGenerator[Item]) -> AsyncGenerator[Item]:
    """What the sources give, as it comes, until one of them fails or the caller closes this; closes them all."""
    found: asyncio.Queue[Item | Failure] = asyncio.Queue(maxsize=100)

    async def pump(source: AsyncGenerator[Item]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await found.put(item)
        except Exception as error:  # noqa: BLE001  raised where the items are taken
            await found.put(Failure(error))

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    try:
        while True:
            item = await found.get()
            if isinstance(item, Failure):
                raise item.error
            yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _piece(cursor: TextCursor, body: bytes, after: int) -> Text | None:
    """The next piece of a view's partial text, unless its reader has seen a later event than the view shows."""
    view = json.loads(body)
    if view["text"] is None or view["sequence"] < after:
        return None
    return cursor.advance(view["run"], PartialText(**view["text"]))


async def _changes(
    store: SessionStore, archive: History, key: SessionKey, after: int
) -> AsyncGenerator[tuple[Session, list[Event]]]:
    """The session at each change, and its events since the change before."""
    async with aclosing(store.watch(key)) as stored_changes:
        async for stored in stored_changes:
            session = read(key, stored)
            if session is None:
                continue
            found: list[Event] = []
            if session.sequence > after:
                runs = await _runs_since(archive, session, after)
                found = [event for run in runs for event in await later(archive, key, run, after)]
                after = found[-1].sequence if found else after
            yield session, found


async def _runs_since(archive: Archive, session: Session, after: int) -> list[Run]:
    """The runs that have events later than `after`, the oldest first; the archive is read only for finished ones."""
    runs = [session.run] if session.run is not None else []
    while not runs or runs[0].first_sequence > after + 1:
        before = runs[0].number if runs else None
        page = [decode(Run, body) for body in await archive.runs(session.key, before=before, limit=10)]
        if not page:
            break
        runs[:0] = reversed(page)
    return [run for run in runs if run.ended_at is None or run.reply_sequence > after]
