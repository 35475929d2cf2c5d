"""What the lines of an import file say, or why a row is not taken.

A faulty row is rejected with its first fault and stops nothing; a cause says what is wrong, not
what stands there. An item is judged by `Item`: each group of cells that it judges together
(`import_terms`) is put into an item once for every text that occurs in them, so that a list of
hundreds of thousands of rows is read at the speed of splitting its lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias

from services.catalog.domain import import_cells as cell
from services.catalog.domain.import_cells import Fault, Memo
from services.catalog.domain.import_layouts import READ_COLUMNS, Layout, Table
from services.catalog.domain.import_lines import cells_of, lines_of
from services.catalog.domain.import_terms import (
    CSV_TERMS,
    check_share_kind,
    judged,
    read_days,
    read_national_terms,
    read_terms,
)
from services.catalog.domain.item import LONGEST_NAME

ITEM_COLUMNS = (
    "line",
    "national_code",
    "name",
    "effective_from",
    "effective_to",
    "dosage_form",
    "specification",
    "unit",
    "list_type",
    "catalog_class",
    "fee_category",
    "first_self_pay_310",
    "first_self_pay_390",
    "band_up_to",
    "band_310",
    "band_390",
    "limited_use",
    "day_limit_e4",
    "visit_limit_e4",
    "negotiated",
    "centrally_purchased",
    "preparing_institution",
    "limit_one",
    "limit_two",
    "limit_three",
    "limit_other",
    "limit_unrated",
)
"""What an item's row holds, in this order."""
STAGED_COLUMNS = (
    "layout",
    "place",
    "line",
    "national_code",
    "first_day",
    "last_day",
    "key",
    "value",
    "name",
    "list_type",
    "catalog_class",
    "fee_category",
    "limited_use",
)
"""What the row of a national table holds until the tables are joined: `place` is its table's place
in the file; `key` is the level or the insurance type, of an item whether it is in use; `value`
micro-yuan or basis points."""
Row: TypeAlias = tuple[Any, ...]
_CSV_DAYS = ("effective_from", "effective_to")
_CSV_TEXTS = (("dosage_form", 50), ("specification", 100), ("unit", 20))
_CSV_LIMITS = tuple(f"limit_{level}" for level in cell.LEVELS)
_CSV_ORDER = (
    "national_code",
    "name",
    *_CSV_DAYS,
    *(name for name, _ in _CSV_TEXTS),
    *CSV_TERMS,
    *_CSV_LIMITS,
)
_CSV_NAMES = {"first_self_pay": "first_self_pay_310"}
_NATIONAL_NAMES = {
    "name": "hilist_name",
    "effective_from": "begndate",
    "effective_to": "enddate",
}
"""Columns as an item calls them, and as the file does."""
_OTHER_PERSONS = "330"
"""离休: no insurance type of this suite, their shares are left out."""
_NO_ITEM = (None,) * 5


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is not taken: its table's place in the file, its line there; the column is empty
    when it is the row as a whole."""

    place: int
    line: int
    column: str
    cause: str


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of a table says: rows of `ITEM_COLUMNS` from a CSV, else of `STAGED_COLUMNS`.

    `count` has the rows rejected and left out too; `next_line` is the line after it.
    """

    rows: list[Row]
    rejected: list[RejectedRow]
    count: int
    next_line: int


class RowReader:
    """Reads parts; keeps what the texts of their cells stand for."""

    def __init__(self) -> None:
        self._days = Memo(read_days)
        self._texts = [Memo(partial(cell.short, name, most)) for name, most in _CSV_TEXTS]
        self._terms = Memo(read_terms)
        self._limits = [Memo(partial(cell.price, name)) for name in _CSV_LIMITS]
        self._item_terms = Memo(read_national_terms)
        self._share = Memo(partial(cell.ratio, "selfpay_prop"))
        self._price = Memo(partial(cell.scaled, "hilist_pric_uplmt_amt", cell.YUAN_DECIMALS))

    def read(self, content: bytes, first_line: int, table: Table, place: int, area: str) -> Part:
        """Read whole lines; `first_line` is the first one's number in its table, `area` the one
        whose list it is."""
        row: Callable[[int, Row], Row | None]
        if table.layout is Layout.CSV:
            row, order, called = self._item(), _CSV_ORDER, _CSV_NAMES
        else:
            row = partial(self._staged, table.layout, place, {area, f"{area[:2]}0000"})
            order, called = READ_COLUMNS[table.layout], _NATIONAL_NAMES
        pick = itemgetter(*table.places(order))
        texts = lines_of(content, table)
        rows: list[Row] = []
        rejected: list[RejectedRow] = []
        count = 0
        for line, cells in cells_of(texts, first_line, table):
            count += 1
            try:
                if isinstance(cells, Fault):
                    raise cells
                found = row(line, pick(cells))
            except Fault as fault:
                column = called.get(fault.column, fault.column)
                rejected.append(RejectedRow(place, line, column, fault.cause))
            else:
                if found is not None:
                    rows.append(found)
        return Part(rows, rejected, count, first_line + len(texts))

    def _item(self) -> Callable[[int, Row], Row]:
        """Reads an item; everything that it looks up is at hand."""
        days, terms, code, longest = self._days, self._terms, cell.code, LONGEST_NAME
        dosage_form, specification, unit = self._texts
        one, two, three, other, unrated = self._limits

        def item(line: int, cells: Row) -> Row:
            name = cells[1].strip()
            if not 0 < len(name) <= longest:
                judged(name=name)
            return (
                line,
                code("national_code", cells[0]),
                name,
                *days[cells[2:4]],
                dosage_form[cells[4]],
                specification[cells[5]],
                unit[cells[6]],
                *terms[cells[7:19]],
                one[cells[19]],
                two[cells[20]],
                three[cells[21]],
                other[cells[22]],
                unrated[cells[23]],
            )

        return item

    def _staged(
        self, layout: Layout, place: int, areas: set[str], line: int, cells: Row
    ) -> Row | None:
        if "null" in cells:
            cells = tuple("" if one == "null" else one for one in cells)
        code, begins, ends, area, valid, *rest = cells
        if area.strip() not in areas:
            raise Fault("insu_admdvs", "医保区划不是本次导入的统筹区或其所在省")
        in_use = cell.flag("vali_flag", valid or "-")
        head = (layout, place, line, cell.code("hilist_code", code))
        if layout is Layout.ITEMS:
            days = self._days[begins, ends] if in_use else (None, None)
            return (*head, *days, int(in_use), None, *self._named(rest, in_use))
        if not in_use:
            return None
        if layout is Layout.LIMITS:
            level, price = rest
            key = int(cell.chosen("hilist_lmtpric_type", cell.LEVELS, level.removeprefix("0")))
            value = self._price[price]
        else:
            person, kind, share = rest
            if person.strip() == _OTHER_PERSONS:
                return None
            key = int(cell.chosen("selfpay_prop_psn_type", cell.INSURANCES, person))
            check_share_kind(kind.strip())
            value = self._share[share]
        return (*head, *self._days[begins, ends], key, value, *_NO_ITEM)

    def _named(self, rest: list[str], in_use: bool) -> Row:
        if not in_use:
            return _NO_ITEM
        name = rest[0].strip()
        if not 0 < len(name) <= LONGEST_NAME:
            judged(name=name)
        return (name, *self._item_terms[tuple(rest[1:])])
