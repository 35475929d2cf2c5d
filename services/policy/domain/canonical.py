"""The canonical form of a document's data and its hash: what "the same content" means."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


class DocumentError(ValueError):
    """A document cannot be used; the text says where, what is wrong and what to do."""

    def __init__(self, path: str, fault: str) -> None:
        super().__init__(f"{path}: {fault}")
        self.path = path


def canonical(data: Mapping[str, object]) -> str:
    """`data` as JSON with sorted keys and no spaces; raise `DocumentError` on other types."""
    _check(data, "document")
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def content_hash(content: str) -> bytes:
    """SHA-256 of a canonical form."""
    return hashlib.sha256(content.encode()).digest()


def _check(value: object, path: str) -> None:
    if value is None or isinstance(value, str | int):
        return
    if isinstance(value, Mapping):
        for name, nested in value.items():
            if not isinstance(name, str):
                raise DocumentError(path, f"key {name!r} is not text: put it in quotes")
            _check(nested, f"{path}.{name}")
    elif isinstance(value, list):
        for index, nested in enumerate(value):
            _check(nested, f"{path}[{index}]")
    elif isinstance(value, float):
        raise DocumentError(path, f"{value} is a float: write fen or basis points, whole numbers")
    else:
        raise DocumentError(path, f"{value!r} is a {type(value).__name__}: put it in quotes")
