"""`recado webhook`: tells Telegram where a connection's updates go, and the secret that they must bring."""

from __future__ import annotations

import httpx

from shared.channels.telegram import ALLOWED_UPDATES, secret_for
from shared.domain import JsonObject
from shared.errors import RecadoError
from shared.settings import Settings
from shared.wiring import Parts


async def webhook(settings: Settings, connection: str, url: str) -> int:
    """Call setWebhook for the published connection; `url` is the address of `ingest`. Safe to repeat.

    Raises `NotFound` when there is no such connection, and `RecadoError` with Telegram's words when it refuses.
    """
    here = Parts(settings)
    try:
        found = await here.published.connection(connection)
        if found.channel != "telegram":
            raise RecadoError(f"connection {connection}: it is not a Telegram connection, so it has no such webhook")
        token = here.box.open(found.secrets.get("token", ""), bound_to=f"{found.tenant}/{found.id}/token")
        address = f"{url.rstrip('/')}/telegram/{found.id}"
        parameters: JsonObject = {
            "url": address,
            "secret_token": secret_for(here.box, found.id),
            "allowed_updates": list(ALLOWED_UPDATES),
        }
        said = await _call(here.http, f"{found.api_root or settings.telegram_api}/bot{token}/setWebhook", parameters)
        if said:
            raise RecadoError(f"Telegram refused the webhook {address}: {said.replace(token, '<token>')}")
        print(f"Telegram posts to {address}")
        return 0
    finally:
        await here.aclose()


async def _call(http: httpx.AsyncClient, address: str, parameters: JsonObject) -> str:
    """Why it was refused; empty: it was not. The address has the bot's token in it, so no error may show it."""
    try:
        body = (await http.post(address, json=parameters)).json()
        return "" if body["ok"] else str(body.get("description", "no reason given"))
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise RecadoError(f"Telegram did not answer: {type(error).__name__}") from None
