"""What is owed after a settlement as a service: audit cases, deduction rates, uploads due."""

from __future__ import annotations

from datetime import timedelta

import asyncpg

from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant, new_id
from infra.runtime.days import parse_day
from infra.runtime.digest import body_digest
from infra.runtime.errors import Reason, Refusal, Violation
from infra.runtime.paging import UUID, page_token
from services.settlement.domain.audit_case import CaseKind, CaseState, Decision
from services.settlement.store.audit import Asked, AuditStore
from services.settlement.store.details import DetailStore
from yidi.common.v1 import visit_pb2
from yidi.settlement.v1 import audit_pb2, payload_pb2

PAGE = 100
LONGEST = timedelta(days=366)
"""Days that rates are asked for at most."""


class AuditServicer:
    """`yidi.settlement.v1.AuditService`."""

    def __init__(self, *, store: AuditStore, details: DetailStore, clock: Clock) -> None:
        self._store = store
        self._details = details
        self._clock = clock

    async def ListAuditCases(
        self, request: audit_pb2.ListAuditCasesRequest, call: Call
    ) -> audit_pb2.ListAuditCasesResponse:
        state = request.state or audit_pb2.AUDIT_CASE_STATE_OPEN
        kind = CaseKind(_kind_name(request.kind)) if request.kind else None
        size = request.page_size or PAGE
        # One more than asked for says whether there is another page.
        found = await self._store.cases(
            CaseState(_state_name(state)), kind, _after(request.page_token), size + 1
        )
        page = [_case(row) for row in found[:size]]
        return audit_pb2.ListAuditCasesResponse(
            cases=page, next_page_token=page[-1].case_id if len(found) > size else ""
        )

    async def GetAuditCase(
        self, request: audit_pb2.GetAuditCaseRequest, call: Call
    ) -> audit_pb2.GetAuditCaseResponse:
        row = await self._store.show(request.case_id)
        kept = payload_pb2.ExchangePayload.FromString(row["request"])
        return audit_pb2.GetAuditCaseResponse(
            case=_case(row), lines=kept.lines, findings=kept.findings
        )

    async def OpenAuditCase(
        self, request: audit_pb2.OpenAuditCaseRequest, call: Call
    ) -> audit_pb2.OpenAuditCaseResponse:
        case_id = await self._store.pick(
            self._asked(request, "OpenAuditCase", call), request.settlement_id, new_id(self._clock)
        )
        return audit_pb2.OpenAuditCaseResponse(case=_case(await self._store.show(case_id)))

    async def DecideAuditCase(
        self, request: audit_pb2.DecideAuditCaseRequest, call: Call
    ) -> audit_pb2.DecideAuditCaseResponse:
        await self._store.decide(
            self._asked(request, "DecideAuditCase", call),
            request.case_id,
            Decision(request.deducted_fen, request.reason),
            call.caller.name,
        )
        return audit_pb2.DecideAuditCaseResponse(
            case=_case(await self._store.show(request.case_id))
        )

    async def GetDeductionRates(
        self, request: audit_pb2.GetDeductionRatesRequest, call: Call
    ) -> audit_pb2.GetDeductionRatesResponse:
        first = parse_day(request.start_date, "start_date")
        last = parse_day(request.end_date, "end_date")
        if not first <= last <= first + LONGEST:
            fault = Violation("end_date", f"应不早于开始日期，且相距不超过 {LONGEST.days} 天")
            raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=[fault])
        rates = [
            audit_pb2.DeductionRate(
                route=rate.route,  # type: ignore[arg-type]
                settlements=rate.settlements,
                fund_total_fen=rate.fund_total_fen,
                deducted_settlements=rate.deducted_settlements,
                deducted_fen=rate.deducted_fen,
            )
            for rate in await self._store.rates(first, last)
        ]
        return audit_pb2.GetDeductionRatesResponse(rates=rates)

    async def ListDetailUploads(
        self, request: audit_pb2.ListDetailUploadsRequest, call: Call
    ) -> audit_pb2.ListDetailUploadsResponse:
        now, size = instant(self._clock), request.page_size or PAGE
        found = await self._details.waiting(
            now, late=request.late, after=_after(request.page_token), limit=size + 1
        )
        total, late = await self._details.count(now)
        page = [_upload(row) for row in found[:size]]
        return audit_pb2.ListDetailUploadsResponse(
            uploads=page,
            total_count=total,
            late_count=late,
            next_page_token=page[-1].settlement_id if len(found) > size else "",
        )

    def _asked(
        self,
        request: audit_pb2.OpenAuditCaseRequest | audit_pb2.DecideAuditCaseRequest,
        method: str,
        call: Call,
    ) -> Asked:
        return Asked(
            caller=call.caller.spiffe_id,
            method=method,
            request_id=request.request_id,
            body_digest=body_digest(request),
            operator=request.operator,
            at=instant(self._clock),
        )


def _after(token: str) -> str | None:
    return page_token(token, UUID) or None


def _kind_name(kind: audit_pb2.AuditCaseKind.ValueType) -> str:
    return audit_pb2.AuditCaseKind.Name(kind).removeprefix("AUDIT_CASE_KIND_")


def _state_name(state: audit_pb2.AuditCaseState.ValueType) -> str:
    return audit_pb2.AuditCaseState.Name(state).removeprefix("AUDIT_CASE_STATE_")


def _case(row: asyncpg.Record) -> audit_pb2.AuditCase:
    case = audit_pb2.AuditCase(
        case_id=row["case_id"],
        kind=audit_pb2.AuditCaseKind.Value(f"AUDIT_CASE_KIND_{row['kind']}"),
        state=audit_pb2.AuditCaseState.Value(f"AUDIT_CASE_STATE_{row['state']}"),
        settlement_id=row["settlement_id"],
        bill=_bill(row),
        route=row["route"],
        insured_area=row["insured_area"],
        total_fen=row["total_fen"],
        fund_total_fen=row["fund_total_fen"],
        deducted_fen=row["deducted_fen"],
        reason=row["reason"],
        decided_by=row["decided_by"],
        undone=row["undone"],
    )
    case.open_time.FromDatetime(row["state_at"])
    if row["decided_at"] is not None:
        case.decide_time.FromDatetime(row["decided_at"])
    return case


def _upload(row: asyncpg.Record) -> audit_pb2.DetailUpload:
    upload = audit_pb2.DetailUpload(
        settlement_id=row["settlement_id"],
        bill=_bill(row),
        attempts=row["attempts"],
        cause=row["cause"],
    )
    upload.complete_time.FromDatetime(row["state_at"])
    upload.due_time.FromDatetime(row["due_at"])
    return upload


def _bill(row: asyncpg.Record) -> visit_pb2.BillReference:
    return visit_pb2.BillReference(
        institution=row["institution"], visit_id=row["visit_id"], bill_id=row["bill_id"]
    )
