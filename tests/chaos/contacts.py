"""The people who write, and the channels that bring what they wrote, again and again until it is accepted."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import httpx

from shared.channels.telegram import SECRET_HEADER, secret_for
from shared.channels.whatsapp import SIGNATURE_HEADER
from shared.domain import JsonObject, SessionKey, api_connection, session_key
from shared.secrets import SecretBox
from tests.chaos.history import Accepted, Sent
from tests.chaos.plans import APP, APP_SECRET, INVOKE_AGENT, INVOKE_KEY, NUMBER, TENANT
from tests.chaos.world import World

PATIENCE_SECONDS = 90.0
PAUSE_SECONDS = 0.25
"""Until a channel brings again what was not accepted; real ones take longer."""


class NotAccepted(Exception):
    """Nothing took a webhook for `PATIENCE_SECONDS`."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """What a channel posts, so that it can post it again."""

    path: str
    body: bytes
    headers: dict[str, str]


@dataclass
class Contacts:
    """Everybody who writes. A message is `#<chat>.<number>`, which names it in every place where it is seen."""

    base: str
    world: World
    box: SecretBox
    world_url: str = ""
    posted: list[Webhook] = field(default_factory=list)
    """Every webhook of a message, the oldest first."""

    def __post_init__(self) -> None:
        self._http = httpx.AsyncClient(base_url=self.base, timeout=30.0)
        self._updates = count(1)
        self._numbers: Counter[str] = Counter()
        self.chats: dict[str, str] = {}
        """Chat by session."""

    async def aclose(self) -> None:
        await self._http.aclose()

    async def say(self, chat: str, options: str = "", connection: str = "bot") -> str:
        """Write a message; its name, once its webhook was accepted."""
        self._numbers[chat] += 1
        message = f"{chat}.{self._numbers[chat]}"
        await self.write(chat, f"#{message} {options}".strip(), connection, message)
        return message

    async def write(self, chat: str, text: str, connection: str = "bot", message: str = "") -> None:
        """Write that text. With a name it counts as a message that must be answered."""
        key = self.key(chat, connection)
        order = next(self._updates)
        webhook = (
            self._whatsapp(chat, text, order)
            if connection == "whatsapp"
            else self._telegram(connection, update(order, chat, text))
        )
        self.chats[key.session] = chat
        await self.post(webhook)
        self.posted.append(webhook)
        if message:
            self.world.history.accepted.append(Accepted(at=time.monotonic(), chat=chat, message=message, order=order))

    async def tap(self, sent: Sent, label: str, connection: str = "bot") -> Webhook:
        """Tap that button of a message."""
        order = next(self._updates)
        tap: JsonObject = {
            "id": str(order),
            "from": _person(sent.chat),
            "message": {"message_id": int(sent.id), "chat": {"id": int(sent.chat), "type": "private"}},
            "data": sent.buttons[label],
        }
        webhook = self._telegram(connection, {"update_id": order, "callback_query": tap})
        await self.post(webhook)
        return webhook

    async def post(self, webhook: Webhook, settled: tuple[int, ...] = (200, 202)) -> httpx.Response:
        """The answer, once it is one of these; until then it is posted again. Raises `NotAccepted`."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        said = ""
        while time.monotonic() < deadline:
            try:
                answer = await self._http.post(webhook.path, content=webhook.body, headers=webhook.headers)
                if answer.status_code in settled:
                    return answer
                said = f"{answer.status_code} {answer.text[:200]}"
            except httpx.HTTPError as error:
                said = type(error).__name__
            await asyncio.sleep(PAUSE_SECONDS)
        raise NotAccepted(f"{webhook.path}: {said}")

    async def invoke(self, chat: str, options: str, *, posted: bool = False) -> str:
        """Call the agent, and again with the same key until that is accepted; the message's name. The answer counts as
        what the chat was told. `posted`: the caller does not wait, and has the result posted to the world."""
        self._numbers[chat] += 1
        message = f"{chat}.{self._numbers[chat]}"
        self.chats[self.key(chat, api_connection(TENANT, INVOKE_AGENT)).session] = chat
        self.world.history.accepted.append(Accepted(at=time.monotonic(), chat=chat, message=message, order=0))
        body: JsonObject = {"input": f"#{message} {options}", "session": chat}
        headers = {"authorization": f"Bearer {INVOKE_KEY}", "idempotency-key": message}
        if posted:
            body["callback_url"] = f"{self.world_url}/results"
            headers["prefer"] = "respond-async"
        path = f"/v1/agents/{INVOKE_AGENT}/invoke"
        answer = await self.post(Webhook(path, json.dumps(body).encode(), headers), settled=(202 if posted else 200,))
        if not posted:
            await self.world.told(chat, answer.json()["text"])
        return message

    async def receipt(self, sent: Sent) -> None:
        """WhatsApp reports that it took the message, until somebody hears it."""
        status = {
            "id": f"wamid.{sent.id}",
            "status": "sent",
            "timestamp": str(int(time.time())),
            "biz_opaque_callback_data": sent.reference,
        }
        await asyncio.sleep(0.2)
        await self.post(self.posting({"statuses": [status]}))

    async def call_back(self, url: str, seconds: float) -> None:
        """Post the result of what a run waits for, twice with different results, and a forged one before."""
        await asyncio.sleep(seconds)
        path = url.removeprefix(self.base)
        forged = Webhook(f"{path[:-4]}beef", b'{"result": {"n": -1}}', {"content-type": "application/json"})
        for webhook in (forged, *(Webhook(path, b'{"result": {"n": %d}}' % n, forged.headers) for n in (7, 8))):
            await self.post(webhook, settled=(202, 401, 410))

    async def tick(self) -> None:
        """What Cloud Scheduler does once a minute; one that fails is left to the next."""
        try:
            await self._http.post("/tick", json={})
        except httpx.HTTPError:
            return

    def key(self, chat: str, connection: str = "bot") -> SessionKey:
        """Where the chat's session lives."""
        return session_key(TENANT, connection, chat)

    def _telegram(self, connection: str, update: JsonObject) -> Webhook:
        headers = {SECRET_HEADER: secret_for(self.box, connection), "content-type": "application/json"}
        return Webhook(f"/telegram/{connection}", json.dumps(update).encode(), headers)

    def _whatsapp(self, chat: str, text: str, order: int) -> Webhook:
        message = {
            "id": f"wamid.in{order}",
            "from": chat,
            "type": "text",
            "timestamp": str(int(time.time())),
            "text": {"body": text},
        }
        person = {"wa_id": chat, "profile": {"name": "Ana"}}
        return self.posting({"messages": [message], "contacts": [person]})

    def posting(self, value: JsonObject) -> Webhook:
        """What Meta posts about our number."""
        value = {"metadata": {"phone_number_id": NUMBER}, **value}
        entry = {"changes": [{"field": "messages", "value": value}]}
        body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
        signature = "sha256=" + hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
        return Webhook(f"/whatsapp/{APP}", body, {SIGNATURE_HEADER: signature, "content-type": "application/json"})


def _person(chat: str) -> JsonObject:
    return {"id": int(chat), "is_bot": False, "first_name": "Ana"}


def update(order: int, chat: str, text: str) -> JsonObject:
    """A message on Telegram, as it posts it."""
    where = {"id": int(chat), "type": "private"}
    return {
        "update_id": order,
        "message": {"message_id": order, "date": int(time.time()), "chat": where, "from": _person(chat), "text": text},
    }
