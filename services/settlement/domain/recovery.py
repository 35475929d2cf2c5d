"""When recovery asks again about a settlement in doubt."""

from __future__ import annotations

SWEEP_AFTER_MS = 5_000
"""A row PENDING this long past its deadline is in doubt, whoever opened it."""
FIRST_MS = 200
LAST_MS = 2_000


def wait_ms(attempts: int, jitter: float) -> int:
    """Milliseconds until the next question after `attempts` of them.

    Doubles from 0.2 s to 2 s; `jitter` from 0 to 1 spreads it over the upper half, so that
    replicas and rows do not ask in step.
    """
    full = min(FIRST_MS << min(attempts, 16), LAST_MS)
    return full // 2 + int(full / 2 * jitter)
