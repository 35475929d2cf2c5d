"""Sample lists of the size of real ones for 北京 and 广东, made when they are wanted.

示例数据: names are put together from the parts in `words`, national codes have the national form
and end in `-SAMPLE`; classes, shares, limits, restrictions and days are drawn from the code and the
province, so the same list comes out every time and differs between the provinces. The hand-written
items of `generate` are part of the lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain, count, islice, product
from zlib import crc32

from services.catalog.domain.item import (
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    Level,
    ListType,
)
from services.catalog.samples import words
from services.catalog.samples.generate import BY_LEVEL, BY_PROVINCE, SHARES, VERSION

SITES = ("110000", "440000")
_FIRST_DAY = date(2023, 1, 1)
_REVISED = date(2025, 1, 1)
_ENDED = date(2025, 12, 31)
_ONE_DAY = timedelta(days=1)
_MICRO = 1_000_000
_FEN = 10_000
"""Micro-yuan."""
_SHARES = {
    kind: {
        site: dict(zip(InsuranceType, (percent * 100 for percent in by_site[site]), strict=True))
        for site in SITES
    }
    for kind, by_site in SHARES.items()
}
_BANDS = {
    site: tuple(
        Band(end and end * _MICRO, dict(zip(InsuranceType, shares, strict=True)))
        for end, shares in bands
    )
    for site, bands in {
        "110000": ((500, (1000, 1000)), (2000, (2000, 2000)), (None, (3000, 3000))),
        "440000": ((1000, (1000, 1500)), (5000, (2000, 2500)), (None, (3500, 4000))),
    }.items()
}
_KINDS = {
    "drug": ("甲",) * 5 + ("乙",) * 11 + ("乙谈判",) * 2 + ("自费",) * 2,
    "service": ("甲",) * 12 + ("乙检查",) * 5 + ("自费",) * 3,
    "material": ("甲",) * 3 + ("乙材料",) * 9 + ("乙进口",) * 3 + ("乙分段",) * 3 + ("自费",) * 2,
}
"""Kinds of `generate.SHARES`, as often as they come in twenty."""
_UNLISTED_IN = 40
_REVISED_IN = 12
_ENDED_IN = 60
_RESTRICTED_IN = 9
_LIMITED_IN = 3
_PREPARING = {
    "110000": ("H11010100001", "H11010500002"),
    "440000": ("H44010000001", "H44080000001"),
}


@dataclass(frozen=True, slots=True)
class _Good:
    """What is the same in every province."""

    code: str
    name: str
    list_type: ListType
    fee_category: FeeCategory
    kinds: str
    yuan: int
    """Usual price in a level-3 institution of 北京."""
    dosage_form: str = ""
    specification: str = ""
    unit: str = ""
    quantity: int = 0
    """A usual bound of its quantity a day, 0 for none."""


def full_version(site: str) -> str:
    """The name of the version that holds the full list of a province."""
    return f"示例全目录-{site}-{VERSION}"


def full_items(site: str) -> Iterator[Item]:
    """The generated items of a province, revisions of a code together, oldest first."""
    for good in (*_drugs(), *_preparations(site), *_services(), *_materials(1)):
        yield from _revisions(good, site)


def many_items(site: str, number: int) -> Iterator[Item]:
    """As many rows: the full list and then the same consumables of ever more manufacturers."""
    more = (_revisions(good, site) for maker in count(2) for good in _materials(maker))
    yield from islice(chain(full_items(site), chain.from_iterable(more)), number)


def _revisions(good: _Good, site: str) -> Iterator[Item]:
    drawn = crc32(f"{site}{good.code}".encode())
    if drawn % _UNLISTED_IN == 0:
        return
    drawn //= _UNLISTED_IN
    kinds = _KINDS[good.kinds]
    kind = kinds[drawn % len(kinds)]
    drawn //= len(kinds)
    covered = kind != "自费"
    limits = _limits(good, site, drawn) if covered else {}
    last_day = _ENDED if drawn % _ENDED_IN == 1 else date.max
    spells = [(_FIRST_DAY, last_day, limits)]
    if limits and drawn % _REVISED_IN == 0:
        lower = {level: limit * 9 // 10 for level, limit in limits.items()}
        spells = [(_FIRST_DAY, _REVISED - _ONE_DAY, limits), (_REVISED, last_day, lower)]
    for effective_from, effective_to, limits_micro_yuan in spells:
        yield Item(
            national_code=good.code,
            name=good.name,
            list_type=good.list_type,
            catalog_class=_class(kind),
            fee_category=good.fee_category,
            first_self_pay_bp=_SHARES[kind][site],
            limits_micro_yuan=limits_micro_yuan,
            limited_use=_restriction(good, drawn) if covered else "",
            effective_from=effective_from,
            effective_to=effective_to,
            bands=_BANDS[site] if kind == "乙分段" else (),
            day_limit_e4=good.quantity * 10_000 or None,
            visit_limit_e4=280_000
            if covered and good.kinds == "drug" and drawn % 50 == 2
            else None,
            dosage_form=good.dosage_form,
            specification=good.specification,
            unit=good.unit,
            negotiated=kind == "乙谈判",
            centrally_purchased=covered and good.kinds != "service" and drawn % 7 == 3,
            preparing_institution=_PREPARING[site][drawn % 2]
            if good.list_type is ListType.PREPARATION
            else "",
        )


def _class(kind: str) -> CatalogClass:
    return {"甲": CatalogClass.A, "乙": CatalogClass.B, "自": CatalogClass.SELF_PAID}[kind[0]]


def _limits(good: _Good, site: str, drawn: int) -> Mapping[Level, int]:
    """One limit of a drug at all levels, limits by level of the rest; prices in whole 角."""
    if good.kinds == "drug":
        if drawn % _LIMITED_IN:
            return {}
        price = good.yuan * (80 + drawn % 60) // 10 * 10 * _FEN
        return dict.fromkeys(Level, price)
    if good.kinds == "material" and drawn % 2:
        return {}
    share = BY_PROVINCE[site] * (9_000 + drawn % 3_000)
    return {
        level: good.yuan * percent * share // 10_000_000 * 10 * _FEN
        for level, percent in zip(Level, BY_LEVEL.values(), strict=True)
    }


def _restriction(good: _Good, drawn: int) -> str:
    if good.kinds != "drug" or drawn % _RESTRICTED_IN:
        return ""
    return f"限{words.DISEASES[drawn // _RESTRICTED_IN % len(words.DISEASES)]}患者"


def _drugs() -> Iterator[_Good]:
    """Western, patent and ethnic drugs, herbal pieces and granules."""
    for atc, ending, forms in words.WESTERN:
        for (number, stem), key in product(enumerate(words.STEMS, 1), forms):
            form = words.FORMS[key]
            for strength, given in enumerate(form.strengths, 1):
                code = f"X{atc}A{number:03d}{_key(key)}001{strength:02d}0100001"
                name = form.pattern.format(f"{stem}{ending}")
                yield _drug(code, name, ListType.DRUG, FeeCategory.WESTERN_DRUG, form, given)
    for (chapter, cure), (number, effect) in product(words.CURES, enumerate(words.EFFECTS, 1)):
        for key in words.PATENT_FORMS:
            form = words.FORMS[key]
            code = f"{chapter}AA{number:03d}{_key(key)}00101{len(form.strengths):02d}00001"
            name = form.pattern.format(f"{cure}{effect}")
            category = FeeCategory.CHINESE_PATENT_DRUG
            yield _drug(code, name, ListType.DRUG, category, form, form.strengths[-1])
    for (group, people), (number, effect) in product(
        enumerate(words.ETHNIC, 1), enumerate(words.EFFECTS, 1)
    ):
        form = words.FORMS["丸"]
        code = f"Z9{group}AA{number:03d}{_key('丸')}001010100001"
        name = f"{people}{effect}丸"
        category = FeeCategory.CHINESE_PATENT_DRUG
        yield _drug(code, name, ListType.ETHNIC_DRUG, category, form, form.strengths[0])
    for number, herb in enumerate(words.HERBS, 1):
        for way, processed in enumerate(words.PROCESSED, 1):
            yield _herb(f"T0009{number:03d}{way:02d}", f"{processed}{herb}", ListType.HERBAL_PIECES)
        yield _herb(f"T0008{number:03d}00", f"{herb}配方颗粒", ListType.GRANULES)


def _preparations(site: str) -> Iterator[_Good]:
    """What hospitals of the province prepare themselves."""
    form = words.FORMS["服"]
    for number, effect in enumerate(words.EFFECTS, 1):
        code = f"ZZJ{site}{number:03d}{_key('服')}0010100001"
        name = f"示例{effect}合剂（院内制剂）"
        category = FeeCategory.CHINESE_PATENT_DRUG
        yield _drug(code, name, ListType.PREPARATION, category, form, form.strengths[1])


def _drug(
    code: str, name: str, kind: ListType, category: FeeCategory, form: words.Form, strength: str
) -> _Good:
    return _Good(
        code=f"{code}-SAMPLE",
        name=name,
        list_type=kind,
        fee_category=category,
        kinds="drug",
        yuan=5 + crc32(code.encode()) % 300,
        dosage_form=form.name,
        specification=f"{strength}{form.packed}",
        unit=form.unit,
    )


def _herb(code: str, name: str, kind: ListType) -> _Good:
    return _Good(
        code=f"{code}-SAMPLE",
        name=name,
        list_type=kind,
        fee_category=FeeCategory.HERBAL_PIECES,
        kinds="drug",
        yuan=1 + crc32(code.encode()) % 9,
        dosage_form="饮片" if kind is ListType.HERBAL_PIECES else "颗粒剂",
        specification="统货",
        unit="10g",
    )


def _key(form: str) -> str:
    """The letter of a dosage form in codes."""
    return chr(ord("A") + list(words.FORMS).index(form))


def _services() -> Iterator[_Good]:
    """Services and facilities by body part and method, in all their fee categories."""
    parts = list(enumerate(words.PARTS, 1))
    for (number, part), (way, (method, yuan)) in product(parts, enumerate(words.IMAGING, 1)):
        yield _service(f"29{number:03d}{way:03d}", f"{part}{method}", FeeCategory.EXAMINATION, yuan)
    for (number, analyte), (way, (method, yuan)), (of, specimen) in product(
        enumerate(words.ANALYTES, 1), enumerate(words.METHODS, 1), enumerate(words.SPECIMENS, 1)
    ):
        name = f"{specimen}{analyte}测定（{method}）"
        yield _service(f"28{number:03d}{of}{way:02d}", name, FeeCategory.LABORATORY, yuan)
    for (number, part), (way, (operation, yuan)), (by, (approach, percent)) in product(
        parts, enumerate(words.OPERATIONS, 1), enumerate(words.APPROACHES, 1)
    ):
        name, price = f"{approach}{part}{operation}", yuan * percent // 100
        yield _service(f"39{number:03d}{by}{way:02d}", name, FeeCategory.SURGERY, price)
    for (number, part), (way, (treatment, yuan)) in product(parts, enumerate(words.TREATMENTS, 1)):
        code, name = f"49{number:03d}{way:03d}", f"{part}{treatment}"
        yield _service(code, name, FeeCategory.TREATMENT, yuan, quantity=2 if way > 10 else 0)
    for (number, ward), (way, (name, category, yuan)) in product(
        enumerate(words.WARDS, 1), enumerate(_WARD_SERVICES, 1)
    ):
        yield _service(f"19{number:03d}{way:03d}", f"{ward}{name}", category, yuan)


_WARD_SERVICES = (
    ("单人间床位费", FeeCategory.BED, 160),
    ("双人间床位费", FeeCategory.BED, 90),
    ("多人间床位费", FeeCategory.BED, 45),
    ("普通诊察费", FeeCategory.CONSULTATION, 20),
    ("专家诊察费", FeeCategory.CONSULTATION, 60),
    ("会诊费", FeeCategory.CONSULTATION, 120),
    ("一级护理", FeeCategory.NURSING, 30),
    ("二级护理", FeeCategory.NURSING, 18),
    ("特级护理", FeeCategory.NURSING, 120),
    ("一般诊疗费", FeeCategory.GENERAL_TREATMENT, 12),
    ("挂号费", FeeCategory.REGISTRATION, 2),
    ("健康宣教", FeeCategory.OTHER, 15),
    ("远程会诊平台费", FeeCategory.OTHER, 200),
)


def _service(code: str, name: str, category: FeeCategory, yuan: int, *, quantity: int = 0) -> _Good:
    return _Good(
        code=f"00{code}00000-SAMPLE",
        name=name,
        list_type=ListType.SERVICE,
        fee_category=category,
        kinds="service",
        yuan=yuan,
        unit="日" if category in (FeeCategory.BED, FeeCategory.NURSING) else "次",
        quantity=quantity,
    )


def _materials(maker: int) -> Iterator[_Good]:
    """Consumables of one manufacturer by kind, material, origin and size."""
    families = ((words.METAL_GOODS, words.METALS), (words.POLYMER_GOODS, words.POLYMERS))
    for family, (goods, materials) in enumerate(families, 1):
        for (kind, (name, yuan)), (of, material), (origin, made) in product(
            enumerate(goods, 1), enumerate(materials, 1), enumerate(words.ORIGINS, 1)
        ):
            price = yuan * (1 + origin) // 2
            for (wide, diameter), (long, length) in product(
                enumerate(words.DIAMETERS, 1), enumerate(words.LENGTHS, 1)
            ):
                yield _Good(
                    code=f"C9{family}{kind:02d}{of:02d}{origin}{wide}{long}{maker:05d}-SAMPLE",
                    name=f"{made}{material}{name} {diameter}×{length}（示例企业{maker}）",
                    list_type=ListType.CONSUMABLE,
                    fee_category=FeeCategory.MATERIAL,
                    kinds="material",
                    yuan=price,
                    specification=f"{diameter}mm×{length}mm",
                    unit="个",
                )
