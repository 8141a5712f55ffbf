"""The WhatsApp Cloud API as far as Recado uses it, for one number: checks what it is sent and answers as the real one.

What Meta would post (messages, taps, statuses) is made here and signed; posting it is the caller's part. Everything is
kept in memory; ids begin at the present second, so they differ across restarts.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.cli.simulators import whatsapp_checks as checks
from shared.cli.simulators.common import Call, Faults, Silence, problem
from shared.cli.simulators.whatsapp_checks import BSUID, Refusal
from shared.clock import Clock, SystemClock
from shared.domain import JsonObject

WINDOW = timedelta(hours=24)
"""How long after a contact's last message anything but a template may be sent."""
PAIR_SECONDS = 6.0
"""One message to one contact in so many seconds, once a burst is used up."""
_METHODS = ("message", "read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A message of the business as the contact sees it."""

    message_id: str
    contact: str
    text: str
    buttons: list[JsonObject]
    """{id, title} each; they stay, whatever becomes of them."""
    quotes: str
    """Id of the message that it answers."""

    def as_json(self) -> JsonObject:
        return {"message_id": self.message_id, "text": self.text, "buttons": self.buttons, "quotes": self.quotes}


class WhatsAppSimulator:
    """One number's API at `/{version}/{number}/messages`, and under `/simulator` what a contact does and sees.

    `GET /simulator/contacts/{contact}/messages` lists what the contact was shown, the oldest first. `POST
    /simulator/payloads` with {contact, text} or {contact, tap: <button id>} answers {body, signature}, as Meta would
    post them; `POST /simulator/statuses` answers such a list for what was sent since the last time.
    A contact is named by phone number or BSUID. As on WhatsApp, a message outside the service window is taken and then
    reported as failed (131047), and one with a BSUID in `to` is taken and never heard of again. With `burst`, so many
    messages to one contact pass at once and one more each six seconds (131056).
    """

    def __init__(
        self, token: str, number: str, app_secret: str, *, burst: int | None = None, clock: Clock | None = None
    ) -> None:
        self._token, self._number, self._app_secret, self._burst = token, number, app_secret, burst
        self._clock = clock or SystemClock()
        self._faults = Faults()
        self._shown: list[Shown] = []
        self._statuses: list[JsonObject] = []
        self._heard: dict[str, datetime] = {}
        self._user_ids: dict[str, str] = {}
        self._inbound: set[str] = set()
        self._ready: dict[str, float] = {}
        self._ids = int(self._clock.now().timestamp()) << 20
        self.calls: list[Call] = []
        self.read: list[str] = []
        """Ids of the contacts' messages that were marked as read with typing shown, in order."""
        self.app = Starlette(
            routes=[
                Route("/simulator/contacts/{contact}/messages", self._list, methods=["GET"]),
                Route("/simulator/payloads", self._payload, methods=["POST"]),
                Route("/simulator/statuses", self._report, methods=["POST"]),
                Route("/{version}/{number}/messages", self._call, methods=["POST"]),
            ]
        )

    # what a test or the command line does

    def messages(self, contact: str) -> Sequence[Shown]:
        """What the contact was shown, the oldest first."""
        return [shown for shown in self._shown if shown.contact == self._person(contact)]

    def fail_next(self, method: str, status: int, code: int, message: str) -> None:
        """Refuse the next call of that kind, `message` or `read`; several queue up."""
        self._faults.refusals[method].append(Refusal(status, code, message))

    def delay_next(self, method: str, seconds: float) -> None:
        """Do the next call of that kind only after so many seconds."""
        self._faults.delays[method].append(seconds)

    def drop_next(self, method: str) -> None:
        """Do the next call of that kind, and never answer it."""
        self._faults.drops[method] += 1

    def payload_message(self, contact: str, text: str, *, name: str = "Ana", user_id: str = "") -> JsonObject:
        """What Meta posts for a text; with `user_id` it names the contact's BSUID beside the phone number."""
        return self.payload(contact, {"type": "text", "text": {"body": text}}, name=name, user_id=user_id)

    def payload_tap(self, contact: str, button_id: str, *, name: str = "Ana", user_id: str = "") -> JsonObject:
        """What Meta posts for a tap on the latest button with that id. Raises LookupError when there is none."""
        for shown in reversed(self.messages(contact)):
            for button in shown.buttons:
                if button["id"] == button_id:
                    reply = {"type": "button_reply", "button_reply": button}
                    content = {
                        "type": "interactive",
                        "interactive": reply,
                        "context": {"from": "15550783881", "id": shown.message_id},
                    }
                    return self.payload(contact, content, name=name, user_id=user_id)
        raise LookupError(f"{contact} was shown no button {button_id}")

    def payload(self, contact: str, content: JsonObject, *, name: str = "Ana", user_id: str = "") -> JsonObject:
        """What Meta posts for a message with this content, which names its `type`."""
        phone, user_id = ("", contact) if BSUID.fullmatch(contact) else (contact, user_id)
        if phone and user_id:
            self._user_ids[phone] = user_id
        self._heard[self._person(contact)] = self._clock.now()
        message_id = self._next_id()
        self._inbound.add(message_id)
        message = {"id": message_id, "timestamp": self._seconds(), **content}
        person: JsonObject = {"profile": {"name": name}}
        if phone:
            message, person = {"from": phone, **message}, {**person, "wa_id": phone}
        if user_id:
            message, person = {"from_user_id": user_id, **message}, {**person, "user_id": user_id}
        return self._value({"contacts": [person], "messages": [message]})

    def make_statuses(self) -> list[JsonObject]:
        """What Meta posts about the messages sent since the last time, each status by itself, in order."""
        statuses, self._statuses = self._statuses, []
        return [self._value({"statuses": [status]}) for status in statuses]

    def signed(self, payload: JsonObject) -> tuple[bytes, str]:
        """The body of the POST and its `X-Hub-Signature-256`."""
        body = json.dumps(payload, ensure_ascii=False).encode()
        return body, "sha256=" + hmac.new(self._app_secret.encode(), body, hashlib.sha256).hexdigest()

    # the Graph API

    async def _call(self, request: Request) -> Response:
        method, body = _METHODS[0], {}
        try:
            body = await checks.read_body(request)
            method = _METHODS["status" in body]
            if delays := self._faults.delays[method]:
                await self._clock.sleep(delays.popleft())
            self._admit(request)
            self._faults.refuse(method)
            result = self._read(body) if method == "read" else self._send(body)
        except Refusal as refusal:
            self.calls.append(Call(method=method, parameters=body, status=refusal.status, description=refusal.message))
            return JSONResponse(refusal.as_json(), status_code=refusal.status)
        dropped = self._faults.drop(method)
        self.calls.append(Call(method=method, parameters=body, status=0 if dropped else 200))
        return Silence() if dropped else JSONResponse(result)

    def _admit(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self._token}":
            raise Refusal(401, 190, "Invalid OAuth access token - Cannot parse access token")
        if request.path_params["number"] != self._number:
            raise Refusal(400, 100, "Unsupported post request. Object with this ID does not exist")

    def _read(self, body: JsonObject) -> JsonObject:
        message, typing = body.get("message_id"), body.get("typing_indicator", {"type": "text"})
        if body["status"] != "read" or message not in self._inbound or typing != {"type": "text"}:
            raise Refusal(400, 131009, "Parameter value is not valid")
        self.read.append(str(message))
        return {"success": True}

    def _send(self, message: JsonObject) -> JsonObject:
        to = checks.address(message)
        text, buttons = checks.content(message)
        lost = bool(message.get("to")) and BSUID.fullmatch(to) is not None
        person = self._person(to)
        self._pair(person)
        message_id = self._next_id()
        status = {
            "id": message_id,
            "recipient_id": to,
            "timestamp": self._seconds(),
            "biz_opaque_callback_data": message.get("biz_opaque_callback_data", ""),
        }
        quotes = str(message.get("context", {}).get("message_id", ""))
        shown = Shown(message_id=message_id, contact=person, text=text, buttons=buttons, quotes=quotes)
        if not lost and self._in_window(person):
            self._shown.append(shown)
            self._statuses += [{**status, "status": kind} for kind in ("sent", "delivered", "read")]
        elif not lost:
            error = {"code": 131047, "title": "Re-engagement message"}
            self._statuses.append({**status, "status": "failed", "errors": [error]})
        contacts = [{"input": to, "wa_id": to}]
        return {"messaging_product": "whatsapp", "contacts": contacts, "messages": [{"id": message_id}]}

    def _in_window(self, person: str) -> bool:
        heard = self._heard.get(person)
        return heard is not None and self._clock.now() - heard < WINDOW

    def _pair(self, person: str) -> None:
        if self._burst is None:
            return
        now = self._clock.now().timestamp()
        ready = max(self._ready.get(person, now), now)
        if ready - now > (self._burst - 1) * PAIR_SECONDS:
            raise Refusal(400, 131056, "(Business Account, Consumer Account) pair rate limit hit")
        self._ready[person] = ready + PAIR_SECONDS

    # what Meta says of things

    def _value(self, content: JsonObject) -> JsonObject:
        metadata = {"display_phone_number": "15550783881", "phone_number_id": self._number}
        value = {"messaging_product": "whatsapp", "metadata": metadata, **content}
        entry = {"id": f"waba-{self._number}", "changes": [{"field": "messages", "value": value}]}
        return {"object": "whatsapp_business_account", "entry": [entry]}

    def _person(self, contact: str) -> str:
        """One name for whoever has a phone number and a BSUID."""
        return self._user_ids.get(contact, contact)

    def _seconds(self) -> str:
        return str(int(self._clock.now().timestamp()))

    def _next_id(self) -> str:
        self._ids += 1
        return f"wamid.{self._number}.{self._ids:x}"

    # what the command line asks

    async def _list(self, request: Request) -> Response:
        return JSONResponse([shown.as_json() for shown in self.messages(request.path_params["contact"])])

    async def _payload(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            contact, text, tap, name = str(body["contact"]), body.get("text"), body.get("tap"), body.get("name", "Ana")
        except (ValueError, TypeError, KeyError, AttributeError):
            return problem(400, "body: send {contact, text} or {contact, tap} as JSON")
        if isinstance(text, str) and text:
            return JSONResponse(self._posted(self.payload_message(contact, text, name=str(name))))
        try:
            return JSONResponse(self._posted(self.payload_tap(contact, str(tap), name=str(name))))
        except LookupError:
            return problem(404, "tap: this contact was shown no button with that id")

    async def _report(self, request: Request) -> Response:
        return JSONResponse([self._posted(payload) for payload in self.make_statuses()])

    def _posted(self, payload: JsonObject) -> JsonObject:
        body, signature = self.signed(payload)
        return {"body": body.decode(), "signature": signature}


def envelope(*payloads: JsonObject) -> JsonObject:
    """One POST of Meta with all that these have, of whatever numbers."""
    return {"object": "whatsapp_business_account", "entry": [entry for made in payloads for entry in made["entry"]]}
