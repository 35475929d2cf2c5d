"""Days on the wire, and the working days of the mainland."""

from __future__ import annotations

from datetime import date, timedelta

import chinese_calendar

from infra.runtime.errors import Reason, Refusal


def parse_day(text: str, field: str) -> date:
    """The day that `text` names; refuse with DAY_INVALID when there is none, e.g. 2026-02-31."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise Refusal(Reason.ERROR_REASON_DAY_INVALID, field=field, value=text) from error


def is_working_day(day: date) -> bool:
    """Whether offices work: Monday to Friday but for public holidays, and make-up workdays.

    Holidays and make-up workdays (调休) are those that the State Council has announced, a year at a
    time. For a year not announced when the calendar was made every Monday to Friday counts: a due
    date in it can come too early by the holidays, never too late but for a make-up workday.
    """
    try:
        return bool(chinese_calendar.is_workday(day))
    except NotImplementedError:
        return day.weekday() < 5


def add_working_days(day: date, days: int) -> date:
    """The last day of a period of `days` working days; `day` itself does not count."""
    while days > 0:
        day += timedelta(days=1)
        days -= is_working_day(day)
    return day
