"""Until when a filing is valid."""

from __future__ import annotations

import calendar
from datetime import date


def last_day(start: date, months: int | None) -> date | None:
    """The last valid day of a period of `months` from `start`; None without end.

    The day of the start does not count, the period ends on the day of the same number, or on the
    last day of a month that has no such day (民法典 第201、202条).
    """
    if months is None:
        return None
    index = start.year * 12 + start.month - 1 + months
    year, month = index // 12, index % 12 + 1
    return date(year, month, min(start.day, calendar.monthrange(year, month)[1]))
