"""What the institution is told: results from the stored bytes, refusals from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.settlement.v1 import care_pb2, payload_pb2

_COMPLETED = types_pb2.SETTLEMENT_STATE_COMPLETED
_OPEN = (types_pb2.SETTLEMENT_STATE_PENDING, types_pb2.SETTLEMENT_STATE_IN_DOUBT)
POLL_MS = 1_000
"""What a caller is told to wait before it asks again."""


def result_of(
    outcome: envelope_pb2.Outcome,
    request: payload_pb2.ExchangePayload,
    hops: Iterable[envelope_pb2.HopTime],
) -> gateway_pb2.SettlementResult:
    """The result that an outcome and the bill it settles amount to."""
    header = envelope_pb2.OutcomeHeader.FromString(outcome.header)
    details = payload_pb2.OutcomeDetails.FromString(outcome.details)
    result = gateway_pb2.SettlementResult(
        amounts=header.amounts,
        funds=header.funds,
        route=header.route,
        entitlement=details.entitlement,
        policy=header.policy,
        steps=details.steps,
        lines=request.lines,
        categories=request.categories,
        catalogue_version=details.catalogue_version,
        quote_digest=details.quote_digest,
        hops=hops,
        account_balance_fen=details.account_balance_fen,
        findings=request.findings,
    )
    if header.kind != types_pb2.EXCHANGE_KIND_QUOTE:
        result.decided_at.CopyFrom(header.decided_at)
        result.business_day = header.business_day
        result.outcome_header = outcome.header
        result.outcome_digest = outcome.digest
    return result


def completed(
    row: care_pb2.JournalRow,
    kept: payload_pb2.ExchangePayload,
    hops: Iterable[envelope_pb2.HopTime],
) -> gateway_pb2.SettlementResult:
    """The result of a row in a final state; raises the row's reason when it is not COMPLETED."""
    if row.state != _COMPLETED:
        raise refusal_of(row)
    return result_of(row.outcome, kept, hops)


def refusal_of(row: care_pb2.JournalRow) -> Refusal:
    """Why a row is not COMPLETED; an open row's outcome is pending, whatever its last reason."""
    if row.state in _OPEN:
        return pending(row.settlement_id, row.state)
    refusal = Refusal.from_status(row.reason)
    refusal.details["settlement_id"] = row.settlement_id
    return refusal


def pending(settlement_id: str, state: types_pb2.SettlementState.ValueType) -> Refusal:
    """OUTCOME_PENDING with the id and state to ask by."""
    name = types_pb2.SettlementState.Name(state).removeprefix("SETTLEMENT_STATE_")
    return Refusal(
        Reason.ERROR_REASON_OUTCOME_PENDING,
        settlement_id=settlement_id,
        state=name,
        retry_ms=POLL_MS,
    )


def is_open(row: care_pb2.JournalRow) -> bool:
    """Whether the row's outcome is not known yet."""
    return row.state in _OPEN
