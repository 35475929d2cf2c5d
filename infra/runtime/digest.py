"""The body digest: SHA-256 over the business fields of a request, marked so in its contract.

Not over bytes: field order, unknown fields, time stamps, credentials and operators do not count,
so the same bill sent again by another program version has the same digest. The canonical form is
JSON: a message is the list of [field number, value] of its marked fields that are not at their
default, in order of number; so a field that a later contract adds changes no old digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from yidi.common.v1 import options_pb2

_Form: TypeAlias = list[tuple[int, Any]]


def body_digest(message: Message) -> bytes:
    """SHA-256 of the business fields of `message` in the canonical form, 32 bytes."""
    return hashlib.sha256(msgspec.json.encode(_reader(message.DESCRIPTOR)(message))).digest()


@cache
def _reader(descriptor: Descriptor) -> Callable[[Any], _Form]:
    marked = [
        field for field in descriptor.fields if field.GetOptions().Extensions[options_pb2.business]
    ]
    marked.sort(key=lambda field: field.number)
    plain = [field for field in marked if field.message_type is None and not field.is_repeated]
    others = [field for field in marked if field not in plain]
    numbers = tuple(field.number for field in plain)
    values = _getter(plain)
    nested = [(field.number, _other_reader(field)) for field in others]

    def read(message: Any) -> _Form:
        form = [pair for pair in zip(numbers, values(message), strict=True) if pair[1]]
        for number, read_field in nested:
            value = read_field(message)
            if value:
                form.append((number, value))
        form.sort(key=_number)
        return form

    return read


def _number(pair: tuple[int, Any]) -> int:
    return pair[0]


def _getter(fields: list[FieldDescriptor]) -> Callable[[Any], tuple[Any, ...]]:
    names = [field.name for field in fields]
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: tuple(getattr(message, name) for name in names)


def _other_reader(field: FieldDescriptor) -> Callable[[Any], list[Any]]:
    """Reads a repeated field or a nested message as a list, empty when it is not set."""
    name = field.name
    if field.message_type is None:
        return lambda message: list(getattr(message, name))
    read = _reader(field.message_type)
    if field.is_repeated:
        return lambda message: [read(child) for child in getattr(message, name)]
    # A list of one, so that an empty message that is set differs from none.
    return lambda message: [read(getattr(message, name))] if message.HasField(name) else []
