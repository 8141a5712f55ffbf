"""The signature on a result: proves to its receiver that we sent it, and when.

Receivers may copy this file: it needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import hmac
import re

HEADER = "Recado-Signature"
WINDOW_SECONDS = 300
"""A signature older, or newer, than this is refused: what was overheard once cannot be used later."""
_FORM = re.compile(r"t=(\d{1,12}),v1=([0-9a-f]{64})")


def sign(key: str, body: bytes, at: float) -> str:
    """The header's value: `t=<Unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`."""
    return f"t={int(at)},v1={_mac(key, int(at), body)}"


def verify(key: str, body: bytes, header: str, now: float) -> bool:
    """Whether the header signs exactly this body with this key, within `WINDOW_SECONDS` of `now` (Unix seconds)."""
    found = _FORM.fullmatch(header)
    if found is None:
        return False
    at = int(found[1])
    return abs(now - at) <= WINDOW_SECONDS and hmac.compare_digest(found[2], _mac(key, at, body))


def _mac(key: str, at: int, body: bytes) -> str:
    return hmac.new(key.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
