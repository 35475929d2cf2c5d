"""The desk's servicer: envelopes of institutions, and the clerks of the site's own areas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import partial

import protovalidate

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import Clock, business_day, new_id
from infra.runtime.contract import REVISION
from infra.runtime.database import Database
from infra.runtime.directory import Directory
from infra.runtime.errors import Reason, Refusal
from infra.runtime.paging import not_a_token
from infra.runtime.payload import opened
from infra.runtime.rules_zh import describe
from services.filing import messages
from services.filing.asking import Identifying, IdentifyStub, digest_of
from services.filing.carrying_out import CarryingOut, Costs, CostsStub, Task
from services.filing.consulting import Consulting
from services.filing.deciding import Deciding
from services.filing.desk import Ask, Desk
from services.filing.domain.area_rules import AreaRules
from services.filing.domain.life import FilingAction
from services.filing.domain.reviewing import overdue
from services.filing.forms import form
from services.filing.guiding import Guiding
from services.filing.places import Places
from services.filing.store import FilingStore
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.filing.v1 import desk_pb2

PENDING_PAGE = 100
_FIRST = (date.min, "00000000-0000-0000-0000-000000000000")
_TOKEN = re.compile(r"(\d{4}-\d\d-\d\d)/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


class DeskServicer:
    """`yidi.filing.v1.DeskService`."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        enrollment: IdentifyStub,
        settlement: CostsStub,
        directory: Directory,
        places: Places,
        rules: Mapping[str, AreaRules],
        area_names: Mapping[str, str],
        call_seconds: float,
        allow_illustrative: bool,
    ) -> None:
        """As `FilingService`; `settlement` says what was paid under a filing."""
        self._store = FilingStore(database)
        self._clock = clock
        self._directory = directory
        self._names = area_names
        self._deciding = Deciding(clock=clock, places=places, rules=rules, area_names=area_names)
        self._carrying_out = CarryingOut(
            store=self._store, clock=clock, costs=Costs(settlement, call_seconds)
        )
        self._guiding = Guiding(
            clock=clock,
            directory=directory,
            places=places,
            rules=rules,
            allow_illustrative=allow_illustrative,
        )
        self._desk = Desk(
            store=self._store,
            clock=clock,
            identifying=Identifying(enrollment, call_seconds),
            consulting=Consulting(
                store=self._store,
                rules=rules,
                area_names=area_names,
                allow_illustrative=allow_illustrative,
            ),
            carrying_out=self._carrying_out,
            deciding=self._deciding,
            guiding=self._guiding,
            directory=directory,
        )
        self._validator = protovalidate.Validator()

    async def BatchHandle(
        self, request: desk_pb2.BatchHandleRequest, call: Call
    ) -> desk_pb2.BatchHandleResponse:
        answers: dict[str, desk_pb2.DeskAnswer | Refusal] = {}
        asks = []
        for envelope in request.items:
            try:
                asks.append(self._opened(envelope))
            except Refusal as refusal:
                answers[envelope.id] = refusal
        answers |= await self._desk.answer(asks, call)
        return desk_pb2.BatchHandleResponse(
            results=[_result(envelope.id, answers[envelope.id]) for envelope in request.items]
        )

    async def CheckFiling(
        self, request: desk_pb2.CheckFilingRequest, call: Call
    ) -> desk_pb2.CheckFilingResponse:
        answer = await self._clerk(desk_pb2.DeskPayload(check=request.check), call)
        return desk_pb2.CheckFilingResponse(answer=answer.check)

    async def ApplyFiling(
        self, request: desk_pb2.ApplyFilingRequest, call: Call
    ) -> desk_pb2.ApplyFilingResponse:
        answer = await self._clerk(desk_pb2.DeskPayload(application=request.application), call)
        return desk_pb2.ApplyFilingResponse(answer=answer.filing)

    async def SupplementFiling(
        self, request: desk_pb2.SupplementFilingRequest, call: Call
    ) -> desk_pb2.SupplementFilingResponse:
        answer = await self._clerk(desk_pb2.DeskPayload(supplement=request.supplement), call)
        return desk_pb2.SupplementFilingResponse(answer=answer.filing)

    async def ChangeFiling(
        self, request: desk_pb2.ChangeFilingRequest, call: Call
    ) -> desk_pb2.ChangeFilingResponse:
        answer = await self._clerk(desk_pb2.DeskPayload(change=request.change), call)
        return desk_pb2.ChangeFilingResponse(answer=answer.filing)

    async def CancelFiling(
        self, request: desk_pb2.CancelFilingRequest, call: Call
    ) -> desk_pb2.CancelFilingResponse:
        answer = await self._clerk(desk_pb2.DeskPayload(cancellation=request.cancellation), call)
        return desk_pb2.CancelFilingResponse(answer=answer.filing)

    async def ListFilings(
        self, request: desk_pb2.ListFilingsRequest, call: Call
    ) -> desk_pb2.ListFilingsResponse:
        answer = await self._clerk(desk_pb2.DeskPayload(listing=request.listing), call)
        return desk_pb2.ListFilingsResponse(answer=answer.listing)

    async def GetGuidance(
        self, request: desk_pb2.GetGuidanceRequest, call: Call
    ) -> desk_pb2.GetGuidanceResponse:
        return desk_pb2.GetGuidanceResponse(guidance=self._guiding.guidance(request.question))

    async def ReviewFiling(
        self, request: desk_pb2.ReviewFilingRequest, call: Call
    ) -> desk_pb2.ReviewFilingResponse:
        found = await self._store.find(request.filing_id)
        if found is None:
            raise Refusal(Reason.ERROR_REASON_FILING_NOT_FOUND, filing=request.filing_id)
        person_id, _ = found
        task = Task(
            id=request.filing_id,
            person_id=person_id,
            caller=call.caller.spiffe_id,
            actor=_actor(call.caller),
            request_id=request.request_id,
            digest=digest_of(request, person_id),
            action=FilingAction.ACCEPT if request.accepted else FilingAction.REFUSE,
            decide=partial(self._deciding.review, request),
        )
        answer = (await self._carrying_out.carry_out([task], call))[task.id]
        if isinstance(answer, Refusal):
            raise answer
        return desk_pb2.ReviewFilingResponse(filing=answer.filing)

    async def ListPendingFilings(
        self, request: desk_pb2.ListPendingFilingsRequest, call: Call
    ) -> desk_pb2.ListPendingFilingsResponse:
        size = request.page_size or PENDING_PAGE
        # One more than asked for says whether there is another page.
        found = await self._store.pending(
            self._directory.place(request.insured_area).area, _after(request.page_token), size + 1
        )
        page, today = found[:size], business_day(self._clock.now_ms())
        return desk_pb2.ListPendingFilingsResponse(
            filings=[
                desk_pb2.PendingFiling(filing=messages.filing(one), overdue=overdue(one, today))
                for one in page
            ],
            next_page_token=(
                f"{page[-1].due_date}/{page[-1].filing_id}" if len(found) > size else ""
            ),
        )

    async def GetFilingForm(
        self, request: desk_pb2.GetFilingFormRequest, call: Call
    ) -> desk_pb2.GetFilingFormResponse:
        area = self._directory.place(request.insured_area).area
        found = await self._store.find(request.filing_id)
        if found is None or found[1].insured_area != area:
            raise Refusal(Reason.ERROR_REASON_FILING_NOT_FOUND, filing=request.filing_id)
        return form(request.form, *found, self._names)

    async def _clerk(self, payload: desk_pb2.DeskPayload, call: Call) -> desk_pb2.DeskAnswer:
        ask = Ask(
            id=new_id(self._clock),
            payload=payload,
            caller=call.caller.spiffe_id,
            actor=_actor(call.caller),
            institution="",
        )
        answer = (await self._desk.answer([ask], call))[ask.id]
        if isinstance(answer, Refusal):
            raise answer
        return answer

    def _opened(self, envelope: envelope_pb2.Envelope) -> Ask:
        """Open the payload and hold it against its envelope."""
        payload = opened(envelope, desk_pb2.DeskPayload)
        filing = envelope.kind == types_pb2.EXCHANGE_KIND_FILING
        if not filing or envelope.contract_revision > REVISION:
            raise Refusal(Reason.ERROR_REASON_CONTRACT_TOO_OLD)
        faults = [describe(fault) for fault in self._validator.collect_violations(payload)]
        if faults:
            raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)
        institution = envelope.origin.institution
        site = self._directory.place(envelope.origin.care_area).site
        ask = Ask(
            id=envelope.id,
            payload=payload,
            caller=Identity(site, CallerType.INSTITUTION, institution).spiffe_id,
            actor=f"{CallerType.INSTITUTION.value}/{institution}",
            institution=institution,
        )
        named = ask.insured_area
        expected = self._directory.place(envelope.insured_area)
        if self._directory.place(named).area != expected.area:
            raise Refusal(Reason.ERROR_REASON_FOREIGN_CODE, field="insured_area", value=named)
        return ask


def _actor(caller: Identity) -> str:
    """Role and site: a person's name has no place in a history that others read."""
    return f"{caller.type.value}/{caller.site}"


def _after(token: str) -> tuple[date, str]:
    if not token:
        return _FIRST
    found = _TOKEN.fullmatch(token)
    try:
        if found is not None:
            return date.fromisoformat(found[1]), found[2]
    except ValueError:
        pass
    raise not_a_token()


def _result(id_: str, answer: desk_pb2.DeskAnswer | Refusal) -> envelope_pb2.ExchangeResult:
    """A refusal that changed nothing is the desk's answer; after any other nobody knows."""
    if isinstance(answer, Refusal):
        if messages.transient(answer):
            return envelope_pb2.ExchangeResult(id=id_, error=answer.status())
        answer = desk_pb2.DeskAnswer(error=answer.status())
    return envelope_pb2.ExchangeResult(id=id_, filed=answer.SerializeToString())
