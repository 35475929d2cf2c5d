"""Requests as they are known by their number (PROTOCOL §6), and what no table can hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from infra.runtime.errors import Reason, Refusal, Violation
from services.catalog.store.requests import Request

_OF_THE_CALL = ("request_id", "operator")
"""Fields of a request that are not its content."""


def request_of(caller: str, message: Any) -> Request:
    """The request of `caller`, whose numbers are unique for each kind of request."""
    kind = message.DESCRIPTOR.name.removesuffix("Request")
    content = type(message)()
    content.CopyFrom(message)
    for name in _OF_THE_CALL:
        content.ClearField(name)
    content.DiscardUnknownFields()
    digest = hashlib.sha256(content.SerializeToString(deterministic=True)).digest()
    return Request(f"{caller} {kind}", message.request_id, digest)


def check_texts(message: Message) -> None:
    """Raise `Refusal` (MESSAGE_INVALID) for a text that PostgreSQL cannot hold."""
    faults = [Violation(path, "含有控制字符") for path, text in _texts(message) if "\x00" in text]
    if faults:
        raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)


def _texts(message: Message, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        path = prefix + field.name
        if field.type == field.TYPE_STRING:
            yield from ((path, one) for one in values)
        elif field.type == field.TYPE_MESSAGE:
            for one in values:
                yield from _texts(one, f"{path}.")
