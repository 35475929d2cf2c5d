"""The filing servicer: BatchResolveEntitlement and BatchCreateFilings."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Protocol, assert_never

from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant, monotonic_us, new_id
from infra.runtime.database import Database
from infra.runtime.days import parse_day
from infra.runtime.errors import Reason, Refusal
from services.filing.domain.area_rules import AreaRules
from services.filing.domain.eligibility import obstacle
from services.filing.domain.entitlement import (
    Entitlement,
    FilingExpired,
    FilingPlaceMismatch,
    FilingRequired,
    Refused,
    ThirdPartyLiable,
    resolve,
)
from services.filing.domain.facts import (
    Answer,
    CareType,
    CommitmentState,
    EmergencyReferral,
    Filing,
    FilingKind,
    InpatientType,
    InsuranceType,
    PersonClass,
    Route,
    Visit,
)
from services.filing.domain.validity import last_day
from services.filing.store import FilingStore, NewFiling, Stored
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import enrollment_pb2
from yidi.filing.v1 import filing_pb2

ATTEMPTS = 3
"""How often a request is looked for that somebody else was writing at the same time."""
_YEARS = range(1900, 2200)
"""Years that a day may lie in: far from the ends of the calendar, where adding months fails."""


class IdentifyStub(Protocol):
    """What filing asks of enrollment."""

    @property
    def BatchIdentify(self) -> Callable[..., Awaitable[enrollment_pb2.BatchIdentifyResponse]]:
        """Awaited with the request, `timeout` and `traceparent`; a failure raises `Refusal`."""
        ...


class FilingService:
    """Filings of the site's own participants."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        enrollment: IdentifyStub,
        rules: Mapping[str, AreaRules],
        area_names: Mapping[str, str],
        call_seconds: float,
    ) -> None:
        """`rules`: area → rules, of `services.filing.area_rules.load_area_rules`.

        `area_names`: code → name of pooling areas and provinces, for the sentences of refusals;
        a code without name is shown as it is. `call_seconds` bounds the call to enrollment.
        """
        self._store = FilingStore(database)
        self._clock = clock
        self._enrollment = enrollment
        self._rules = rules
        self._area_names = area_names
        self._call_seconds = call_seconds

    async def BatchResolveEntitlement(
        self, request: filing_pb2.BatchResolveEntitlementRequest, _call: Call
    ) -> filing_pb2.BatchResolveEntitlementResponse:
        """One SELECT for the filings of all people of the batch."""
        people = {item.person_id for item in request.items}
        filings = await self._store.of_people(people) if people else {}
        results = []
        for item in request.items:
            try:
                outcome = resolve(
                    _visit(item),
                    filings.get(item.person_id, []),
                    self._rules_of(item.visit.insured_area, item.visit.end_date),
                    _day(item.day, "day"),
                )
                if not isinstance(outcome, Entitlement):
                    raise self._refusal(outcome, item.visit.care_area)
            except Refusal as refusal:
                result = filing_pb2.ResolveEntitlementResult(id=item.id, error=refusal.status())
            else:
                result = filing_pb2.ResolveEntitlementResult(
                    id=item.id, entitlement=_entitlement(outcome)
                )
            results.append(result)
        return filing_pb2.BatchResolveEntitlementResponse(results=results)

    async def BatchCreateFilings(
        self, request: filing_pb2.BatchCreateFilingsRequest, call: Call
    ) -> filing_pb2.BatchCreateFilingsResponse:
        """One identification and one INSERT for the batch."""
        outcomes: dict[str, Filing | Refusal] = {}
        people = await self._identify(request, call)
        new: dict[str, NewFiling] = {}
        for item in request.items:
            try:
                participant = _participant(people.get(item.id))
                new[item.id], problem = self._new_filing(item, participant)
                if problem is not None:
                    outcomes[item.id] = problem
            except Refusal as refusal:
                outcomes[item.id] = refusal
        stored = await self._create(new, call)
        for request_id, one in stored.items():
            outcomes[request_id] = (
                one.filing
                if one.digest == new[request_id].digest
                else Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=request_id)
            )
        return filing_pb2.BatchCreateFilingsResponse(
            results=[_create_result(item.id, outcomes[item.id]) for item in request.items]
        )

    async def _identify(
        self, request: filing_pb2.BatchCreateFilingsRequest, call: Call
    ) -> dict[str, enrollment_pb2.IdentifyResult]:
        if not request.items:
            return {}
        remaining = (call.deadline_us - monotonic_us()) / 1_000_000
        response = await self._enrollment.BatchIdentify(
            enrollment_pb2.BatchIdentifyRequest(
                items=[
                    enrollment_pb2.IdentifyItem(
                        id=item.id,
                        credential=item.credential,
                        insured_area=item.insured_area,
                        insurance=item.insurance,
                        day=item.filed_on,
                    )
                    for item in request.items
                ]
            ),
            timeout=max(min(self._call_seconds, remaining), 0.0),
            traceparent=call.traceparent,
        )
        return {result.id: result for result in response.results}

    def _new_filing(
        self, item: filing_pb2.CreateFilingItem, participant: enrollment_pb2.Participant
    ) -> tuple[NewFiling, Refusal | None]:
        """The filing as asked for, and why the rules refuse it, if they do."""
        rules = self._rules_of(item.insured_area, item.filed_on)
        kind = FilingKind(item.kind)
        start, filed_on = _day(item.start_date, "start_date"), _day(item.filed_on, "filed_on")
        cause = obstacle(
            rules,
            kind=kind,
            person_class=_person_class(participant.person_class),
            care_place=item.care_place,
            start=start,
            filed_on=filed_on,
            referral_institution=item.referral_institution,
        )
        filing = Filing(
            filing_id=new_id(self._clock),
            insured_area=item.insured_area,
            insurance=InsuranceType(item.insurance),
            kind=kind,
            channel=item.channel,
            care_place=item.care_place,
            start_date=start,
            end_date=last_day(start, rules.validity_months[kind].value) if cause is None else None,
            filed_on=filed_on,
            referral_institution=item.referral_institution,
            commitment=CommitmentState(item.commitment),
        )
        new = NewFiling(
            item.id, participant.person_id, _digest(item, participant), filing, cause is None
        )
        if cause is None:
            return new, None
        return new, Refusal(Reason.ERROR_REASON_FILING_NOT_ELIGIBLE, cause=cause)

    async def _create(self, new: Mapping[str, NewFiling], call: Call) -> dict[str, Stored]:
        stored: dict[str, Stored] = {}
        left = dict(new)
        for _ in range(ATTEMPTS):
            if not left:
                return stored
            stored |= await self._store.create(
                list(left.values()), caller=call.caller.spiffe_id, at=instant(self._clock)
            )
            left = {id_: one for id_, one in left.items() if one.wanted and id_ not in stored}
        if left:
            raise Refusal(Reason.ERROR_REASON_PERSON_BUSY)
        return stored

    def _rules_of(self, area: str, day: str) -> AreaRules:
        rules = self._rules.get(area)
        if rules is None:
            raise Refusal(Reason.ERROR_REASON_POLICY_NOT_FOUND, area=area, date=day)
        return rules

    def _refusal(self, refused: Refused, care_area: str) -> Refusal:
        place = self._name(care_area)
        match refused:
            case ThirdPartyLiable():
                return Refusal(Reason.ERROR_REASON_THIRD_PARTY_LIABLE)
            case FilingRequired():
                return Refusal(Reason.ERROR_REASON_FILING_REQUIRED, place=place)
            case FilingExpired(expired):
                return Refusal(Reason.ERROR_REASON_FILING_EXPIRED, place=place, expired=expired)
            case FilingPlaceMismatch(filed):
                names = "、".join(self._name(code) for code in filed)
                return Refusal(Reason.ERROR_REASON_FILING_PLACE_MISMATCH, place=place, filed=names)
            case _:
                assert_never(refused)

    def _name(self, code: str) -> str:
        return self._area_names.get(code, code)


def _participant(result: enrollment_pb2.IdentifyResult | None) -> enrollment_pb2.Participant:
    if result is None:
        raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="enrollment")
    if not result.HasField("participant"):
        raise Refusal.from_status(result.error)
    return result.participant


def _person_class(number: int) -> PersonClass | None:
    """None for a class that only a newer enrollment knows."""
    try:
        return PersonClass(number)
    except ValueError:
        return None


def _digest(item: filing_pb2.CreateFilingItem, participant: enrollment_pb2.Participant) -> bytes:
    """SHA-256 of what the request is: of the person, never of the credential."""
    parts: tuple[object, ...] = (
        participant.person_id,
        item.insured_area,
        item.insurance,
        item.kind,
        item.channel,
        item.care_place,
        item.start_date,
        item.filed_on,
        item.referral_institution,
        item.commitment,
    )
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8")).digest()


def _visit(item: filing_pb2.ResolveEntitlementItem) -> Visit:
    visit = item.visit
    return Visit(
        route=Route(item.route),
        care_area=visit.care_area,
        care_site=item.care_site,
        insured_area=visit.insured_area,
        insurance=InsuranceType(visit.insurance),
        care_type=CareType(visit.care_type),
        start=_day(visit.start_date, "visit.start_date"),
        end=_day(visit.end_date, "visit.end_date"),
        inpatient_type=InpatientType(visit.inpatient_type),
        emergency_referral=EmergencyReferral(visit.emergency_referral),
        injury=Answer(visit.injury),
        third_party=Answer(visit.third_party),
        use_account=visit.use_account,
    )


def _day(text: str, field: str) -> date:
    day = parse_day(text, field)
    if day.year not in _YEARS:
        raise Refusal(Reason.ERROR_REASON_DAY_INVALID, field=field, value=text)
    return day


def _entitlement(outcome: Entitlement) -> filing_pb2.Entitlement:
    answer = filing_pb2.Entitlement(
        basis=types_pb2.FilingBasis.ValueType(outcome.basis),
        benefit_class=types_pb2.BenefitClass.ValueType(outcome.benefit_class),
        late_filing=outcome.late_filing,
        reason=outcome.reason,
        clause=outcome.clause,
    )
    if (filing := outcome.filing) is not None:
        answer.filing_id = filing.filing_id
        answer.filing_kind = types_pb2.FilingKind.ValueType(filing.kind)
        answer.channel = types_pb2.FilingChannel.ValueType(filing.channel)
        answer.referral_institution = filing.referral_institution
        answer.commitment = types_pb2.CommitmentState.ValueType(filing.commitment)
    return answer


def _create_result(id_: str, outcome: Filing | Refusal) -> filing_pb2.CreateFilingResult:
    if isinstance(outcome, Refusal):
        return filing_pb2.CreateFilingResult(id=id_, error=outcome.status())
    return filing_pb2.CreateFilingResult(
        id=id_,
        filing=filing_pb2.Filing(
            filing_id=outcome.filing_id,
            kind=types_pb2.FilingKind.ValueType(outcome.kind),
            care_place=outcome.care_place,
            start_date=outcome.start_date.isoformat(),
            end_date=outcome.end_date.isoformat() if outcome.end_date else "",
        ),
    )
