"""What Pub/Sub posts to a push endpoint, wrapped (https://cloud.google.com/pubsub/docs/push#receive_push)."""

from __future__ import annotations

from typing import TypeVar

from pydantic import AliasChoices, Base64Bytes, BaseModel, Field, ValidationError

from shared.codec import DecodeError, decode
from shared.domain import Receipt, Result, SessionKey, Wake
from shared.errors import BadRequest

Value = TypeVar("Value")


class _Attributes(BaseModel):
    tenant: str = Field(pattern=r"^[A-Za-z0-9_.:-]+$")
    session: str = Field(pattern=r"^[0-9a-f]{32}$")


class _Message(BaseModel):
    id: str = Field(validation_alias=AliasChoices("messageId", "message_id"), min_length=1)
    attributes: _Attributes


class _Envelope(BaseModel):
    message: _Message


class _Data(BaseModel):
    data: Base64Bytes


class _DataEnvelope(BaseModel):
    message: _Data


def parse_push(body: bytes) -> Wake:
    """The wake in a push request's body. Raises `BadRequest` that names the first field that does not fit."""
    try:
        message = _Envelope.model_validate_json(body).message
    except ValidationError as error:
        raise _refusal(error, "a wake") from None
    return Wake(key=SessionKey(message.attributes.tenant, message.attributes.session), id=message.id)


def parse_receipt(body: bytes) -> Receipt:
    """The receipt in a push request's body. Raises `BadRequest` that names the first field that does not fit."""
    return _data(Receipt, body, "a receipt")


def parse_result(body: bytes) -> Result:
    """The result in a push request's body. Raises `BadRequest` that names the first field that does not fit."""
    return _data(Result, body, "a result")


def _data(shape: type[Value], body: bytes, what: str) -> Value:
    try:
        return decode(shape, _DataEnvelope.model_validate_json(body).message.data)
    except ValidationError as error:
        raise _refusal(error, what) from None
    except DecodeError as error:
        raise BadRequest(f"not a Pub/Sub push: body: {error}; send the wrapped envelope of {what}") from None


def _refusal(error: ValidationError, what: str) -> BadRequest:
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "body"
    return BadRequest(f"not a Pub/Sub push: {field}: {first['msg']}; send the wrapped envelope of {what}")
