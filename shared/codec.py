"""Frozen values to JSON bytes and back: the one way in which anything of ours is stored or sent.

Reading validates (pydantic); fields that a newer version added take their defaults, fields that it dropped are
ignored, so a document of an older or a newer release can be read.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Value = TypeVar("Value")
_adapters: dict[object, TypeAdapter[Any]] = {}


def _adapter(shape: type[Value]) -> TypeAdapter[Value]:
    if shape not in _adapters:
        from pydantic import TypeAdapter  # building a schema takes milliseconds: on first use, never at import

        _adapters[shape] = TypeAdapter(shape)
    return _adapters[shape]


def encode(value: object) -> bytes:
    """The value as compact JSON; fields in the order of their definition, so equal values give equal bytes."""
    return _adapter(type(value)).dump_json(value)


def decode(shape: type[Value], body: bytes | str) -> Value:
    """The value that was encoded. Raises `pydantic.ValidationError` when the bytes do not fit the shape."""
    return _adapter(shape).validate_json(body)


def fingerprint(value: object) -> str:
    """SHA-256 of the encoded value, 64 hexadecimal characters: the name of an immutable document."""
    return hashlib.sha256(encode(value)).hexdigest()
