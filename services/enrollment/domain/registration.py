"""Which registrations are new, which are repetitions, and which contradict what is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from services.enrollment.domain.identification import CredentialType
from services.enrollment.domain.qualification import Qualification
from services.enrollment.domain.status import Spell


@dataclass(frozen=True, slots=True)
class Key:
    """A credential as it is stored: its type and the blind index of its number."""

    type: CredentialType
    index: bytes


@dataclass(frozen=True, slots=True)
class Membership:
    """A relation with one area: what a registration says, and what is stored of it."""

    person_class: int
    civil_servant: bool
    contracted_institution: str
    statuses: tuple[Spell, ...]
    qualifications: frozenset[Qualification]


@dataclass(frozen=True, slots=True)
class Registration:
    """One participant to register; `candidate_id` becomes the person id of a new person."""

    item_id: str
    candidate_id: str
    name_index: bytes
    id_card: Key
    other_credentials: tuple[Key, ...]
    area: str
    insurance_type: int
    membership: Membership

    @property
    def credentials(self) -> tuple[Key, ...]:
        """Every credential, the ID card first."""
        return (self.id_card, *self.other_credentials)


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored already about one registration."""

    person_id: str | None
    name_index: bytes | None
    owners: tuple[tuple[Key, str], ...]
    """Its credentials that somebody owns, with the owner."""
    membership: Membership | None
    """The owner's insurance of the same type in the same area."""
    account_id: str = ""
    """The personal account that the person has at the site already, or empty."""


@dataclass(frozen=True, slots=True)
class Addition:
    """What one accepted registration adds."""

    registration: Registration
    person_id: str
    new_person: bool
    credentials: tuple[Key, ...]
    account_id: str
    """The personal account that the person has at the site already, or empty."""


class Conflict(Enum):
    """What a registration contradicts."""

    NAME = "name"
    """The ID number is known under another name."""
    CREDENTIAL = "credential"
    """A credential is somebody else's."""
    CONTENT = "content"
    """The same insurance is known with other content."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to each registration (a person id or a conflict) and what has to be written."""

    person_ids: dict[str, str | None] = field(default_factory=dict)
    conflicts: dict[str, Conflict] = field(default_factory=dict)
    additions: list[Addition] = field(default_factory=list)


def plan(registrations: Sequence[Registration], known: Iterable[Known]) -> Plan:
    """Decide registrations in their order, each seeing those before it.

    `known` has one entry per registration. A conflict is: the ID number under another name, a
    credential of somebody else, or the same insurance with other content.
    """
    people: dict[Key, tuple[str, bytes]] = {}
    owners: dict[Key, str] = {}
    memberships: dict[tuple[str, str, int], Membership] = {}
    accounts: dict[str, str] = {}
    for registration, stored in zip(registrations, known, strict=True):
        owners.update(stored.owners)
        if stored.person_id is not None and stored.name_index is not None:
            people[registration.id_card] = (stored.person_id, stored.name_index)
            accounts[stored.person_id] = stored.account_id
            if stored.membership is not None:
                key = (stored.person_id, registration.area, registration.insurance_type)
                memberships[key] = stored.membership
    result = Plan()
    for registration in registrations:
        person_id, name_index = people.get(
            registration.id_card, (registration.candidate_id, registration.name_index)
        )
        key = (person_id, registration.area, registration.insurance_type)
        missing = tuple(one for one in registration.credentials if one not in owners)
        stored_membership = memberships.get(key)
        conflict = None
        if name_index != registration.name_index:
            conflict = Conflict.NAME
        elif any(owners.get(one, person_id) != person_id for one in registration.credentials):
            conflict = Conflict.CREDENTIAL
        elif stored_membership is not None and (
            missing or stored_membership != registration.membership
        ):
            conflict = Conflict.CONTENT
        if conflict is not None:
            result.conflicts[registration.item_id] = conflict
            result.person_ids[registration.item_id] = None
            continue
        result.person_ids[registration.item_id] = person_id
        if stored_membership is not None:
            continue
        result.additions.append(
            Addition(
                registration,
                person_id,
                registration.id_card not in people,
                missing,
                accounts.get(person_id, ""),
            )
        )
        people[registration.id_card] = (person_id, name_index)
        owners.update(dict.fromkeys(missing, person_id))
        memberships[key] = registration.membership
    return result
