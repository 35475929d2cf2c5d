"""Small file helpers: writes that are never seen half done, and the end of a log."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, data: str | bytes, *, mode: int = 0o600, sync: bool = False) -> None:
    """Replace `path` as a whole; `sync` flushes to disk what a power cut must not lose."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data.encode() if isinstance(data, str) else data)
            if sync:
                file.flush()
                os.fsync(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def tail(path: Path, *, lines: int = 20, start: int = 0) -> str:
    """The last `lines` lines written after byte `start`; says so when there are none."""
    limit = 64 << 10
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - limit))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"({path} cannot be read: {error.strerror})"
    return "\n".join(text.splitlines()[-lines:]) or f"({path} is empty)"
