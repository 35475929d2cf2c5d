"""What the cells of an import file say.

A conversion is made once for each text that stands in a column and kept, because the columns of a
list repeat themselves: at most `MOST` texts each, then it begins anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import TypeVar

from services.catalog.domain.item import (
    WHOLE_BASIS_POINTS,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Level,
    ListType,
)

K = TypeVar("K")
V = TypeVar("V")
MOST = 1 << 14
LIST_TYPES: Mapping[str, ListType] = {
    "101": ListType.DRUG,
    "102": ListType.HERBAL_PIECES,
    "103": ListType.PREPARATION,
    "104": ListType.ETHNIC_DRUG,
    "105": ListType.OTHER,
    "106": ListType.GRANULES,
    "201": ListType.SERVICE,
    "301": ListType.CONSUMABLE,
}
CLASSES: Mapping[str, CatalogClass] = {f"{one:02d}": one for one in CatalogClass}
CATEGORIES: Mapping[str, FeeCategory] = {f"{one:02d}": one for one in FeeCategory}
LEVELS: Mapping[str, Level] = {
    "1": Level.ONE,
    "2": Level.TWO,
    "3": Level.THREE,
    "4": Level.OTHER,
    "9": Level.UNRATED,
}
INSURANCES: Mapping[str, InsuranceType] = {
    "310": InsuranceType.EMPLOYEE,
    "390": InsuranceType.RESIDENT,
}
YUAN_DECIMALS, PERCENT_DECIMALS, RATIO_DECIMALS, UNIT_DECIMALS = 6, 2, 4, 4
_NUMBER = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?", re.ASCII)
_CODE = re.compile(r"[A-Za-z0-9-]{5,50}", re.ASCII)
_INSTITUTION = re.compile(r"[A-Z0-9]{6,30}", re.ASCII)
_DAY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?: [0-9]{2}:[0-9]{2}:[0-9]{2})?", re.ASCII)
_MOST_UNITS_E4 = 10**11


class Fault(ValueError):
    """A cell that cannot be true: its column, empty for the row as a whole, and the cause."""

    def __init__(self, column: str, cause: str) -> None:
        super().__init__(column)
        self.column = column
        self.cause = cause


class Memo(dict[K, V]):
    """A conversion whose results are kept; a text that it refuses is asked again."""

    def __init__(self, convert: Callable[[K], V]) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, key: K) -> V:
        value = self._convert(key)
        if len(self) >= MOST:
            self.clear()
        self[key] = value
        return value


def code(column: str, cell: str) -> str:
    """A national code."""
    text = cell.strip()
    if not _CODE.fullmatch(text):
        raise Fault(column, "国家医保编码应为 5 至 50 位字母、数字或连字符")
    return text


def chosen(column: str, codes: Mapping[str, V], cell: str) -> V:
    """What a code of a national table stands for."""
    found = codes.get(cell.strip())
    if found is None:
        raise Fault(column, f"代码应为 {'、'.join(codes)} 之一")
    return found


def scaled(column: str, decimals: int, cell: str) -> int:
    """A number without sign as units of its last decimal place."""
    found = _NUMBER.fullmatch(cell.strip())
    if found is None:
        raise Fault(column, f"应为不带正负号的数，整数至多 9 位，小数至多 {decimals} 位")
    whole, part = found[1], (found[2] or "").rstrip("0")
    if len(part) > decimals:
        raise Fault(column, f"小数至多 {decimals} 位")
    return int(whole + part.ljust(decimals, "0"))


def ratio(column: str, cell: str) -> int:
    """A share between 0 and 1 as basis points."""
    found = scaled(column, RATIO_DECIMALS, cell)
    if found > WHOLE_BASIS_POINTS:
        raise Fault(column, "比例应为 0 至 1 的小数")
    return found


def price(column: str, cell: str) -> int | None:
    """Yuan as micro-yuan, None for an empty cell."""
    return scaled(column, YUAN_DECIMALS, cell) if cell and not cell.isspace() else None


def quantity(column: str, cell: str) -> int | None:
    """Units as 1/10,000, None for an empty cell."""
    if not cell or cell.isspace():
        return None
    found = scaled(column, UNIT_DECIMALS, cell)
    if not 0 < found <= _MOST_UNITS_E4:
        raise Fault(column, "限量应大于 0，且不超过 10000000")
    return found


def flag(column: str, cell: str) -> bool:
    """0 or 1; an empty cell is 0."""
    text = cell.strip()
    if text not in ("", "0", "1"):
        raise Fault(column, "标志应为 0 或 1")
    return text == "1"


def short(column: str, most: int, cell: str) -> str:
    """A text of at most so many characters."""
    text = cell.strip()
    if len(text) > most:
        raise Fault(column, f"超过 {most} 个字")
    return text


def institution(column: str, cell: str) -> str:
    """The code of an institution, or empty."""
    text = cell.strip()
    if text and not _INSTITUTION.fullmatch(text):
        raise Fault(column, "机构编码应为 6 至 30 位大写字母或数字")
    return text


def first_day(column: str, cell: str) -> date:
    """A day, with or without a time behind it."""
    found = _DAY.fullmatch(cell.strip())
    if found is not None:
        try:
            return date.fromisoformat(found[1])
        except ValueError:
            pass
    raise Fault(column, "日期应为实有的一天，写作 2026-01-31")


def last_day(column: str, cell: str) -> date | None:
    """A last day; None for an empty cell and for the last day that there is."""
    if not cell or cell.isspace():
        return None
    day = first_day(column, cell)
    return None if day == date.max else day
