"""The table of situations: what is written under `tests/data/filing/situations`, read strictly.

A filing that says nothing else is for the visit's place, area and insurance, accepted, from
2026-11-01 without end, filed on its first day. `but` states a rule that no area of ours has.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from filing_facts import AWAY, FILING, VISIT, exempt, stated, table
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from services.filing.domain.area_rules import AreaRules, BackHome, Provenance, Referrals
from services.filing.domain.facts import (
    Answer,
    BenefitClass,
    CareType,
    CommitmentState,
    EmergencyReferral,
    Filing,
    FilingBasis,
    FilingKind,
    FilingState,
    InpatientType,
    InsuranceType,
    Route,
    Visit,
)
from services.filing.domain.reasons import EntitlementReason

FOLDER = Path(__file__).parent.parent / "data" / "filing" / "situations"
Names = TypeVar("Names", bound=IntEnum)


def _named(enum: type[Names]) -> BeforeValidator:
    return BeforeValidator(lambda name: enum[name.upper()])


Insurance = Annotated[InsuranceType, _named(InsuranceType)]
Level = Annotated[BenefitClass, _named(BenefitClass)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Filed(Strict):
    kind: Annotated[FilingKind, _named(FilingKind)]
    place: str = ""
    start: date = date(2026, 11, 1)
    until: date | None = None
    filed: date | None = None
    state: Annotated[FilingState, _named(FilingState)] = FilingState.ACCEPTED
    changed: date | None = None
    due: date | None = None
    by: str = ""
    material: Annotated[CommitmentState, _named(CommitmentState)] = CommitmentState.NOT_NEEDED
    disease: str = ""
    area: str = ""
    insurance: Insurance | None = None


class Exempt(Strict):
    routes: frozenset[Annotated[Route, _named(Route)]] = frozenset()
    places: frozenset[str] = frozenset()
    level: Level


class Promise(Strict):
    months: int | None
    level: Level


class But(Strict):
    provenance: Provenance = Provenance.OFFICIAL
    exempt: Exempt | None = None
    account: bool | None = None
    unfiled: Level | None = None
    bound: bool | None = None
    promise: Promise | None = None
    named: dict[str, str] | None = None
    linked: dict[str, frozenset[str]] | None = None

    def rules(self, plain: AreaRules) -> AreaRules:
        how = {"provenance": self.provenance}
        changes: dict[str, Any] = {}
        if self.exempt is not None:
            changes["exemption"] = exempt(**dict(self.exempt), **how)
        if self.account is not None:
            account = table(self.account, InsuranceType, CareType, **how)
            changes["account_without_filing"] = account
        if self.unfiled is not None:
            changes["unfiled_class"] = table(self.unfiled, AWAY, InsuranceType, CareType, **how)
        if self.bound is not None:
            care = [CareType.OUTPATIENT, CareType.CHRONIC]
            changes["bound_to_institution"] = table(self.bound, care, Route, **how)
        if self.promise is not None:
            promise = BackHome(self.promise.months, self.promise.level)
            changes["back_home"] = table(promise, InsuranceType, **how)
        if self.named is not None:
            changes["referrals"] = table(Referrals(self.named, True), AWAY, **how)
        if self.linked is not None:
            changes["linked_places"] = {(): stated(self.linked, self.provenance)}
        return replace(plain, **changes)


class Expected(Strict):
    basis: Annotated[FilingBasis, _named(FilingBasis)] | None = None
    level: Level | None = Field(None, alias="class")
    filing: int | None = None
    """Which of the filings, counted from 1."""
    reasons: tuple[Annotated[EntitlementReason, _named(EntitlementReason)], ...] = ()
    refused: str = ""
    details: dict[str, str] = {}
    says: str = ""

    @model_validator(mode="after")
    def _one_of_two(self) -> Expected:
        entitled = self.basis is not None and self.level is not None and bool(self.reasons)
        if entitled == bool(self.refused):
            raise ValueError("either basis, class and reasons, or refused")
        return self


class Situation(Strict):
    name: str
    source: str
    area: str
    care: str
    insurance: Insurance = InsuranceType.EMPLOYEE
    type: Annotated[CareType, _named(CareType)] = CareType.INPATIENT
    start: date = date(2026, 11, 10)
    end: date | None = None
    """By default ten days later for a stay, else the same day."""
    day: date | None = None
    """Of the decision; by default the last of the visit."""
    inpatient: Annotated[InpatientType, _named(InpatientType)] = InpatientType.UNSPECIFIED
    flag: Annotated[EmergencyReferral, _named(EmergencyReferral)] = EmergencyReferral.UNSPECIFIED
    injury: Annotated[Answer, _named(Answer)] = Answer.UNSPECIFIED
    third_party: Annotated[Answer, _named(Answer)] = Answer.UNSPECIFIED
    account: bool = False
    disease: str = ""
    diagnoses: tuple[str, ...] = ()
    at: str = ""
    contracted: str = ""
    chosen: frozenset[str] = frozenset()
    since: date | None = None
    filings: tuple[Filed, ...] = ()
    but: But = But()
    samples: bool = True
    """Whether sample values may entitle."""
    expect: Expected

    @cached_property
    def visit(self) -> Visit:
        stay = self.type in (CareType.INPATIENT, CareType.INJURY_INPATIENT)
        end = self.end or (date.fromordinal(self.start.toordinal() + 10) if stay else self.start)
        if self.care == self.area:
            route = Route.LOCAL
        elif self.care[:2] == self.area[:2]:
            route = Route.IN_PROVINCE
        else:
            route = Route.CROSS_PROVINCE
        return replace(
            VISIT,
            route=route,
            care_area=self.care,
            care_site=f"{self.care[:2]}0000",
            insured_area=self.area,
            insurance=self.insurance,
            care_type=self.type,
            start=self.start,
            end=end,
            inpatient_type=self.inpatient,
            emergency_referral=self.flag,
            injury=self.injury,
            third_party=self.third_party,
            use_account=self.account,
            disease_code=self.disease,
            diagnosis_codes=self.diagnoses,
            institution=self.at,
            insured_since=self.since,
            contracted_institution=self.contracted,
            chosen_institutions=self.chosen,
        )

    @cached_property
    def made(self) -> list[Filing]:
        return [
            replace(
                FILING,
                filing_id=f"f{number}",
                insured_area=one.area or self.area,
                insurance=one.insurance or self.insurance,
                kind=one.kind,
                care_place=one.place or self.care,
                start_date=one.start,
                end_date=one.until,
                filed_on=one.filed or one.start,
                referral_institution=one.by,
                commitment=one.material,
                state=one.state,
                disease_code=one.disease,
                due_date=one.due,
                changed_on=one.changed,
            )
            for number, one in enumerate(self.filings, start=1)
        ]


def load_situations() -> list[Situation]:
    return [
        Situation.model_validate(one)
        for path in sorted(FOLDER.glob("*.yaml"))
        for one in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]
