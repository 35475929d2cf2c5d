"""Which institution may settle which visit directly, as the care place registered it.

An institution is networked (联网) for each route and each kind of service separately. Its state on
a day is the registration with the latest first day not after it; of two with the same first day
the one recorded later corrects the other.
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


class InstitutionUnknown(Exception):
    """No institution of this code is registered here."""


class InstitutionNotNetworked(Exception):
    """The institution may not settle this kind of visit directly on this day."""


class InstitutionElsewhere(Exception):
    """The visit names another area than the institution's."""


def admitted(
    registrations: Sequence[Registration],
    *,
    day: date,
    care_area: str,
    route: Route,
    care_type: CareType,
) -> Registration:
    """The registration of `day`, of those of one institution in order of (first day, record).

    Raises `InstitutionUnknown`, `InstitutionElsewhere`, `InstitutionNotNetworked`.
    """
    if not registrations:
        raise InstitutionUnknown
    for registration in reversed(registrations):
        if registration.effective_from <= day:
            break
    else:
        raise InstitutionNotNetworked
    if registration.area != care_area:
        raise InstitutionElsewhere
    open_services = registration.networked.get(route, frozenset())
    if registration.suspended or SERVICES[care_type] not in open_services:
        raise InstitutionNotNetworked
    return registration
