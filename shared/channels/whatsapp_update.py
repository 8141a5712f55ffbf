"""The parts of what WhatsApp posts that are read, after
https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages.

Imported on first use by `whatsapp`, so that its import stays free of pydantic. Lists hold anything: one piece that does
not fit is kept aside by itself.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_UNREAD = {
    "image": "image",
    "video": "video",
    "audio": "audio file",
    "document": "document",
    "sticker": "sticker",
    "location": "location",
    "contacts": "contact card",
    "order": "order",
}


class _Payload(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Metadata(_Payload):
    phone_number_id: str = Field(pattern="^[0-9]+$")


class Value(_Payload):
    metadata: Metadata
    contacts: list[Any] = []
    messages: list[Any] = []
    statuses: list[Any] = []


class Change(_Payload):
    field: str = ""
    value: Any = None


class Entry(_Payload):
    changes: list[Any]


class Envelope(_Payload):
    object: Literal["whatsapp_business_account"]
    entry: list[Any]


class Profile(_Payload):
    name: str = ""
    username: str = ""


class Person(_Payload):
    """Who wrote: a phone number, or a business-scoped user id (BSUID), or both."""

    wa_id: str = ""
    user_id: str = ""
    profile: Profile = Profile()

    @property
    def name(self) -> str:
        return self.profile.name.strip() or self.profile.username


class Text(_Payload):
    body: str


class Media(_Payload):
    caption: str = ""
    voice: bool = False


class Reply(_Payload):
    id: str
    title: str = ""


class Interactive(_Payload):
    button_reply: Reply | None = None
    list_reply: Reply | None = None
    nfm_reply: Any = None
    """A form that the contact filled in."""


class Button(_Payload):
    """The quick reply of a template."""

    text: str = ""
    payload: str = ""


class Message(_Payload):
    id: str = Field(min_length=1)
    type: str
    timestamp: str = Field(pattern="^[0-9]{1,12}$")
    sender: str = Field(default="", alias="from")
    sender_user_id: str = Field(default="", alias="from_user_id")
    text: Text | None = None
    image: Media | None = None
    video: Media | None = None
    audio: Media | None = None
    document: Media | None = None
    interactive: Interactive | None = None
    button: Button | None = None

    @model_validator(mode="after")
    def _is_from_somebody(self) -> Message:
        if not (self.sender or self.sender_user_id):
            raise ValueError("neither from nor from_user_id")
        return self

    @property
    def reply(self) -> Reply | None:
        """What the contact chose, where they tapped instead of writing."""
        if self.interactive is not None:
            return self.interactive.button_reply or self.interactive.list_reply
        return Reply(id=self.button.payload, title=self.button.text) if self.button is not None else None

    @property
    def content(self) -> str:
        """What the contact said, with what is not read in brackets; empty for what no agent answers."""
        if self.text is not None:
            return self.text.body
        if self.reply is not None:
            return self.reply.title
        media = self.image or self.video or self.audio or self.document
        unread = _UNREAD.get(self.type, "")
        if media is not None and media.voice:
            unread = "voice message"
        if self.interactive is not None and self.interactive.nfm_reply is not None:
            unread = "form"
        return "\n".join(filter(None, (f"[{unread}, not read]" if unread else "", media.caption if media else "")))


class Failure(_Payload):
    code: int
    title: str = ""


class Status(_Payload):
    id: str = Field(min_length=1)
    status: str
    timestamp: str = Field(pattern="^[0-9]{1,12}$")
    errors: tuple[Failure, ...] = ()
    biz_opaque_callback_data: str = ""
