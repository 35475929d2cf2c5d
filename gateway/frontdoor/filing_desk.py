"""The filing desk as institutions see it: each call is held against its caller and passed on."""

from __future__ import annotations

from typing import TypeAlias

from gateway.frontdoor.filing import FilingDesks
from infra.runtime.call import Call
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2
from yidi.gateway.v1 import filing_desk_pb2

_Change: TypeAlias = (
    desk_pb2.Application | desk_pb2.Supplement | desk_pb2.Change | desk_pb2.Cancellation
)


class FilingDeskServicer:
    """`yidi.gateway.v1.FilingDeskService`."""

    def __init__(self, desks: FilingDesks) -> None:
        self._desks = desks

    async def CheckFiling(
        self, request: filing_desk_pb2.CheckFilingRequest, call: Call
    ) -> filing_desk_pb2.CheckFilingResponse:
        payload = desk_pb2.DeskPayload(check=request.check)
        check = payload.check
        if check.institution not in ("", call.caller.name):
            raise _foreign("check.institution", check.institution)
        check.institution = call.caller.name
        check.visit.care_area = self._desks.area_of(check.visit.care_area)
        check.visit.insured_area = self._desks.area_of(check.visit.insured_area)
        area = self._area_of(check.applicant)
        answer = await self._desks.ask(payload, "check", area, call)
        return filing_desk_pb2.CheckFilingResponse(answer=answer.check)

    async def ApplyFiling(
        self, request: filing_desk_pb2.ApplyFilingRequest, call: Call
    ) -> filing_desk_pb2.ApplyFilingResponse:
        application = request.application
        uploaded = application.channel == types_pb2.FILING_CHANNEL_HOSPITAL_UPLOAD
        if uploaded and application.referral_institution != call.caller.name:
            raise _foreign("application.referral_institution", application.referral_institution)
        payload = desk_pb2.DeskPayload(application=application)
        answer = await self._change(payload, payload.application, call)
        return filing_desk_pb2.ApplyFilingResponse(answer=answer)

    async def SupplementFiling(
        self, request: filing_desk_pb2.SupplementFilingRequest, call: Call
    ) -> filing_desk_pb2.SupplementFilingResponse:
        payload = desk_pb2.DeskPayload(supplement=request.supplement)
        answer = await self._change(payload, payload.supplement, call)
        return filing_desk_pb2.SupplementFilingResponse(answer=answer)

    async def ChangeFiling(
        self, request: filing_desk_pb2.ChangeFilingRequest, call: Call
    ) -> filing_desk_pb2.ChangeFilingResponse:
        payload = desk_pb2.DeskPayload(change=request.change)
        answer = await self._change(payload, payload.change, call)
        return filing_desk_pb2.ChangeFilingResponse(answer=answer)

    async def CancelFiling(
        self, request: filing_desk_pb2.CancelFilingRequest, call: Call
    ) -> filing_desk_pb2.CancelFilingResponse:
        payload = desk_pb2.DeskPayload(cancellation=request.cancellation)
        answer = await self._change(payload, payload.cancellation, call)
        return filing_desk_pb2.CancelFilingResponse(answer=answer)

    async def ListFilings(
        self, request: filing_desk_pb2.ListFilingsRequest, call: Call
    ) -> filing_desk_pb2.ListFilingsResponse:
        payload = desk_pb2.DeskPayload(listing=request.listing)
        area = self._area_of(payload.listing.applicant)
        answer = await self._desks.ask(payload, "listing", area, call)
        return filing_desk_pb2.ListFilingsResponse(answer=answer.listing)

    async def GetGuidance(
        self, request: filing_desk_pb2.GetGuidanceRequest, call: Call
    ) -> filing_desk_pb2.GetGuidanceResponse:
        payload = desk_pb2.DeskPayload(question=request.question)
        area = self._area_of(payload.question)
        answer = await self._desks.ask(payload, "guidance", area, call)
        return filing_desk_pb2.GetGuidanceResponse(guidance=answer.guidance)

    async def _change(
        self, payload: desk_pb2.DeskPayload, asked: _Change, call: Call
    ) -> desk_pb2.FilingAnswer:
        area = self._area_of(asked.applicant)
        answer = await self._desks.ask(payload, "filing", area, call, operator=asked.operator)
        return answer.filing

    def _area_of(self, named: desk_pb2.Applicant | desk_pb2.GuidanceQuestion) -> str:
        """The insured area; county codes are aliases, beyond this line there are pooling areas."""
        named.insured_area = self._desks.area_of(named.insured_area)
        return named.insured_area


def _foreign(field: str, value: str) -> Refusal:
    return Refusal(Reason.ERROR_REASON_FOREIGN_CODE, field=field, value=value)
