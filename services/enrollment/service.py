"""The enrollment servicer: BatchIdentify and BatchRegister."""

from __future__ import annotations

import hmac
from datetime import date

from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant, new_id
from infra.runtime.database import Database
from infra.runtime.days import parse_day
from infra.runtime.errors import Reason, Refusal, Violation
from infra.runtime.types import chinese
from services.enrollment.domain.attempts import RefusedAttempts
from services.enrollment.domain.id_number import birth_date
from services.enrollment.domain.identification import (
    CredentialType,
    Found,
    Identified,
    Insurance,
    Refused,
    identify,
)
from services.enrollment.domain.registration import (
    Addition,
    Key,
    Membership,
    Plan,
    Registration,
    plan,
)
from services.enrollment.domain.spelling import same_name, same_number, same_token
from services.enrollment.store import (
    AuditRow,
    EnrollmentStore,
    NewMembership,
    NewPerson,
    Question,
    Raced,
)
from services.enrollment.vault import Vault
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import enrollment_pb2

ATTEMPTS = 5
"""How often a registration is decided anew when others write the same people meanwhile."""


class EnrollmentService:
    """Participants of the site's own pooling areas.

    The limit on refused identifications is kept in memory, so it is per replica.
    """

    def __init__(self, *, database: Database, clock: Clock, secret: bytes) -> None:
        """`secret`: 32 bytes that never change; without it no stored person is found again."""
        self._store = EnrollmentStore(database)
        self._clock = clock
        self._vault = Vault(secret)
        self._attempts = RefusedAttempts()

    async def BatchIdentify(
        self, request: enrollment_pb2.BatchIdentifyRequest, call: Call
    ) -> enrollment_pb2.BatchIdentifyResponse:
        """One look-up for the batch, and one audit statement when somebody is refused."""
        now = self._clock.now_ms()
        outcomes: dict[str, Identified | Refusal] = {}
        asked: list[tuple[enrollment_pb2.IdentifyItem, date, Key]] = []
        for item in request.items:
            if wait := self._attempts.wait_ms(item.institution, now):
                outcomes[item.id] = _limited(wait)
                continue
            try:
                day = parse_day(item.day, "day")
            except Refusal as refusal:
                outcomes[item.id] = refusal
                continue
            asked.append((item, day, self._key(item.credential.type, item.credential.number)))
        found = await self._look_up(asked)
        audit: list[AuditRow] = []
        for (item, day, key), one in zip(asked, found, strict=True):
            # Asked again here: the refusals of this very batch count as well.
            if wait := self._attempts.wait_ms(item.institution, now):
                outcomes[item.id] = _limited(wait)
                continue
            outcome = identify(
                one,
                credential=key.type,
                name_matches=self._name_matches(one, item.credential.name),
                day=day,
                disease_asked=bool(item.disease_code),
            )
            if isinstance(outcome, Identified):
                outcomes[item.id] = outcome
                continue
            if outcome is Refused.NOT_IDENTIFIED:
                self._attempts.refused(item.institution, now)
            outcomes[item.id] = _refusal(outcome, item)
            audit.append(
                AuditRow(
                    actor=item.institution or call.caller.spiffe_id,
                    action=f"identify {outcome.value}",
                    subject=one.person_id if one is not None else "",
                    digest=self._vault.audit_digest(key.type, key.index.hex()),
                )
            )
        if audit:
            await self._store.record_refusals(audit, instant(self._clock))
        return enrollment_pb2.BatchIdentifyResponse(
            results=[_identify_result(item, outcomes[item.id]) for item in request.items]
        )

    async def BatchRegister(
        self, request: enrollment_pb2.BatchRegisterRequest, call: Call
    ) -> enrollment_pb2.BatchRegisterResponse:
        """One read and one write for the batch; nothing is written for repetitions."""
        refusals: dict[str, Refusal] = {}
        registrations: dict[str, Registration] = {}
        born: dict[str, date] = {}
        for item in request.items:
            try:
                born[item.id] = _checked_birth_date(item)
                registrations[item.id] = self._registration(item)
            except Refusal as refusal:
                refusals[item.id] = refusal
        items = {item.id: item for item in request.items}
        person_ids = await self._register(list(registrations.values()), items, born, call)
        results = []
        for item in request.items:
            person_id = person_ids.get(item.id)
            if person_id is not None:
                results.append(enrollment_pb2.RegisterResult(id=item.id, person_id=person_id))
                continue
            refused = refusals.get(item.id, Refusal(Reason.ERROR_REASON_PARTICIPANT_CONFLICT))
            results.append(enrollment_pb2.RegisterResult(id=item.id, error=refused.status()))
        return enrollment_pb2.BatchRegisterResponse(results=results)

    async def _look_up(
        self, asked: list[tuple[enrollment_pb2.IdentifyItem, date, Key]]
    ) -> list[Found | None]:
        if not asked:
            return []
        return await self._store.look_up(
            [
                Question(key, item.insured_area, item.insurance, item.disease_code)
                for item, _, key in asked
            ]
        )

    async def _register(
        self,
        registrations: list[Registration],
        items: dict[str, enrollment_pb2.RegisterItem],
        born: dict[str, date],
        call: Call,
    ) -> dict[str, str | None]:
        if not registrations:
            return {}
        for _ in range(ATTEMPTS):
            planned = plan(registrations, await self._store.known(registrations))
            try:
                await self._add(planned, items, born, call)
            except Raced:
                continue
            return planned.person_ids
        raise Refusal(Reason.ERROR_REASON_PERSON_BUSY)

    async def _add(
        self,
        planned: Plan,
        items: dict[str, enrollment_pb2.RegisterItem],
        born: dict[str, date],
        call: Call,
    ) -> None:
        additions = planned.additions
        if not additions:
            return
        await self._store.add(
            people=[
                self._new_person(one, items[one.registration.item_id], born)
                for one in additions
                if one.new_person
            ],
            credentials=[(key, one.person_id) for one in additions for key in one.credentials],
            memberships=[self._new_membership(one) for one in additions],
            audit=[self._audit_row(one, call) for one in additions],
            at=instant(self._clock),
        )

    def _registration(self, item: enrollment_pb2.RegisterItem) -> Registration:
        id_card = self._key(CredentialType.ID_CARD, item.id_number)
        others = (
            (CredentialType.SOCIAL_SECURITY_CARD, item.social_security_card),
            (CredentialType.ELECTRONIC, item.electronic_token),
        )
        return Registration(
            item_id=item.id,
            candidate_id=new_id(self._clock),
            name_index=self._vault.name_index(id_card.index, same_name(item.name)),
            id_card=id_card,
            other_credentials=tuple(self._key(type_, number) for type_, number in others if number),
            area=item.insured_area,
            insurance_type=item.insurance,
            membership=Membership(
                Insurance(
                    person_class=item.person_class,
                    active_from=parse_day(item.active_from, "active_from"),
                    active_until=(
                        parse_day(item.active_until, "active_until") if item.active_until else None
                    ),
                    civil_servant=item.civil_servant,
                ),
                frozenset(item.chronic_diseases),
            ),
        )

    def _new_person(
        self, addition: Addition, item: enrollment_pb2.RegisterItem, born: dict[str, date]
    ) -> NewPerson:
        return NewPerson(
            person_id=addition.person_id,
            id_index=addition.registration.id_card.index,
            name_index=addition.registration.name_index,
            name=self._vault.encrypt(item.name, addition.person_id, "name"),
            id_number=self._vault.encrypt(item.id_number, addition.person_id, "id_number"),
            birth_date=born[item.id],
        )

    def _new_membership(self, addition: Addition) -> NewMembership:
        registration = addition.registration
        employee = registration.insurance_type == types_pb2.INSURANCE_TYPE_EMPLOYEE
        return NewMembership(
            person_id=addition.person_id,
            area=registration.area,
            insurance_type=registration.insurance_type,
            membership=registration.membership,
            account_id=new_id(self._clock) if employee else "",
        )

    def _audit_row(self, addition: Addition, call: Call) -> AuditRow:
        registration = addition.registration
        insurance = registration.membership.insurance
        digest = self._vault.audit_digest(
            *(f"{key.type}:{key.index.hex()}" for key in registration.credentials),
            registration.name_index.hex(),
            registration.area,
            registration.insurance_type,
            insurance.person_class,
            insurance.active_from,
            insurance.active_until,
            insurance.civil_servant,
            *sorted(registration.membership.diseases),
        )
        return AuditRow(call.caller.spiffe_id, "register", addition.person_id, digest)

    def _key(self, credential_type: int, number: str) -> Key:
        type_ = CredentialType(credential_type)
        spelt = same_token(number) if type_ is CredentialType.ELECTRONIC else same_number(number)
        return Key(type_, self._vault.number_index(type_, spelt))

    def _name_matches(self, found: Found | None, name: str) -> bool | None:
        compared = same_name(name)
        if found is None or not compared:
            return None
        given = self._vault.name_index(found.id_index, compared)
        return hmac.compare_digest(given, found.name_index)


def _checked_birth_date(item: enrollment_pb2.RegisterItem) -> date:
    """The birth date of a registration that can be true; raises `Refusal` (MESSAGE_INVALID)."""
    violations = []
    born = birth_date(item.id_number)
    if born is None:
        violations.append(Violation("id_number", "居民身份证号码的校验码或出生日期不正确"))
    if not same_name(item.name):
        violations.append(Violation("name", "姓名不能为空"))
    if item.active_until and item.active_until < item.active_from:
        violations.append(Violation("active_until", "参保终止日期不能早于开始日期"))
    if born is None or violations:
        raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=violations)
    return born


def _limited(wait_ms: int) -> Refusal:
    return Refusal(Reason.ERROR_REASON_IDENTIFICATION_LIMITED, retry_ms=wait_ms)


def _refusal(refused: Refused, item: enrollment_pb2.IdentifyItem) -> Refusal:
    if refused is Refused.NOT_ACTIVE:
        insurance = chinese(types_pb2.InsuranceType.DESCRIPTOR, item.insurance)
        return Refusal(Reason.ERROR_REASON_INSURANCE_NOT_ACTIVE, insurance=insurance)
    if refused is Refused.NOT_QUALIFIED:
        return Refusal(Reason.ERROR_REASON_CHRONIC_NOT_QUALIFIED, disease=item.disease_code)
    return Refusal(Reason.ERROR_REASON_PERSON_NOT_IDENTIFIED)


def _identify_result(
    item: enrollment_pb2.IdentifyItem, outcome: Identified | Refusal
) -> enrollment_pb2.IdentifyResult:
    if isinstance(outcome, Refusal):
        return enrollment_pb2.IdentifyResult(id=item.id, error=outcome.status())
    return enrollment_pb2.IdentifyResult(
        id=item.id,
        participant=enrollment_pb2.Participant(
            person_id=outcome.person_id,
            insured_area=item.insured_area,
            insurance=item.insurance,
            person_class=types_pb2.PersonClass.ValueType(outcome.person_class),
            age=outcome.age,
            civil_servant=outcome.civil_servant,
            account_id=outcome.account_id,
        ),
    )
