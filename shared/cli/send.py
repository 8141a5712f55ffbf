"""`recado send`: an update as a channel would post it, then what the contact gets to see."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Protocol

from shared.channels.telegram import SECRET_HEADER, secret_for
from shared.channels.whatsapp import SIGNATURE_HEADER
from shared.cli.client import Client, ServerError, checked
from shared.cli.embedded import SIMULATOR, WHATSAPP_SIMULATOR, read_key
from shared.domain import Button, JsonObject
from shared.settings import Settings
from shared.wiring import Parts

PATIENCE_SECONDS = 120.0


class Channel(Protocol):
    """What differs from channel to channel, for one contact."""

    name: str
    """The conversation, as it is called in an error."""
    shown: str
    """Path of what the contact was shown."""

    def buttons(self, message: JsonObject) -> list[Button]:
        """The buttons of one of those messages."""

    async def post(self, client: Client, text: str, tap: str) -> str:
        """Post what the contact writes, or a tap on the button with this data; the session's id."""

    async def finish(self, client: Client) -> None:
        """Post what the channel reports afterwards."""


async def send(settings: Settings, url: str, channel: Channel, text: str, *, tap: str, as_json: bool) -> int:
    """Post what the contact writes or taps, and print what the simulator received for them.

    0 when something was received. Raises `ServerError` when the server refuses the update or nothing comes back.
    """
    if bool(text) == bool(tap):
        raise ServerError("text: give what the contact writes, or --tap approve or --tap deny")
    client = Client(url, read_key(settings))
    try:
        before = await _messages(client, channel)
        session = await channel.post(client, text, _data(channel, tap, before) if tap else "")
        await _until_idle(client, session)
        news = [message for message in await _messages(client, channel) if message not in before]
        for message in news:
            print(json.dumps(message, ensure_ascii=False) if as_json else _readable(channel, message), flush=True)
        await channel.finish(client)
        return 0 if news else 1
    finally:
        await client.aclose()


class Telegram:
    """A chat with the simulated bot."""

    def __init__(self, settings: Settings, connection: str, chat: int) -> None:
        self.name = f"chat {chat}"
        self.shown = f"{SIMULATOR}/simulator/chats/{chat}/messages"
        self._chat = chat
        self._connection = connection
        self._settings = settings

    def buttons(self, message: JsonObject) -> list[Button]:
        return [Button(label=it["text"], data=it["callback_data"]) for row in message["buttons"] for it in row]

    async def post(self, client: Client, text: str, tap: str) -> str:
        body: JsonObject = {"chat": self._chat, "tap": tap} if tap else {"chat": self._chat, "text": text}
        update = checked(await client.request("POST", f"{SIMULATOR}/simulator/updates", json=body))
        headers = {SECRET_HEADER: secret_for(Parts(self._settings).box, self._connection)}
        posted = await client.request("POST", f"/telegram/{self._connection}", json=update, headers=headers)
        return str(checked(posted).get("session", ""))

    async def finish(self, client: Client) -> None:
        """Telegram reports nothing."""


class WhatsApp:
    """A contact of the simulated number."""

    def __init__(self, app: str, contact: str) -> None:
        self.name = f"the chat with {contact}"
        self.shown = f"{WHATSAPP_SIMULATOR}/simulator/contacts/{contact}/messages"
        self._contact = contact
        self._path = f"/whatsapp/{app}"

    def buttons(self, message: JsonObject) -> list[Button]:
        return [Button(label=it["title"], data=it["id"]) for it in message["buttons"]]

    async def post(self, client: Client, text: str, tap: str) -> str:
        body: JsonObject = {"contact": self._contact, "tap": tap} if tap else {"contact": self._contact, "text": text}
        payload = checked(await client.request("POST", f"{WHATSAPP_SIMULATOR}/simulator/payloads", json=body))
        return str((await self._signed(client, payload))["sessions"][0])

    async def finish(self, client: Client) -> None:
        response = await client.request("POST", f"{WHATSAPP_SIMULATOR}/simulator/statuses")
        for payload in response.json():
            await self._signed(client, payload)

    async def _signed(self, client: Client, payload: JsonObject) -> JsonObject:
        headers = {SIGNATURE_HEADER: payload["signature"]}
        return checked(await client.request("POST", self._path, content=payload["body"], headers=headers))


def _data(channel: Channel, tap: str, shown: list[JsonObject]) -> str:
    """What the latest button of that kind sends."""
    wanted = ":y" if tap == "approve" else ":n"
    taps = [button.data for message in shown for button in channel.buttons(message) if button.data.endswith(wanted)]
    if not taps:
        raise ServerError(f"--tap: no message in {channel.name} has a button; ask for a refund first")
    return taps[-1]


async def _messages(client: Client, channel: Channel) -> list[JsonObject]:
    response = await client.request("GET", channel.shown)
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


def _readable(channel: Channel, message: JsonObject) -> str:
    labels = [button.label for button in channel.buttons(message)]
    edited = " (edited)" if message.get("edited") else ""
    return f"{message['text']}{edited}" + (f"\n  [{'] ['.join(labels)}]" if labels else "")
