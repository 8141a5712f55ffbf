"""Who calls with an API key: `Authorization: Bearer rk_<id>_<secret>`."""

from __future__ import annotations

import hashlib
import hmac
import re

from shared.domain import Principal
from shared.errors import Unauthenticated
from shared.published import Published

_BEARER = re.compile(r"(?i:bearer) +rk_([A-Za-z0-9-]{1,64})_([A-Za-z0-9_-]{1,200})")


async def authenticate(header: str | None, published: Published) -> Principal:
    """The principal whose key the `Authorization` header holds; its id is the key's.

    Raises `Unauthenticated` with the same words for an unknown, a wrong and a disabled key.
    """
    presented = _BEARER.fullmatch(header or "")
    if presented is None:
        raise Unauthenticated("Authorization: send `Bearer rk_<id>_<secret>`, the whole API key as it was shown once")
    id_, secret = presented.groups()
    key = await published.api_key(id_)
    sha256 = hashlib.sha256(secret.encode()).hexdigest()
    if key is None or not hmac.compare_digest(sha256, key.secret_sha256) or not key.enabled:
        raise Unauthenticated("Authorization: this API key is not valid: use another, or ask for a new one")
    return Principal(tenant=key.tenant, id=key.id, role=key.role)
