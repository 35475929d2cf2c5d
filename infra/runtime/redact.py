"""Logs without personal data: one redactor that honours `debug_redact` of the contracts."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog
from google.protobuf.message import Message

HIDDEN = "***"


def redacted(message: Message) -> dict[str, Any]:
    """The set fields of a message for people; marked fields show as `***`, bytes as their size."""
    shown: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            shown[field.name] = HIDDEN
        elif field.is_repeated:
            shown[field.name] = [_plain(one) for one in value]
        else:
            shown[field.name] = _plain(value)
    return shown


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return redacted(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return f"{len(value)} bytes" if isinstance(value, bytes) else value


def where(error: BaseException) -> list[str]:
    """The type and the places of an error, without its text: texts quote data."""
    places = traceback.extract_tb(error.__traceback__)
    return [type(error).__name__, *(f"{p.filename}:{p.lineno} {p.name}" for p in places)]


def _redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _plain(value)
    return event


def configure_logs(level: str) -> None:
    """Send structured logs, a JSON object a line, to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
