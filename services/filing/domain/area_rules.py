"""What an insured area lays down about filing, as data: every value knows where it stands.

Each key is a table over the facts that its values may depend on; a table holds exactly one value
for every combination that can occur (`services.filing.written_rules` reads and checks the files).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from services.filing.domain.facts import (
    BenefitClass,
    CareType,
    FilingChannel,
    FilingKind,
    InsuranceType,
    Material,
    PersonClass,
    Route,
)

Value = TypeVar("Value")


class Provenance(Enum):
    """How well a value is founded."""

    OFFICIAL = "official"
    SECONDARY = "secondary"
    ILLUSTRATIVE = "illustrative"


@dataclass(frozen=True, slots=True)
class Stated(Generic[Value]):
    """A value with the text it stands in."""

    value: Value
    citation: str
    """Document and, where it has one, clause."""
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Evidence:
    """What proves a filing: all of `required` and one of `any_of` (none needed when empty)."""

    required: frozenset[Material]
    any_of: frozenset[Material]
    promise: bool
    """Whether a personal commitment (个人承诺书) stands for `any_of` until it is supplied."""


@dataclass(frozen=True, slots=True)
class Lock:
    """How long a filing cannot be changed or cancelled, in months from the day of filing."""

    months: int
    """0: any time. At most 6 in principle (医保发〔2022〕22号 二（三）)."""
    only_after_cost: bool
    """Whether it holds only once something was paid under the filing (济宁)."""


@dataclass(frozen=True, slots=True)
class Exemption:
    """Places where temporary care needs no filing."""

    routes: frozenset[Route]
    places: frozenset[str]
    """Pooling areas and provinces, beside the routes (pairs of areas such as 京津冀)."""
    benefit_class: BenefitClass


@dataclass(frozen=True, slots=True)
class Referrals:
    """Whose referrals are accepted, and which keep the local level."""

    named: Mapping[str, str]
    """Institutions whose referrals get the class REFERRAL_NAMED: code → name."""
    others_accepted: bool
    """Whether any other institution of the insured area may refer."""


@dataclass(frozen=True, slots=True)
class BackHome:
    """What a long-term resident gets at home within the validity of the filing."""

    promised_months: int | None
    """Months from the first day in which a mere promise gives only `promised_class`; None: never.
    0 means as long as the promise is open."""
    promised_class: BenefitClass


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom people ask; a telephone or office that is not known is empty."""

    telephone: str
    office: str


@dataclass(frozen=True, slots=True)
class AreaRules:
    """The filing rules of one pooling area (sixteen keys of its own, two national).

    Kinds are those that can be filed, never EMERGENCY; routes are IN_PROVINCE and CROSS_PROVINCE.
    """

    area: str
    name: str
    validity_months: Mapping[tuple[FilingKind, Route], Stated[int | None]]
    """Months from the first day; None is without end."""
    back_dating_days: Mapping[tuple[FilingKind, Route], Stated[int | None]]
    """How many days before the day of filing a filing may begin; None is any number."""
    person_classes: Mapping[tuple[FilingKind, InsuranceType], Stated[frozenset[PersonClass]]]
    """Who may file a kind."""
    evidence: Mapping[tuple[FilingKind, Route], Stated[Evidence]]
    """What it is proved by."""
    channels: Mapping[tuple[FilingKind, Route], Stated[frozenset[FilingChannel]]]
    """Through which channels it is taken; without HOSPITAL_UPLOAD no institution may upload it."""
    handling_days: Mapping[tuple[FilingKind, FilingChannel], Stated[int]]
    """Working days for a review; 0: accepted at once (即时办理、即时生效). For every channel."""
    lock: Mapping[tuple[FilingKind, Route], Stated[Lock]]
    """Until when it cannot be changed or cancelled."""
    same_channel: Mapping[tuple[FilingKind], Stated[bool]]
    """Whether a change or cancellation goes through the channel family of the filing (济宁)."""
    exemption: Mapping[tuple[InsuranceType], Stated[Exemption]]
    """Where temporary care needs no filing."""
    account_without_filing: Mapping[tuple[InsuranceType, CareType], Stated[bool]]
    """Whether the personal account pays for care elsewhere without a filing."""
    unfiled_class: Mapping[tuple[Route, InsuranceType, CareType], Stated[BenefitClass | None]]
    """The level of care that is neither filed nor an emergency; None: not settled directly."""
    referrals: Mapping[tuple[Route], Stated[Referrals]]
    """Whose referrals count, and at which level."""
    back_home: Mapping[tuple[InsuranceType], Stated[BackHome]]
    """What long-term residents get at home."""
    bound_to_institution: Mapping[tuple[CareType, Route], Stated[bool]]
    """For OUTPATIENT and CHRONIC and every route, LOCAL included: whether the visit must be at the
    contracted, respectively one of the chosen institutions."""
    linked_places: Mapping[tuple[()], Stated[Mapping[str, frozenset[str]]]]
    """Place filed to → other care areas that it covers (省本级 and 省会), national."""
    province_places: Mapping[tuple[()], Stated[frozenset[str]]]
    """Provinces that are filed to as a whole (京津沪渝琼藏 and 兵团), national."""
    contact: Mapping[tuple[FilingKind, Route], Stated[Contact]]
    """Whom people ask."""
    manual_claim: Mapping[tuple[FilingKind, CareType], Stated[str]]
    """Where a bill that cannot be settled directly is claimed, plain Chinese."""
