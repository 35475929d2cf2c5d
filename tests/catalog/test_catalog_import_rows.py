"""What lines of import files say: each fault by its line and column, each item as written."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from list_files import AREA, HEADER, national, row

from infra.runtime.types import national_code
from services.catalog.domain import import_cells
from services.catalog.domain.import_cells import Memo
from services.catalog.domain.import_layouts import (
    CSV_COLUMNS,
    NATIONAL_COLUMNS,
    Layout,
    NotATable,
    table_of,
    tables_of,
)
from services.catalog.domain.import_lines import LONGEST_LINE
from services.catalog.domain.import_parts import PartTaken, missing
from services.catalog.domain.import_revisions import Staged, revisions
from services.catalog.domain.import_rows import ITEM_COLUMNS, STAGED_COLUMNS, Part, RowReader
from services.catalog.domain.item import (
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    Level,
    ListType,
)
from services.catalog.store.items import COLUMNS, item_row
from yidi.common.v1 import types_pb2

CSV = table_of(Layout.CSV, HEADER)
EMPLOYEE, RESIDENT = InsuranceType.EMPLOYEE, InsuranceType.RESIDENT
TODAY = date(2026, 1, 1)


def read(*lines: str | bytes, layout: Layout = Layout.CSV) -> Part:
    content = b"\n".join(one if isinstance(one, bytes) else one.encode() for one in lines)
    table = CSV if layout is Layout.CSV else table_of(layout, "")
    return RowReader().read(content + b"\n", table.first_line, table, 0, AREA)


def faults(*lines: str | bytes, layout: Layout = Layout.CSV) -> list[tuple[int, str, str]]:
    return [(one.line, one.column, one.cause) for one in read(*lines, layout=layout).rejected]


def said(part: Part) -> dict[str, object]:
    [only] = part.rows
    return dict(zip(ITEM_COLUMNS, only, strict=True))


def test_an_item_with_every_attribute():
    found = said(
        read(
            row(
                catalog_class="02",
                list_type="301",
                fee_category="08",
                bands="500:10;2000:20/25;:30.5",
                limit_3="12.345678",
                limit_9="0",
                limited_use='"限定,重症"',
                effective_to="2026-12-31",
                day_limit="2.5",
                visit_limit="10",
                specification="10cm×10cm",
                negotiated="1",
            )
        )
    )
    assert found["band_up_to"] == [500_000_000, 2_000_000_000, None]
    assert (found["band_310"], found["band_390"]) == ([1000, 2000, 3050], [1000, 2500, 3050])
    assert (found["limit_three"], found["limit_unrated"], found["limit_one"]) == (
        12_345_678,
        0,
        None,
    )
    assert (found["limited_use"], found["effective_to"]) == ("限定,重症", date(2026, 12, 31))
    assert (found["day_limit_e4"], found["visit_limit_e4"]) == (25_000, 100_000)
    assert (found["negotiated"], found["centrally_purchased"]) == (True, False)


days = st.dates(date(1990, 1, 1), date(2100, 1, 1))
shares = st.integers(0, 10_000)
texts = st.text("示例药abc 1%；", max_size=20).map(str.strip)
quantities = st.none() | st.integers(1, 10**11)


@st.composite
def items(draw: st.DrawFn) -> Item:
    class_, start = draw(st.sampled_from(CatalogClass)), draw(days)
    ends: list[int | None] = [*sorted(draw(st.sets(st.integers(1, 10**14), max_size=9))), None]
    banded = class_ is CatalogClass.B and draw(st.booleans())
    shared = class_ is CatalogClass.B and not banded
    list_type = draw(st.sampled_from(ListType))
    own = st.just("") if list_type is not ListType.PREPARATION else st.sampled_from(["", "H44080"])
    return Item(
        national_code=draw(st.text("XA019-", min_size=5, max_size=50)),
        name=draw(texts.filter(bool)),
        list_type=list_type,
        catalog_class=class_,
        fee_category=draw(st.sampled_from(FeeCategory)),
        first_self_pay_bp={one: draw(shares) if shared else 0 for one in InsuranceType},
        limits_micro_yuan=draw(st.dictionaries(st.sampled_from(Level), st.integers(0, 10**15 - 1))),
        limited_use=draw(texts),
        effective_from=start,
        effective_to=draw(st.just(date.max) | st.dates(start, date(2101, 1, 1))),
        bands=tuple(Band(end, {one: draw(shares) for one in InsuranceType}) for end in ends)
        if banded
        else (),
        day_limit_e4=draw(quantities),
        visit_limit_e4=draw(quantities),
        dosage_form=draw(texts),
        specification=draw(texts),
        unit=draw(texts),
        negotiated=draw(st.booleans()),
        centrally_purchased=draw(st.booleans()),
        preparing_institution=draw(own),
    )


def decimal(value: int | None, places: int) -> str:
    return "" if value is None else f"{value // 10**places}.{value % 10**places:0{places}d}"


def line_of(item: Item) -> str:
    limits = dict(zip(("limit_1", "limit_2", "limit_3", "limit_4", "limit_9"), Level, strict=True))
    return row(
        national_code=item.national_code,
        name=item.name,
        list_type=national_code(types_pb2.ListType.DESCRIPTOR, item.list_type),
        catalog_class=national_code(types_pb2.CatalogClass.DESCRIPTOR, item.catalog_class),
        fee_category=national_code(types_pb2.FeeCategory.DESCRIPTOR, item.fee_category),
        first_self_pay_310=decimal(item.first_self_pay_bp[EMPLOYEE], 2),
        first_self_pay_390=decimal(item.first_self_pay_bp[RESIDENT], 2),
        limited_use=item.limited_use,
        effective_from=item.effective_from.isoformat(),
        effective_to="" if item.effective_to == date.max else item.effective_to.isoformat(),
        bands=";".join(
            f"{decimal(one.up_to_micro_yuan, 6)}:"
            + "/".join(decimal(one.first_self_pay_bp[each], 2) for each in InsuranceType)
            for one in item.bands
        ),
        day_limit=decimal(item.day_limit_e4, 4),
        visit_limit=decimal(item.visit_limit_e4, 4),
        dosage_form=item.dosage_form,
        specification=item.specification,
        unit=item.unit,
        negotiated=str(int(item.negotiated)),
        centrally_purchased=str(int(item.centrally_purchased)),
        preparing_institution=item.preparing_institution,
        **{name: decimal(item.limits_micro_yuan.get(level), 6) for name, level in limits.items()},
    )


@given(items())
def test_an_item_is_read_as_it_was_written(item: Item):
    """Whatever an item says becomes the very row that publishing the item writes."""
    found = said(read(line_of(item)))
    assert [found[name] for name in COLUMNS] == list(item_row(item))


@pytest.mark.parametrize(
    ("cells", "column", "cause"),
    [
        ({"national_code": "短"}, "national_code", "5 至 50 位"),
        ({"name": " "}, "name", "缺少名称"),
        ({"name": "长" * 201}, "name", "超过 200"),
        ({"list_type": "901"}, "list_type", "代码应为"),
        ({"catalog_class": "4"}, "catalog_class", "代码应为"),
        ({"fee_category": "15"}, "fee_category", "代码应为"),
        ({"first_self_pay_310": ""}, "first_self_pay_310", "不带正负号的数"),
        ({"first_self_pay_390": "1.234"}, "first_self_pay_390", "小数至多 2 位"),
        ({"first_self_pay_390": "10"}, "first_self_pay_310", "只有乙类"),
        (
            {"first_self_pay_390": "100.01", "catalog_class": "02"},
            "first_self_pay_310",
            "0% 至 100%",
        ),
        ({"limit_2": "-1"}, "limit_2", "不带正负号"),
        ({"limit_2": "1e3"}, "limit_2", "不带正负号"),
        ({"limit_2": "1.0000001"}, "limit_2", "小数至多 6 位"),
        ({"limit_2": "１２"}, "limit_2", "不带正负号"),
        ({"limited_use": "限" * 201}, "limited_use", "超过 200"),
        ({"effective_from": ""}, "effective_from", "实有的一天"),
        ({"effective_from": "2025-02-29"}, "effective_from", "实有的一天"),
        ({"effective_to": "2025/12/31"}, "effective_to", "实有的一天"),
        ({"effective_to": "2024-12-31"}, "effective_to", "早于"),
        ({"bands": "500"}, "bands", "应写作"),
        ({"bands": "500:10", "catalog_class": "02"}, "bands", "最后一段"),
        ({"bands": "9:1;5:2;:3", "catalog_class": "02"}, "bands", "由低到高"),
        ({"day_limit": "0"}, "day_limit", "大于 0"),
        ({"visit_limit": "10000000.1"}, "visit_limit", "不超过"),
        ({"specification": "粒" * 101}, "specification", "超过 100"),
        ({"negotiated": "是"}, "negotiated", "0 或 1"),
        ({"preparing_institution": "h1"}, "preparing_institution", "机构编码"),
        ({"preparing_institution": "H44080000001"}, "preparing_institution", "制剂"),
    ],
)
def test_a_faulty_cell_is_told_by_its_column(cells, column, cause):
    """The cause says what is wrong and not what stands there; rows around it are taken."""
    part = read(row(), row(**cells), row())
    assert len(part.rows) == 2
    [found] = part.rejected
    assert (found.line, found.column) == (3, column)
    assert cause in found.cause
    [value] = [one for name, one in cells.items() if name == column] or [""]
    assert len(value) < 5 or value not in found.cause


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (row(name="示例").encode("gb18030"), "UTF-8"),
        (row(name="长" * 1_000_000), "行过长"),
        (row() + ",", "多于"),
        (row().removesuffix(","), "少于"),
        (row(name='"未完'), "引号"),
        (row(name="a\tb"), "控制字符"),
        (row(name="a\0b"), "控制字符"),
        (row(name="a\rb"), "控制字符"),
    ],
)
def test_a_faulty_line_stops_no_other(line, cause):
    [(number, column, found)] = faults(row(), line, row())
    assert (number, column) == (3, "")
    assert cause in found


def test_line_ends_and_empty_lines():
    """CRLF and LF are one; a line without anything is counted as a line and not as a row."""
    crlf = read(row().encode() + b"\r", "", row())
    assert (len(crlf.rows), crlf.count, crlf.next_line) == (2, 2, 5)
    assert [one[0] for one in crlf.rows] == [2, 4]
    assert [one[-1] for one in crlf.rows] == [None, None]
    bare = RowReader().read((row() + "\r\n" + row() + "\r").encode(), 2, CSV, 0, AREA)
    assert (len(bare.rows), bare.next_line) == (2, 4)
    assert len(read(row(name="长" * 100)).rows) == 1 < LONGEST_LINE


def test_columns_in_any_order():
    names = list(reversed(CSV_COLUMNS))
    cells = dict(zip(CSV_COLUMNS, row(unit="盒").split(","), strict=True))
    table = table_of(Layout.CSV, "\ufeff" + ",".join(names).upper() + "\r\n")
    line = ",".join(cells[name] for name in names).encode()
    part = RowReader().read(line, 2, table, 0, AREA)
    assert part.rows == read(row(unit="盒")).rows


@pytest.mark.parametrize(
    ("tables", "cause"),
    [
        ([(Layout.CSV, "")], "没有表头"),
        ([(Layout.CSV, HEADER.removesuffix(",preparing_institution"))], "preparing_institution"),
        ([(Layout.CSV, f"{HEADER},price")], "1 个不认识"),
        ([(Layout.CSV, f"{HEADER},unit")], "重复"),
        ([(Layout.CSV, '"' + HEADER)], "引号"),
        ([(Layout.CSV, HEADER), (Layout.ITEMS, "")], "单独"),
        ([(Layout.LIMITS, "")], "1312"),
        ([(Layout.ITEMS, "hilist_code\thilist_name")], "缺少列 begndate"),
    ],
)
def test_tables_that_are_none(tables, cause):
    with pytest.raises(NotATable, match=cause):
        tables_of(tables)


def test_codes_are_the_contracts():
    for codes, enum in (
        (import_cells.LIST_TYPES, types_pb2.ListType.DESCRIPTOR),
        (import_cells.CLASSES, types_pb2.CatalogClass.DESCRIPTOR),
        (import_cells.CATEGORIES, types_pb2.FeeCategory.DESCRIPTOR),
        (import_cells.LEVELS, types_pb2.InstitutionLevel.DESCRIPTOR),
        (import_cells.INSURANCES, types_pb2.InsuranceType.DESCRIPTOR),
    ):
        numbers = [number for number in enum.values_by_number if number]
        assert {text: int(one) for text, one in codes.items()} == {
            national_code(enum, number): number for number in numbers
        }


def test_what_is_kept_of_texts_is_bounded(monkeypatch):
    monkeypatch.setattr(import_cells, "MOST", 4)
    memo = Memo(str.upper)
    assert [memo[one] for one in "abcdefab"] == list("ABCDEFAB")
    assert len(memo) <= 4


def staged(layout: Layout, **cells: str) -> dict[str, object]:
    [only] = read(national(layout, **cells), layout=layout).rows
    return dict(zip(STAGED_COLUMNS, only, strict=True))


def test_rows_of_the_national_tables():
    """`null` is nothing, quotes are text, days may carry a time (1312, 1318, 1319)."""
    item = staged(Layout.ITEMS, hilist_name='"示例"片', lmt_used_flag="1", memo="限重症")
    assert (item["name"], item["limited_use"], item["last_day"]) == ('"示例"片', "限重症", None)
    assert (item["first_day"], item["key"]) == (date(2025, 1, 1), 1)
    assert staged(Layout.ITEMS, lmt_used_flag="1")["limited_use"]
    long = staged(Layout.ITEMS, lmt_used_flag="1", memo="限" * 500)["limited_use"]
    assert isinstance(long, str)
    assert (len(long), long[-1]) == (200, "…")
    assert staged(Layout.ITEMS, memo="说明")["limited_use"] == ""
    assert staged(Layout.ITEMS, vali_flag="0", begndate="null")["key"] == 0
    limit = staged(Layout.LIMITS, hilist_lmtpric_type="02", insu_admdvs="440000")
    assert (limit["key"], limit["value"]) == (Level.TWO, 12_500_000)
    share = staged(Layout.SHARES, selfpay_prop_psn_type="390", selfpay_prop="0.0525")
    assert (share["key"], share["value"]) == (RESIDENT, 525)
    for layout, cells in (
        (Layout.LIMITS, {"vali_flag": "0"}),
        (Layout.SHARES, {"vali_flag": "0"}),
        (Layout.SHARES, {"selfpay_prop_psn_type": "330"}),
    ):
        part = read(national(layout, **cells), layout=layout)
        assert (part.rows, part.rejected, part.count) == ([], [], 1)


@pytest.mark.parametrize(
    ("layout", "cells", "column", "cause"),
    [
        (Layout.ITEMS, {"insu_admdvs": "110000"}, "insu_admdvs", "统筹区"),
        (Layout.ITEMS, {"hilist_name": "null"}, "hilist_name", "缺少"),
        (Layout.ITEMS, {"begndate": "null"}, "begndate", "实有的一天"),
        (Layout.ITEMS, {"enddate": "2024-01-01"}, "enddate", "早于"),
        (Layout.ITEMS, {"lmt_used_flag": "null"}, "lmt_used_flag", "0 或 1"),
        (Layout.ITEMS, {"vali_flag": "2"}, "vali_flag", "0 或 1"),
        (Layout.ITEMS, {"chrgitm_lv": "2"}, "chrgitm_lv", "代码应为"),
        (Layout.LIMITS, {"hilist_lmtpric_type": "5"}, "hilist_lmtpric_type", "代码应为"),
        (Layout.LIMITS, {"hilist_pric_uplmt_amt": "null"}, "hilist_pric_uplmt_amt", "数"),
        (Layout.SHARES, {"selfpay_prop_psn_type": "99"}, "selfpay_prop_psn_type", "代码"),
        (Layout.SHARES, {"selfpay_prop_type": "20"}, "selfpay_prop_type", "直接报销"),
        (Layout.SHARES, {"selfpay_prop_type": "30"}, "selfpay_prop_type", "单价范围"),
        (Layout.SHARES, {"selfpay_prop_type": "40"}, "selfpay_prop_type", "之一"),
        (Layout.SHARES, {"selfpay_prop": "0.12345"}, "selfpay_prop", "小数至多 4 位"),
        (Layout.SHARES, {"selfpay_prop": "10"}, "selfpay_prop", "0 至 1"),
    ],
)
def test_a_faulty_row_of_a_national_table(layout, cells, column, cause):
    [(line, found, why)] = faults(national(layout, **cells), layout=layout)
    assert (line, found) == (1, column)
    assert cause in why


def test_a_wrong_number_of_tabs():
    found = faults(national(Layout.ITEMS) + "\tx", "a\tb", layout=Layout.ITEMS)
    assert [(line, cause[:4]) for line, _, cause in found] == [(1, "列数多于"), (2, "列数少于")]


def of(layout: Layout, line: int, first: int, last: int | None, key: int = 1, value: int = 0):
    return Staged(
        layout,
        0,
        line,
        "XA001",
        TODAY + timedelta(first),
        None if last is None else TODAY + timedelta(last),
        key,
        value,
        "示例",
        1,
        2,
        9,
        "",
    )


def told(rows) -> list[tuple[int, int | None, int, int | None]]:
    """First and last day behind TODAY, share of employees, limit of level one."""
    named = [dict(zip(ITEM_COLUMNS[1:], one, strict=True)) for one in rows]
    return [
        (
            (one["effective_from"] - TODAY).days,
            None if one["effective_to"] is None else (one["effective_to"] - TODAY).days,
            one["first_self_pay_310"],
            one["limit_one"],
        )
        for one in named
    ]


def test_a_revision_is_cut_where_a_limit_or_a_share_changes():
    rows, rejected = revisions(
        [
            of(Layout.ITEMS, 1, 0, None),
            of(Layout.SHARES, 1, -9, 9, value=1_000),
            of(Layout.SHARES, 2, 10, None, value=2_000),
            of(Layout.LIMITS, 1, 5, 19, value=7),
        ]
    )
    assert rejected == []
    assert told(rows) == [
        (0, 4, 1_000, None),
        (5, 9, 1_000, 7),
        (10, 19, 2_000, 7),
        (20, None, 2_000, None),
    ]


def test_rows_that_do_not_go_together_are_told_by_their_line():
    item = of(Layout.ITEMS, 1, 0, None)
    _, [overlapping] = revisions([item, of(Layout.ITEMS, 4, 3, 9)])
    assert (overlapping.line, "第 1 行" in overlapping.cause) == (4, True)
    _, [share] = revisions([item, *(of(Layout.SHARES, line, 0, None) for line in (2, 3))])
    assert (share.line, share.column) == (3, "begndate")
    _, [alone] = revisions([of(Layout.LIMITS, 7, 0, None)])
    assert (alone.line, alone.column) == (7, "hilist_code")
    not_in_use = of(Layout.ITEMS, 1, 0, None, key=0)
    assert revisions([not_in_use, of(Layout.LIMITS, 7, 0, None)]) == ([], [])


def test_shares_agree_with_the_class():
    """A self-paid item's share of 1 says what its class says; class A has none."""

    def of_class(class_: int, value: int):
        item, share = of(Layout.ITEMS, 1, 0, None), of(Layout.SHARES, 2, 0, None, value=value)
        return revisions([Staged(*(_cells(item) | {"catalog_class": class_}).values()), share])

    def _cells(one: Staged) -> dict[str, object]:
        return {name: getattr(one, name) for name in STAGED_COLUMNS}

    assert told(of_class(3, 10_000)[0]) == [(0, None, 0, None)]
    for class_, value in ((1, 1_000), (3, 5_000)):
        rows, [rejected] = of_class(class_, value)
        assert (rows, rejected.line, rejected.column) == ([], 1, "selfpay_prop")


def apart(given: list[list[int]]) -> list[list[int]]:
    """Those that overlap none before them."""
    return [
        one
        for place, one in enumerate(given)
        if all(one[0] > other[1] or one[1] < other[0] for other in given[:place])
    ]


def value_on(rows: list[Staged], day: date) -> list[int | None]:
    return [one.value for one in rows if one.first <= day <= one.last]


spans = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)


@given(st.lists(spans, max_size=4), st.lists(spans, max_size=4), st.integers(0, 40))
def test_every_day_says_what_the_tables_say_of_it(limits, shares, day):
    """Cutting changes nothing: on any day the revision has the limit and the share of that day."""
    limited = [of(Layout.LIMITS, n, *one, value=n + 1) for n, one in enumerate(apart(limits))]
    shared = [of(Layout.SHARES, n, *one, value=n + 1) for n, one in enumerate(apart(shares))]
    rows, rejected = revisions([of(Layout.ITEMS, 1, 0, 40), *limited, *shared])
    assert rejected == []
    days_of = [(first, last or 0, *rest) for first, last, *rest in told(rows)]
    [(_, _, share, limit)] = [one for one in days_of if one[0] <= day <= one[1]]
    on_day = TODAY + timedelta(day)
    assert [share] == (value_on(shared, on_day) or [0])
    assert [limit] == (value_on(limited, on_day) or [None])
    assert sum(last - first + 1 for first, last, *_ in days_of) == 41


@pytest.mark.parametrize(
    ("parts", "count", "cause"),
    [
        ([], 1, "应有 1 部分"),
        ([(2, 0, 2, 5)], 2, "缺少第 1 部分"),
        ([(1, 0, 3, 5)], 1, "从第 2 行开始"),
        ([(1, 0, 2, 5), (2, 0, 6, 8)], 2, "不相接"),
        ([(1, 0, 2, 5), (2, 1, 1, 8)], 2, "没有申报的表"),
        ([(1, 0, 2, 5)], 2, "应有 2 部分，已收 1 部分"),
        ([(1, 0, 2, 5), (2, 0, 5, 8)], 2, None),
    ],
)
def test_a_file_is_whole_or_something_is_missing(parts, count, cause):
    found = missing([PartTaken(*one) for one in parts], [CSV], count)
    assert found == cause or (found is not None and cause is not None and cause in found)


def test_the_tables_of_a_download_follow_each_other():
    tables = [table_of(layout, "") for layout in (Layout.ITEMS, Layout.LIMITS, Layout.SHARES)]
    whole = [PartTaken(1, 0, 1, 9), PartTaken(2, 2, 1, 4)]
    assert missing(whole, tables, 2) is None
    assert missing([PartTaken(1, 0, 1, 9), PartTaken(2, 2, 2, 4)], tables, 2) is not None
    assert len(NATIONAL_COLUMNS[Layout.ITEMS]) == 28
