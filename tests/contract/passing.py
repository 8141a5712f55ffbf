"""A gRPC server between a store and the Firestore emulator, for tests that count the calls or spoil some."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from shared.store.firestore import FirestoreStore


class Passing(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio ships no types
    """Passes every call on to the emulator."""

    def __init__(self, host: str) -> None:
        self._channel = grpc.aio.insecure_channel(host)

    def service(self, details: Any) -> Any:
        async def pass_on(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            await self.before(details.method, context)
            try:
                async for response in self._channel.stream_stream(details.method)(requests, metadata=metadata):
                    async for seen in self.after(details.method, response):
                        yield seen
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details())

        metadata = [pair for pair in details.invocation_metadata if not pair[0].startswith(("grpc-", "user-agent"))]
        return grpc.stream_stream_rpc_method_handler(pass_on)

    async def before(self, method: str, context: Any) -> None:
        """May end the call."""

    async def after(self, method: str, response: bytes) -> AsyncIterator[bytes]:
        yield response

    async def aclose(self) -> None:
        await self._channel.close()


@asynccontextmanager
async def passed_on(passing: Passing, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FirestoreStore]:
    """A store that reaches the emulator through that."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((passing,))
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    store = FirestoreStore(f"firestore-{secrets.token_hex(6)}")
    yield store
    await store.aclose()
    await server.stop(None)
    await passing.aclose()
