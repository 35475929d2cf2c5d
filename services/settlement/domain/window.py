"""The commit window: a late message must not cross a cut-off.

The UUIDv7 of a settlement carries the milliseconds of its making. A commit or an undo is accepted
only while that instant lies close to the receiver's clock; asking what became of an id never is.
"""

from __future__ import annotations

BEHIND_MS = 120_000
AHEAD_MS = 5_000


def inside_window(made_ms: int, now_ms: int) -> bool:
    """Whether an id made at `made_ms` may be decided at `now_ms` (−120 s / +5 s)."""
    return now_ms - BEHIND_MS <= made_ms <= now_ms + AHEAD_MS
