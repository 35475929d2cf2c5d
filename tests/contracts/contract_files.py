"""Every contract of the suite, found in `protos/` and loaded."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
)

ROOT = Path(__file__).resolve().parents[2]
FILES: list[FileDescriptor] = [
    importlib.import_module(
        ".".join(path.relative_to(ROOT / "protos").with_suffix("").parts) + "_pb2"
    ).DESCRIPTOR
    for path in sorted((ROOT / "protos" / "yidi").rglob("*.proto"))
]


def all_methods() -> list[MethodDescriptor]:
    """Every method of every service."""
    return [
        method
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
    ]


def all_messages() -> list[Descriptor]:
    """Every message, nested ones included."""
    return [message for file in FILES for message in _with_nested(file.message_types_by_name)]


def _with_nested(messages: Mapping[str, Descriptor]) -> Iterator[Descriptor]:
    for message in messages.values():
        yield message
        yield from _with_nested(message.nested_types_by_name)


def all_fields() -> list[FieldDescriptor]:
    """Every field of every message."""
    return [field for message in all_messages() for field in message.fields]


def all_enums() -> list[EnumDescriptor]:
    """Every enum."""
    return [enum for file in FILES for enum in file.enum_types_by_name.values()]


def is_batch(method: MethodDescriptor) -> bool:
    """Whether a method has the batch form by its name."""
    return method.name.startswith("Batch")
