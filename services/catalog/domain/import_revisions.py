"""Items of a list from the three tables of the national download.

A row of 1312 says an item's days; rows of 1318 and 1319 say price limits and first self-pay shares,
each with days of its own. The item's revision is cut where one of them changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

from services.catalog.domain.import_cells import Fault
from services.catalog.domain.import_layouts import Layout
from services.catalog.domain.import_rows import RejectedRow, Row
from services.catalog.domain.import_terms import judged
from services.catalog.domain.item import (
    WHOLE_BASIS_POINTS,
    CatalogClass,
    InsuranceType,
    Level,
)

_NO_ITEM = "医保目录信息（1312）中没有该编码"
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Staged:
    """A row of a national table, in the columns of `STAGED_COLUMNS`."""

    layout: int
    place: int
    line: int
    national_code: str
    first_day: date | None
    """None of an item that is not in use."""
    last_day: date | None
    """None while it holds."""
    key: int
    value: int | None
    name: str | None
    list_type: int | None
    catalog_class: int | None
    fee_category: int | None
    limited_use: str | None

    @property
    def first(self) -> date:
        """First day of a row that is in use."""
        return self.first_day or date.min

    @property
    def last(self) -> date:
        """Last day, included."""
        return self.last_day or date.max


def revisions(staged: Sequence[Staged]) -> tuple[list[Row], list[RejectedRow]]:
    """What the rows of one code make: rows of `ITEM_COLUMNS` without `line`, oldest first, and the
    rows that cannot be taken."""
    ordered = sorted(staged, key=lambda row: (row.layout, row.key, row.first, row.place, row.line))
    named = [row for row in ordered if row.layout == Layout.ITEMS]
    said = [row for row in ordered if row.layout != Layout.ITEMS]
    if not named:
        return [], [RejectedRow(row.place, row.line, "hilist_code", _NO_ITEM) for row in said]
    items = [row for row in named if row.key]
    rejected = [*_overlapping(items), *_overlapping(said)]
    if rejected:
        return [], rejected
    rows: list[Row] = []
    for item in items:
        for first, last in _cut(item, said):
            try:
                rows.append(_row(item, first, last, said))
            except Fault as fault:
                column = "selfpay_prop" if fault.column == "first_self_pay" else fault.column
                return [], [RejectedRow(item.place, item.line, column, fault.cause)]
    return rows, []


def _overlapping(ordered: Sequence[Staged]) -> list[RejectedRow]:
    """Rows whose days begin inside those of an earlier one of the same kind and key."""
    found = []
    held: Staged | None = None
    for row in ordered:
        if held is None or (held.layout, held.key) != (row.layout, row.key):
            held = row
            continue
        if row.first <= held.last:
            cause = f"与第 {held.line} 行日期重叠（同一编码）"
            found.append(RejectedRow(row.place, row.line, "begndate", cause))
        if row.last > held.last:
            held = row
    return found


def _cut(item: Staged, said: Sequence[Staged]) -> list[tuple[date, date]]:
    """The days of an item, cut where a row of `said` begins or has ended."""
    starts = {item.first}
    for row in said:
        if item.first < row.first <= item.last:
            starts.add(row.first)
        if item.first <= row.last < item.last:
            starts.add(row.last + _DAY)
    firsts = sorted(starts)
    return [
        *((first, later - _DAY) for first, later in pairwise(firsts)),
        (firsts[-1], item.last),
    ]


def _row(item: Staged, first: date, last: date, said: Sequence[Staged]) -> Row:
    """The item from `first` to `last`, on which nothing changes; raises `Fault`."""
    holding = [row for row in said if row.first <= first and last <= row.last]
    limits = {row.key: row.value for row in holding if row.layout == Layout.LIMITS}
    given = {row.key: row.value or 0 for row in holding if row.layout == Layout.SHARES}
    class_ = CatalogClass(item.catalog_class or 0)
    shares = {one: given.get(one, 0) for one in InsuranceType}
    if class_ is CatalogClass.SELF_PAID:
        # All of a self-paid item is paid by the patient, which its class says already.
        shares = {one: 0 if it == WHOLE_BASIS_POINTS else it for one, it in shares.items()}
    judged(catalog_class=class_, first_self_pay_bp=shares)
    return (
        item.national_code,
        item.name,
        first,
        None if last == date.max else last,
        *("", "", ""),
        item.list_type,
        item.catalog_class,
        item.fee_category,
        *shares.values(),
        *([], [], []),
        item.limited_use,
        *(None, None, False, False, ""),
        *(limits.get(level) for level in Level),
    )
