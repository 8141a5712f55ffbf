"""The parts of a Telegram update that are read, after https://core.telegram.org/bots/api#update.

Imported on first use by `telegram`, so that its import stays free of pydantic.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

_UNREAD = {
    # some kinds come with a second, more general field for old clients: the special one stands first
    "animation": "animation",
    "audio": "audio file",
    "voice": "voice message",
    "video_note": "video message",
    "video": "video",
    "live_photo": "live photo",
    "photo": "photo",
    "paid_media": "paid media",
    "sticker": "sticker",
    "document": "document",
    "story": "story",
    "venue": "venue",
    "location": "location",
    "contact": "contact card",
    "poll": "poll",
    "checklist": "checklist",
    "dice": "dice",
    "game": "game",
    "invoice": "invoice",
    "giveaway": "giveaway",
    "rich_message": "formatted message",
}


class _Payload(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class User(_Payload):
    id: int
    is_bot: bool = False
    first_name: str = ""
    last_name: str = ""
    username: str = ""
    language_code: str = ""

    @property
    def name(self) -> str:
        """As Telegram shows it; the username for a person whose names are blank."""
        return f"{self.first_name} {self.last_name}".strip() or self.username


class Chat(_Payload):
    id: int
    is_forum: bool = False


class Message(_Payload):
    model_config = ConfigDict(extra="allow")

    message_id: int
    chat: Chat
    sender: User | None = Field(default=None, alias="from")
    text: str = ""
    caption: str = ""
    message_thread_id: int = 0
    is_topic_message: bool = False
    is_automatic_forward: bool = False
    """A channel's post that Telegram copied into its discussion group."""

    @property
    def unread(self) -> str:
        """What the message carries that is not text, such as `voice message`; empty when nothing is known."""
        return next((said for kind, said in _UNREAD.items() if kind in (self.model_extra or {})), "")

    @property
    def conversation(self) -> str:
        """`chat` or `chat:topic`. Messages of a forum's General topic name none: it is topic 1."""
        if self.is_topic_message and self.message_thread_id:
            return f"{self.chat.id}:{self.message_thread_id}"
        return f"{self.chat.id}:1" if self.chat.is_forum else str(self.chat.id)


class CallbackQuery(_Payload):
    id: str
    sender: User = Field(alias="from")
    message: Message | None = None
    """Missing for a button under an inline message, which belongs to no chat of the bot."""
    data: str = ""


class Update(_Payload):
    update_id: int
    message: Message | None = None
    callback_query: CallbackQuery | None = None
