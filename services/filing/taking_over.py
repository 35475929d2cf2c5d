"""Filings taken over from other systems: as their operator gives them, effective at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial

from infra.runtime.call import Call
from infra.runtime.clock import Clock, new_id
from infra.runtime.errors import Refusal
from services.filing import messages
from services.filing.asking import (
    Identifying,
    IdentifyStub,
    day_of,
    person_class,
    rules_of,
)
from services.filing.carrying_out import CarryingOut, Task
from services.filing.domain.area_rules import AreaRules
from services.filing.domain.changing import beside
from services.filing.domain.facts import (
    CommitmentState,
    Filing,
    FilingChannel,
    FilingKind,
    InsuranceType,
)
from services.filing.domain.life import FilingAction, Step
from services.filing.domain.permitted import Wanted, denied
from services.filing.domain.standing import of_relation
from services.filing.domain.validity import last_day
from services.filing.places import Places
from services.filing.store import FilingStore
from yidi.enrollment.v1 import enrollment_pb2
from yidi.filing.v1 import filing_pb2


class TakingOver:
    """Makes filings in batches; the day of filing is the one given."""

    def __init__(
        self,
        *,
        store: FilingStore,
        clock: Clock,
        enrollment: IdentifyStub,
        places: Places,
        rules: Mapping[str, AreaRules],
        area_names: Mapping[str, str],
        call_seconds: float,
    ) -> None:
        """`rules`: area → rules; `area_names`: code → name. `call_seconds` bounds the call to
        enrollment."""
        self._carrying_out = CarryingOut(store=store, clock=clock)
        self._clock = clock
        self._identifying = Identifying(enrollment, call_seconds)
        self._places = places
        self._rules = rules
        self._names = area_names

    async def take_over(
        self, request: filing_pb2.BatchCreateFilingsRequest, call: Call
    ) -> filing_pb2.BatchCreateFilingsResponse:
        """One identification, one SELECT and one statement that writes, for the batch."""
        items = [_identify_item(item) for item in request.items]
        people = await self._identifying.identify(items, call)
        tasks: list[Task] = []
        outcomes: dict[str, filing_pb2.Filing | Refusal] = {}
        for item in request.items:
            person = people[item.id]
            if isinstance(person, Refusal):
                outcomes[item.id] = person
            else:
                tasks.append(self._task(item, person, call))
        for id_, answer in (await self._carrying_out.carry_out(tasks, call)).items():
            outcomes[id_] = answer if isinstance(answer, Refusal) else answer.filing
        return filing_pb2.BatchCreateFilingsResponse(
            results=[_result(item.id, outcomes[item.id]) for item in request.items]
        )

    def _task(
        self, item: filing_pb2.CreateFilingItem, person: enrollment_pb2.Participant, call: Call
    ) -> Task:
        return Task(
            id=item.id,
            person_id=person.person_id,
            caller=call.caller.spiffe_id,
            actor=f"{call.caller.type.value}/{call.caller.site}",
            request_id=item.id,
            digest=taken_over_digest(item, person.person_id),
            action=FilingAction.TAKE_OVER,
            decide=partial(self._decide, item, person),
        )

    def _decide(
        self,
        item: filing_pb2.CreateFilingItem,
        person: enrollment_pb2.Participant,
        filings: Sequence[Filing],
        _costs: bool,
    ) -> list[Step]:
        start, filed_on = day_of(item.start_date, "start_date"), day_of(item.filed_on, "filed_on")
        rules = rules_of(self._rules, item.insured_area, filed_on)
        wanted = Wanted(
            kind=FilingKind(item.kind),
            insurance=InsuranceType(item.insurance),
            person_class=person_class(person.person_class),
            place=self._places.find(item.care_place, rules.area),
            start=start,
            day=filed_on,
            referral_institution=item.referral_institution,
            disease_code=item.disease_code,
        )
        obstacle = denied(wanted, rules)
        if obstacle is not None:
            raise messages.refusal(obstacle, self._names)
        months = rules.validity_months[wanted.kind, wanted.place.route].value
        filing = Filing(
            filing_id=new_id(self._clock),
            insured_area=rules.area,
            insurance=wanted.insurance,
            kind=wanted.kind,
            channel=FilingChannel(item.channel),
            care_place=wanted.place.code,
            start_date=start,
            end_date=last_day(start, months),
            filed_on=filed_on,
            referral_institution=item.referral_institution,
            commitment=CommitmentState(item.commitment),
            disease_code=item.disease_code,
        )
        since = day_of(person.insured_since, "insured_since") if person.insured_since else None
        relation = of_relation(filings, rules.area, wanted.insurance, since)
        overlapping = beside(filing, relation, filed_on)
        if overlapping is not None:
            raise messages.refusal(overlapping, self._names)
        return [Step(filing, FilingAction.TAKE_OVER, filing.channel)]


def taken_over_digest(item: filing_pb2.CreateFilingItem, person_id: str) -> bytes:
    """SHA-256 of what is taken over: of the person, never of the credential; 32 bytes.

    As requests were digested before filings had a history, so that a repetition of one made then
    still gets its answer; fields that came later count where they are given.
    """
    parts: list[object] = [
        person_id,
        item.insured_area,
        item.insurance,
        item.kind,
        item.channel,
        item.care_place,
        item.start_date,
        item.filed_on,
        item.referral_institution,
        item.commitment,
    ]
    if item.disease_code:
        parts.append(item.disease_code)
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8")).digest()


def _identify_item(item: filing_pb2.CreateFilingItem) -> enrollment_pb2.IdentifyItem:
    return enrollment_pb2.IdentifyItem(
        id=item.id,
        credential=item.credential,
        insured_area=item.insured_area,
        insurance=item.insurance,
        day=item.filed_on,
    )


def _result(id_: str, outcome: filing_pb2.Filing | Refusal) -> filing_pb2.CreateFilingResult:
    if isinstance(outcome, Refusal):
        return filing_pb2.CreateFilingResult(id=id_, error=outcome.status())
    return filing_pb2.CreateFilingResult(id=id_, filing=outcome)
