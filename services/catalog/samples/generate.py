"""Writes the small sample catalogues of three provinces, `python -m services.catalog.samples.generate`.

示例数据: nothing here is official. Names of drugs and services are ordinary words; national codes
end in `-SAMPLE`; classes, shares and limits are invented and differ between the provinces, so that
the same bill comes out differently. Every run writes the same; a test compares it with the
files of the repository. `full` makes lists of full size around them.
"""  # noqa: E501

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

from services.catalog.domain.import_cells import LIST_TYPES
from services.catalog.domain.import_layouts import CSV_COLUMNS
from services.catalog.domain.institution import InstitutionGrade, Registration, Route, Service
from services.catalog.domain.item import Level, ListType
from services.catalog.samples.hand_written import DRUGS, MATERIALS, SAMPLES, SERVICES, Sample

FOLDER = Path(__file__).parent
AREAS = {
    "110000": ("110000",),
    "440000": ("440100", "440800"),
    "370000": ("370100", "370800"),
}
"""The pooling areas of each sample province."""
EFFECTIVE_FROM = "2023-01-01"
VERSION = "2026.2"
_CITIES = {
    "110000": "北京",
    "440100": "广州",
    "440800": "湛江",
    "370100": "济南",
    "370800": "济宁",
}

# First self-pay, percent, for employees (310) and residents (390).
SHARES = {
    "甲": {"110000": (0, 0), "440000": (0, 0), "370000": (0, 0)},
    "乙": {"110000": (10, 10), "440000": (5, 10), "370000": (10, 15)},
    "乙谈判": {"110000": (20, 20), "440000": (15, 20), "370000": (20, 30)},
    "乙检查": {"110000": (8, 10), "440000": (10, 10), "370000": (20, 20)},
    "乙材料": {"110000": (10, 10), "440000": (20, 20), "370000": (20, 25)},
    "乙进口": {"110000": (30, 30), "440000": (40, 40), "370000": (50, 50)},
    "乙分段": {"110000": (0, 0), "440000": (0, 0), "370000": (0, 0)},
    "自费": {"110000": (0, 0), "440000": (0, 0), "370000": (0, 0)},
}
# Of 乙分段: unit prices up to so many yuan and their percent, the last without end.
_BANDS = {"110000": "500:10;2000:20;:30", "440000": "1000:10/15;:25/30", "370000": "800:20;:40"}
# Percent of the limit below by level of the institution, and by province.
BY_LEVEL = {"1": 60, "2": 80, "3": 100, "4": 60, "9": 60}
BY_PROVINCE = {"110000": 100, "440000": 90, "370000": 80}


_LIST_CODES = {kind: code for code, kind in LIST_TYPES.items()}
_CLASSES = {"甲": "01", "乙": "02", "自": "03"}
_HOSPITAL = "inpatient|outpatient|chronic"
# Services networked for local, in-province and cross-province visits.
_Routes = tuple[str, str, str]
_FULL: _Routes = (_HOSPITAL, _HOSPITAL, _HOSPITAL)
_TOWNSHIP: _Routes = (_HOSPITAL, _HOSPITAL, "outpatient")
_CLINIC: _Routes = ("outpatient|chronic", "outpatient|chronic", "outpatient")
_NO_CROSSING: _Routes = ("outpatient|chronic", "outpatient|chronic", "")
_SHOP: _Routes = ("pharmacy", "pharmacy", "pharmacy")
# code, name, area, grade, levels (deductible, price limit, settlement), networked by route
_INSTITUTIONS: dict[str, tuple[tuple[str, str, str, str, str, _Routes], ...]] = {
    "110000": (
        ("H11010100001", "北京示例协和医院", "110000", "2", "333", _FULL),
        ("H11010500002", "北京示例朝阳区医院", "110000", "5", "222", _FULL),
        ("H11010800003", "北京示例社区卫生服务中心", "110000", "8", "111", _CLINIC),
        ("P11010600004", "北京示例大药房", "110000", "11", "999", _SHOP),
        ("H11010700005", "北京示例到期协议医院", "110000", "5", "222", _FULL),
    ),
    "440000": (
        ("H44010000001", "广州示例第一医院", "440100", "2", "333", _FULL),
        ("H44010000002", "广州示例越秀区医院", "440100", "5", "222", _FULL),
        ("H44010000003", "广州示例暂停协议医院", "440100", "6", "222", _FULL),
        ("H44080000001", "湛江示例中心医院", "440800", "2", "333", _FULL),
        ("H44082300002", "湛江示例县人民医院", "440800", "5", "222", _FULL),
        ("H44080200003", "湛江示例社区卫生服务中心", "440800", "8", "111", _NO_CROSSING),
        ("P44080300004", "湛江示例大药房", "440800", "11", "999", _SHOP),
    ),
    "370000": (
        ("H37010000001", "济南示例省立医院", "370100", "2", "333", _FULL),
        # 医院等级 and 医保结算等级 differ: the insured place pays by the latter.
        ("H37010000002", "济南示例骨科医院", "370100", "3", "332", _FULL),
        ("H37080000001", "济宁示例附属医院", "370800", "2", "333", _FULL),
        ("H37081100002", "济宁示例任城区医院", "370800", "5", "222", _FULL),
        ("H37080200003", "济宁示例乡镇卫生院", "370800", "9", "111", _TOWNSHIP),
        ("P37081100004", "济宁示例大药房", "370800", "11", "999", _SHOP),
    ),
}
_SUSPENDED = ("H44010000003",)
_AGREED = {"H11010700005": ("2023-01-01", "2024-12-31"), "P44080300004": ("2023-01-01", "")}
"""First and last day of the agreement, where it is limited."""
_OPENED = {
    "H11010800003": "M03900:2023-01-01:|M01600:2023-01-01:",
    "H37080200003": "M03900:2023-01-01:|M00500:2024-07-01:",
}
"""Chronic diseases and their days, where not every one is settled."""
_MAPPING = ("H11010100001", "H44010000001", "H44080000001", "H37010000001", "H37080000001")
"""Hospitals whose own item codes are mapped: Y001… drugs, X001… services, C001… consumables."""


def extra_institutions(site: str, number: int) -> tuple[Registration, ...]:
    """`number` more sample hospitals of a province, for load tests; every one is networked.

    They lie in the areas of the site by turns, a third each of level 3, 2 and 1; codes
    `H<area>90001` and up.
    """
    levels = (
        (InstitutionGrade.THREE_A, Level.THREE),
        (InstitutionGrade.TWO_A, Level.TWO),
        (InstitutionGrade.ONE_A, Level.ONE),
    )
    found = []
    for index in range(number):
        area = AREAS[site][index % len(AREAS[site])]
        grade, level = levels[index % len(levels)]
        found.append(
            Registration(
                code=f"H{area}9{index + 1:04d}",
                name=f"{_CITIES[area]}示例测试医院{index + 1}",
                area=area,
                grade=grade,
                deductible_level=level,
                price_limit_level=level,
                settlement_level=level,
                networked={route: frozenset(Service) for route in Route},
                suspended=False,
                effective_from=date.fromisoformat(EFFECTIVE_FROM),
            )
        )
    return tuple(found)


def write(folder: Path) -> None:
    """Write one sub-folder per province."""
    for site in AREAS:
        target = folder / site
        target.mkdir(parents=True, exist_ok=True)
        head = ("area", "version", "effective_from")
        _write(
            target / "catalogue.csv", head, [(site, f"示例目录-{site}-{VERSION}", EFFECTIVE_FROM)]
        )
        _write(target / "items.csv", CSV_COLUMNS, _item_rows(site))
        _write(target / "institutions.csv", _INSTITUTION_HEAD, _institution_rows(site))
        _write(
            target / "institution_items.csv",
            ("institution", "item_code", "national_code"),
            _mapping_rows(site),
        )


_INSTITUTION_HEAD = (
    "code",
    "name",
    "area",
    "grade",
    "deductible_level",
    "price_limit_level",
    "settlement_level",
    "local",
    "in_province",
    "cross_province",
    "suspended",
    "effective_from",
    "kind",
    "diseases",
    "agreement_start",
    "agreement_end",
    "place",
)


def _item_rows(site: str) -> Iterator[tuple[object, ...]]:
    for sample in SAMPLES:
        kind = sample.kind_in(site)
        if not kind:
            continue
        yield (
            sample.code,
            sample.name,
            _CLASSES[kind[0]],
            f"{sample.category:02d}",
            *SHARES[kind][site],
            *(_limit(sample, site, level) if kind != "自费" else "" for level in BY_LEVEL),
            sample.limited_use if kind != "自费" else "",
            EFFECTIVE_FROM,
            "",
            _LIST_CODES[sample.list_type],
            _BANDS[site] if kind == "乙分段" else "",
            sample.day_limit or "",
            sample.visit_limit or "",
            *(_form(sample.name) if sample.list_type in _MEDICINES else _NO_FORM),
            int(kind == "乙谈判"),
            int(sample.centrally_purchased),
            _INSTITUTIONS[site][0][0] if sample.list_type is ListType.PREPARATION else "",
        )


_MEDICINES = frozenset(ListType) - {ListType.SERVICE, ListType.CONSUMABLE}
_FORMS = {"片": "片剂", "胶囊": "胶囊剂", "颗粒": "颗粒剂", "注射液": "注射剂", "丸": "丸剂"}
_NO_FORM = ("", "", "")
# 规格 and 计价单位 by dosage form.
_PACKED = {
    "片剂": ("20mg×14片", "盒"),
    "胶囊剂": ("0.25g×24粒", "盒"),
    "颗粒剂": ("5g×10袋", "盒"),
    "注射剂": ("10ml", "支"),
    "丸剂": ("9g×10丸", "盒"),
}


def _form(name: str) -> tuple[str, str, str]:
    """Dosage form, specification and unit of a drug whose name ends in its form."""
    for ending, form in _FORMS.items():
        if name.endswith(ending):
            return (form, *_PACKED[form])
    return _NO_FORM


def _limit(sample: Sample, site: str, level: str) -> str:
    if not sample.limit_yuan:
        return ""
    share = 10_000 if sample.one_limit else BY_LEVEL[level] * BY_PROVINCE[site]
    fen = sample.limit_yuan * share // 100
    return f"{fen // 100}.{fen % 100:02d}"


def _institution_rows(site: str) -> Iterator[tuple[object, ...]]:
    for number, (code, name, area, grade, levels, routes) in enumerate(_INSTITUTIONS[site], 1):
        yield (
            code,
            name,
            area,
            grade,
            *levels,
            *routes,
            int(code in _SUSPENDED),
            EFFECTIVE_FROM,
            2 if code.startswith("P") else 1,
            _OPENED.get(code, ""),
            *_AGREED.get(code, ("", "")),
            f"{_CITIES[area]}示例路{number}号",
        )


def _mapping_rows(site: str) -> Iterator[tuple[str, str, str]]:
    for institution, *_ in _INSTITUTIONS[site]:
        if institution not in _MAPPING:
            continue
        for letter, samples in (("Y", DRUGS), ("X", SERVICES), ("C", MATERIALS)):
            for number, sample in enumerate(samples, start=1):
                yield institution, f"{letter}{number:03d}", sample.code


def _write(path: Path, head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


if __name__ == "__main__":
    write(FOLDER)
