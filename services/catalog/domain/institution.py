"""Which institution may settle which visit directly, as the care place registered it.

An institution is networked (联网) for each route and each kind of service separately. Its state on
a day is the registration with the latest first day not after it; of two with the same first day
the one recorded later corrects the other.

A stay is judged by the agreement of the day of admission: who was admitted while it was in force
settles directly, though it ends or is suspended meanwhile. Any other visit is judged by its last
day. Everything else (levels, services, diseases, area) is that of the last day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum, IntEnum

from services.catalog.domain.item import Level


class Route(IntEnum):
    """The way between the two areas, numbered as in the contract."""

    LOCAL = 1
    IN_PROVINCE = 2
    CROSS_PROVINCE = 3


class Service(Enum):
    """What an institution is networked for."""

    INPATIENT = "inpatient"
    OUTPATIENT = "outpatient"
    CHRONIC = "chronic"
    PHARMACY = "pharmacy"


class CareType(IntEnum):
    """医疗类别 (med_type), numbered as in the contract."""

    OUTPATIENT = 1
    EMERGENCY = 2
    CHRONIC = 3
    INPATIENT = 4
    INJURY_INPATIENT = 5
    PHARMACY = 6


SERVICES = {
    CareType.OUTPATIENT: Service.OUTPATIENT,
    CareType.EMERGENCY: Service.OUTPATIENT,
    CareType.CHRONIC: Service.CHRONIC,
    CareType.INPATIENT: Service.INPATIENT,
    CareType.INJURY_INPATIENT: Service.INPATIENT,
    CareType.PHARMACY: Service.PHARMACY,
}


STAYS = frozenset({CareType.INPATIENT, CareType.INJURY_INPATIENT})


class InstitutionKind(IntEnum):
    """定点医疗服务机构类型 (fixmedins_type), numbered as in the contract."""

    MEDICAL = 1
    PHARMACY = 2


class InstitutionGrade(IntEnum):
    """医院等级 (hosp_lv), numbered as in the contract and in the national table."""

    THREE_SPECIAL = 1
    THREE_A = 2
    THREE_B = 3
    THREE_C = 4
    TWO_A = 5
    TWO_B = 6
    TWO_C = 7
    ONE_A = 8
    ONE_B = 9
    ONE_C = 10
    NONE = 11
    THREE = 12
    TWO = 13
    ONE = 14


@dataclass(frozen=True, slots=True)
class OpenedDisease:
    """A chronic disease or a class of them and its days, both included."""

    code: str
    first_day: date
    last_day: date = date.max


def opening_codes(disease: str) -> tuple[str, str]:
    """The codes that open `disease`: its own and its class, M00503 → M00500 (DOMAIN §2)."""
    return disease, f"{disease[:4]}00"


@dataclass(frozen=True, slots=True)
class Registration:
    """An institution from `effective_from` on, until a later registration."""

    code: str
    name: str
    area: str
    """Pooling area that it lies in."""
    grade: InstitutionGrade
    deductible_level: Level
    price_limit_level: Level
    settlement_level: Level
    networked: Mapping[Route, frozenset[Service]]
    suspended: bool
    """暂停协议: settles nothing directly."""
    effective_from: date
    kind: InstitutionKind = InstitutionKind.MEDICAL
    diseases: tuple[OpenedDisease, ...] = ()
    """Chronic diseases that it settles; none listed is every one."""
    agreement_start: date = date.min
    agreement_end: date = date.max
    place: str = ""
    """Address for patients."""

    def settles(self, disease: str, day: date) -> bool:
        """Whether the chronic `disease` is opened on `day`, as far as the list of diseases says."""
        if not self.diseases:
            return True
        codes = opening_codes(disease)
        return any(
            one.code in codes and one.first_day <= day <= one.last_day for one in self.diseases
        )


class InstitutionUnknown(Exception):
    """No institution of this code is registered here."""


class InstitutionNotNetworked(Exception):
    """The institution may not settle this kind of visit directly on this day."""


class InstitutionElsewhere(Exception):
    """The visit names another area than the institution's."""


class AgreementNotInForce(Exception):
    """The service agreement (医保服务协议) is not in force on `day`; `cause` in plain Chinese."""

    def __init__(self, day: date, cause: str) -> None:
        self.day = day
        self.cause = cause
        super().__init__(f"{day}: {cause}")


class DiseaseNotOpened(Exception):
    """The institution does not settle this chronic disease directly on this day."""

    def __init__(self, day: date, disease: str) -> None:
        self.day = day
        self.disease = disease
        super().__init__(f"{day}: {disease}")


def admitted(
    registrations: Sequence[Registration],
    *,
    first_day: date,
    day: date,
    care_area: str,
    route: Route,
    care_type: CareType,
    disease: str,
) -> Registration:
    """The registration of `day`, of those of one institution in order of (first day, record).

    The visit lasts from `first_day` to `day`; `disease` is the chronic disease, or empty. Raises
    `InstitutionUnknown`, `InstitutionNotNetworked`, `InstitutionElsewhere`, `AgreementNotInForce`,
    `DiseaseNotOpened`.
    """
    if not registrations:
        raise InstitutionUnknown
    registration = registered_on(registrations, day)
    if registration is None:
        raise InstitutionNotNetworked
    if registration.area != care_area:
        raise InstitutionElsewhere
    service = SERVICES[care_type]
    if service not in registration.networked.get(route, ()):
        raise InstitutionNotNetworked
    if care_type in STAYS:
        # Registered during the stay: the first registration tells since when it has an agreement.
        agreed = registered_on(registrations, first_day) or registrations[0]
        check_agreement(agreed, first_day)
    else:
        check_agreement(registration, day)
    if service is Service.CHRONIC and disease and not registration.settles(disease, day):
        raise DiseaseNotOpened(day, disease)
    return registration


def registered_on(registrations: Sequence[Registration], day: date) -> Registration | None:
    """The registration that holds on `day`, of those of one institution in order."""
    for registration in reversed(registrations):
        if registration.effective_from <= day:
            return registration
    return None


def check_agreement(registration: Registration, day: date) -> None:
    """Raise `AgreementNotInForce` unless the institution may settle on `day`."""
    if registration.suspended:
        raise AgreementNotInForce(day, "协议已暂停")
    if day < registration.agreement_start:
        raise AgreementNotInForce(day, f"协议自 {registration.agreement_start} 起")
    if day > registration.agreement_end:
        raise AgreementNotInForce(day, f"协议已于 {registration.agreement_end} 到期")
