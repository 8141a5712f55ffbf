"""Proof that a push comes from Pub/Sub or Cloud Scheduler: the OIDC token in its `Authorization` header.

The claims are those of https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions.
"""

from __future__ import annotations

from shared.auth.tokens import Tokens, bearer
from shared.errors import Unauthenticated


class PushVerifier:
    """Accepts tokens of one service account."""

    def __init__(self, tokens: Tokens, service_account: str) -> None:
        self._tokens = tokens
        self._service_account = service_account

    async def verify(self, authorization: str | None) -> None:
        """Return if the header holds a good token, else raise `Unauthenticated` with the reason, never the token.

        Raises `Retryable` when the issuer's certificates cannot be fetched: then nobody can tell.
        """
        if not self._service_account:
            raise Unauthenticated("push: no service account is set, so no token can be accepted")
        claims = await self._tokens.claims(bearer(authorization))
        if claims.get("email") != self._service_account:
            raise Unauthenticated("push: the token is another account's: its email is not the push service account")
        if claims.get("email_verified") is not True:
            raise Unauthenticated("push: the token's email is not verified")
