"""The desk: what is asked about people's filings, and what becomes of it.

| step     | trips | what                                                             |
|----------|-------|------------------------------------------------------------------|
| identify | 0–1   | enrollment: everybody of the batch                               |
| consult  | 0–1   | the filings behind the visits that are asked about               |
| list     | 0–2   | filings and their history                                        |
| change   | 2–3   | `carrying_out`: applications, supplements, changes, cancellations |

Whatever the size of the batch. The same way for the clerks of the area and for institutions; these
speak for a patient through the national channels, or upload their own referrals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from infra.runtime.call import Call
from infra.runtime.clock import Clock, business_day
from infra.runtime.directory import Directory
from infra.runtime.errors import Reason, Refusal
from services.filing import messages
from services.filing.asking import Identifying, digest_of
from services.filing.carrying_out import CarryingOut, Decide, Task
from services.filing.consulting import Consulting
from services.filing.deciding import Case, Deciding
from services.filing.domain.facts import CareType
from services.filing.domain.life import FilingAction
from services.filing.guiding import Guiding
from services.filing.store import Asked, FilingStore
from yidi.common.v1 import visit_pb2
from yidi.enrollment.v1 import enrollment_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2

Changing: TypeAlias = (
    desk_pb2.Application | desk_pb2.Supplement | desk_pb2.Change | desk_pb2.Cancellation
)
"""What may change a filing; each has a request id."""
Asking: TypeAlias = Changing | desk_pb2.VisitCheck | desk_pb2.Listing
"""What is asked about a person."""
_ACTIONS = {
    desk_pb2.Application: FilingAction.APPLY,
    desk_pb2.Supplement: FilingAction.SUPPLEMENT,
    desk_pb2.Change: FilingAction.CHANGE,
    desk_pb2.Cancellation: FilingAction.CANCEL,
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing asked of the desk."""

    id: str
    """UUID of this ask."""
    payload: desk_pb2.DeskPayload
    caller: str
    """To whom its request id belongs."""
    actor: str
    """Who appears in the history: role and site, or the institution."""
    institution: str
    """The institution that asks; empty for the agency."""

    @property
    def content(self) -> Asking | desk_pb2.GuidanceQuestion:
        """What the payload holds."""
        name = self.payload.WhichOneof("ask")
        assert name is not None, "the contract requires it"
        content: Asking | desk_pb2.GuidanceQuestion = getattr(self.payload, name)
        return content

    @property
    def insured_area(self) -> str:
        """The insured area that it names, as it names it."""
        content = self.content
        if isinstance(content, desk_pb2.GuidanceQuestion):
            return content.insured_area
        return content.applicant.insured_area


Answers: TypeAlias = dict[str, desk_pb2.DeskAnswer | Refusal]
"""Ask id → what came of it."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An ask with the person it is about."""

    ask: Ask
    content: Asking
    person: enrollment_pb2.Participant


class Desk:
    """Answers batches of asks; holds no state between them."""

    def __init__(
        self,
        *,
        store: FilingStore,
        clock: Clock,
        identifying: Identifying,
        consulting: Consulting,
        carrying_out: CarryingOut,
        deciding: Deciding,
        guiding: Guiding,
        directory: Directory,
    ) -> None:
        self._store = store
        self._clock = clock
        self._identifying = identifying
        self._consulting = consulting
        self._carrying_out = carrying_out
        self._deciding = deciding
        self._guiding = guiding
        self._directory = directory

    async def answer(self, asks: Sequence[Ask], call: Call) -> Answers:
        """What came of each; a refusal changed nothing."""
        answers: Answers = {}
        known = await self._identify(asks, answers, call)
        for kind, reads in ((desk_pb2.VisitCheck, self._check), (desk_pb2.Listing, self._list)):
            asked = [one for one in known if isinstance(one.content, kind)]
            try:
                await reads(asked, answers)
            except Refusal as refusal:  # e.g. the database is away
                answers |= {one.ask.id: refusal for one in asked}
        changes = [one for one in known if type(one.content) in _ACTIONS]
        done = await self._carrying_out.carry_out([self._task(one) for one in changes], call)
        for id_, outcome in done.items():
            answers[id_] = (
                outcome if isinstance(outcome, Refusal) else desk_pb2.DeskAnswer(filing=outcome)
            )
        return answers

    async def _identify(self, asks: Sequence[Ask], answers: Answers, call: Call) -> list[_Known]:
        """The asks about people that are known; everything else is answered."""
        items: list[enrollment_pb2.IdentifyItem] = []
        contents: dict[str, Asking] = {}
        for ask in asks:
            content = ask.content
            try:
                if isinstance(content, desk_pb2.GuidanceQuestion):
                    answers[ask.id] = desk_pb2.DeskAnswer(guidance=self._guiding.guidance(content))
                else:
                    items.append(self._identify_item(ask, content))
                    contents[ask.id] = content
            except Refusal as refusal:
                answers[ask.id] = refusal
        try:
            people = await self._identifying.identify(items, call)
        except Refusal as refusal:
            people = dict.fromkeys(contents, refusal)
        known = []
        for ask in asks:
            person = people.get(ask.id)
            if isinstance(person, Refusal):
                answers[ask.id] = person
            elif person is not None:
                known.append(_Known(ask, contents[ask.id], person))
        return known

    def _identify_item(self, ask: Ask, content: Asking) -> enrollment_pb2.IdentifyItem:
        applicant = content.applicant
        item = enrollment_pb2.IdentifyItem(
            id=ask.id,
            credential=applicant.credential,
            insured_area=self._directory.place(applicant.insured_area).area,
            insurance=applicant.insurance,
            day=business_day(self._clock.now_ms()).isoformat(),
            institution=ask.institution,
        )
        if isinstance(content, desk_pb2.VisitCheck):
            visit = content.visit
            area = self._directory.place(visit.insured_area).area
            if area != item.insured_area:
                raise _foreign("visit.insured_area", visit.insured_area)
            if visit.insurance != applicant.insurance:
                raise _foreign("visit.insurance", str(visit.insurance))
            item.day, item.disease_code = visit.start_date, visit.disease_code
        return item

    async def _check(self, known: Sequence[_Known], answers: Answers) -> None:
        items = []
        for one in known:
            assert isinstance(one.content, desk_pb2.VisitCheck)
            try:
                items.append(self._resolve_item(one.ask.id, one.content, one.person))
            except Refusal as refusal:
                answers[one.ask.id] = refusal
        if not items:
            return
        results = {one.id: one for one in await self._consulting.resolve(items)}
        for one in known:
            if one.ask.id in results:
                answers[one.ask.id] = self._checked(one, results[one.ask.id])

    def _resolve_item(
        self, id_: str, check: desk_pb2.VisitCheck, person: enrollment_pb2.Participant
    ) -> filing_pb2.ResolveEntitlementItem:
        care = self._directory.place(check.visit.care_area)
        insured = self._directory.place(check.visit.insured_area)
        visit = visit_pb2.Visit()
        visit.CopyFrom(check.visit)
        visit.care_area, visit.insured_area = care.area, insured.area
        return filing_pb2.ResolveEntitlementItem(
            id=id_,
            person_id=person.person_id,
            person_class=person.person_class,
            visit=visit,
            care_site=care.site,
            route=self._directory.route(care, insured),
            day=business_day(self._clock.now_ms()).isoformat(),
            insured_since=person.insured_since,
            institution=check.institution,
            contracted_institution=person.contracted_institution,
            chosen_institutions=person.chosen_institutions,
        )

    def _checked(
        self, one: _Known, result: filing_pb2.ResolveEntitlementResult
    ) -> desk_pb2.DeskAnswer | Refusal:
        """Whether the visit is entitled; where it is not, or at a lower level, how it can be."""
        assert isinstance(one.content, desk_pb2.VisitCheck)
        check = desk_pb2.VisitCheckAnswer()
        if result.HasField("entitlement"):
            check.entitlement.CopyFrom(result.entitlement)
            needed = result.entitlement.basis in messages.UNFILED
        else:
            refusal = Refusal.from_status(result.error)
            if not refusal.decided:
                return refusal
            check.refusal.CopyFrom(result.error)
            needed = messages.filing_helps(refusal)
        if needed:
            question = desk_pb2.GuidanceQuestion(
                insured_area=one.content.applicant.insured_area,
                insurance=one.content.applicant.insurance,
                care_place=one.content.visit.care_area,
            )
            try:
                care_type = CareType(one.content.visit.care_type)
                guidance = self._guiding.guidance(question, one.person, care_type)
                check.guidance.CopyFrom(guidance)
            except Refusal as refusal:
                return refusal
        return desk_pb2.DeskAnswer(check=check)

    async def _list(self, known: Sequence[_Known], answers: Answers) -> None:
        if not known:
            return
        reading = await self._store.read(
            [Asked(one.person.person_id, one.ask.caller, "") for one in known]
        )
        ids = [each.filing_id for filings in reading.filings.values() for each in filings]
        events = await self._store.histories(ids) if ids else {}
        for one in known:
            filings = reading.filings.get(one.person.person_id, ())
            answers[one.ask.id] = desk_pb2.DeskAnswer(listing=messages.listing(filings, events))

    def _task(self, known: _Known) -> Task:
        content, ask = known.content, known.ask
        assert not isinstance(content, desk_pb2.VisitCheck | desk_pb2.Listing)
        return Task(
            id=ask.id,
            person_id=known.person.person_id,
            caller=ask.caller,
            actor=ask.actor,
            request_id=content.request_id,
            digest=digest_of(content, known.person.person_id),
            action=_ACTIONS[type(content)],
            decide=self._decide(content, Case(known.person, ask.institution)),
            leaves=(
                content.filing_id
                if isinstance(content, desk_pb2.Change | desk_pb2.Cancellation)
                else ""
            ),
        )

    def _decide(self, content: Changing, case: Case) -> Decide:
        match content:
            case desk_pb2.Application():
                return partial(self._deciding.application, case, content)
            case desk_pb2.Supplement():
                return partial(self._deciding.supplement, case, content)
            case desk_pb2.Change():
                return partial(self._deciding.change, case, content)
            case _:
                return partial(self._deciding.cancellation, case, content)


def _foreign(field: str, value: str) -> Refusal:
    return Refusal(Reason.ERROR_REASON_FOREIGN_CODE, field=field, value=value)
