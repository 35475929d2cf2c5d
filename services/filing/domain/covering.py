"""What a filing lacks to cover a visit; one that lacks nothing covers it.

Coverage is judged on the first day of the visit: who is admitted within the validity is settled
after it too (规程 第十二条), and a filing made before discharge settlement covers the stay if its
first day is not after admission (规程 第十六条).
"""

from __future__ import annotations

from enum import Enum, auto

from services.filing.domain.area_rules import AreaRules
from services.filing.domain.diseases import category
from services.filing.domain.facts import Filing, FilingState, Visit


class Lack(Enum):
    """What one filing lacks; the first are those that the patient is helped most by knowing.

    Before all others stands what the filing itself can still mend (its first day, its review), then
    what has run out at the right place, then what belongs to another relation or disease, and last
    another place.
    """

    STARTED = auto()
    ACCEPTED = auto()
    VALID = auto()
    """Its validity has run out."""
    KEPT = auto()
    """It was cancelled or ended before the visit."""
    RELATION = auto()
    """It was made under a former insured relation."""
    INSURANCE = auto()
    DISEASE = auto()
    """It is a referral for another disease."""
    PLACE = auto()


class Match(Enum):
    """How a filing's place covers the care place."""

    SAME = auto()
    PROVINCE = auto()
    """Filed to the whole province where that is done (规程 第十一条)."""
    LINKED = auto()
    """Filed to the linked one of 省本级 and capital (医保发〔2024〕21号 一（一）)."""


def lacking(filing: Filing, visit: Visit, rules: AreaRules) -> tuple[Lack, ...]:
    """What `filing` lacks to cover `visit`; REFUSED filings are not asked about."""
    lacks = during(filing, visit)
    if not _for_disease(filing, visit):
        lacks.append(Lack.DISEASE)
    if match(filing, visit, rules) is None:
        lacks.append(Lack.PLACE)
    return tuple(lacks)


def during(filing: Filing, visit: Visit) -> list[Lack]:
    """What it lacks to be in force for this insurance on the first day, wherever the visit is."""
    lacks: list[Lack] = []
    if filing.start_date > visit.start:
        lacks.append(Lack.STARTED)
    if filing.state is FilingState.PENDING:
        lacks.append(Lack.ACCEPTED)
    elif filing.state is FilingState.CANCELLED:
        lacks.append(Lack.KEPT)
    if filing.end_date is not None and filing.end_date < visit.start:
        lacks.append(Lack.KEPT if filing.state is FilingState.ENDED else Lack.VALID)
    if filing.insured_area != visit.insured_area or (
        visit.insured_since is not None and filing.filed_on < visit.insured_since
    ):
        lacks.append(Lack.RELATION)
    elif filing.insurance is not visit.insurance:
        lacks.append(Lack.INSURANCE)
    return lacks


def match(filing: Filing, visit: Visit, rules: AreaRules) -> Match | None:
    """How the filing's place covers the care place, or None."""
    place = filing.care_place
    if place == visit.care_area:
        return Match.SAME
    if place == visit.care_site and place in rules.province_places[()].value:
        return Match.PROVINCE
    if visit.care_area in rules.linked_places[()].value.get(place, ()):
        return Match.LINKED
    return None


def _for_disease(filing: Filing, visit: Visit) -> bool:
    """Whether the visit is for the disease of the referral.

    Codes mean the same disease as `diseases.category` says, and only those of one table, 病种 or
    diagnoses, are compared. A filing without disease covers any, and a visit that names no code of
    its table contradicts none.
    """
    if not filing.disease_code:
        return True
    filed = category(filing.disease_code)
    named = {category(code) for code in (visit.disease_code, *visit.diagnosis_codes) if code}
    # The classes of 病种 have another length than the categories of diagnoses.
    comparable = {one for one in named if len(one) == len(filed)}
    return not comparable or filed in comparable
