"""One call of a channel's API over HTTP, and what its failure means for a delivery.

A token may stand in the address or in a header, so no error here carries either, or an exception of the HTTP library;
that library logs addresses at INFO and must be kept at WARNING.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shared.domain import Connection, JsonObject
from shared.errors import Blocked, NotSent, Refused, SendError, SendUnknown
from shared.secrets import SecretBox

if TYPE_CHECKING:
    import httpx


_TOKEN = re.compile(r"[!-~]+")
"""What may stand in an address and in a header alike."""


class ConnectionTokens:
    """The connections' tokens, each opened once."""

    def __init__(self, box: SecretBox) -> None:
        self._box = box
        self._opened: dict[str, str] = {}

    def of(self, connection: Connection) -> str:
        """The value of the connection's secret `token`. Raises `Refused` when it has none that opens."""
        sealed = connection.secrets.get("token", "")
        if sealed not in self._opened:
            bound_to = f"{connection.tenant}/{connection.id}/token"
            try:
                self._opened[sealed] = self._box.open(sealed, bound_to=bound_to)
            except Blocked:
                raise Refused(f"connection {connection.id}: secret `token` cannot be opened; store it again") from None
            if not _TOKEN.fullmatch(self._opened[sealed]):
                raise Refused(
                    f"connection {connection.id}: secret `token` has blanks or other signs in it; store it again"
                )
        return self._opened[sealed]


async def post(
    client: httpx.AsyncClient,
    url: str,
    body: JsonObject,
    *,
    call: str,
    repeatable: bool,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """The response, whatever its status, but for one of a proxy that gave up waiting; the client's time limits apply.

    `call` names channel and method in errors. Raises `NotSent` when the request never left or, being `repeatable`, may
    be made again, `SendUnknown` when it may have been carried out, `Refused` when `url` is no address.
    """
    import httpx

    problem: SendError
    try:
        response = await client.post(url, json=body, headers=headers)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as failed:
        problem = NotSent(f"{call}: {type(failed).__name__}, the request was not sent")
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        problem = Refused(f"{call}: the connection's api_root, token or number make no address; correct them")
    except httpx.HTTPError as failed:
        problem = unclear(f"{call}: {type(failed).__name__}, the answer was lost", repeatable=repeatable)
    else:
        if repeatable or response.status_code != 504:
            return response
        problem = unclear(f"{call}: 504, not an answer of the channel", repeatable=repeatable)
    raise problem  # outside the handlers: the library's error holds the request, and the token in it


def unclear(said: str, *, repeatable: bool) -> SendError:
    """What to raise when nobody knows whether it was done."""
    return NotSent(said) if repeatable else SendUnknown(said)
