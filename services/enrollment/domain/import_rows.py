"""What a line of an import file says, or why its row is not taken.

The file is UTF-8 text, separated by commas or tabs as its first line is, one participant and one
insurance a line. Columns have the national interface's names; a cell may stand in double quotes but
holds no line break. A cause says what is wrong, never what stands there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from infra.runtime.id_number import birth_date
from services.enrollment.domain.qualification import Qualification, overlap
from services.enrollment.domain.registration import Membership
from services.enrollment.domain.spelling import same_name
from services.enrollment.domain.status import registered

REQUIRED = ("psn_name", "certno", "insutype", "psn_type", "begndate")
OPTIONAL = (
    "enddate",
    "cvlserv_flag",
    "psn_no",
    "card_no",
    "ec_token",
    "insuplc_admdvs",
    "fixmedins_code",
    "opsp_dise",
)
"""Of the columns only `ec_token` and `opsp_dise` are the suite's own names."""
HEADER_LINE = 1
LONGEST_LINE = 8_192
"""Bytes of a line; a longer one is a row not taken."""
MOST_QUALIFICATIONS = 20
_NAME_LENGTH = 50
_NUMBER_LENGTH = 64
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_PERSONAL_NUMBER = re.compile(r"[0-9A-Za-z]{6,30}", re.ASCII)
_INSTITUTION = re.compile(r"[A-Z0-9]{6,30}", re.ASCII)
_DISEASE = re.compile(r"[A-Z][0-9]{5}", re.ASCII)
_AREA = re.compile(r"[0-9]{6}", re.ASCII)


class NotAHeader(ValueError):
    """The first line names no columns as they should be; the text says why, in plain Chinese."""


@dataclass(frozen=True, slots=True)
class Codes:
    """What the codes of a file mean, in the numbers of the contract."""

    insurances: Mapping[str, int]
    """险种类型, former codes too."""
    classes: Mapping[str, int]
    """人员类别."""
    employee: int
    employee_classes: frozenset[int]
    """Person classes of the employees' insurance; all others are the residents'."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file: where each known one is, and what separates them."""

    separator: str
    count: int
    places: Mapping[str, int]

    def place(self, name: str) -> int:
        """Index of a column among the cells; of one that the file has not, that of an empty cell
        behind the last."""
        return self.places.get(name, self.count)


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One row that can be true; what is personal stays out of `repr`."""

    line: int
    name: str = field(repr=False)
    id_number: str = field(repr=False)
    born: date = field(repr=False)
    insurance: int
    personal_number: str = field(repr=False)
    social_security_card: str = field(repr=False)
    electronic_token: str = field(repr=False)
    membership: Membership = field(repr=False)


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is not taken: the column is empty when it is the row as a whole."""

    line: int
    column: str
    cause: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Rows of a file or a part: all, those of employees, those of residents."""

    rows: int
    employees: int
    residents: int


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of a file says; `next_line` is the line after it."""

    rows: list[ImportRow]
    rejected: list[RejectedRow]
    totals: Totals
    next_line: int


class _Fault(ValueError):
    def __init__(self, column: str, cause: str) -> None:
        super().__init__(column)
        self.column = column
        self.cause = cause


def columns_of(header: str) -> Columns:
    """The columns that the first line names; raises `NotAHeader`."""
    separator = "\t" if "\t" in header else ","
    cells = _cells(header.removeprefix("\ufeff").rstrip("\r\n"), separator)
    names = [cell.strip().lower() for cell in cells or ()]
    if missing := [name for name in REQUIRED if name not in names]:
        raise NotAHeader(f"第一行缺少列 {'、'.join(missing)}")
    if unknown := sum(name not in REQUIRED + OPTIONAL for name in names):
        raise NotAHeader(f"第一行有 {unknown} 个不认识的列名")
    if len(set(names)) < len(names):
        raise NotAHeader("第一行有重复的列名")
    return Columns(separator, len(names), {name: place for place, name in enumerate(names)})


class Tally:
    """Counts rows into control totals: the one way in which a file is counted before it is sent and
    while it is read."""

    def __init__(self, columns: Columns, codes: Codes) -> None:
        self._columns = columns
        self._codes = codes
        self._place = columns.place("insutype")
        self._rows = self._employees = self._residents = 0

    @property
    def totals(self) -> Totals:
        """What was counted so far."""
        return Totals(self._rows, self._employees, self._residents)

    def add(self, cells: Sequence[str] | str) -> int | None:
        """Count one row; its insurance, or None when that cannot be read."""
        self._rows += 1
        if isinstance(cells, str):
            return None
        insurance = self._codes.insurances.get(cells[self._place].strip())
        if insurance is not None:
            self._employees += insurance == self._codes.employee
            self._residents += insurance != self._codes.employee
        return insurance

    def add_part(self, content: bytes) -> None:
        """Count the rows of whole lines."""
        for _, cells in _lines(content, 0, self._columns):
            self.add(cells)


def read_part(content: bytes, first_line: int, columns: Columns, codes: Codes, area: str) -> Part:
    """Read whole lines; `first_line` is the first one's number in the file, `area` the only pooling
    area that rows may name. A faulty row is rejected with its first fault and stops nothing."""
    tally, reader = Tally(columns, codes), _Reader(columns, codes, area)
    rows: list[ImportRow] = []
    rejected: list[RejectedRow] = []
    for line, cells in _lines(content, first_line, columns):
        insurance = tally.add(cells)
        if isinstance(cells, str):
            rejected.append(RejectedRow(line, "", cells))
            continue
        try:
            rows.append(reader.row(line, cells, insurance))
        except _Fault as fault:
            rejected.append(RejectedRow(line, fault.column, fault.cause))
    breaks = content.count(b"\n") + (not content.endswith(b"\n"))
    return Part(rows, rejected, tally.totals, first_line + breaks)


def _lines(
    content: bytes, first_line: int, columns: Columns
) -> Iterator[tuple[int, list[str] | str]]:
    """Each line that is not empty: its number and its cells, or the cause why it has none.

    There is one empty cell more than columns, for the columns that the file has not.
    """
    lines = content.split(b"\n")
    separator, wanted = columns.separator, columns.count
    for line, raw in enumerate(lines, first_line):
        raw = raw.removesuffix(b"\r")
        if len(raw) > LONGEST_LINE:
            yield line, "行过长"
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            yield line, "不是 UTF-8 编码"
            continue
        if not text or text.isspace():
            continue
        cells = text.split(separator) if '"' not in text else _cells(text, separator)
        if cells is None:
            yield line, "引号不成对"
        elif len(cells) != wanted:
            yield line, "列数多于表头" if len(cells) > wanted else "列数少于表头"
        elif _CONTROL.search(text):
            yield line, "含有控制字符"
        else:
            cells.append("")
            yield line, cells


def _cells(text: str, separator: str) -> list[str] | None:
    """The cells of a line with quotes; None when a quote has no end."""
    try:
        return next(csv.reader([text], delimiter=separator, strict=True), [])
    except csv.Error:
        return None


class _Reader:
    """Reads the rows of one file."""

    def __init__(self, columns: Columns, codes: Codes, area: str) -> None:
        self._codes = codes
        self._area = area
        place = columns.place
        self._name = place("psn_name")
        self._id_number = place("certno")
        self._class = place("psn_type")
        self._start = place("begndate")
        self._end = place("enddate")
        self._civil_servant = place("cvlserv_flag")
        self._personal_number = place("psn_no")
        self._card = place("card_no")
        self._token = place("ec_token")
        self._insured_area = place("insuplc_admdvs")
        self._institution = place("fixmedins_code")
        self._diseases = place("opsp_dise")

    def row(self, line: int, cells: Sequence[str], insurance: int | None) -> ImportRow:
        """What `cells` say; raises `_Fault`."""
        name = cells[self._name].strip()
        if not same_name(name):
            raise _Fault("psn_name", "姓名不能为空")
        if len(name) > _NAME_LENGTH:
            raise _Fault("psn_name", f"姓名超过 {_NAME_LENGTH} 个字")
        id_number = cells[self._id_number].strip().upper()
        born = birth_date(id_number)
        if born is None:
            raise _Fault("certno", "居民身份证号码的校验码或出生日期不正确")
        if insurance is None:
            raise _Fault("insutype", "险种代码不认识")
        person_class = self._person_class(cells[self._class].strip(), insurance)
        start = _day("begndate", cells[self._start].strip())
        if start is None:
            raise _Fault("begndate", "参保开始日期不能为空")
        end = _last_day("enddate", cells[self._end].strip())
        if end is not None and end < start:
            raise _Fault("enddate", "参保终止日期不能早于开始日期")
        named_area = cells[self._insured_area].strip()
        if named_area and named_area != self._area:
            raise _Fault("insuplc_admdvs", "参保地不是本次导入的统筹区")
        diseases = cells[self._diseases].strip()
        return ImportRow(
            line=line,
            name=name,
            id_number=id_number,
            born=born,
            insurance=insurance,
            personal_number=_matching(
                "psn_no",
                cells[self._personal_number],
                _PERSONAL_NUMBER,
                "人员编号应为 6 至 30 位字母或数字",
            ),
            social_security_card=_number("card_no", cells[self._card]),
            electronic_token=_number("ec_token", cells[self._token]),
            membership=Membership(
                person_class=person_class,
                civil_servant=_flag("cvlserv_flag", cells[self._civil_servant].strip()),
                contracted_institution=_matching(
                    "fixmedins_code",
                    cells[self._institution],
                    _INSTITUTION,
                    "签约机构编号不正确",
                ),
                statuses=registered(start, end),
                qualifications=self._qualifications(diseases, start) if diseases else frozenset(),
            ),
        )

    def _person_class(self, code: str, insurance: int) -> int:
        person_class = self._codes.classes.get(code)
        if person_class is None:
            raise _Fault("psn_type", "人员类别代码不认识")
        of_employees = person_class in self._codes.employee_classes
        if of_employees != (insurance == self._codes.employee):
            raise _Fault("psn_type", "人员类别与险种不符")
        return person_class

    def _qualifications(self, cell: str, start: date) -> frozenset[Qualification]:
        texts = [one for one in cell.split(";") if one.strip()]
        if len(texts) > MOST_QUALIFICATIONS:
            raise _Fault("opsp_dise", f"慢特病资格超过 {MOST_QUALIFICATIONS} 项")
        qualifications = frozenset(self._qualification(one, start) for one in texts)
        if overlap(qualifications):
            raise _Fault("opsp_dise", "同一病种的慢特病资格日期重叠")
        return qualifications

    def _qualification(self, text: str, start: date) -> Qualification:
        """病种:开始:终止:认定地:选定机构|选定机构, all but the first may be left out."""
        parts = [part.strip() for part in text.split(":")]
        parts += [""] * (5 - len(parts))
        disease, first, last, granted_area, chosen = parts[:5]
        if len(parts) > 5 or not _DISEASE.fullmatch(disease):
            raise _Fault("opsp_dise", "慢特病资格应写作 病种编码:开始日期:终止日期:认定地:选定机构")
        begins = _day("opsp_dise", first) or start
        ends = _last_day("opsp_dise", last)
        if ends is not None and ends < begins:
            raise _Fault("opsp_dise", "慢特病资格的终止日期不能早于开始日期")
        if granted_area and not _AREA.fullmatch(granted_area):
            raise _Fault("opsp_dise", "慢特病认定地应为 6 位区划代码")
        institutions = tuple(one.strip() for one in chosen.split("|")) if chosen else ()
        if not all(_INSTITUTION.fullmatch(one) for one in institutions):
            raise _Fault("opsp_dise", "慢特病选定机构编号不正确")
        return Qualification(disease, begins, ends, granted_area or self._area, institutions)


def _day(column: str, text: str) -> date | None:
    """The day, None for an empty cell."""
    if not text:
        return None
    day = _known_day(text)
    if day is None:
        raise _Fault(column, "日期应为实有的一天，写作 2026-01-31")
    return day


def _last_day(column: str, text: str) -> date | None:
    """The day; None for an empty cell and for the last day that there is, which means no end."""
    day = _day(column, text)
    return None if day == date.max else day


@lru_cache(4096)
def _known_day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        return None


def _flag(column: str, text: str) -> bool:
    if text not in ("", "0", "1"):
        raise _Fault(column, "标志应为 0 或 1")
    return text == "1"


def _matching(column: str, cell: str, form: re.Pattern[str], cause: str) -> str:
    text = cell.strip()
    if text and not form.fullmatch(text):
        raise _Fault(column, cause)
    return text


def _number(column: str, cell: str) -> str:
    text = cell.strip()
    if len(text) > _NUMBER_LENGTH:
        raise _Fault(column, f"号码超过 {_NUMBER_LENGTH} 个字符")
    return text
