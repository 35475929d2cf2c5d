"""Reversal (冲正) and refund (退费) at the front door.

An undo is a settlement of its own: own id, request id, journal row, recovery. A reversal asked
while the original is in doubt sets `cancel_requested` first: recovery then makes the original final
and, if it stands, sends the undo itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gateway.frontdoor.answering import completed, is_open, pending, refusal_of
from gateway.frontdoor.orchestrating import Claim, Orchestrator
from gateway.frontdoor.preparing import Prepared, Preparing
from infra.runtime.call import Call
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.settlement.v1 import care_pb2, payload_pb2

_COMPLETED = types_pb2.SETTLEMENT_STATE_COMPLETED
_REVERSAL = types_pb2.EXCHANGE_KIND_REVERSAL
_METHODS = {_REVERSAL: "Reverse", types_pb2.EXCHANGE_KIND_REFUND: "Refund"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An undo as an institution asks for it."""

    request_id: str
    settlement_id: str
    reason: str
    operator: str
    kind: types_pb2.ExchangeKind.ValueType


@dataclass(frozen=True, slots=True)
class Undone:
    """What came of it; without a result the original never stood."""

    settlement_id: str
    state: types_pb2.SettlementState.ValueType
    result: gateway_pb2.SettlementResult | None


NEVER_STOOD = Undone("", types_pb2.SETTLEMENT_STATE_ABORTED, None)


class Undoing:
    """Undoes settlements of one care site."""

    def __init__(self, *, orchestrator: Orchestrator, preparing: Preparing) -> None:
        self._orchestrator = orchestrator
        self._preparing = preparing

    async def undo(self, wanted: Wanted, call: Call) -> Undone:
        """Undo a settlement of the calling institution, at most once for its request id."""
        institution = call.caller.name
        original = await self._orchestrator.get(
            care_pb2.GetItem(institution=institution, settlement_id=wanted.settlement_id)
        )
        if original.kind != types_pb2.EXCHANGE_KIND_SETTLE:
            raise Refusal(Reason.ERROR_REASON_ORIGINAL_NOT_FOUND, original_id=wanted.settlement_id)
        if is_open(original) or (original.cancel_requested and wanted.kind == _REVERSAL):
            if wanted.kind != _REVERSAL:
                raise pending(original.settlement_id, original.state)
            row = await self._orchestrator.cancel(original.settlement_id, institution, call)
            if is_open(row) or row.cancel_requested:
                return await self._cancelled(row, institution, call)
            # It was completed just before the cancellation could be asked for.
            original = row
        if original.state != _COMPLETED:
            return NEVER_STOOD
        claim = Claim(
            caller=call.caller.spiffe_id,
            method=_METHODS[wanted.kind],
            request_id=wanted.request_id,
            body_digest=hashlib.sha256(wanted.settlement_id.encode()).digest(),
            bill=original.bill,
            operator=wanted.operator,
            undoes=wanted.settlement_id,
        )
        care_area = envelope_pb2.OutcomeHeader.FromString(original.outcome.header).care_area

        async def prepare() -> Prepared:
            return self._preparing.prepare_undo(
                original,
                wanted.kind,
                care_area=care_area,
                reason=wanted.reason,
                operator=wanted.operator,
                traceparent=call.traceparent,
            )

        done = await self._orchestrator.undo(claim, prepare, call)
        return Undone(
            done.row.settlement_id, done.row.state, completed(done.row, done.kept, done.hops)
        )

    async def _cancelled(
        self, original: care_pb2.JournalRow, institution: str, call: Call
    ) -> Undone:
        """What has come of an original whose cancellation is asked for, so far."""
        if is_open(original):
            raise refusal_of(original)
        if original.state != _COMPLETED:
            return NEVER_STOOD
        waiting = pending(original.settlement_id, types_pb2.SETTLEMENT_STATE_PENDING)
        if not original.undone_by:
            raise waiting
        undo = await self._orchestrator.wait(original.undone_by, institution, call)
        if undo is None or is_open(undo):
            raise waiting
        refusal = None if undo.state == _COMPLETED else refusal_of(undo)
        if refusal is not None and refusal.reason != Reason.ERROR_REASON_ALREADY_UNDONE:
            raise waiting  # recovery replaces it
        nothing = payload_pb2.ExchangePayload()
        return Undone(undo.settlement_id, undo.state, completed(undo, nothing, undo.hops))
