"""When an institution has failed to identify people so often that it must wait."""

from __future__ import annotations

from collections import OrderedDict, deque

REFUSALS = 20
"""Unidentified people within the window after which an institution has to wait."""
WINDOW_MS = 60_000
INSTITUTIONS = 100_000
"""Bound of memory; the institution whose last refusal is oldest is forgotten first."""


class RefusedAttempts:
    """Counts unidentified people per institution over a sliding window.

    In memory and per replica: with n replicas an institution may fail n times as often, which
    still makes guessing numbers hopeless; a restart forgets. The caller says what time it is.
    """

    def __init__(self) -> None:
        self._refused_at: OrderedDict[str, deque[int]] = OrderedDict()

    def wait_ms(self, institution: str, now_ms: int) -> int:
        """Milliseconds until `institution` may ask again; 0 when it may now."""
        times = self._refused_at.get(institution)
        if times is None or len(times) < REFUSALS:
            return 0
        return max(times[0] + WINDOW_MS - now_ms, 0)

    def refused(self, institution: str, now_ms: int) -> None:
        """Count one refusal; an agency (empty institution) is not counted."""
        if not institution:
            return
        self._refused_at.setdefault(institution, deque(maxlen=REFUSALS)).append(now_ms)
        self._refused_at.move_to_end(institution)
        if len(self._refused_at) > INSTITUTIONS:
            self._refused_at.popitem(last=False)
