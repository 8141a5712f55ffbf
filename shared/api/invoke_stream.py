"""An invoke as a stream: the run's events and the text of its answer from the running loop, then the result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.responses import StreamingResponse

from shared.api.follow import Text, TextCursor
from shared.api.http import answer_error, log_error
from shared.api.invoke import outcome_response
from shared.domain import Entry, JsonObject, SessionKey
from shared.orchestrator.invoke import Driving, Invoked, Invoker
from shared.sessions.document import Run, Session
from shared.sessions.events import Event, events
from shared.sessions.projection import PartialText

HEARTBEAT_SECONDS = 15.0


class Tap:
    """Hears what the attempt at one message commits and what its model says, and keeps that for the reader."""

    def __init__(self, message_id: str) -> None:
        self.heard: asyncio.Queue[Run | PartialText | None] = asyncio.Queue()
        self._message_id = message_id

    def committed(self, session: Session) -> None:
        """The run that took the message is kept; other runs of the attempt are nobody's business here."""
        for run in (session.finished, session.run):
            if run is not None and any(message.id == self._message_id for message in run.inputs):
                self.heard.put_nowait(run)

    def grew(self, partial: PartialText, offset: int) -> None:
        """The text as it is now."""
        self.heard.put_nowait(partial)

    def end(self, _: Driving) -> None:
        """Nothing more will be heard."""
        self.heard.put_nowait(None)


def stream_invoke(invoker: Invoker, key: SessionKey, entry: Entry, patience: float) -> StreamingResponse:
    """The response whose stream begins with the run's first event and ends with `result`, the body that an invoke
    without a stream is answered with, or with `error`, a problem. When the reader goes away the run goes on."""
    body = _with_heartbeats(_lines(invoker, key, entry, patience))
    return StreamingResponse(body, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _lines(invoker: Invoker, key: SessionKey, entry: Entry, patience: float) -> AsyncGenerator[str]:
    try:
        async with asyncio.timeout(patience), aclosing(_items(invoker, key, entry)) as items:
            async for item in items:
                yield _line(item, entry)
    except TimeoutError:
        yield _line(Invoked(session=key, run=None), entry)
    except Exception as error:  # noqa: BLE001  the stream is the only answer that its reader gets
        log_error({"method": "POST"}, error)
        yield _sse("error", json.loads(bytes(answer_error(error).body)))


async def _items(invoker: Invoker, key: SessionKey, entry: Entry) -> AsyncGenerator[Event | Text | Invoked]:
    tap = Tap(entry.id)
    task = await invoker.begin(key, entry, tap)
    task.add_done_callback(tap.end)
    cursor, number, after = TextCursor(), 0, 0
    while (heard := await tap.heard.get()) is not None:
        if isinstance(heard, PartialText):
            if (piece := cursor.advance(number, heard)) is not None:
                yield piece
            continue
        number = heard.number
        for event in events(heard):
            if event.sequence > after:
                after = event.sequence
                yield event
    run = await invoker.outcome(task, key, entry.id)
    for event in events(run):  # all of them when another process drove the run
        if event.sequence > after:
            yield event
    yield Invoked(session=key, run=run)


def _line(item: Event | Text | Invoked, entry: Entry) -> str:
    if isinstance(item, Invoked):
        return _sse("result", json.loads(bytes(outcome_response(item, entry.conversation).body)))
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
