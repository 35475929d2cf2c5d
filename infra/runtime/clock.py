"""The only place that reads the clock or makes ids.

Everything else is given a `Clock`, so that tests choose the instant. Business days and month
cut-offs are those of Asia/Shanghai, which has no daylight saving time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Protocol

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")


class Clock(Protocol):
    """Tells the time; the system's in production, a chosen one in tests."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 in UTC."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


@dataclass(slots=True)
class ManualClock:
    """A clock that tests move by hand."""

    ms: int

    def now_ms(self) -> int:
        return self.ms


def instant(clock: Clock) -> datetime:
    """The clock's time as an aware UTC datetime."""
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)


def business_day(ms: int) -> date:
    """The day in Asia/Shanghai of an instant in milliseconds."""
    return datetime.fromtimestamp(ms / 1000, SHANGHAI).date()


def new_id(clock: Clock) -> str:
    """A UUIDv7 (RFC 9562): the clock's milliseconds, then 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (clock.now_ms() & (1 << 48) - 1) << 80 | 0x7 << 76
    value |= (random >> 62 & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_milliseconds(identifier: str) -> int:
    """The milliseconds inside a UUIDv7; 0 when the id is of another version."""
    if identifier[14:15] != "7":
        return 0
    return int(identifier[:8] + identifier[9:13], 16)


def first_id_of(ms: int) -> str:
    """The smallest UUIDv7-shaped id of an instant: the bound of a partition."""
    text = f"{ms & (1 << 48) - 1:012x}"
    return f"{text[:8]}-{text[8:]}-0000-0000-000000000000"


def monotonic_us() -> int:
    """Microseconds of a clock that only goes forward, for durations."""
    return time.perf_counter_ns() // 1000
