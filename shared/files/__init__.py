"""Where bytes lie that are too large for a document: the port that `fsspec` implements over folders, GCS and S3."""

from __future__ import annotations

from typing import Protocol


class Files(Protocol):
    """Blobs by path, such as `tenants/acme/sessions/<id>/blobs/<sha256>`: relative, ids of `[A-Za-z0-9_.:-]` between
    slashes. Every method raises `StoreDown` when there is no answer within a few seconds."""

    async def put(self, path: str, body: bytes) -> None:
        """Write or replace it; returns once it is durable. Nobody ever reads half of it."""

    async def get(self, path: str) -> bytes | None:
        """The bytes, or None when nothing is there."""

    async def delete(self, path: str) -> None:
        """Remove it; nothing happens when it is not there."""
