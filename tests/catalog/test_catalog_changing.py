"""How a change amends a list: the timeline of a code on every day, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalog.domain.changing import (
    ChangeRefused,
    PublishedList,
    list_on,
    list_to_change,
    new_timelines,
)
from services.catalog.domain.item import CatalogClass, FeeCategory, InsuranceType, Item, ListType

FIRST = date(2026, 1, 1)
DAYS = 60
CODES = ("XA01-SAMPLE", "XA02-SAMPLE")


def item(name: str, first: date, last: date = date.max, code: str = CODES[0]) -> Item:
    return Item(
        national_code=code,
        name=name,
        list_type=ListType.DRUG,
        catalog_class=CatalogClass.A,
        fee_category=FeeCategory.WESTERN_DRUG,
        first_self_pay_bp=dict.fromkeys(InsuranceType, 0),
        limits_micro_yuan={},
        limited_use="",
        effective_from=first,
        effective_to=last,
    )


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def on(items: list[Item], code: str, when: date) -> str | None:
    """The name of a code on a day; no two items may be in force."""
    found = [
        each.name
        for each in items
        if each.national_code == code and each.effective_from <= when <= each.effective_to
    ]
    assert len(found) <= 1
    return found[0] if found else None


@st.composite
def lists_of_items(draw: st.DrawFn, name: str) -> list[Item]:
    """Items of two codes, none of a code on one day; the last may be without end."""
    made = []
    for code in CODES:
        ends = draw(st.lists(st.integers(0, DAYS - 1), max_size=8, unique=True))
        ends.sort()
        if len(ends) % 2:
            made.append(item(f"{name} to the end", day(ends.pop()), code=code))
        for number, (first, last) in enumerate(zip(ends[::2], ends[1::2], strict=True)):
            made.append(item(f"{name} {number}", day(first), day(last), code))
    return made


@given(former=lists_of_items("former"), changed=lists_of_items("changed"))
def test_a_change_holds_on_its_days_and_what_held_stays_on_the_others(
    former: list[Item], changed: list[Item]
) -> None:
    named = {each.national_code for each in changed}
    timelines = new_timelines([each for each in former if each.national_code in named], changed)
    assert set(timelines) == named
    for code, timeline in timelines.items():
        for number in range(-1, DAYS + 1):
            expected = on(changed, code, day(number)) or on(former, code, day(number))
            assert on(list(timeline), code, day(number)) == expected
        for earlier, later in pairwise(timeline):
            assert earlier.effective_to < later.effective_from


def test_a_price_from_a_day_on_keeps_the_price_before() -> None:
    former = [item("old", FIRST)]
    timeline = new_timelines(former, [item("new", day(10))])[CODES[0]]
    assert timeline == [item("old", FIRST, day(9)), item("new", day(10))]
    for_a_while = new_timelines(former, [item("new", day(10), day(19))])[CODES[0]]
    assert for_a_while == [
        item("old", FIRST, day(9)),
        item("new", day(10), day(19)),
        item("old", day(20)),
    ]


def test_two_changes_of_a_code_on_one_day_are_refused() -> None:
    with pytest.raises(ChangeRefused, match="XA01-SAMPLE 的两处更改日期重叠"):
        new_timelines([], [item("one", FIRST, day(5)), item("other", day(5))])


OLD = PublishedList(1, "440000", "2026.1", FIRST, 1, 0)
CORRECTED = replace(OLD, id=2, version="2026.2", publication=2, changes=3)
FUTURE = replace(OLD, id=3, version="2027.1", effective_from=date(2027, 1, 1), publication=3)


def test_the_later_publication_of_a_day_is_amended_and_names_its_changes() -> None:
    assert list_on([CORRECTED, OLD, FUTURE], day(0)) is CORRECTED
    assert list_to_change([OLD, CORRECTED, FUTURE], [item("new", day(3))]) is CORRECTED
    assert (CORRECTED.catalogue_version, CORRECTED.next_version) == ("2026.2+3", "2026.2+4")
    assert (OLD.catalogue_version, OLD.next_version) == ("2026.1", "2026.1+1")


def test_what_cannot_be_changed() -> None:
    with pytest.raises(ChangeRefused, match="没有自己发布的目录"):
        list_to_change([], [item("new", FIRST)])
    with pytest.raises(ChangeRefused, match="2025-12-31 时该地区的目录尚未生效"):
        list_to_change([OLD], [item("new", day(-1))])
    with pytest.raises(ChangeRefused, match="XA01-SAMPLE 的开始日期已属于另一版目录 2027"):
        list_to_change(
            [OLD, FUTURE], [item("new", FIRST, code=CODES[1]), item("new", date(2027, 1, 1))]
        )
