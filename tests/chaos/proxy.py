"""A TCP proxy that cuts connections: before a request went through, or before its answer came back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random

PIECE = 1 << 16


@dataclass
class Proxy:
    """Stands before `host`. With `chance`, a piece of a request or of an answer is dropped with its connection, on
    which more calls than one may have been under way; `cut` is told which."""

    host: str
    random: Random
    chance: float = 0.0
    answers_only: bool = False
    cut: Callable[[str], None] | None = None
    address: str = ""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it or it is cut."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        host, _, port = self.host.partition(":")
        try:
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.create_task(self._pass(reader, back, "request")),
            asyncio.create_task(self._pass(there, writer, "answer")),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # `end` does that: nobody awaits this task
        finally:
            self._tasks.discard(task)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, back):
                end.transport.abort()

    async def end(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: str) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                wanted = what == "answer" or not self.answers_only
                if wanted and len(piece) > SMALL and self.random.random() < self.chance:
                    if self.cut is not None:
                        self.cut(what)
                    return
                writer.write(piece)
                await writer.drain()


SMALL = 40
"""Bytes: shorter pieces are pings and windows of HTTP/2, nobody's request or answer."""


@asynccontextmanager
async def before(proxy: Proxy) -> AsyncIterator[Proxy]:
    """The proxy at work, at its `address`."""
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
