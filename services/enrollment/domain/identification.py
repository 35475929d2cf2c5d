"""Whether a credential identifies a person who is insured as asked.

An unknown person, a person of another area, a wrong name and a missing name give one and the same
refusal; why else is said only after the person has been identified (PROTOCOL, Identification).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum, IntEnum

from services.enrollment.domain.id_number import age_on


class CredentialType(IntEnum):
    """What the patient shows; numbers as in the contract."""

    ELECTRONIC = 1
    ID_CARD = 2
    SOCIAL_SECURITY_CARD = 3


class Refused(Enum):
    """Why a person is not identified as insured."""

    NOT_IDENTIFIED = "not_identified"
    NOT_ACTIVE = "not_active"
    NOT_QUALIFIED = "not_qualified"


@dataclass(frozen=True, slots=True)
class Insurance:
    """One insurance of one person in one area; both days are included, None means no end."""

    person_class: int
    active_from: date
    active_until: date | None
    civil_servant: bool

    def active_on(self, day: date) -> bool:
        """Whether it pays for care on `day`."""
        return self.active_from <= day and (self.active_until is None or day <= self.active_until)


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of the owner of a credential, for the area and insurance asked for."""

    person_id: str
    id_index: bytes
    name_index: bytes
    birth_date: date
    in_area: bool
    """Whether the person has any insurance in the area."""
    insurance: Insurance | None
    qualified: bool
    """For the disease asked for; meaningless when none is."""
    account_id: str


@dataclass(frozen=True, slots=True)
class Identified:
    """The person as other services may know them."""

    person_id: str
    person_class: int
    age: int
    civil_servant: bool
    account_id: str


def identify(
    found: Found | None,
    *,
    credential: CredentialType,
    name_matches: bool | None,
    day: date,
    disease_asked: bool,
) -> Identified | Refused:
    """Decide one identification; `name_matches` is None when no name was given.

    Cards carry a printed name, so theirs must be given; the token of an e-credential is made
    for one patient and minutes, so it needs none (G art 15).
    """
    if found is None or not found.in_area or name_matches is False:
        return Refused.NOT_IDENTIFIED
    if name_matches is None and credential is not CredentialType.ELECTRONIC:
        return Refused.NOT_IDENTIFIED
    insurance = found.insurance
    if insurance is None or not insurance.active_on(day):
        return Refused.NOT_ACTIVE
    if disease_asked and not found.qualified:
        return Refused.NOT_QUALIFIED
    return Identified(
        person_id=found.person_id,
        person_class=insurance.person_class,
        age=age_on(found.birth_date, day),
        civil_servant=insurance.civil_servant,
        account_id=found.account_id,
    )
