"""Streams of events go on for ever: a server that ends must end them, or it waits for its clients to leave."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Streams:
    """Passes requests on; `end` completes every answer that is a stream of events at the present moment."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner
        self._open: set[asyncio.Task[None]] = set()
        self._ending = False

    def end(self) -> None:
        """No more events: every stream's client gets a whole answer."""
        self._ending = True
        for task in self._open:
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None

        async def watched(message: Message) -> None:
            if (b"content-type", b"text/event-stream") in [
                (name, value.partition(b";")[0]) for name, value in message.get("headers", ())
            ]:
                self._open.add(task)
            await send(message)

        try:
            await self._inner(scope, receive, watched)
        except asyncio.CancelledError:
            if not self._ending or task not in self._open:
                raise
            task.uncancel()
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._open.discard(task)
