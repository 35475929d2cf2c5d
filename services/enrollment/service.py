"""The enrollment servicer: BatchIdentify and BatchRegister."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant
from infra.runtime.database import Database
from infra.runtime.days import parse_day
from infra.runtime.errors import Reason, Refusal, Violation
from infra.runtime.id_number import birth_date
from infra.runtime.types import chinese
from services.enrollment.domain.attempts import RefusedAttempts
from services.enrollment.domain.identification import (
    CredentialType,
    Found,
    Identified,
    Refused,
    Why,
    identify,
)
from services.enrollment.domain.qualification import Qualification, overlap
from services.enrollment.domain.registration import Key, Membership
from services.enrollment.domain.spelling import same_name
from services.enrollment.domain.status import registered
from services.enrollment.messages import qualification
from services.enrollment.registering import Applicant, Registering
from services.enrollment.store.audit import AuditRow
from services.enrollment.store.participants import EnrollmentStore, Question
from services.enrollment.vault import Vault
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import enrollment_pb2


class EnrollmentService:
    """Participants of the site's own pooling areas.

    The limit on refused identifications is kept in memory, so it is per replica.
    """

    def __init__(self, *, database: Database, clock: Clock, secret: bytes) -> None:
        """`secret`: 32 bytes that never change; without it no stored person is found again."""
        self._store = EnrollmentStore(database)
        self._clock = clock
        self._vault = Vault(secret)
        self._registering = Registering(store=self._store, vault=self._vault, clock=clock)
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
            type_ = CredentialType(item.credential.type)
            asked.append((item, day, self._vault.key(type_, item.credential.number)))
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
                area=item.insured_area,
                insurance_type=item.insurance,
                day=day,
                disease_asked=bool(item.disease_code),
            )
            if isinstance(outcome, Identified):
                outcomes[item.id] = outcome
                continue
            if outcome.why is Why.NOT_IDENTIFIED:
                self._attempts.refused(item.institution, now)
            outcomes[item.id] = _refusal(outcome, item)
            audit.append(
                AuditRow(
                    actor=item.institution or call.caller.spiffe_id,
                    action=f"identify {outcome.why.value}",
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
        applicants: list[Applicant] = []
        for item in request.items:
            try:
                applicants.append(_applicant(item))
            except Refusal as refusal:
                refusals[item.id] = refusal
        person_ids = await self._registering.register(applicants, call.caller.spiffe_id)
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
                Question(key, item.insured_area, item.insurance, item.disease_code, day)
                for item, day, key in asked
            ]
        )

    def _name_matches(self, found: Found | None, name: str) -> bool | None:
        if found is None:
            return None
        return self._vault.name_matches(found.id_index, found.name_index, name)


def _qualification_faults(qualifications: Sequence[Qualification]) -> list[Violation]:
    if any(one.void for one in qualifications):
        return [Violation("qualifications", "慢特病资格的终止日期不能早于开始日期")]
    if overlap(qualifications):
        return [Violation("qualifications", "同一病种的慢特病资格日期不能重叠")]
    return []


def _applicant(item: enrollment_pb2.RegisterItem) -> Applicant:
    """A registration that can be true; raises `Refusal` (MESSAGE_INVALID, DAY_INVALID)."""
    active_from = parse_day(item.active_from, "active_from")
    active_until = parse_day(item.active_until, "active_until") if item.active_until else None
    qualifications = [
        *(
            Qualification(disease, active_from, None, item.insured_area)
            for disease in set(item.chronic_diseases)
        ),
        *(qualification(one, "qualifications") for one in item.qualifications),
    ]
    violations = _qualification_faults(qualifications)
    born = birth_date(item.id_number)
    if born is None:
        violations.append(Violation("id_number", "居民身份证号码的校验码或出生日期不正确"))
    if not same_name(item.name):
        violations.append(Violation("name", "姓名不能为空"))
    if active_until is not None and active_until < active_from:
        violations.append(Violation("active_until", "参保终止日期不能早于开始日期"))
    if born is None or violations:
        raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=violations)
    return Applicant(
        item_id=item.id,
        name=item.name,
        id_number=item.id_number,
        born=born,
        social_security_card=item.social_security_card,
        electronic_token=item.electronic_token,
        personal_number=item.personal_number,
        area=item.insured_area,
        insurance_type=item.insurance,
        membership=Membership(
            person_class=item.person_class,
            civil_servant=item.civil_servant,
            contracted_institution=item.contracted_institution,
            statuses=registered(active_from, active_until),
            qualifications=frozenset(qualifications),
        ),
    )


def _limited(wait_ms: int) -> Refusal:
    return Refusal(Reason.ERROR_REASON_IDENTIFICATION_LIMITED, retry_ms=wait_ms)


_REASONS = {
    Why.NOT_IDENTIFIED: Reason.ERROR_REASON_PERSON_NOT_IDENTIFIED,
    Why.REPLACED: Reason.ERROR_REASON_CREDENTIAL_REPLACED,
    Why.SUSPENDED: Reason.ERROR_REASON_INSURANCE_SUSPENDED,
    Why.TRANSFERRED: Reason.ERROR_REASON_INSURANCE_TRANSFERRED,
    Why.OTHER_TYPE: Reason.ERROR_REASON_INSURANCE_OTHER_TYPE,
    Why.NOT_ACTIVE: Reason.ERROR_REASON_INSURANCE_NOT_ACTIVE,
    Why.GRANTED_ELSEWHERE: Reason.ERROR_REASON_CHRONIC_GRANTED_ELSEWHERE,
    Why.NOT_IN_FORCE: Reason.ERROR_REASON_CHRONIC_NOT_IN_FORCE,
    Why.NOT_QUALIFIED: Reason.ERROR_REASON_CHRONIC_NOT_QUALIFIED,
}


def _refusal(refused: Refused, item: enrollment_pb2.IdentifyItem) -> Refusal:
    refusal = Refusal(_REASONS[refused.why])
    details = refusal.details
    match refused.why:
        case Why.SUSPENDED | Why.TRANSFERRED | Why.OTHER_TYPE | Why.NOT_ACTIVE:
            details["insurance"] = chinese(types_pb2.InsuranceType.DESCRIPTOR, item.insurance)
        case Why.GRANTED_ELSEWHERE | Why.NOT_IN_FORCE | Why.NOT_QUALIFIED:
            details["disease"] = item.disease_code
    if refused.since is not None:
        details["since"] = refused.since.isoformat()
    if refused.why is Why.OTHER_TYPE:
        details["actual"] = chinese(types_pb2.InsuranceType.DESCRIPTOR, refused.insurance_type)
    if refused.why in (Why.TRANSFERRED, Why.GRANTED_ELSEWHERE):
        details["area"] = refused.area or "其他统筹区"
    if refused.qualification is not None:
        details["from"] = refused.qualification.start.isoformat()
        details["until"] = str(refused.qualification.end or "长期")
    return refusal


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
            insured_since=outcome.insured_since.isoformat(),
            contracted_institution=outcome.contracted_institution,
            chosen_institutions=outcome.chosen_institutions,
        ),
    )
