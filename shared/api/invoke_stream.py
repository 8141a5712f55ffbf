"""An invoke as a stream: the run's events and the text of its answer from the running loop, then the result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from starlette.responses import StreamingResponse

from shared.api.follow import Store, Text, TextCursor, later, merged
from shared.api.http import answer_error, log_error
from shared.api.invoke import outcome_response
from shared.domain import Entry, JsonObject, SessionKey
from shared.orchestrator.invoke import Driving, Invoked, Invoker
from shared.sessions.document import Run, Session, read
from shared.sessions.events import Event
from shared.sessions.projection import PartialText

HEARTBEAT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The run that took the message, as it is now."""

    run: Run
    last: bool = False
    """Nothing more will come: it is over, or waits."""


Heard = Snapshot | PartialText


class Tap:
    """Hears what the attempt at one message commits and what its model says, and keeps that for the reader."""

    def __init__(self, message_id: str) -> None:
        self.heard: asyncio.Queue[Heard | None] = asyncio.Queue()
        self._message_id = message_id

    def committed(self, session: Session) -> None:
        """The run that took the message is kept; other runs of the attempt are nobody's business here."""
        for run in (session.finished, session.run):
            if run is not None and _took(run, self._message_id):
                self.heard.put_nowait(Snapshot(run))

    def grew(self, partial: PartialText, offset: int) -> None:
        """The text as it is now."""
        self.heard.put_nowait(partial)

    def end(self, _: Driving) -> None:
        """Nothing more will be heard."""
        self.heard.put_nowait(None)


def stream_invoke(
    invoker: Invoker, store: Store, key: SessionKey, entry: Entry, patience: float, after: int = 0
) -> StreamingResponse:
    """The response whose stream begins with the run's first event later than number `after` and ends with `result`,
    the body that an invoke without a stream is answered with, or with `error`, a problem.

    When the reader goes away the run goes on. A reader that comes again with the number that it saw last gets each
    event since then once, from whichever process; of the text only what is stored.
    """
    body = _with_heartbeats(_lines(_Stream(invoker, store, key, entry), patience, after))
    return StreamingResponse(body, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@dataclass(frozen=True, slots=True)
class _Stream:
    """One message whose run is read."""

    invoker: Invoker
    store: Store
    key: SessionKey
    entry: Entry

    async def items(self, after: int) -> AsyncGenerator[Event | Text | Invoked]:
        cursor, number = TextCursor(), 0
        async with aclosing(self._watched() if after else self._listened()) as found:
            async for heard in found:
                if isinstance(heard, PartialText):
                    if (piece := cursor.advance(number, heard)) is not None:
                        yield piece
                    continue
                number = heard.run.number
                if not heard.run.rejected(self.entry.id):  # it is another message's run
                    for event in await later(self.store, self.key, heard.run, after):
                        after = event.sequence
                        yield event
                if heard.last:
                    yield Invoked(session=self.key, run=heard.run)
                    return

    async def _listened(self) -> AsyncGenerator[Heard]:
        """What this process does for the message, and how it ended, whoever did it."""
        tap = Tap(self.entry.id)
        task = await self.invoker.begin(self.key, self.entry, tap)
        task.add_done_callback(tap.end)
        while (heard := await tap.heard.get()) is not None:
            yield heard
        yield Snapshot(await self.invoker.outcome(task, self.key, self.entry.id), last=True)

    async def _watched(self) -> AsyncGenerator[Heard]:
        """What the store holds of the run, at each change, for one that another request may have begun."""
        task = await self.invoker.begin(self.key, self.entry)
        async with aclosing(merged(self._changes(), self._end(task))) as found:
            async for snapshot in found:
                yield snapshot

    async def _changes(self) -> AsyncGenerator[Snapshot]:
        async with aclosing(self.store.watch(self.key)) as changes:
            async for stored in changes:
                session = read(self.key, stored)
                if session is not None and session.run is not None and _took(session.run, self.entry.id):
                    yield Snapshot(session.run)

    async def _end(self, task: Driving) -> AsyncGenerator[Snapshot]:
        yield Snapshot(await self.invoker.outcome(task, self.key, self.entry.id), last=True)


def _took(run: Run, message: str) -> bool:
    taken = (*run.inputs, *(arrival.message for arrival in run.arrivals if not arrival.rejected))
    return any(known.id == message for known in taken)


async def _lines(stream: _Stream, patience: float, after: int) -> AsyncGenerator[str]:
    try:
        async with asyncio.timeout(patience), aclosing(stream.items(after)) as items:
            async for item in items:
                yield _line(item, stream.entry)
    except TimeoutError:
        yield _line(Invoked(session=stream.key, run=None), stream.entry)
    except Exception as error:  # noqa: BLE001  the stream is the only answer that its reader gets
        log_error({"method": "POST"}, error)
        yield _sse("error", json.loads(bytes(answer_error(error).body)))


def _line(item: Event | Text | Invoked, entry: Entry) -> str:
    if isinstance(item, Invoked):
        return _sse("result", json.loads(bytes(outcome_response(item, entry).body)))
    if isinstance(item, Event):
        return _sse(item.kind, {"run": item.run, **item.seen_by("contact")}, item.sequence)
    data: JsonObject = {"run": item.run, "step": item.step, "attempt": item.attempt, "text": item.text}
    return _sse("text.reset", data) if item.reset else _sse("text.delta", {**data, "offset": item.offset})


def _sse(event: str, data: JsonObject, number: int | None = None) -> str:
    """One event in the wire format of https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _with_heartbeats(lines: AsyncGenerator[str]) -> AsyncIterator[str]:
    """The lines, and a comment whenever there was none for a while, so that nobody between takes it for dead."""
    found: asyncio.Queue[str | None] = asyncio.Queue(maxsize=100)

    async def pump() -> None:  # one task from first to last, as a time limit inside the generator needs
        try:
            async with aclosing(lines):
                async for line in lines:
                    await found.put(line)
        finally:
            await found.put(None)

    task = asyncio.create_task(pump())
    try:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    line = await found.get()
            except TimeoutError:
                line = ": still here\n\n"
            if line is None:
                return
            yield line
    finally:
        task.cancel()
