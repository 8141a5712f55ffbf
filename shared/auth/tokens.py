"""JSON Web Tokens that an issuer signed by RS256, with its certificates fetched and kept.

PyJWT rather than google-auth: its algorithms are an explicit list, our clock can judge the times, and fetching the
certificates stays asynchronous.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from shared.clock import Clock
from shared.errors import Retryable, Unauthenticated

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from httpx import AsyncClient, Response

LEEWAY_SECONDS = 10
"""How far the issuer's clock may be from ours."""

KEEP = timedelta(hours=1)
"""How long certificates are kept when their answer does not say (`Cache-Control: max-age`)."""

REFETCH = timedelta(seconds=30)
"""How often an unknown key id may cause a fetch: a forged token must not be a way to make us call out."""

FETCH_SECONDS = 5.0

PAUSE = timedelta(seconds=1)
"""How long after a failed fetch tokens are turned away at once instead of queueing for the next one."""

_NEVER = datetime.min.replace(tzinfo=UTC)

_REASONS = {
    "InvalidSignatureError": "the token's signature is wrong",
    "InvalidAudienceError": "the token is for another audience",
    "InvalidIssuerError": "the token is another issuer's",
    "MissingRequiredClaimError": "the token needs aud, iss, exp and iat",
}
"""By the name of PyJWT's error, whose own words may quote the token."""


def bearer(authorization: str | None) -> str:
    """The token in an `Authorization: Bearer` header. Raises `Unauthenticated` when there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("send `Authorization: Bearer` with a token")
    return token


class Tokens:
    """Reads tokens of one issuer for one audience.

    `certificates_url` answers `{key id: PEM certificate}`. They are kept as long as `Cache-Control` allows, and
    fetched once more when a token names a key that is not among them.
    """

    def __init__(self, *, audience: str, issuer: str, certificates_url: str, http: AsyncClient, clock: Clock) -> None:
        self._audience = audience
        self._issuer = issuer
        self._certificates_url = certificates_url
        self._http = http
        self._clock = clock
        self._fetching = asyncio.Lock()
        self._keys: dict[str, RSAPublicKey] = {}
        self._fetched_at = self._good_until = self._failed_at = _NEVER

    async def claims(self, token: str) -> dict[str, Any]:
        """What a good, current token says. Raises `Unauthenticated` with the reason, never the token.

        Raises `Retryable` when the certificates cannot be fetched: then nobody can tell.
        """
        import jwt

        if not (self._audience and self._issuer):
            raise Unauthenticated("no audience or issuer is set, so no token can be accepted")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != "RS256":
                raise Unauthenticated("the token must be signed by RS256")
            claims = jwt.decode(
                token,
                await self._key(str(header.get("kid"))),
                algorithms=["RS256"],
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["aud", "iss", "exp", "iat"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(_REASONS.get(type(error).__name__, "the token cannot be read")) from None
        check_times(claims, self._clock.now())
        return claims

    async def _key(self, kid: str) -> RSAPublicKey:
        async with self._fetching:
            now = self._clock.now()
            unknown = kid not in self._keys and now >= self._fetched_at + REFETCH
            if unknown or now >= self._good_until:
                await self._fetch(now)
        if kid not in self._keys:
            raise Unauthenticated("the token is signed by a key that the issuer does not publish")
        return self._keys[kid]

    async def _fetch(self, now: datetime) -> None:
        import httpx
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.x509 import load_pem_x509_certificate

        if now < self._failed_at + PAUSE:
            raise Retryable("the issuer's certificates could not be read a moment ago")
        try:
            answer = await self._http.get(self._certificates_url, timeout=FETCH_SECONDS)
            pems = answer.raise_for_status().json()
            keys = {kid: load_pem_x509_certificate(pem.encode()).public_key() for kid, pem in pems.items()}
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            self._failed_at = self._clock.now()
            raise Retryable(f"the issuer's certificates could not be read: {type(error).__name__}") from error
        self._keys = {kid: key for kid, key in keys.items() if isinstance(key, RSAPublicKey)}
        self._fetched_at = self._clock.now()
        self._good_until = self._fetched_at + _lifetime(answer)


def check_times(claims: dict[str, Any], now: datetime) -> None:
    """Return if a token with these claims is current. Raises `Unauthenticated`."""
    issued, expires = claims.get("iat"), claims.get("exp")
    if not isinstance(issued, int | float) or not isinstance(expires, int | float):
        raise Unauthenticated("the token's exp and iat must be numbers")
    if now.timestamp() >= expires + LEEWAY_SECONDS:
        raise Unauthenticated("the token has expired")
    if now.timestamp() < issued - LEEWAY_SECONDS:
        raise Unauthenticated("the token was issued in the future")


def _lifetime(answer: Response) -> timedelta:
    found = re.search(r"max-age=(\d{1,9})", answer.headers.get("cache-control", ""))
    return timedelta(seconds=int(found[1])) if found else KEEP
