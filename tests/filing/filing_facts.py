"""An insured area that grants nothing of its own, a visit and a filing, each changed by keyword."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from itertools import product
from typing import Any

from services.filing.domain.area_rules import (
    AreaRules,
    BackHome,
    Contact,
    Evidence,
    Exemption,
    Lock,
    Provenance,
    Referrals,
    Stated,
)
from services.filing.domain.facts import (
    Answer,
    BenefitClass,
    CareType,
    CommitmentState,
    EmergencyReferral,
    Filing,
    FilingChannel,
    FilingKind,
    InpatientType,
    InsuranceType,
    PersonClass,
    Route,
    Visit,
)

AREA = "440800"
NAMED_HOSPITAL = "H44080300001"
PROVINCES = frozenset({"110000", "120000", "310000", "460000", "500000", "540000", "660000"})
NOTICE = "某市文件 第一条"

VISIT = Visit(
    route=Route.CROSS_PROVINCE,
    care_area="110000",
    care_site="110000",
    insured_area=AREA,
    insurance=InsuranceType.EMPLOYEE,
    care_type=CareType.INPATIENT,
    start=date(2026, 11, 10),
    end=date(2026, 11, 20),
    inpatient_type=InpatientType.ORDINARY,
    emergency_referral=EmergencyReferral.UNSPECIFIED,
    injury=Answer.UNSPECIFIED,
    third_party=Answer.UNSPECIFIED,
    use_account=False,
)
HOME = replace(VISIT, route=Route.LOCAL, care_area=AREA, care_site="440000")
IN_PROVINCE = replace(VISIT, route=Route.IN_PROVINCE, care_area="440100", care_site="440000")
OUTPATIENT = replace(
    VISIT,
    care_type=CareType.OUTPATIENT,
    end=VISIT.start,
    inpatient_type=InpatientType.UNSPECIFIED,
)
DAY = VISIT.end
FILING = Filing(
    filing_id="f1",
    insured_area=AREA,
    insurance=InsuranceType.EMPLOYEE,
    kind=FilingKind.OTHER_TEMPORARY,
    channel=FilingChannel.NATIONAL_APP,
    care_place="110000",
    start_date=date(2026, 11, 1),
    end_date=date(2027, 5, 1),
    filed_on=date(2026, 11, 1),
    referral_institution="",
    commitment=CommitmentState.NOT_NEEDED,
)
REFERRAL = replace(FILING, kind=FilingKind.REFERRAL, referral_institution="H44080000001")
LONG_TERM = [kind for kind in FilingKind if kind.long_term]
AWAY = [Route.IN_PROVINCE, Route.CROSS_PROVINCE]
KINDS = [kind for kind in FilingKind if kind is not FilingKind.EMERGENCY]


def stated(value: Any, provenance: Provenance = Provenance.OFFICIAL) -> Stated[Any]:
    return Stated(value, NOTICE, provenance)


def table(value: Any, *dimensions: Any, provenance: Provenance = Provenance.OFFICIAL) -> Any:
    """One value for every combination of the dimensions' values."""
    return dict.fromkeys(product(*dimensions), stated(value, provenance))


def exempt(
    *, routes: frozenset[Route] = frozenset(), places: frozenset[str] = frozenset(), **how: Any
) -> Mapping[tuple[InsuranceType], Stated[Exemption]]:
    level = how.pop("level", BenefitClass.OTHER_TEMPORARY)
    return table(Exemption(routes, places, level), InsuranceType, **how)


def make_rules(**changes: Any) -> AreaRules:
    """Rules that name one hospital, file to whole provinces as the nation does, grant no more."""
    plain: dict[str, Any] = {
        "area": AREA,
        "name": "某市",
        "validity_months": table(None, KINDS, AWAY),
        "back_dating_days": table(None, KINDS, AWAY),
        "person_classes": table(frozenset(PersonClass), KINDS, InsuranceType),
        "evidence": table(Evidence(frozenset(), frozenset(), True), KINDS, AWAY),
        "channels": table(frozenset(FilingChannel), KINDS, AWAY),
        "handling_days": table(0, KINDS, FilingChannel),
        "lock": table(Lock(0, False), KINDS, AWAY),
        "same_channel": table(False, KINDS),
        "exemption": exempt(),
        "account_without_filing": table(False, InsuranceType, CareType),
        "unfiled_class": table(None, AWAY, InsuranceType, CareType),
        "referrals": table(Referrals({NAMED_HOSPITAL: "某医院"}, True), AWAY),
        "back_home": table(BackHome(None, BenefitClass.OTHER_TEMPORARY), InsuranceType),
        "bound_to_institution": table(False, [CareType.OUTPATIENT, CareType.CHRONIC], Route),
        "linked_places": {(): stated({})},
        "province_places": {(): stated(PROVINCES)},
        "contact": table(Contact("", ""), KINDS, AWAY),
        "manual_claim": table("回参保地手工报销", KINDS, CareType),
    }
    return AreaRules(**(plain | changes))
