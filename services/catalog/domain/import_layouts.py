"""The tables that a list is imported from, and their columns.

| layout | one row is | separated by | source |
|---|---|---|---|
| `CSV` | an item with everything that is said of it | commas, with a header line | ours |
| `ITEMS` | 医保目录信息 | tabs | transaction 1312, output |
| `LIMITS` | 医保目录限价信息 | tabs | transaction 1318, output |
| `SHARES` | 医保目录先自付比例信息 | tabs | transaction 1319, output |

Field names of the national tables are those of the interface of the institutions (Hunan edition
V1.1.27). A download has no quotes and writes `null` for nothing; its columns stand in the order of
the interface, or a first line names them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Layout(IntEnum):
    """Which table, numbered as the contract's ImportLayout; a test compares them."""

    CSV = 1
    ITEMS = 2
    LIMITS = 3
    SHARES = 4


CSV_COLUMNS = (
    "national_code",
    "name",
    "catalog_class",
    "fee_category",
    "first_self_pay_310",
    "first_self_pay_390",
    "limit_1",
    "limit_2",
    "limit_3",
    "limit_4",
    "limit_9",
    "limited_use",
    "effective_from",
    "effective_to",
    "list_type",
    "bands",
    "day_limit",
    "visit_limit",
    "dosage_form",
    "specification",
    "unit",
    "negotiated",
    "centrally_purchased",
    "preparing_institution",
)
"""Every one must be there, in any order: a column left out would silently drop what it says.

Codes are the national ones; shares are percent, limits and the ends of bands yuan, `day_limit` and
`visit_limit` units; flags 0 or 1; days ISO, both included. `bands` are joined by semicolons, each
`up to:share`, the last without an end, shares `310/390` where the insurances differ:
`500:10;2000:20/25;:30`. Only the codes, the name, the shares and `effective_from` are never empty.
"""

_KEEPING = (
    "rid",
    "updt_time",
    "crter_id",
    "crter_name",
    "crte_time",
    "crte_optins_no",
    "opter_id",
    "opter_name",
    "opt_time",
    "optins_no",
)
"""Who keeps a row and since when."""

NATIONAL_COLUMNS: Mapping[Layout, tuple[str, ...]] = {
    Layout.ITEMS: (
        "hilist_code",
        "hilist_name",
        "insu_admdvs",
        "begndate",
        "enddate",
        "med_chrgitm_type",
        "chrgitm_lv",
        "lmt_used_flag",
        "list_type",
        "med_use_flag",
        "matn_used_flag",
        "hilist_use_type",
        "lmt_cpnd_type",
        "wubi",
        "pinyin",
        "memo",
        "vali_flag",
        *_KEEPING,
        "poolarea_no",
    ),
    Layout.LIMITS: (
        "hilist_code",
        "hilist_lmtpric_type",
        "overlmt_dspo_way",
        "insu_admdvs",
        "begndate",
        "enddate",
        "hilist_pric_uplmt_amt",
        "vali_flag",
        *_KEEPING,
        "tabname",
        "poolarea_no",
    ),
    Layout.SHARES: (
        "hilist_code",
        "selfpay_prop_psn_type",
        "selfpay_prop_type",
        "insu_admdvs",
        "begndate",
        "enddate",
        "selfpay_prop",
        "vali_flag",
        *_KEEPING,
        "tabname",
        "poolarea_no",
    ),
}

READ_COLUMNS: Mapping[Layout, tuple[str, ...]] = {
    Layout.CSV: CSV_COLUMNS,
    Layout.ITEMS: (
        "hilist_code",
        "begndate",
        "enddate",
        "insu_admdvs",
        "vali_flag",
        "hilist_name",
        "list_type",
        "chrgitm_lv",
        "med_chrgitm_type",
        "lmt_used_flag",
        "memo",
    ),
    Layout.LIMITS: (
        "hilist_code",
        "begndate",
        "enddate",
        "insu_admdvs",
        "vali_flag",
        "hilist_lmtpric_type",
        "hilist_pric_uplmt_amt",
    ),
    Layout.SHARES: (
        "hilist_code",
        "begndate",
        "enddate",
        "insu_admdvs",
        "vali_flag",
        "selfpay_prop_psn_type",
        "selfpay_prop_type",
        "selfpay_prop",
    ),
}
"""The columns that are read, which a header must name; the others of a table say nothing here."""


class NotATable(ValueError):
    """The tables or the header of one are not as they should be; the text says why, in plain
    Chinese."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a file: its columns in their order and the line that its rows begin on."""

    layout: Layout
    names: tuple[str, ...]
    first_line: int

    @property
    def separator(self) -> str:
        """What stands between two cells."""
        return "," if self.layout is Layout.CSV else "\t"

    def places(self, names: Sequence[str]) -> tuple[int, ...]:
        """Where these columns stand."""
        return tuple(map(self.names.index, names))


def table_of(layout: Layout, header: str) -> Table:
    """The table whose header line is given, empty for a download without one; raises
    `NotATable`."""
    if not header:
        if layout is Layout.CSV:
            raise NotATable("CSV 文件没有表头")
        return Table(layout, NATIONAL_COLUMNS[layout], 1)
    names = tuple(cell.strip().lower() for cell in _cells(header, layout))
    known = CSV_COLUMNS if layout is Layout.CSV else NATIONAL_COLUMNS[layout]
    if missing := [name for name in READ_COLUMNS[layout] if name not in names]:
        raise NotATable(f"表头缺少列 {'、'.join(missing)}")
    if unknown := sum(name not in known for name in names):
        raise NotATable(f"表头有 {unknown} 个不认识的列名")
    if len(set(names)) < len(names):
        raise NotATable("表头有重复的列名")
    return Table(layout, names, 2)


def tables_of(given: Sequence[tuple[Layout, str]]) -> tuple[Table, ...]:
    """The tables of a file from their layouts and headers; raises `NotATable`."""
    layouts = [layout for layout, _ in given]
    if Layout.CSV in layouts and len(layouts) > 1:
        raise NotATable("CSV 文件应单独导入")
    if Layout.CSV not in layouts and Layout.ITEMS not in layouts:
        raise NotATable("缺少医保目录信息（1312）")
    return tuple(table_of(layout, header) for layout, header in given)


def _cells(header: str, layout: Layout) -> list[str]:
    text = header.removeprefix("\ufeff").rstrip("\r\n")
    if layout is not Layout.CSV:
        return text.split("\t")
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error:
        raise NotATable("表头的引号不成对") from None
