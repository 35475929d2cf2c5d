"""The body digest: SHA-256 over the business fields of a request, marked so in its contract.

Not over bytes: field order, unknown fields, time stamps, credentials and operators do not count,
so the same bill sent again by another program version has the same digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from yidi.common.v1 import options_pb2

_SEPARATOR = "\x1f"
_Writer = Callable[[Any, list[str]], None]


def body_digest(message: Message) -> bytes:
    """SHA-256 of the business fields of `message` in a canonical form, 32 bytes.

    Each field is its number and value; nested messages are bracketed; fields that have their
    default value are left out, as they are on the wire.
    """
    parts: list[str] = []
    _writer(message.DESCRIPTOR)(message, parts)
    return hashlib.sha256(_SEPARATOR.join(parts).encode("utf-8")).digest()


@cache
def _writer(descriptor: Descriptor) -> _Writer:
    fields = [
        _field_writer(field)
        for field in sorted(descriptor.fields, key=lambda field: field.number)
        if field.GetOptions().Extensions[options_pb2.business]
    ]

    def write(message: Any, parts: list[str]) -> None:
        for write_field in fields:
            write_field(message, parts)

    return write


def _field_writer(field: FieldDescriptor) -> _Writer:
    name, number = field.name, str(field.number)
    if field.message_type is not None:
        nested = _writer(field.message_type)
        repeated = field.is_repeated

        def write_messages(message: Any, parts: list[str]) -> None:
            if repeated:
                children = getattr(message, name)
            elif message.HasField(name):
                children = (getattr(message, name),)
            else:
                return
            for child in children:
                parts.append(number + "{")
                nested(child, parts)
                parts.append("}")

        return write_messages
    if field.is_repeated:

        def write_values(message: Any, parts: list[str]) -> None:
            parts.extend(f"{number}={_escape(value)}" for value in getattr(message, name))

        return write_values

    def write_value(message: Any, parts: list[str]) -> None:
        value = getattr(message, name)
        if value:
            parts.append(f"{number}={_escape(value)}")

    return write_value


def _escape(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    # A text that holds the separator must not pass for two fields.
    return value.replace(_SEPARATOR, _SEPARATOR * 2) if isinstance(value, str) else str(value)
