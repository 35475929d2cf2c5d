"""Registers participants, whoever brings them: keys and secrets made, decided, written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from infra.runtime.clock import Clock, instant, new_id
from infra.runtime.errors import Reason, Refusal
from services.enrollment.domain.identification import CredentialType
from services.enrollment.domain.registration import (
    Addition,
    Membership,
    Plan,
    Registration,
    plan,
)
from services.enrollment.domain.spelling import same_name
from services.enrollment.store.audit import AuditRow
from services.enrollment.store.participants import (
    EnrollmentStore,
    NewMembership,
    NewPerson,
    Raced,
)
from services.enrollment.vault import Vault
from yidi.common.v1 import types_pb2

ATTEMPTS = 5
"""How often a registration is decided anew when others write the same people meanwhile."""


@dataclass(frozen=True, slots=True)
class Applicant:
    """Somebody to register, checked; what is personal stays out of `repr`."""

    item_id: str
    name: str = field(repr=False)
    id_number: str = field(repr=False)
    """居民身份证号, capital X."""
    born: date = field(repr=False)
    social_security_card: str = field(repr=False)
    electronic_token: str = field(repr=False)
    personal_number: str = field(repr=False)
    """人员编号 in the area's own system; like the two above it may be empty."""
    area: str
    insurance_type: int
    membership: Membership


class Registering:
    """Decides and writes registrations in memory and two statements."""

    def __init__(self, *, store: EnrollmentStore, vault: Vault, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock

    async def register(self, applicants: Sequence[Applicant], actor: str) -> dict[str, str | None]:
        """Item id → person id, None for a conflict; raises `Refusal` (PERSON_BUSY)."""
        if not applicants:
            return {}
        registrations = [self.registration(one) for one in applicants]
        by_item = {one.item_id: one for one in applicants}
        for _ in range(ATTEMPTS):
            planned = plan(registrations, await self._store.known(registrations))
            try:
                await self._add(planned, by_item, actor)
            except Raced:
                continue
            return planned.person_ids
        raise Refusal(Reason.ERROR_REASON_PERSON_BUSY)

    def registration(self, applicant: Applicant) -> Registration:
        """The registration of an applicant, with a fresh candidate id."""
        vault, area = self._vault, applicant.area
        id_card = vault.key(CredentialType.ID_CARD, applicant.id_number)
        others = (
            (CredentialType.SOCIAL_SECURITY_CARD, applicant.social_security_card),
            (CredentialType.ELECTRONIC, applicant.electronic_token),
            (CredentialType.PERSONAL_NUMBER, applicant.personal_number),
        )
        return Registration(
            item_id=applicant.item_id,
            candidate_id=new_id(self._clock),
            name_index=vault.name_index(id_card.index, same_name(applicant.name)),
            id_card=id_card,
            other_credentials=tuple(
                vault.key(type_, number, area) for type_, number in others if number
            ),
            area=area,
            insurance_type=applicant.insurance_type,
            membership=applicant.membership,
        )

    def new_people(
        self, additions: Sequence[Addition], by_item: dict[str, Applicant]
    ) -> list[NewPerson]:
        """The rows of people whom nobody knew."""
        return [
            NewPerson(
                person_id=one.person_id,
                id_index=one.registration.id_card.index,
                name_index=one.registration.name_index,
                name=self._vault.encrypt(applicant.name, one.person_id, "name"),
                id_number=self._vault.encrypt(applicant.id_number, one.person_id, "id_number"),
                birth_date=applicant.born,
            )
            for one in additions
            if one.new_person
            for applicant in (by_item[one.registration.item_id],)
        ]

    def new_memberships(self, additions: Sequence[Addition]) -> list[NewMembership]:
        """The rows of relations; one person has one personal account at the site."""
        accounts: dict[str, str] = {}
        rows = []
        for one in additions:
            registration = one.registration
            account_id = ""
            if registration.insurance_type == types_pb2.INSURANCE_TYPE_EMPLOYEE:
                account_id = accounts.setdefault(
                    one.person_id, one.account_id or new_id(self._clock)
                )
            rows.append(
                NewMembership(
                    person_id=one.person_id,
                    area=registration.area,
                    insurance_type=registration.insurance_type,
                    membership=registration.membership,
                    account_id=account_id,
                )
            )
        return rows

    def audit(self, additions: Sequence[Addition], actor: str, action: str) -> list[AuditRow]:
        """One audit row per addition."""
        return [
            AuditRow(actor, action, one.person_id, self._digest(one.registration))
            for one in additions
        ]

    async def _add(self, planned: Plan, by_item: dict[str, Applicant], actor: str) -> None:
        additions = planned.additions
        if not additions:
            return
        await self._store.add(
            people=self.new_people(additions, by_item),
            credentials=[(key, one.person_id) for one in additions for key in one.credentials],
            memberships=self.new_memberships(additions),
            audit=self.audit(additions, actor, "register"),
            at=instant(self._clock),
        )

    def _digest(self, registration: Registration) -> bytes:
        membership = registration.membership
        return self._vault.audit_digest(
            *(f"{key.type}:{key.index.hex()}" for key in registration.credentials),
            registration.name_index.hex(),
            registration.area,
            registration.insurance_type,
            membership.person_class,
            membership.civil_servant,
            membership.contracted_institution,
            *(f"{spell.start} {spell.status}" for spell in membership.statuses),
            *sorted(
                f"{one.disease} {one.start} {one.end} {one.granted_area} {one.chosen_institutions}"
                for one in membership.qualifications
            ),
        )
