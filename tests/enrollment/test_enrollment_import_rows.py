"""What a line of an import file says, and how a file is cut, without a database."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.cli import importing
from infra.cli.importing import ImportFile, read_totals
from infra.local.processes import LocalNetworkError
from infra.runtime.errors import Refusal
from services.enrollment.domain.import_parts import (
    AHEAD,
    Neighbours,
    PartTaken,
    cannot_be_taken,
    differences,
)
from services.enrollment.domain.import_rows import (
    LONGEST_LINE,
    NotAHeader,
    Tally,
    Totals,
    columns_of,
    read_part,
)
from services.enrollment.domain.qualification import Qualification
from services.enrollment.domain.status import registered
from services.enrollment.import_codes import import_codes
from yidi.common.v1 import types_pb2

AREA = "440800"
CODES = import_codes()
NAMES = (
    "psn_name",
    "certno",
    "insutype",
    "psn_type",
    "begndate",
    "enddate",
    "cvlserv_flag",
    "psn_no",
    "card_no",
    "ec_token",
    "insuplc_admdvs",
    "fixmedins_code",
    "opsp_dise",
)
HEADER = ",".join(NAMES)
COLUMNS = columns_of(HEADER)
GOOD = {
    "psn_name": "王小明",
    "certno": "44080219600501001X",
    "insutype": "310",
    "psn_type": "12",
    "begndate": "2020-01-01",
}


def line(**cells: str) -> bytes:
    return ",".join((GOOD | cells).get(name, "") for name in NAMES).encode() + b"\n"


def read(content: bytes, columns=COLUMNS, first_line: int = 2):
    return read_part(content, first_line, columns, CODES, AREA)


def test_a_full_row():
    part = read(
        line(
            certno=" 44080219600501001x ",
            enddate="2026-12-31",
            cvlserv_flag="1",
            psn_no="P000001",
            card_no="A12345678",
            ec_token="e" * 32,
            insuplc_admdvs=AREA,
            fixmedins_code="H44080200001",
            opsp_dise="M03900:2021-01-01:2025-12-31:440100:H44080200001|H44080200002;M01600",
        )
    )
    (row,) = part.rows
    assert (row.name, row.id_number, row.born) == ("王小明", "44080219600501001X", date(1960, 5, 1))
    assert row.insurance == types_pb2.INSURANCE_TYPE_EMPLOYEE
    assert (row.personal_number, row.social_security_card) == ("P000001", "A12345678")
    assert row.electronic_token == "e" * 32
    membership = row.membership
    assert membership.person_class == types_pb2.PERSON_CLASS_RETIRED
    assert membership.civil_servant
    assert membership.contracted_institution == "H44080200001"
    assert membership.statuses == registered(date(2020, 1, 1), date(2026, 12, 31))
    chosen = ("H44080200001", "H44080200002")
    assert membership.qualifications == {
        Qualification("M03900", date(2021, 1, 1), date(2025, 12, 31), "440100", chosen),
        Qualification("M01600", date(2020, 1, 1), None, AREA),
    }
    assert part.totals == Totals(1, 1, 0)
    for personal in (row.name, row.id_number, row.social_security_card, "M03900"):
        assert personal not in repr(row)


@pytest.mark.parametrize("code", ["390", "391", "380"])
def test_former_codes_are_residents(code: str):
    part = read(line(insutype=code, psn_type="15"))
    assert [row.insurance for row in part.rows] == [types_pb2.INSURANCE_TYPE_RESIDENT]
    assert part.totals == Totals(1, 0, 1)


@pytest.mark.parametrize(
    ("insurance", "code", "person_class"),
    [
        ("310", "11", "EMPLOYED"),
        ("310", "12", "RETIRED"),
        ("390", "15", "ADULT_RESIDENT"),
        ("390", "16", "ELDERLY_RESIDENT"),
        ("390", "1403", "MINOR_OR_STUDENT"),
        ("310", "self_employed", "SELF_EMPLOYED"),
        ("310", "bankrupt_unit", "BANKRUPT_UNIT"),
    ],
)
def test_person_classes(insurance: str, code: str, person_class: str):
    (row,) = read(line(insutype=insurance, psn_type=code)).rows
    assert types_pb2.PersonClass.Name(row.membership.person_class).endswith(person_class)


@pytest.mark.parametrize(
    ("cells", "column", "cause"),
    [
        ({"psn_name": " 　"}, "psn_name", "姓名不能为空"),
        ({"psn_name": "王" * 51}, "psn_name", "姓名超过 50 个字"),
        ({"certno": "440802196005010019"}, "certno", "校验码或出生日期"),
        ({"certno": "440802196002310017"}, "certno", "校验码或出生日期"),
        ({"certno": ""}, "certno", "校验码或出生日期"),
        ({"insutype": "340"}, "insutype", "险种代码不认识"),
        ({"psn_type": "99"}, "psn_type", "人员类别代码不认识"),
        ({"psn_type": "15"}, "psn_type", "人员类别与险种不符"),
        ({"insutype": "380", "psn_type": "11"}, "psn_type", "人员类别与险种不符"),
        ({"begndate": ""}, "begndate", "参保开始日期不能为空"),
        ({"begndate": "2020-02-30"}, "begndate", "日期应为实有的一天"),
        ({"begndate": "20200101"}, "begndate", "日期应为实有的一天"),
        ({"enddate": "2019-12-31"}, "enddate", "不能早于开始日期"),
        ({"insuplc_admdvs": "440100"}, "insuplc_admdvs", "不是本次导入的统筹区"),
        ({"cvlserv_flag": "是"}, "cvlserv_flag", "标志应为 0 或 1"),
        ({"psn_no": "12"}, "psn_no", "人员编号应为"),
        ({"card_no": "A" * 65}, "card_no", "号码超过 64 个字符"),
        ({"ec_token": "e" * 65}, "ec_token", "号码超过 64 个字符"),
        ({"fixmedins_code": "h-1"}, "fixmedins_code", "签约机构编号不正确"),
        ({"opsp_dise": "高血压"}, "opsp_dise", "应写作"),
        ({"opsp_dise": "M03900:::::"}, "opsp_dise", "应写作"),
        ({"opsp_dise": "M03900:2021-13-01"}, "opsp_dise", "日期应为实有的一天"),
        ({"opsp_dise": "M03900:2021-01-02:2021-01-01"}, "opsp_dise", "不能早于开始日期"),
        ({"opsp_dise": "M03900:::4408"}, "opsp_dise", "6 位区划代码"),
        ({"opsp_dise": "M03900::::x"}, "opsp_dise", "选定机构编号不正确"),
        ({"opsp_dise": "M03900;M03900:2022-01-01"}, "opsp_dise", "日期重叠"),
        ({"opsp_dise": ";".join(f"M{n:05d}" for n in range(21))}, "opsp_dise", "超过 20 项"),
        ({"card_no": "A\x00B"}, "", "含有控制字符"),
        ({"card_no": '"AB'}, "", "引号不成对"),
        ({"card_no": "A,B"}, "", "列数多于表头"),
        ({"card_no": "A" * 1_000_000}, "", "行过长"),
    ],
)
def test_causes_of_rejection(cells: dict[str, str], column: str, cause: str):
    """A faulty row is told by line, column and cause and stops none of the others."""
    part = read(line() + line(**cells) + line(certno="440802196005010028"))
    assert [row.line for row in part.rows] == [2, 4]
    (rejected,) = part.rejected
    assert (rejected.line, rejected.column) == (3, column)
    assert cause in rejected.cause
    assert part.totals.rows == 3
    assert part.next_line == 5


def test_rows_that_are_no_text_or_too_short():
    part = read(line() + "王小明,".encode("gbk") + b"\n" + "王小明,1\n".encode())
    assert [(one.line, one.cause) for one in part.rejected] == [
        (3, "不是 UTF-8 编码"),
        (4, "列数少于表头"),
    ]
    assert part.totals == Totals(3, 1, 0)


def test_line_ends_blank_lines_and_quotes():
    quoted = line(psn_name='"王小明"', opsp_dise='"M03900"').replace(b"\n", b"\r\n")
    part = read(quoted + b"\r\n \n" + line(certno="440802196005010028").removesuffix(b"\n"))
    assert [(row.line, row.name) for row in part.rows] == [(2, "王小明"), (5, "王小明")]
    assert not part.rejected
    assert (part.totals.rows, part.next_line) == (2, 6)


def test_the_last_day_there_is_means_no_end():
    (row,) = read(line(enddate="9999-12-31")).rows
    assert row.membership.statuses == registered(date(2020, 1, 1), None)


def test_tabs_any_order_and_byte_order_mark():
    columns = columns_of("\ufeffinsutype\tPSN_NAME\tcertno\tbegndate\tpsn_type\r\n")
    part = read("310\t王,小明\t44080219600501001X\t2020-01-01\t12".encode(), columns)
    assert [row.name for row in part.rows] == ["王,小明"]


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        ("", "缺少列 psn_name、certno、insutype、psn_type、begndate"),
        (HEADER.replace("certno,", ""), "缺少列 certno"),
        (HEADER + ",brdy,age", "有 2 个不认识的列名"),
        (HEADER + ",psn_name", "有重复的列名"),
        (HEADER + ',"', "缺少列"),
    ],
)
def test_headers_that_are_none(header: str, cause: str):
    with pytest.raises(NotAHeader, match=cause):
        columns_of(header)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=12)
LINES = st.lists(
    st.one_of(
        st.just(line().decode().removesuffix("\n")),
        st.just(line(insutype="391", psn_type="16").decode().removesuffix("\n")),
        st.lists(CELLS, max_size=15).map(",".join),
    ).map(str.encode)
    | st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")),
    max_size=12,
)


@given(LINES, st.integers(0, 12))
def test_any_lines_in_any_parts_are_read_alike(lines: list[bytes], cut: int):
    """Every row is taken or rejected, counting beforehand and reading give the same totals."""
    content = b"".join(one + b"\n" for one in lines)
    whole = read(content or b"\n")
    tally = Tally(COLUMNS, CODES)
    tally.add_part(content)
    assert tally.totals == whole.totals
    assert len(whole.rows) + len(whole.rejected) == whole.totals.rows
    halves = [b"".join(one + b"\n" for one in half) for half in (lines[:cut], lines[cut:])]
    first = read(halves[0]) if halves[0] else None
    second = read(halves[1], first_line=first.next_line if first else 2) if halves[1] else None
    parts = [one for one in (first, second) if one is not None]
    assert [row for one in parts for row in one.rows] == whole.rows
    assert [row for one in parts for row in one.rejected] == whole.rejected


def test_a_file_is_cut_into_whole_lines_the_same_every_time(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "PART_BYTES", 300)
    path = tmp_path / "people.csv"
    rows = [line(certno=f"{number:018d}") for number in range(20)]
    path.write_bytes(b"\xef\xbb\xbf" + HEADER.encode() + b"\r\n" + b"".join(rows))
    file = ImportFile.open(path)
    assert file.header == HEADER
    assert file.digest == hashlib.sha256(path.read_bytes()).digest()
    parts = list(file.parts())
    assert b"".join(part.content for part in parts) == b"".join(rows)
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert len(parts) > 3
    wanted = 2
    for part in parts:
        assert part.first_line == wanted
        assert len(part.content) <= 300
        assert part.content.endswith(b"\n")
        wanted += part.content.count(b"\n")
    assert list(file.parts()) == parts
    totals = file.count()
    assert (totals.rows, totals.employees, totals.residents) == (20, 20, 0)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_of_a_million_characters_costs_no_memory(tmp_path, end: bytes):
    path = tmp_path / "people.csv"
    long = line(card_no="号" * 1_000_000).removesuffix(b"\n") + end
    path.write_bytes(HEADER.encode() + b"\n" + line() + long)
    (part,) = ImportFile.open(path).parts()
    assert len(part.content) < len(line()) + LONGEST_LINE + 10
    found = read(part.content)
    assert [one.cause for one in found.rejected] == ["行过长"]
    assert [row.line for row in found.rows] == [2]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "第一行缺少列"),
        ("姓名".encode("gbk"), "第一行不是 UTF-8 编码"),
        (b"psn_name,certno\rrest", "第一行缺少列"),
    ],
)
def test_a_file_without_a_header_is_not_sent(tmp_path, content: bytes, cause: str):
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    with pytest.raises(Refusal) as refused:
        ImportFile.open(path)
    assert refused.value.name == "IMPORT_INVALID"
    assert cause in refused.value.message


def test_control_totals_come_from_a_side_file(tmp_path):
    path = tmp_path / "people.csv.totals.json"
    path.write_text('{"rows": 3, "employees": 1, "residents": 2}')
    totals = read_totals(path)
    assert (totals.rows, totals.employees, totals.residents) == (3, 1, 2)
    for broken in ("", "[]", '{"rows": 3}', '{"rows": "3", "employees": 1, "residents": 2}'):
        path.write_text(broken)
        with pytest.raises(LocalNetworkError, match="whole numbers"):
            read_totals(path)
    with pytest.raises(LocalNetworkError, match="cannot read"):
        read_totals(tmp_path / "none.json")


TAKEN = PartTaken(4, 100, 200, b"d" * 32, Totals(100, 100, 0), 100, 0, 0)


@pytest.mark.parametrize(
    ("number", "lines", "before", "after", "next_part", "cause"),
    [
        (1, (2, 50), None, None, 1, None),
        (1, (3, 50), None, None, 1, "第 1 部分应从第 2 行开始"),
        (5, (200, 300), TAKEN, None, 3, None),
        (5, (201, 300), TAKEN, None, 3, "第 5 部分应从第 200 行开始"),
        (3, (50, 100), None, TAKEN, 3, None),
        (3, (50, 99), None, TAKEN, 3, "第 3 部分应到第 99 行为止"),
        (3 + AHEAD, (900, 999), None, None, 3, None),
        (4 + AHEAD, (900, 999), None, None, 3, "来得过早，现应送第 3 部分"),
    ],
)
def test_where_a_part_may_lie(number, lines, before, after, next_part, cause):
    found = cannot_be_taken(number, *lines, Neighbours(before, None, after), next_part)
    assert found == cause if cause is None else cause in found


def test_what_of_the_control_totals_does_not_tie():
    control = Totals(10, 6, 4)
    assert differences(control, control) == ""
    assert differences(control, replace(control, rows=9)) == "行数应为 10，实为 9"
    assert differences(control, Totals(10, 5, 5)) == "职工应为 6，实为 5；居民应为 4，实为 5"


def test_codes_are_those_of_the_contract():
    assert set(CODES.insurances) == {"310", "390", "391", "380"}
    assert set(CODES.classes.values()) == set(types_pb2.PersonClass.values()) - {0}
    assert list(islice(CODES.classes, 5)) == ["11", "12", "15", "16", "1403"]
