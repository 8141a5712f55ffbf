"""The token in a callback's address: names the wait that it ends, and proves that we made it."""

from __future__ import annotations

import hashlib
import hmac

from shared.domain import SessionKey
from shared.errors import Unauthenticated
from shared.secrets import SecretBox


def issue(box: SecretBox, key: SessionKey, wait: str) -> str:
    """The token for one wait of one session; the same each time. Whoever holds it may decide."""
    payload = f"{key.tenant}.{key.session}.{wait}"
    return f"{payload}.{_mac(box, payload)}"


def verify(box: SecretBox, token: str) -> tuple[SessionKey, str]:
    """The session and the wait that the token is for. Raises `Unauthenticated` when it is not one of ours."""
    payload, _, mac = token.rpartition(".")
    parts = payload.split(".")
    if len(parts) != 3 or not hmac.compare_digest(mac.encode(), _mac(box, payload).encode()):
        raise Unauthenticated("token: not one that was issued here; use the address of the wait as it was given")
    tenant, session, wait = parts
    return SessionKey(tenant, session), wait


def _mac(box: SecretBox, payload: str) -> str:
    return hmac.new(box.derive("callbacks").encode(), payload.encode(), hashlib.sha256).hexdigest()
