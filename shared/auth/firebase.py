"""Who signed in with Firebase Auth: the ID token that the web client sends.

The claims are those of https://firebase.google.com/docs/auth/admin/verify-id-tokens.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from shared.auth.tokens import Tokens, bearer, check_times
from shared.clock import Clock
from shared.errors import Unauthenticated

CERTIFICATES = "https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com"


def issuer(project: str) -> str:
    """The `iss` of a project's ID tokens."""
    return f"https://securetoken.google.com/{project}"


class FirebaseVerifier:
    """Accepts ID tokens of one project; with `emulator` the unsigned ones of the Auth emulator, and no others."""

    def __init__(self, tokens: Tokens, project: str, clock: Clock, *, emulator: bool = False) -> None:
        self._tokens = tokens
        self._project = project
        self._clock = clock
        self._emulator = emulator

    async def user(self, authorization: str | None) -> str:
        """The uid of the signed-in user, 1 to 128 characters. Raises `Unauthenticated` and `Retryable`."""
        token = bearer(authorization)
        claims = self._unsigned(token) if self._emulator else await self._tokens.claims(token)
        uid = claims.get("sub")
        if not isinstance(uid, str) or not 1 <= len(uid) <= 128 or "/" in uid:
            raise Unauthenticated("the token names no user")
        return uid

    def _unsigned(self, token: str) -> dict[str, Any]:
        try:
            header, body, signature = token.split(".")
            claims = json.loads(_decoded(body))
            unsigned = json.loads(_decoded(header))["alg"] == "none" and not signature
        except (ValueError, KeyError, TypeError):
            raise Unauthenticated("the token cannot be read") from None
        if not unsigned or claims.get("aud") != self._project or claims.get("iss") != issuer(self._project):
            raise Unauthenticated("the token is not one of this project's Auth emulator")
        check_times(claims, self._clock.now())
        return dict(claims)


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
