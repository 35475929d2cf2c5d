"""What a computation is given and what it answers; all amounts are fen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from services.policy.domain import facts
from services.policy.domain.document import Document, Provenance, Value
from services.policy.domain.units import MAX_FEN


class CannotCompute(Exception):
    """A case that the policy does not decide; the accumulators stay as they were."""


class NotStated(CannotCompute):
    """The document states no value for `missing`, e.g. `inpatient/hifp_pay/ratio(levels=one)`."""

    def __init__(self, missing: str) -> None:
        super().__init__(missing)
        self.missing = missing


class Ambiguous(CannotCompute):
    """Two rows of one table hold for the case."""

    def __init__(self, rows: str) -> None:
        super().__init__(rows)
        self.rows = rows


class NotFound(CannotCompute):
    """No document is in force for the area, the insurance and the day."""


class NotOfficial(CannotCompute):
    """The benefit rests on an illustrative value, and such values may not pay here."""


class DiseaseRefused(CannotCompute):
    """The area pays nothing for this chronic disease and does not treat it as ordinary care."""

    def __init__(self, disease: str) -> None:
        super().__init__(disease)
        self.disease = disease


class Case(NamedTuple):
    """One settlement; names are those of `facts`, days are valid ISO dates, the parts sum to the
    total (`validate_case` says what is wrong with one). A name left empty is not known: a rule that
    asks for it refuses the case."""

    route: str
    basis: str
    benefit_class: str
    care_type: str
    person_class: str
    age: int
    deductible_level: str
    settlement_level: str
    end_date: str
    business_day: str
    use_account: bool
    total_fen: int
    full_self_pay_fen: int
    over_limit_fen: int
    first_self_pay_fen: int
    in_scope_fen: int
    start_date: str = ""
    """Empty: the same as `end_date`."""
    grade: str = "none"
    institution_kind: str = "general"
    care_area: str = ""
    disease: str = ""
    civil_servant: bool = False
    aid: str = "none"
    settled_directly: bool = True
    late_filing: bool = False
    unfiled: bool = False
    stay: int = 1
    """Which stay of the period this is; set from the accumulators by `compute`."""
    temporary: int = 1
    """Which temporary visit elsewhere of the period this is; likewise."""


class Counters(NamedTuple):
    """What has been used in one benefit period; a delta has the same shape."""

    stay_count: int = 0
    deductible_paid_fen: int = 0
    pooled_used_fen: int = 0
    large_amount_used_fen: int = 0
    major_illness_base_fen: int = 0
    major_illness_used_fen: int = 0
    assistance_used_fen: int = 0
    fee_used_fen: int = 0
    """In-scope cost that counts towards yearly brackets and fee caps."""

    def plus(self, delta: Counters) -> Counters:
        """The counters after `delta`."""
        return Counters(*(mine + added for mine, added in zip(self, delta, strict=True)))


class Step(NamedTuple):
    """One step of the computation; `explain.text` says it in Chinese."""

    stage: str
    """What it decides, e.g. `deductible`; for funds the code."""
    kind: str
    """Which sentence tells it."""
    value: Value
    input_fen: int
    result_fen: int
    facts: tuple[object, ...] = ()
    """What else the sentence needs."""


Told = tuple[str, str, Value, int, int, tuple[object, ...]]
"""The fields of a `Step`, which is made of them when it is asked for."""


class Benefit(NamedTuple):
    """Who pays what.

    in_scope = remote_first_pay + deductible + ratio_self_pay + over_cap + funds - outside_scope;
    total = funds + account + cash.
    """

    document: Document
    remote_first_pay_fen: int
    deductible_fen: int
    ratio_self_pay_fen: int
    over_cap_fen: int
    funds: dict[str, int]
    """By national fund code; only what pays."""
    account_fen: int
    cash_fen: int
    deltas: dict[str, Counters]
    """By benefit period; periods that nothing is added to are absent."""
    provenance: Provenance
    """The weakest among the values used."""
    told: tuple[Told, ...]
    """The steps."""
    outside_scope_fen: int = 0
    """What of the funds pays for 乙类先行自付, which lies outside the in-scope cost."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """How it was computed, in order."""
        return tuple(map(Step._make, self.told))

    @property
    def fund_total_fen(self) -> int:
        """What the funds pay together."""
        return sum(self.funds.values())


class CaseFault(NamedTuple):
    """One thing that is wrong with a case."""

    name: str
    """UNKNOWN_VALUE, UNKNOWN_COMBINATION, MISSING_FIELD, WRONG_DATE, NEGATIVE_AMOUNT, OUT_OF_RANGE
    or PARTS_DO_NOT_SUM."""
    field: str
    """Name in `Case`, or the accumulator as `2026.pooled_used_fen`."""
    text: str
    """What is wrong and what is allowed."""


def validate_case(
    case: Case,
    insurance: str,
    counters: Mapping[str, Counters] | None = None,
    account_balance_fen: int = 0,
) -> list[CaseFault]:
    """Everything that is wrong with a case of `insurance` (`employee` or `resident`); the callers
    of `compute_unit` (service, command line) answer these instead of a number.

    An empty name is not wrong: it is not known, and a rule that asks for it refuses the case.
    """
    return [
        *_wrong_names(case, insurance),
        *_wrong_days(case),
        *_wrong_amounts(case),
        *_wrong_opening(counters or {}, account_balance_fen),
    ]


UNKNOWN_AGE = -1
_NAMES: dict[str, Mapping[str, str]] = {
    "route": facts.ROUTES,
    "basis": facts.BASES,
    "benefit_class": facts.BENEFIT_CLASSES,
    "care_type": facts.CARE_TYPES,
    "deductible_level": facts.LEVELS,
    "settlement_level": facts.LEVELS,
    "grade": facts.GRADES,
    "institution_kind": facts.KINDS,
    "aid": facts.AIDS,
}
_CODES = {"disease": r"[A-Z]\d{5}", "care_area": r"\d{6}"}
_PARTS = ("full_self_pay_fen", "over_limit_fen", "first_self_pay_fen", "in_scope_fen")


def _wrong_names(case: Case, insurance: str) -> Iterator[CaseFault]:
    persons = facts.PERSONS_OF_INSURANCE.get(insurance)
    if persons is None:
        yield _unknown("insurance", insurance, facts.INSURANCES)
    for field, known in _NAMES.items():
        value = getattr(case, field)
        if value and value not in known:
            yield _unknown(field, value, known)
    if case.person_class and case.person_class not in (persons or facts.PERSON_CLASSES):
        yield _unknown("person_class", case.person_class, persons or facts.PERSON_CLASSES)
    for field, pattern in _CODES.items():
        value = getattr(case, field)
        if value and re.fullmatch(pattern, value, re.ASCII) is None:
            yield CaseFault("UNKNOWN_VALUE", field, f"{value!r} is no code: it reads {pattern}")
    if case.care_type == "chronic" and not case.disease:
        text = "is missing: a chronic visit is for one disease"
        yield CaseFault("MISSING_FIELD", "disease", text)
    route, benefit_class = case.route, case.benefit_class
    if (
        route in facts.ROUTES
        and benefit_class in facts.BENEFIT_CLASSES
        and not facts.possible(route, benefit_class)
    ):
        text = f"{benefit_class} does not go with the route {route}"
        yield CaseFault("UNKNOWN_COMBINATION", "benefit_class", text)
    if not UNKNOWN_AGE <= case.age <= facts.MAX_AGE:
        yield CaseFault("OUT_OF_RANGE", "age", f"{case.age} must be from 0 to {facts.MAX_AGE}")


def _unknown(field: str, value: str, known: Mapping[str, str] | tuple[str, ...]) -> CaseFault:
    return CaseFault("UNKNOWN_VALUE", field, f"{value!r} is not known: one of {', '.join(known)}")


def _wrong_days(case: Case) -> Iterator[CaseFault]:
    wrong = False
    for field in ("start_date", "end_date", "business_day"):
        day = getattr(case, field)
        if not (field == "start_date" and day == "") and not _is_day(day):
            wrong = True
            yield CaseFault("WRONG_DATE", field, f"{day!r} is no day: write e.g. 2026-11-10")
    if not wrong and case.start_date > case.end_date:
        text = f"{case.end_date} lies before the first day {case.start_date}"
        yield CaseFault("WRONG_DATE", "end_date", text)


@lru_cache(1024)
def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _wrong_amounts(case: Case) -> Iterator[CaseFault]:
    faults = [
        fault
        for field in ("total_fen", *_PARTS)
        if (fault := _outside(field, getattr(case, field), MAX_FEN)) is not None
    ]
    yield from faults
    parts = sum(getattr(case, field) for field in _PARTS)
    if not faults and parts != case.total_fen:
        text = f"the parts sum to {parts}, the total is {case.total_fen}: they must be equal"
        yield CaseFault("PARTS_DO_NOT_SUM", "total_fen", text)


def _wrong_opening(
    counters: Mapping[str, Counters], account_balance_fen: int
) -> Iterator[CaseFault]:
    found = [("account_balance_fen", account_balance_fen, MAX_FEN)]
    for period, used in counters.items():
        for name, value in used._asdict().items():
            most = facts.MAX_COUNT if name == "stay_count" else MAX_FEN
            found.append((f"{period}.{name}", value, most))
    for field, value, most in found:
        fault = _outside(field, value, most)
        if fault is not None:
            yield fault


def _outside(field: str, value: int, most: int) -> CaseFault | None:
    if 0 <= value <= most:
        return None
    if value < 0 and field.endswith("_fen"):
        return CaseFault("NEGATIVE_AMOUNT", field, f"is negative ({value}): amounts start at 0")
    return CaseFault("OUT_OF_RANGE", field, f"{value} must be from 0 to {most}")
