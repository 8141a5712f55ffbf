"""The Telegram Bot API as far as Recado uses it, for one bot: checks what it is sent and answers as the real one.

Limits are those of https://core.telegram.org/bots/api, wording and order of the checks those of the server's source
(https://github.com/tdlib/telegram-bot-api). Everything is kept in memory; ids begin at the present second, so they
grow across restarts, as a bot's do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.channels.split import units
from shared.cli.simulators import telegram_checks as checks
from shared.cli.simulators.common import Call, Faults, Silence, problem
from shared.cli.simulators.telegram_checks import Refusal
from shared.clock import Clock, SystemClock
from shared.domain import JsonObject

_ACTION = re.compile(
    r"typing|cancel|choose_sticker|(find|pick_up)_location|upload_(photo|document)|(record|upload)_(video|video_note|voice|audio)"
)
_SECRET_TOKEN = re.compile(r"[A-Za-z0-9_-]{0,256}")
_BOT_ID = 4242


@dataclass(slots=True, kw_only=True)
class Shown:
    """A message of the bot as the contact sees it."""

    message_id: int
    chat: int
    thread: int
    text: str
    markup: str
    """The text as it was sent, before parsing."""
    buttons: list[list[JsonObject]]
    edited: bool = False

    def as_json(self) -> JsonObject:
        return {"message_id": self.message_id, "text": self.text, "buttons": self.buttons, "edited": self.edited}


class TelegramSimulator:
    """One bot's API at `/bot{token}/{method}`, and under `/simulator` what a contact does and sees.

    `GET /simulator/chats/{chat}/messages?after=N` lists the bot's messages whose id is above N, the oldest first, as
    {message_id, text, buttons, edited}. `POST /simulator/updates` with {chat, text} or {chat, tap: <callback data>}
    answers the update that Telegram would post to the webhook; posting it is the caller's part.
    With `burst`, flood control lets so many messages and edits a chat pass at once and one more each second.
    """

    def __init__(self, token: str, *, burst: int | None = None, clock: Clock | None = None) -> None:
        self._token = token
        self._clock = clock or SystemClock()
        self._burst = burst
        self._ready: dict[int, float] = {}
        self._faults = Faults()
        self._shown: dict[int, Shown] = {}
        self._queries: set[str] = set()
        self._update_id = self._message_id = int(self._clock.now().timestamp())
        self.calls: list[Call] = []
        self.webhook: JsonObject = {"url": "", "has_custom_certificate": False, "pending_update_count": 0}
        self.app = Starlette(
            routes=[
                Route("/bot{token}/{method}", self._call, methods=["GET", "POST"]),
                Route("/simulator/chats/{chat}/messages", self._list, methods=["GET"]),
                Route("/simulator/updates", self._update, methods=["POST"]),
            ]
        )

    # what a test or the command line does

    def messages(self, chat: int, after: int = 0) -> Sequence[Shown]:
        """The bot's messages in that chat whose id is above `after`, the oldest first."""
        return [shown for shown in self._shown.values() if shown.chat == chat and shown.message_id > after]

    def fail_next(self, method: str, status: int, description: str, **parameters: int) -> None:
        """Refuse the next call of that method, such as 429 with `retry_after=7`; several queue up."""
        self._faults.refusals[method].append(Refusal(status, description, **parameters))

    def delay_next(self, method: str, seconds: float) -> None:
        """Do the next call of that method only after so many seconds."""
        self._faults.delays[method].append(seconds)

    def drop_next(self, method: str) -> None:
        """Do the next call of that method, and never answer it."""
        self._faults.drops[method] += 1

    def update_message(
        self, chat_id: int, text: str, *, name: str = "Ana", language: str = "en", thread: int = 0
    ) -> JsonObject:
        """The update for a text that a contact writes; in a private chat their id is the chat's, in a group 1001."""
        message: JsonObject = {
            "message_id": self._next_message_id(),
            "from": self._contact(chat_id, name, language),
            "chat": self._chat(chat_id, name),
            "date": self._seconds(),
            "text": text,
        }
        if thread:
            message |= {"message_thread_id": thread, "is_topic_message": True}
        return {"update_id": self._next_update_id(), "message": message}

    def update_tap(
        self, chat_id: int, message_id: int, data: str, *, name: str = "Ana", language: str = "en"
    ) -> JsonObject:
        """The update for a tap on a button of the bot's message. Raises LookupError when the chat has no such message.

        The button may be gone from the message by now: a contact's screen can be behind.
        """
        shown = self._shown.get(message_id)
        if shown is None or shown.chat != chat_id:
            raise LookupError(f"chat {chat_id} has no message {message_id} of the bot")
        update_id = self._next_update_id()
        query = str(update_id << 24)
        self._queries.add(query)
        return {
            "update_id": update_id,
            "callback_query": {
                "id": query,
                "from": self._contact(chat_id, name, language),
                "message": self._message(shown, name),
                "chat_instance": str(chat_id),
                "data": data,
            },
        }

    # the Bot API

    async def _call(self, request: Request) -> Response:
        method, parameters = request.path_params["method"], {}
        try:
            parameters = await checks.read_parameters(request)
            if delays := self._faults.delays[method]:
                await self._clock.sleep(delays.popleft())
            result = self._answer(request.path_params["token"], method, parameters)
        except Refusal as refusal:
            self.calls.append(
                Call(method=method, parameters=parameters, status=refusal.status, description=refusal.description)
            )
            body: JsonObject = {"ok": False, "error_code": refusal.status, "description": refusal.description}
            if refusal.parameters:
                body["parameters"] = refusal.parameters
            return JSONResponse(body, status_code=refusal.status)
        dropped = self._faults.drop(method)
        self.calls.append(Call(method=method, parameters=parameters, status=0 if dropped else 200))
        return Silence() if dropped else JSONResponse({"ok": True, "result": result})

    def _answer(self, token: str, method: str, parameters: JsonObject) -> object:
        if token != self._token:
            raise Refusal(401, "Unauthorized")
        self._faults.refuse(method)
        methods: dict[str, Callable[[JsonObject], object]] = {
            "sendMessage": self._send_message,
            "editMessageText": self._edit_message_text,
            "sendChatAction": self._send_chat_action,
            "answerCallbackQuery": self._answer_callback_query,
            "setWebhook": self._set_webhook,
            "getWebhookInfo": lambda _: self.webhook,
            "getMe": lambda _: self._bot(),
        }
        if method not in methods:
            raise Refusal(404, "Not Found: method not found")
        return methods[method](parameters)

    def _send_message(self, parameters: JsonObject) -> JsonObject:
        markup, text = checks.text(parameters)
        chat, buttons = checks.chat_id(parameters), checks.buttons(parameters)
        thread = checks.integer(parameters, "message_thread_id")
        if thread == 1:
            raise Refusal(400, "Bad Request: message thread not found")
        self._flood(chat)
        shown = Shown(
            message_id=self._next_message_id(), chat=chat, thread=thread, text=text, markup=markup, buttons=buttons
        )
        self._shown[shown.message_id] = shown
        return self._message(shown)

    def _edit_message_text(self, parameters: JsonObject) -> JsonObject:
        markup, text = checks.text(parameters)
        chat, buttons = checks.chat_id(parameters), checks.buttons(parameters)
        shown = self._shown.get(checks.integer(parameters, "message_id"))
        if shown is None or shown.chat != chat:
            raise Refusal(400, "Bad Request: message to edit not found")
        self._flood(chat)
        if (shown.markup, shown.buttons) == (markup, buttons):
            raise Refusal(
                400,
                "Bad Request: message is not modified: specified new message content and reply markup are exactly the "
                "same as a current content and reply markup of the message",
            )
        shown.text, shown.markup, shown.buttons, shown.edited = text, markup, buttons, True
        return self._message(shown)

    def _send_chat_action(self, parameters: JsonObject) -> bool:
        if not _ACTION.fullmatch(str(parameters.get("action", "")).lower()):
            raise Refusal(400, "Bad Request: wrong parameter action in request")
        checks.chat_id(parameters)
        return True

    def _answer_callback_query(self, parameters: JsonObject) -> bool:
        query = str(parameters.get("callback_query_id", ""))
        if units(str(parameters.get("text", ""))) > 200:
            raise Refusal(400, "Bad Request: MESSAGE_TOO_LONG")
        if query not in self._queries:
            raise Refusal(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        self._queries.remove(query)
        return True

    def _set_webhook(self, parameters: JsonObject) -> bool:
        if not _SECRET_TOKEN.fullmatch(str(parameters.get("secret_token", ""))):
            raise Refusal(400, "Bad Request: secret token contains unallowed characters")
        self.webhook["url"] = str(parameters.get("url", ""))
        return True

    def _flood(self, chat: int) -> None:
        if self._burst is None:
            return
        now = self._clock.now().timestamp()
        ready = self._ready.get(chat, now)
        if (wait := math.ceil(ready - now - self._burst + 1)) > 0:
            raise Refusal(429, f"Too Many Requests: retry after {wait}", retry_after=wait)
        self._ready[chat] = max(ready, now) + 1

    # what Telegram shows of things

    def _message(self, shown: Shown, name: str = "Ana") -> JsonObject:
        message: JsonObject = {
            "message_id": shown.message_id,
            "from": self._bot(),
            "chat": self._chat(shown.chat, name),
            "date": self._seconds(),
            "text": shown.text,
        }
        if shown.thread:
            message |= {"message_thread_id": shown.thread, "is_topic_message": True}
        if shown.buttons:
            message["reply_markup"] = {"inline_keyboard": shown.buttons}
        return message

    def _bot(self) -> JsonObject:
        return {"id": _BOT_ID, "is_bot": True, "first_name": "Recado", "username": "recado_bot"}

    def _chat(self, chat: int, name: str) -> JsonObject:
        if chat > 0:
            return {"id": chat, "first_name": name, "type": "private"}
        return {"id": chat, "title": "Group", "type": "supergroup"}

    def _contact(self, chat: int, name: str, language: str) -> JsonObject:
        return {"id": chat if chat > 0 else 1001, "is_bot": False, "first_name": name, "language_code": language}

    def _seconds(self) -> int:
        return int(self._clock.now().timestamp())

    def _next_update_id(self) -> int:
        self._update_id += 1
        return self._update_id

    def _next_message_id(self) -> int:
        self._message_id += 1
        return self._message_id

    # what the command line asks

    async def _list(self, request: Request) -> Response:
        try:
            chat, after = int(request.path_params["chat"]), int(request.query_params.get("after", "0"))
        except ValueError:
            return problem(400, "chat, after: use whole numbers")
        return JSONResponse([shown.as_json() for shown in self.messages(chat, after)])

    async def _update(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            chat, text, tap = int(body["chat"]), body.get("text"), body.get("tap")
        except (ValueError, TypeError, KeyError, AttributeError):
            return problem(400, "body: send {chat, text} or {chat, tap} as JSON")
        name, language = str(body.get("name", "Ana")), str(body.get("language", "en"))
        if isinstance(text, str) and text:
            return JSONResponse(self.update_message(chat, text, name=name, language=language))
        for shown in reversed(self.messages(chat)):
            if any(button.get("callback_data") == tap for row in shown.buttons for button in row):
                return JSONResponse(self.update_tap(chat, shown.message_id, str(tap), name=name, language=language))
        return problem(404, "tap: no message in this chat shows a button with that callback data")
