"""Just enough HTTP for the world and the balancer: a server and a call, both of which see every byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What came in, with header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    raw: bytes
    """The head as it came, up to the empty line."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes out."""

    status: int
    body: bytes = b""
    media_type: str = "application/json"

    def encoded(self) -> bytes:
        head = (
            f"HTTP/1.1 {self.status} -\r\ncontent-type: {self.media_type}\r\ncontent-length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


Handler = Callable[[Request], Awaitable[Reply]]


class Cut(Exception):
    """The handler wants the connection ended without an answer."""


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The server's address until the end of the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while (request := await read_request(reader)) is not None:
                reply = await handler(request)
                writer.write(reply.encoded())
                await writer.drain()
        except (Cut, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whoever called has gone, or shall see a broken connection
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=LIMIT, backlog=512)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None at its end."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None
    first, *lines = raw.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body, raw)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


async def call(port: int, request: Request, limit: float) -> Reply:
    """The reply of the server on that port. Raises `OSError` when it breaks off, `TimeoutError` after `limit` s."""
    async with asyncio.timeout(limit):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LIMIT)
        try:
            keep = {"host": f"127.0.0.1:{port}", "connection": "close", "content-length": str(len(request.body))}
            dropped = {"transfer-encoding", "expect", "keep-alive", "upgrade", "http2-settings"}
            headers = {name: text for name, text in request.headers.items() if name not in dropped} | keep
            head = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
            writer.write(f"{request.method} {request.path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + request.body)
            await writer.drain()
            return await _reply(reader)
        except (asyncio.IncompleteReadError, ValueError) as error:
            raise ConnectionResetError("broke off") from error
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _reply(reader: asyncio.StreamReader) -> Reply:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): text.strip() for name, _, text in (line.partition(":") for line in lines if line)}
    status = int(first.split(" ")[1])
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    return Reply(status, body, headers.get("content-type", ""))
