"""Long texts of inbox entries: they lie in blobs until a run takes them, so that the document stays small."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from shared.domain import Entry, SessionKey
from shared.files import Files

BLOB_BYTES = 2_048
"""A longer text lies in a blob while it waits in the inbox."""


def blob_path(key: SessionKey, name: str) -> str:
    """Where a session's blob lies. No session can name another's."""
    return f"tenants/{key.tenant}/sessions/{key.session}/blobs/{name}"


async def put_aside(files: Files, key: SessionKey, entry: Entry) -> Entry:
    """The entry with its text in a blob if that is longer than `BLOB_BYTES`. Again, it changes nothing.

    A blob belongs to one entry: the run that takes that may remove it, whoever writes the same text meanwhile. Raises
    `StoreDown`.
    """
    body = entry.text.encode()
    if len(body) <= BLOB_BYTES:
        return entry
    name = hashlib.sha256(entry.id.encode() + body).hexdigest()
    await files.put(blob_path(key, name), body)
    return replace(entry, text="", blob=name, size=len(body))
