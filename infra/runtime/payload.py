"""The business content of an envelope, as the insured place opens it."""

from __future__ import annotations

import hashlib
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2

Content = TypeVar("Content", bound=Message)


def opened(envelope: envelope_pb2.Envelope, content: type[Content]) -> Content:
    """The payload as a message of type `content`, held against its digest.

    Not yet held against the rules of its contract. Raises `Refusal` (PAYLOAD_CORRUPT), undecided.
    """
    if hashlib.sha256(envelope.payload).digest() != envelope.payload_digest:
        raise Refusal(Reason.ERROR_REASON_PAYLOAD_CORRUPT)
    try:
        return content.FromString(envelope.payload)
    except DecodeError as error:
        raise Refusal(Reason.ERROR_REASON_PAYLOAD_CORRUPT) from error
