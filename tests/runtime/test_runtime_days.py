"""Working days of the mainland, with make-up workdays (规程 第九条 counts in them)."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.runtime.days import add_working_days, is_working_day


@pytest.mark.parametrize(
    ("day", "works"),
    [
        (date(2026, 9, 30), True),
        (date(2026, 10, 1), False),  # National Day, a Thursday
        (date(2026, 10, 7), False),
        (date(2026, 10, 10), True),  # a Saturday made up for
        (date(2026, 10, 11), False),  # the Sunday after it
        (date(2026, 9, 20), True),  # a Sunday made up for
        (date(2003, 10, 1), True),  # before the calendar begins: a Wednesday
        (date(2190, 1, 2), False),  # after it ends: a Saturday
    ],
)
def test_holidays_and_make_up_workdays(day: date, works: bool) -> None:
    assert is_working_day(day) is works


@pytest.mark.parametrize(
    ("day", "days", "due"),
    [
        (date(2026, 11, 18), 0, date(2026, 11, 18)),
        (date(2026, 11, 18), 2, date(2026, 11, 20)),
        (date(2026, 11, 20), 2, date(2026, 11, 24)),  # over a weekend
        (date(2026, 9, 30), 2, date(2026, 10, 9)),  # over National Day
        (date(2026, 10, 9), 1, date(2026, 10, 10)),  # due on a make-up Saturday
        (date(2026, 10, 3), 1, date(2026, 10, 8)),  # asked for on a holiday
    ],
)
def test_due_days(day: date, days: int, due: date) -> None:
    assert add_working_days(day, days) == due


@given(
    st.dates(date(2004, 1, 1), date(2027, 12, 31)),
    st.integers(min_value=1, max_value=20),
)
def test_a_period_ends_on_a_working_day_and_holds_as_many_as_it_says(day: date, days: int) -> None:
    due = add_working_days(day, days)
    counted = [day + timedelta(days=n) for n in range(1, (due - day).days + 1)]
    assert is_working_day(due)
    assert sum(map(is_working_day, counted)) == days
