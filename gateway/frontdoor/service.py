"""The front door as a service: what institutions call."""

from __future__ import annotations

from gateway.frontdoor.answering import completed, is_open, refusal_of, result_of
from gateway.frontdoor.orchestrating import SETTLE, Orchestrator
from gateway.frontdoor.preparing import Charge
from gateway.frontdoor.undoing import Undoing, Wanted
from infra.runtime.call import Call
from infra.runtime.digest import body_digest
from infra.runtime.errors import Reason, Refusal, Violation
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.settlement.v1 import care_pb2, payload_pb2


class InstitutionServicer:
    """`yidi.gateway.v1.InstitutionService`."""

    def __init__(self, *, orchestrator: Orchestrator, undoing: Undoing) -> None:
        self._orchestrator = orchestrator
        self._undoing = undoing

    async def Quote(
        self, request: gateway_pb2.QuoteRequest, call: Call
    ) -> gateway_pb2.QuoteResponse:
        _require_unique_lines(request.bill)
        charge = Charge(
            bill=request.bill,
            credential=request.credential,
            operator=request.operator,
            body_digest=body_digest(request.bill),
            expected=None,
            kind=types_pb2.EXCHANGE_KIND_QUOTE,
        )
        return gateway_pb2.QuoteResponse(result=await self._orchestrator.quote(charge, call))

    async def Settle(
        self, request: gateway_pb2.SettleRequest, call: Call
    ) -> gateway_pb2.SettleResponse:
        _require_unique_lines(request.bill)
        charge = Charge(
            bill=request.bill,
            credential=request.credential,
            operator=request.operator,
            body_digest=body_digest(request.bill),
            expected=request.expected if request.HasField("expected") else None,
            kind=types_pb2.EXCHANGE_KIND_SETTLE,
        )
        done = await self._orchestrator.settle(charge, request.request_id, call)
        return gateway_pb2.SettleResponse(
            settlement_id=done.row.settlement_id,
            state=done.row.state,
            result=completed(done.row, done.kept, done.hops),
        )

    async def Reverse(
        self, request: gateway_pb2.ReverseRequest, call: Call
    ) -> gateway_pb2.ReverseResponse:
        undone = await self._undoing.undo(_wanted(request, types_pb2.EXCHANGE_KIND_REVERSAL), call)
        return gateway_pb2.ReverseResponse(
            settlement_id=undone.settlement_id,
            state=undone.state,
            result=undone.result,
            undoes=request.settlement_id,
        )

    async def Refund(
        self, request: gateway_pb2.RefundRequest, call: Call
    ) -> gateway_pb2.RefundResponse:
        undone = await self._undoing.undo(_wanted(request, types_pb2.EXCHANGE_KIND_REFUND), call)
        return gateway_pb2.RefundResponse(
            settlement_id=undone.settlement_id,
            state=undone.state,
            result=undone.result,
            undoes=request.settlement_id,
        )

    async def GetSettlement(
        self, request: gateway_pb2.GetSettlementRequest, call: Call
    ) -> gateway_pb2.GetSettlementResponse:
        item = care_pb2.GetItem(institution=call.caller.name)
        kind = request.WhichOneof("key")
        if kind == "settlement_id":
            item.settlement_id = request.settlement_id
        elif kind == "request_id":
            item.request.caller = call.caller.spiffe_id
            item.request.method = SETTLE
            item.request.request_id = request.request_id
        else:
            item.bill.CopyFrom(request.bill)
        row = await self._orchestrator.get(item)
        response = gateway_pb2.GetSettlementResponse(
            settlement_id=row.settlement_id,
            state=row.state,
            request_id=row.request_id,
            open_time=row.open_time,
            state_time=row.state_time,
        )
        if row.HasField("outcome"):
            kept = payload_pb2.ExchangePayload()
            if row.kind == types_pb2.EXCHANGE_KIND_SETTLE:
                kept.ParseFromString(row.request)
            response.result.CopyFrom(result_of(row.outcome, kept, row.hops))
        if is_open(row):
            response.reason.CopyFrom(refusal_of(row).status())
        elif row.HasField("reason"):
            response.reason.CopyFrom(row.reason)
        return response


def _wanted(
    request: gateway_pb2.ReverseRequest | gateway_pb2.RefundRequest,
    kind: types_pb2.ExchangeKind.ValueType,
) -> Wanted:
    return Wanted(
        request_id=request.request_id,
        settlement_id=request.settlement_id,
        reason=request.reason,
        operator=request.operator,
        kind=kind,
    )


def _require_unique_lines(bill: gateway_pb2.Bill) -> None:
    seen: set[str] = set()
    faults: list[Violation] = []
    for index, line in enumerate(bill.lines):
        if line.line_id in seen:
            faults.append(Violation(f"bill.lines[{index}].line_id", "同一单据内明细行号不得重复"))
        seen.add(line.line_id)
    if faults:
        raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)
