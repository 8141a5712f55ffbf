"""Keeping secrets at rest: the port that `keyfile` implements today and Cloud KMS will on Google Cloud.

Configuration holds a secret's name; the value is stored only as ciphertext.
"""

from __future__ import annotations

from typing import Protocol


class SecretBox(Protocol):
    """Seals and opens small values under one platform key, and derives further keys from it."""

    def seal(self, value: str, *, bound_to: str) -> str:
        """Ciphertext as URL-safe text. It opens only with the same `bound_to` (such as `tenant/name`)."""

    def open(self, ciphertext: str, *, bound_to: str) -> str:
        """The value. Raises `Blocked` when the ciphertext is not ours, was changed, or belongs to something else."""

    def derive(self, purpose: str) -> str:
        """HMAC-SHA256(platform key, purpose), 64 hexadecimal characters: equal in every process, never stored."""
