"""Secrets sealed with one platform key that is kept in the environment or in a file: AES-256-GCM by `cryptography`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from shared.errors import Blocked
from shared.settings import SettingsError

_MAKE_ONE = "python -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
_NONCE_BYTES = 12


class KeyFile:
    """`SecretBox` under `platform_key` (32 bytes in URL-safe base64) or, when that is empty, under the key in `path`.

    The file is made on first use, mode 0600 in a folder of mode 0700; whoever loses it loses every secret. First use
    raises `SettingsError` for a key of another form, and for a file that others may read.
    """

    def __init__(self, path: Path, platform_key: str = "") -> None:
        self._path = path
        self._platform_key = platform_key

    def seal(self, value: str, *, bound_to: str) -> str:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(self._key).encrypt(nonce, value.encode(), bound_to.encode())
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, ciphertext: str, *, bound_to: str) -> str:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            sealed = _unbase64(ciphertext)
            value = AESGCM(self._key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode())
        except (ValueError, InvalidTag):
            raise Blocked(f"the secret {bound_to} does not open with this platform key: put it again") from None
        return value.decode()

    def derive(self, purpose: str) -> str:
        return hmac.new(self._key, purpose.encode(), hashlib.sha256).hexdigest()

    @cached_property
    def _key(self) -> bytes:
        if self._platform_key:
            return _decoded(self._platform_key, "RECADO_PLATFORM_KEY")
        if not self._path.exists():
            self._make()
        if self._path.stat().st_mode & 0o077:
            raise SettingsError(f"{self._path} may be read by others: run `chmod 600 {self._path}`")
        return _decoded(self._path.read_text().strip(), str(self._path))

    def _make(self) -> None:
        """Of processes that come here at once, one makes the key, and none ever sees half a file."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(base64.urlsafe_b64encode(os.urandom(32)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                self._path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _decoded(text: str, source: str) -> bytes:
    try:
        key = _unbase64(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise SettingsError(f"{source} must be 32 bytes in URL-safe base64: make it with {_MAKE_ONE}")
    return key
