"""Every variety of real rules, the document that writes it, and what in it does so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from services.policy.domain.document import Document
from services.policy.domain.written import Cap, Deductible, FirstPay, Fund, ShareAdjustment
from services.policy.loader import DOCUMENTS
from services.policy.reading import read_document

VARIETIES = Path(__file__).parents[1] / "data" / "policy" / "varieties"
"""Rules whose source names no area, and layers for which none of our areas has figures."""
FILES = {path.stem: path for path in (*DOCUMENTS.glob("*.yaml"), *VARIETIES.glob("*.yaml"))}
LIBRARY = sorted(path.stem for path in DOCUMENTS.glob("*.yaml"))


@cache
def document(name: str) -> Document:
    return read_document(FILES[name])


# What a written document is made of.


def stages(name: str) -> Iterator[Any]:
    for benefit in document(name).written.benefits.values():
        yield from benefit.stages or ()


def first_pays(name: str) -> list[FirstPay]:
    return [stage.first_pay for stage in stages(name) if stage.first_pay is not None]


def deductibles(name: str) -> list[Deductible]:
    return [stage.deductible for stage in stages(name) if stage.deductible is not None]


def funds(name: str, *codes: str) -> list[Fund]:
    found = [stage.fund for stage in stages(name) if stage.fund is not None]
    return [fund for fund in found if not codes or fund.code in codes]


def adjustments(name: str) -> list[ShareAdjustment]:
    return [each for fund in funds(name) for each in fund.adjust]


def caps(name: str) -> list[Cap]:
    return [cap for fund in funds(name) for cap in fund.caps]


def changes(name: str, key: str) -> list[Any]:
    """The rows that change a share by `key`, e.g. `minus`."""
    rows = [row for each in adjustments(name) for row in each.rows]
    return [row for row in rows if getattr(row, key) is not None]


def deductible_rows(name: str) -> list[Any]:
    return [row for each in deductibles(name) for row in each.rows]


def ratio_rows(name: str) -> list[Any]:
    return [row for fund in funds(name, "hifp_pay") for row in fund.ratio]


def order(name: str) -> list[str]:
    """The keys of the first benefit's stages."""
    (benefit, *_) = document(name).written.benefits.values()
    return [next(iter(stage.model_fields_set)) for stage in benefit.stages or ()]


def segments(fund: Fund) -> bool:
    return any(row.up_to is not None for row in fund.ratio)


def layers(name: str, code: str, of: str) -> list[Fund]:
    return [fund for fund in funds(name, code) if fund.of == of]


def account_pays(name: str) -> bool:
    account = document(name).account
    return account is not None and account.pays == ("in_scope", "first_self_pay")


def outpatient_not_lowered(name: str) -> bool:
    stages = document(name).written.benefits["outpatient"].stages or ()
    rows = [row for each in stages if each.fund for a in each.fund.adjust for row in a.rows]
    return bool(rows) and all(row.value == "unchanged" for row in rows)


Uses = Callable[[str], Any]
VARIETY: dict[str, tuple[str, Uses]] = {
    # How areas lower remote benefit.
    "percentage points": (
        "440800_310",
        lambda n: {r.minus for r in changes(n, "minus")} >= {1000, 2000},
    ),
    "points again when not settled directly": (
        "220200_390",
        lambda n: any(a.when and a.when.settled_directly is False for a in adjustments(n)),
    ),
    "fixed remote ratio table": (
        "140200_310",
        lambda n: (
            {r.value for r in ratio_rows(n) if r.routes == ("cross_province",)} >= {8000, 7000}
        ),
    ),
    "remote ratio by hospital grade": (
        "140200_390",
        lambda n: any(r.grades == ("three_a",) and r.value == 6000 for r in ratio_rows(n)),
    ),
    "first pay before the deductible": (
        "370800_310",
        lambda n: order(n)[:2] == ["first_pay", "deductible"],
    ),
    "first pay after the deductible": (
        "unnamed_city_310",
        lambda n: order(n)[:2] == ["deductible", "first_pay"],
    ),
    "first pay by route and settlement": (
        "330100_310",
        lambda n: {r.value for f in first_pays(n) for r in f.rows} >= {1000, 2000},
    ),
    "first pay by hospital kind and filing": (
        "330600_310",
        lambda n: {r.value for f in first_pays(n) for r in f.rows} >= {500, 1500, 2500},
    ),
    "first pay when filed late": (
        "350200_310",
        lambda n: any(f.when and f.when.late_filing for f in first_pays(n)),
    ),
    "first pay of 40 % when unfiled": (
        "unnamed_city_310",
        lambda n: any(r.unfiled and r.value == 4000 for f in first_pays(n) for r in f.rows),
    ),
    "points for residents where employees first pay": (
        "370800_390",
        lambda n: changes(n, "minus") and not first_pays(n) and first_pays("370800_310"),
    ),
    "multiplier": ("440300_310", lambda n: {r.times for r in changes(n, "times")} == {9000, 8000}),
    "separate deductible and ratio": (
        "350900_390",
        lambda n: (
            any(r.value == 100_000 and "referral" in (r.classes or ()) for r in deductible_rows(n))
            and any(r.value == 4500 for r in ratio_rows(n))
        ),
    ),
    "separate deductible and ratio outside the prefecture": (
        "532900_390",
        lambda n: any(r.value == 90_000 for r in deductible_rows(n)),
    ),
    "deductible as a share of the bill with a floor": (
        "341600_390",
        lambda n: any(
            (r.share, r.of, r.at_least) == (2000, "total", 200_000) for r in deductible_rows(n)
        ),
    ),
    "half, and the rest barred from major illness": (
        "442000_390",
        lambda n: (
            any(a.barred and a.rows[0].times == 5000 for a in adjustments(n))
            and funds(n, "hifmi_pay")
        ),
    ),
    "progressive by visit": (
        "progressive_390",
        lambda n: (
            {r.temporaries for a in adjustments(n) for r in a.rows} == {(1, 1), (2, 2), (3, None)}
        ),
    ),
    "no reduction through named institutions": (
        "440800_390",
        lambda n: any(
            r.classes == ("referral_named",) and r.value == "unchanged" for r in changes(n, "value")
        ),
    ),
    "no reduction in named places": (
        "510100_310",
        lambda n: any(
            r.places and "54" in r.places for d in deductibles(n) for a in d.adjust for r in a.rows
        ),
    ),
    "home benefit everywhere but a local rate": (
        "110000_310",
        lambda n: (
            any(r.routes == ("local",) and r.value == 9000 for r in ratio_rows(n))
            and changes(n, "value")
        ),
    ),
    "floor guarantee": (
        "340300_390",
        lambda n: any(f.floor and f.floor.rows[0].value == 4000 for f in funds(n)),
    ),
    # Deductibles.
    "deductible per stay": (
        "440100_310",
        lambda n: any(d.due == "each_stay" for d in deductibles(n)),
    ),
    "nth stay by percent": (
        "unnamed_city_310",
        lambda n: any(r.times == 5000 for d in deductibles(n) for a in d.adjust for r in a.rows),
    ),
    "nth stay minus a fixed sum": (
        "370800_310",
        lambda n: (
            {r.minus for d in deductibles(n) for a in d.adjust for r in a.rows} == {15_000, 20_000}
        ),
    ),
    "nth stay free": (
        "370100_310",
        lambda n: any(r.stays == (3, None) and r.value == 0 for r in deductible_rows(n)),
    ),
    "yearly total of deductibles": (
        "410100_390",
        lambda n: any(d.year_cap and d.year_cap[0].value == 230_000 for d in deductibles(n)),
    ),
    "highest level once a year": (
        "330100_310",
        lambda n: any(d.due == "topped_up" and d.rows[0].grades for d in deductibles(n)),
    ),
    "yearly deductible by person": (
        "310000_310",
        lambda n: any(d.due == "topped_up" and d.rows[0].persons for d in deductibles(n)),
    ),
    "deductible at every visit": (
        "layers_390",
        lambda n: (
            deductibles(n)[-1].due == "each_stay" and deductibles(n)[-1].rows[0].value == 3000
        ),
    ),
    "cumulative across levels": (
        "370800_310",
        lambda n: any(
            d.due == "topped_up" and len([r for r in d.rows if r.levels]) > 2
            for d in deductibles(n)
        ),
    ),
    "zero for diseases": (
        "140200_390",
        lambda n: any(r.diseases and r.value == 0 for r in deductible_rows(n)),
    ),
    "less at hospitals of traditional medicine": (
        "370100_310",
        lambda n: any(
            a.when and a.when.kinds == ("tcm",) for d in deductibles(n) for a in d.adjust
        ),
    ),
    # Ratios.
    "by level and person": (
        "370800_310",
        lambda n: any(r.levels and r.persons for r in ratio_rows(n)),
    ),
    "age bonus": (
        "510100_310",
        lambda n: len([r for r in changes(n, "plus") if r.ages]) == 5 and changes(n, "at_most"),
    ),
    "by age": ("310000_390", lambda n: any(r.ages == (60, None) for r in ratio_rows(n))),
    "multiplier of the own share": (
        "110000_310",
        lambda n: [r.own_times for r in changes(n, "own_times")] == [6000],
    ),
    "segments of one stay": (
        "110000_310",
        lambda n: any(segments(f) and f.brackets.over == "stay" for f in funds(n, "hifp_pay")),
    ),
    "segments of the year": (
        "330100_310",
        lambda n: any(segments(f) and f.brackets.over == "year" for f in funds(n, "hifp_pay")),
    ),
    "absolute segments": (
        "320700_390",
        lambda n: any(segments(f) and f.brackets.count == "in_scope" for f in funds(n, "hifp_pay")),
    ),
    "segments above the deductible": (
        "layers_390",
        lambda n: any(
            segments(f) and f.brackets.count == "above_deductible" for f in funds(n, "hifp_pay")
        ),
    ),
    # Caps and layers.
    "payment cap": (
        "310000_310",
        lambda n: any(c.limit == "payment" and c.rows[0].value == 59_000_000 for c in caps(n)),
    ),
    "fee cap": ("321100_310", lambda n: any(c.limit == "fee" for c in caps(n))),
    "cap of one benefit": ("430800_310", lambda n: any(c.counts == "own" for c in caps(n))),
    "cap of one stay": ("layers_390", lambda n: any(c.over == "stay" for c in caps(n))),
    "large amount, flat": (
        "370800_310",
        lambda n: (
            layers(n, "hifob_pay", "over_cap") and not any(map(segments, funds(n, "hifob_pay")))
        ),
    ),
    "large amount in segments": (
        "layers_310",
        lambda n: any(map(segments, layers(n, "hifob_pay", "over_cap"))),
    ),
    "large amount without limit": (
        "310000_310",
        lambda n: any(c.rows[0].value == 10**12 for f in funds(n, "hifob_pay") for c in f.caps),
    ),
    "major illness, absolute brackets": (
        "layers_390",
        lambda n: any(
            f.brackets.count == "in_scope" and segments(f) for f in layers(n, "hifmi_pay", "own")
        ),
    ),
    "major illness, relative brackets": (
        "510100_390",
        lambda n: any(
            f.brackets.count == "above_deductible" and segments(f)
            for f in layers(n, "hifmi_pay", "own")
        ),
    ),
    "preferential terms of major illness": (
        "layers_390",
        lambda n: all(
            f.adjust_deductible
            and f.adjust
            and any(r.aids and r.value == 10**12 for c in f.caps for r in c.rows)
            for f in funds(n, "hifmi_pay")
        ),
    ),
    "assistance with and without a deductible": (
        "500000_390",
        lambda n: [f.deductible is None for f in funds(n, "maf_pay")] == [True, False],
    ),
    "civil servants' supplement": (
        "layers_310",
        lambda n: any(f.when and f.when.civil_servant for f in funds(n, "cvlserv_pay")),
    ),
    "enterprises' supplement": ("layers_310", lambda n: funds(n, "hifes_pay")),
    "what the account may pay": ("layers_310", account_pays),
    "ordinary care from the account only": (
        "140200_310",
        lambda n: document(n).benefits["outpatient"].no_funds,
    ),
    "diseases of chronic care": ("140200_390", lambda n: document(n).benefits["chronic"].diseases),
    "ordinary outpatient care not lowered": ("370800_390", outpatient_not_lowered),
    # Time.
    "stay over the year's end split by days": ("layers_390", lambda n: document(n).splits_year_end),
    "version by admission": ("layers_390", lambda n: document(n).effective_by == "admission"),
    "version by settlement": ("layers_310", lambda n: document(n).effective_by == "settlement"),
    "older figures, dated": ("510100_390", lambda n: document(n).effective_to == "2014-12-31"),
    "publication date apart from effect": (
        "440800_310",
        lambda n: document(n).published_on == "2023-02-03",
    ),
}
