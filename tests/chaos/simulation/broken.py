"""Stores that break the protocol on purpose: a simulation that does not find that is worth nothing."""

from __future__ import annotations

import re
from typing import Any

from shared.domain import SessionKey
from tests.chaos.memory import MemoryStore


class NoCompareAndSwap(MemoryStore):
    """Takes every commit, whatever was written since."""

    def compare(self, key: SessionKey, version: object) -> None:
        """Nothing is compared."""


class NoSeenIds(MemoryStore):
    """Forgets which messages were taken."""

    async def commit(self, key: SessionKey, version: object, *, state: bytes, **others: Any) -> object:
        return await super().commit(key, version, state=re.sub(rb'"seen":\[[^\]]*\]', b'"seen":[]', state), **others)


class NoNonce(MemoryStore):
    """Forgets whose the last commit was."""

    async def commit(self, key: SessionKey, version: object, *, state: bytes, **others: Any) -> object:
        return await super().commit(key, version, state=re.sub(rb'"nonce":"\w*"', b'"nonce":""', state), **others)


BROKEN: dict[str, type[MemoryStore]] = {
    "no_compare_and_swap": NoCompareAndSwap,
    "no_seen_ids": NoSeenIds,
    "no_nonce": NoNonce,
}
