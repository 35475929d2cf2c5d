"""What the lines of an import file say, or why a row is not taken.

The file is UTF-8 text, one row a line. A faulty row is rejected with its first fault and stops
nothing; a cause says what is wrong, not what stands there. An item is judged by `Item`: each group
of cells that it judges together is put into an item once for every text that occurs in them, so
that a list of hundreds of thousands of rows is read at the speed of splitting its lines.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias

from services.catalog.domain import import_cells as cell
from services.catalog.domain.import_cells import Fault, Memo
from services.catalog.domain.import_layouts import READ_COLUMNS, Layout, Table
from services.catalog.domain.item import (
    LONGEST_NAME,
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    ItemInvalid,
    ListType,
)

LONGEST_LINE = 8_192
"""Bytes of a line; a longer one is a row not taken."""
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
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f]")
_CONTROL_BUT_TAB = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_PATTERN = Item(
    national_code="PATTERN",
    name="-",
    list_type=ListType.PREPARATION,
    catalog_class=CatalogClass.B,
    fee_category=FeeCategory.OTHER,
    first_self_pay_bp=dict.fromkeys(InsuranceType, 0),
    limits_micro_yuan={},
    limited_use="",
    effective_from=date.min,
)
_CSV_DAYS = ("effective_from", "effective_to")
_CSV_TEXTS = (("dosage_form", 50), ("specification", 100), ("unit", 20))
_CSV_TERMS = (
    "list_type",
    "catalog_class",
    "fee_category",
    "first_self_pay_310",
    "first_self_pay_390",
    "bands",
    "limited_use",
    "day_limit",
    "visit_limit",
    "negotiated",
    "centrally_purchased",
    "preparing_institution",
)
_CSV_LIMITS = tuple(f"limit_{level}" for level in cell.LEVELS)
_CSV_ORDER = (
    "national_code",
    "name",
    *_CSV_DAYS,
    *(name for name, _ in _CSV_TEXTS),
    *_CSV_TERMS,
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
_SHARE, _REIMBURSED, _BANDED = "10", "20", "30"
"""selfpay_prop_type: 目录先自付比例, 目录直接报销比例, 按费用单价范围配置自付比例."""
_NO_ITEM = (None,) * 5
_NO_TEXT = "限制使用，目录未载明范围"


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
        self._days = Memo(_days)
        self._texts = [Memo(partial(cell.short, name, most)) for name, most in _CSV_TEXTS]
        self._terms = Memo(_terms)
        self._limits = [Memo(partial(cell.price, name)) for name in _CSV_LIMITS]
        self._item_terms = Memo(_national_terms)
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
        texts = _texts(content, table)
        rows: list[Row] = []
        rejected: list[RejectedRow] = []
        count = 0
        for line, cells in _cells(texts, first_line, table):
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
            _check_kind(kind.strip())
            value = self._share[share]
        return (*head, *self._days[begins, ends], key, value, *_NO_ITEM)

    def _named(self, rest: list[str], in_use: bool) -> Row:
        if not in_use:
            return _NO_ITEM
        name = rest[0].strip()
        if not 0 < len(name) <= LONGEST_NAME:
            judged(name=name)
        return (name, *self._item_terms[tuple(rest[1:])])


def _texts(content: bytes, table: Table) -> list[str | Fault]:
    """The text of each line, or why it has none."""
    raw = content.removesuffix(b"\n").split(b"\n")
    control = _CONTROL if table.layout is Layout.CSV else _CONTROL_BUT_TAB
    if max(map(len, raw)) <= LONGEST_LINE:
        try:
            text = content.removesuffix(b"\n").decode().replace("\r\n", "\n").removesuffix("\r")
        except UnicodeDecodeError:
            pass
        else:
            if not control.search(text):
                return list(text.split("\n"))
    return [_text(one.removesuffix(b"\r"), control) for one in raw]


def _text(raw: bytes, control: re.Pattern[str]) -> str | Fault:
    if len(raw) > LONGEST_LINE:
        return Fault("", "行过长")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return Fault("", "不是 UTF-8 编码")
    return Fault("", "含有控制字符") if control.search(text) else text


def _cells(
    texts: list[str | Fault], first_line: int, table: Table
) -> Iterator[tuple[int, list[str] | Fault]]:
    """Each line that is not empty: its number and its cells, or why it has none."""
    separator, wanted = table.separator, len(table.names)
    quoted = table.layout is Layout.CSV
    for line, text in enumerate(texts, first_line):
        if isinstance(text, Fault):
            yield line, text
            continue
        if quoted and '"' in text:
            try:
                cells = next(csv.reader([text], strict=True))
            except csv.Error:
                yield line, Fault("", "引号不成对")
                continue
        else:
            cells = text.split(separator)
        if len(cells) == wanted:
            yield line, cells
        elif text and not text.isspace():
            yield line, Fault("", "列数多于表头" if len(cells) > wanted else "列数少于表头")


def judged(**said: Any) -> Item:
    """An item that says this; raises `Fault` for what `Item` refuses."""
    try:
        return replace(_PATTERN, **said)
    except ItemInvalid as fault:
        raise Fault(fault.column, fault.cause) from None


def _days(cells: tuple[str, str]) -> tuple[date, date | None]:
    begins = cell.first_day("effective_from", cells[0])
    ends = cell.last_day("effective_to", cells[1])
    judged(effective_from=begins, effective_to=ends or date.max)
    return begins, ends


def _terms(cells: tuple[str, ...]) -> Row:
    """The cells of `_CSV_TERMS` as the columns from `list_type` to `preparing_institution`."""
    (kind, class_, category, employee, resident, bands, use, day, visit, negotiated, bulk, own) = (
        cells
    )
    item = judged(
        list_type=cell.chosen("list_type", cell.LIST_TYPES, kind),
        catalog_class=cell.chosen("catalog_class", cell.CLASSES, class_),
        fee_category=cell.chosen("fee_category", cell.CATEGORIES, category),
        first_self_pay_bp={
            InsuranceType.EMPLOYEE: _percent("first_self_pay_310", employee),
            InsuranceType.RESIDENT: _percent("first_self_pay_390", resident),
        },
        bands=tuple(map(_band, bands.strip().split(";"))) if bands.strip() else (),
        limited_use=use.strip(),
        day_limit_e4=cell.quantity("day_limit", day),
        visit_limit_e4=cell.quantity("visit_limit", visit),
        negotiated=cell.flag("negotiated", negotiated),
        centrally_purchased=cell.flag("centrally_purchased", bulk),
        preparing_institution=cell.institution("preparing_institution", own),
    )
    return (
        int(item.list_type),
        int(item.catalog_class),
        int(item.fee_category),
        *(item.first_self_pay_bp[one] for one in InsuranceType),
        [band.up_to_micro_yuan for band in item.bands],
        *([band.first_self_pay_bp[one] for band in item.bands] for one in InsuranceType),
        item.limited_use,
        item.day_limit_e4,
        item.visit_limit_e4,
        item.negotiated,
        item.centrally_purchased,
        item.preparing_institution,
    )


def _percent(column: str, text: str) -> int:
    return cell.scaled(column, cell.PERCENT_DECIMALS, text)


def _band(text: str) -> Band:
    """`up to:share` or `up to:310/390`, the last without an end."""
    up_to, colon, shares = text.partition(":")
    employee, slash, resident = shares.partition("/")
    if not colon:
        raise Fault("bands", "价格分段应写作 500:10;2000:20/25;:30")
    return Band(
        cell.price("bands", up_to),
        {
            InsuranceType.EMPLOYEE: _percent("bands", employee),
            InsuranceType.RESIDENT: _percent("bands", resident if slash else employee),
        },
    )


def _national_terms(cells: tuple[str, ...]) -> Row:
    """list_type, chrgitm_lv, med_chrgitm_type, lmt_used_flag and memo as the columns from
    `list_type` to `limited_use`; the last without `memo` where it restricts nothing."""
    kind, class_, category, restricted, memo = cells
    use = ""
    if cell.flag("lmt_used_flag", restricted or "-"):
        use = memo.strip() or _NO_TEXT
        if len(use) > LONGEST_NAME:
            # The interface allows 500 characters, and only whether there is a text decides.
            use = use[: LONGEST_NAME - 1] + "…"
    return (
        int(cell.chosen("list_type", cell.LIST_TYPES, kind)),
        int(cell.chosen("chrgitm_lv", cell.CLASSES, class_)),
        int(cell.chosen("med_chrgitm_type", cell.CATEGORIES, category)),
        use,
    )


def _check_kind(kind: str) -> None:
    if kind == _REIMBURSED:
        raise Fault("selfpay_prop_type", "目录直接报销比例不是先行自付比例，不能换算")
    if kind == _BANDED:
        raise Fault("selfpay_prop_type", "按费用单价范围配置的自付比例没有单价范围，不能采用")
    if kind != _SHARE:
        raise Fault("selfpay_prop_type", f"代码应为 {_SHARE}、{_REIMBURSED}、{_BANDED} 之一")
