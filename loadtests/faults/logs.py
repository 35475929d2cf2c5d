"""What the processes' logs must not hold, whatever breaks: errors that nobody foresaw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

_UNFORESEEN = frozenset({"internal", "settlement task failed", "background failed"})
"""Events of exceptions that are neither a refusal nor a lost connection."""


def unforeseen(folder: Path) -> Iterator[str]:
    """Each such event in the logs of `folder`, with its process and where it came from."""
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if not line.startswith("{"):
                continue
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off when its process was killed
            if event.get("event") in _UNFORESEEN:
                at = event.get("at") or ["unknown"]
                of = event.get("method") or event.get("work", "")
                yield f"{log.stem}: {event['event']} {of}: {at[0]}, {at[-1]}"
