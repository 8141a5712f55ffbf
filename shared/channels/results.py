"""Posting a result to the address that a caller named, without being led into our own network.

Whoever has an API key chooses the address, so it is distrusted: only https to public addresses, whose name is resolved
once and connected to as it was checked; no redirect is followed, no proxy used, no answer read. No error here carries
the address: its query may be a secret.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from shared.auth import signature
from shared.clock import Clock
from shared.domain import JsonObject, Result
from shared.errors import NotSent, Refused
from shared.secrets import SecretBox

if TYPE_CHECKING:
    import httpx

LIMIT_SECONDS = 10.0
"""For one attempt: resolve, connect, send and see the status."""
LONGEST_URL = 2000

Address = IPv4Address | IPv6Address
Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""From a host's name to its addresses. Raises `OSError` when there are none."""


async def resolve(host: str) -> Sequence[str]:
    """What the system's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def check_url(text: str, *, development: bool) -> None:
    """Raise `ValueError` with what to use instead when no result may be posted there, as far as the text says it.

    In `development` loopback may be named, by `http` as well.
    """
    _parse(text, development=development)


def is_public(address: Address) -> bool:
    """Whether it is on the internet: not private, loopback, link-local (metadata), shared, multicast or reserved.

    Addresses of IPv6 that stand for one of IPv4 (mapped, translated, 6to4) are never: the other end decides which.
    """
    if isinstance(address, IPv6Address) and (address.sixtofour is not None or address.is_site_local):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def signing_key(box: SecretBox, tenant: str) -> str:
    """With what the tenant's results are signed."""
    return box.derive(f"results/{tenant}")


class ResultPoster:
    """Posts results, each signed with its tenant's key."""

    def __init__(self, box: SecretBox, clock: Clock, *, development: bool, resolver: Resolver = resolve) -> None:
        self._box = box
        self._clock = clock
        self._development = development
        self._resolve = resolver

    async def post(self, result: Result) -> None:
        """Return once the address answered 2xx.

        Raises `Refused` when it never will be taken (410, or not a public address), else `NotSent`: the same result
        may be posted again, and has the same `Idempotency-Key`.
        """
        import httpx

        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                status = await self._status(result)
        except (httpx.HTTPError, OSError, TimeoutError, ValueError) as error:
            raise NotSent(f"no answer: {type(error).__name__}") from None  # the library's error holds the address
        if status == httpx.codes.GONE:
            raise Refused("answered 410: nobody wants it any more")
        if not 200 <= status < 300:
            raise NotSent(f"answered {status}")

    async def _status(self, result: Result) -> int:
        try:
            url = _parse(result.url, development=self._development)
        except ValueError as error:
            raise Refused(f"callback_url: {error}") from None
        host = url.raw_host.decode()
        address = await self._address(host, loopback_only=url.scheme == "http")
        body = json.dumps(_body(result), ensure_ascii=False).encode()
        key = signing_key(self._box, result.key.tenant)
        headers = {
            "Host": url.netloc.decode(),
            "Content-Type": "application/json",
            "Idempotency-Key": result.id,
            "User-Agent": "Recado",
            signature.HEADER: signature.sign(key, body, self._clock.now().timestamp()),
        }
        pinned, extensions = url.copy_with(host=str(address)), {"sni_hostname": host}
        async with self._http.stream("POST", pinned, content=body, headers=headers, extensions=extensions) as answer:
            return answer.status_code

    async def _address(self, host: str, *, loopback_only: bool) -> Address:
        """Where to connect to, IPv4 first: Cloud Run has no way out by IPv6. Raises `Refused` if any is not allowed."""
        addresses = [_literal(host)] if _literal(host) else [ip_address(found) for found in await self._resolve(host)]
        allowed = [address for address in addresses if address is not None]
        for address in allowed:
            if not (self._development and address.is_loopback) and (loopback_only or not is_public(address)):
                raise Refused("callback_url: its host is not a public address")
        if not allowed:
            raise NotSent("its host has no address")
        return min(allowed, key=lambda address: address.version)

    async def aclose(self) -> None:
        """Close the connections."""
        if "_http" in self.__dict__:
            await self._http.aclose()

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        import httpx

        # No connection is used twice: two hosts at one address would share it, under the first one's certificate.
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
        return httpx.AsyncClient(timeout=LIMIT_SECONDS, limits=limits, trust_env=False, follow_redirects=False)


def _parse(text: str, *, development: bool) -> httpx.URL:
    import httpx

    if len(text) > LONGEST_URL:
        raise ValueError(f"more than {LONGEST_URL} characters; use a shorter address")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError):
        raise ValueError("not an address; use one such as https://example.com/results") from None
    literal = _literal(url.raw_host.decode())
    loopback = url.host == "localhost" or (literal is not None and literal.is_loopback)
    if not url.host or not (url.scheme == "https" or (url.scheme == "http" and development and loopback)):
        raise ValueError("not https; use an address such as https://example.com/results")
    if url.userinfo or url.fragment:
        raise ValueError("has a user or a fragment; leave them out")
    if literal is not None and not is_public(literal) and not (development and loopback):
        raise ValueError("not a public address; use one on the internet")
    return url


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _body(result: Result) -> JsonObject:
    session = f"/v1/sessions/{result.key.session}"
    return {
        "id": result.id,
        "status": result.outcome,
        "text": result.text,
        "reason": result.reason,
        "session": result.conversation,
        "session_id": result.key.session,
        "message": result.message,
        "run": f"{session}/runs/{result.run}",
    }
