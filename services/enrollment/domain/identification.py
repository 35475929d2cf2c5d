"""Whether a credential identifies a person who is insured as asked.

An unknown person, a person of another area, a wrong name and a missing name give one and the same
refusal; why else is said only after the person has been identified (PROTOCOL, Identification).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum, IntEnum

from infra.runtime.id_number import age_on
from services.enrollment.domain.qualification import Qualification, nearest
from services.enrollment.domain.status import InsuredStatus, Spell, insured_since, on


class CredentialType(IntEnum):
    """What the patient shows; numbers as in the contract but for the personal number."""

    ELECTRONIC = 1
    ID_CARD = 2
    SOCIAL_SECURITY_CARD = 3
    PERSONAL_NUMBER = 9
    """人员编号 (psn_no): the agency's own key, which identifies nobody at a counter."""


class Why(Enum):
    """Why a person is not identified as insured."""

    NOT_IDENTIFIED = "not_identified"
    REPLACED = "replaced"
    SUSPENDED = "suspended"
    TRANSFERRED = "transferred"
    OTHER_TYPE = "other_type"
    NOT_ACTIVE = "not_active"
    GRANTED_ELSEWHERE = "granted_elsewhere"
    NOT_IN_FORCE = "not_in_force"
    NOT_QUALIFIED = "not_qualified"


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal with what its sentence tells; what the reason does not need is empty."""

    why: Why
    since: date | None = None
    area: str = ""
    insurance_type: int = 0
    """Of OTHER_TYPE: the insurance that the person has on the day."""
    qualification: Qualification | None = None


@dataclass(frozen=True, slots=True)
class Insured:
    """What a relation says of the person."""

    person_class: int
    civil_servant: bool
    contracted_institution: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of the owner of a credential."""

    person_id: str
    id_index: bytes
    name_index: bytes
    birth_date: date
    replaced_on: date | None
    """First day on which the credential is no longer valid; None while it is."""
    statuses: Mapping[tuple[str, int], tuple[Spell, ...]]
    """(area, insurance type) → the statuses of that relation, oldest first; of all relations."""
    insured: Insured | None
    """The relation asked for."""
    qualifications: tuple[tuple[tuple[str, int], Qualification], ...]
    """Those for the disease asked for, with the (area, insurance type) of their relation."""
    account_id: str


@dataclass(frozen=True, slots=True)
class Identified:
    """The person as other services may know them."""

    person_id: str
    person_class: int
    age: int
    civil_servant: bool
    account_id: str
    insured_since: date
    contracted_institution: str
    chosen_institutions: tuple[str, ...]
    """选定机构 of the qualification asked for."""


def proves(credential: CredentialType, name_matches: bool | None) -> bool:
    """Whether a credential with this name proves who its owner is; None when no name was given.

    Cards carry a printed name, so theirs must be given; the token of an e-credential is made
    for one patient and minutes, so it needs none (G art 15).
    """
    return name_matches or (name_matches is None and credential is CredentialType.ELECTRONIC)


def identify(
    found: Found | None,
    *,
    credential: CredentialType,
    name_matches: bool | None,
    area: str,
    insurance_type: int,
    day: date,
    disease_asked: bool,
) -> Identified | Refused:
    """Decide one identification; `name_matches` is None when no name was given.

    A replaced card identifies for days before its replacement: what was begun with it goes on.
    """
    if found is None or all(known != area for known, _ in found.statuses):
        return Refused(Why.NOT_IDENTIFIED)
    if not proves(credential, name_matches):
        return Refused(Why.NOT_IDENTIFIED)
    if found.replaced_on is not None and found.replaced_on <= day:
        return Refused(Why.REPLACED, since=found.replaced_on)
    spells = found.statuses.get((area, insurance_type), ())
    status = on(spells, day)
    since = insured_since(spells, day)
    if status is None or status.status is not InsuredStatus.NORMAL:
        return _not_active(found, status, area, day)
    if found.insured is None or since is None:
        raise ValueError("a relation with statuses has its row")
    chosen: tuple[str, ...] = ()
    if disease_asked:
        qualification = _qualification(found, area, insurance_type, day)
        if isinstance(qualification, Refused):
            return qualification
        chosen = qualification.chosen_institutions
    return Identified(
        person_id=found.person_id,
        person_class=found.insured.person_class,
        age=age_on(found.birth_date, day),
        civil_servant=found.insured.civil_servant,
        account_id=found.account_id,
        insured_since=since,
        contracted_institution=found.insured.contracted_institution,
        chosen_institutions=chosen,
    )


def _not_active(found: Found, status: Spell | None, area: str, day: date) -> Refused:
    if status is not None and status.status is InsuredStatus.SUSPENDED:
        return Refused(Why.SUSPENDED, since=status.start)
    if status is not None and status.status is InsuredStatus.TRANSFERRED:
        return Refused(Why.TRANSFERRED, since=status.start, area=status.to_area)
    for (known, insurance_type), spells in sorted(found.statuses.items()):
        actual = on(spells, day)
        if known == area and actual is not None and actual.status is InsuredStatus.NORMAL:
            return Refused(Why.OTHER_TYPE, insurance_type=insurance_type)
    return Refused(Why.NOT_ACTIVE)


def _qualification(
    found: Found, area: str, insurance_type: int, day: date
) -> Qualification | Refused:
    at_home = []
    for relation, one in found.qualifications:
        if relation == (area, insurance_type) and one.granted_area == area:
            if one.covers(day):
                return one
            at_home.append(one)
    near = nearest(at_home, day)
    if near is not None:
        return Refused(Why.NOT_IN_FORCE, qualification=near)
    for _, one in found.qualifications:
        if one.granted_area != area and one.covers(day):
            return Refused(Why.GRANTED_ELSEWHERE, area=one.granted_area)
    return Refused(Why.NOT_QUALIFIED)
