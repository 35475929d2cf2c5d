"""When the detail of a stay must be at the nation, and when it is sent again."""

from __future__ import annotations

from datetime import timedelta

WITHIN = timedelta(days=3)
"""规程 第三十九条: within three days of the settlement, counted as 72 hours from its completion."""
FIRST = timedelta(seconds=5)
LAST = timedelta(minutes=10)


def wait(attempts: int) -> timedelta:
    """Time until the next attempt after `attempts` of them: doubles from 5 s to 10 min."""
    return min(FIRST * (1 << min(max(attempts - 1, 0), 16)), LAST)
