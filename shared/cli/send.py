"""`recado send`: an update as a channel would post it, then what the contact gets to see."""

from __future__ import annotations

import asyncio
import json
import time

from shared.channels.telegram import SECRET_HEADER, secret_for
from shared.cli.client import Client, ServerError, checked
from shared.cli.embedded import SIMULATOR, read_key
from shared.domain import JsonObject
from shared.settings import Settings
from shared.wiring import Parts

PATIENCE_SECONDS = 120.0


async def send_telegram(
    settings: Settings, url: str, connection: str, chat: int, text: str, *, tap: str, as_json: bool
) -> int:
    """Post what the contact of `chat` writes or taps, and print what the simulator received for them.

    0 when something was received. Raises `ServerError` when the server refuses the update or nothing comes back.
    """
    if bool(text) == bool(tap):
        raise ServerError("text: give what the contact writes, or --tap approve or --tap deny")
    client = Client(url, read_key(settings))
    try:
        before = await _messages(client, chat)
        update = await _update(client, chat, text, tap, before)
        secret = secret_for(Parts(settings).box, connection)
        posted = await client.request("POST", f"/telegram/{connection}", json=update, headers={SECRET_HEADER: secret})
        session = str(checked(posted).get("session", ""))
        await _until_idle(client, session)
        news = [message for message in await _messages(client, chat) if message not in before]
        for message in news:
            print(json.dumps(message, ensure_ascii=False) if as_json else _readable(message), flush=True)
        return 0 if news else 1
    finally:
        await client.aclose()


async def _update(client: Client, chat: int, text: str, tap: str, shown: list[JsonObject]) -> JsonObject:
    """The update as Telegram would make it, with ids of the simulator."""
    body: JsonObject = {"chat": chat, "text": text}
    if tap:
        wanted = ":y" if tap == "approve" else ":n"
        taps = [
            button["callback_data"]
            for message in shown
            for row in message["buttons"]
            for button in row
            if button["callback_data"].endswith(wanted)
        ]
        if not taps:
            raise ServerError(f"--tap: no message in chat {chat} has a button; ask for a refund first")
        body = {"chat": chat, "tap": taps[-1]}
    return checked(await client.request("POST", f"{SIMULATOR}/simulator/updates", json=body))


async def _messages(client: Client, chat: int) -> list[JsonObject]:
    response = await client.request("GET", f"{SIMULATOR}/simulator/chats/{chat}/messages")
    if response.is_error:
        checked(response)
    return list(response.json())


async def _until_idle(client: Client, session: str) -> None:
    """Return once the session has nothing left to do but wait."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        found = await client.get(f"/v1/sessions/{session}")
        if found is not None and found["status"] != "running" and not found["inbox"]:
            return
        await asyncio.sleep(0.05)
    raise ServerError(f"session {session}: not answered within {PATIENCE_SECONDS:.0f} s; see the server's log")


def _readable(message: JsonObject) -> str:
    labels = [button["text"] for row in message["buttons"] for button in row]
    edited = " (edited)" if message["edited"] else ""
    return f"{message['text']}{edited}" + (f"\n  [{'] ['.join(labels)}]" if labels else "")
