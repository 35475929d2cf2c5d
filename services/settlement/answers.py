"""What the insured place answers about one settlement id."""

from __future__ import annotations

import structlog
from google.rpc import status_pb2

from infra.runtime.errors import Reason, Refusal
from services.settlement.domain.states import Decision
from services.settlement.store.insured import Stored
from yidi.common.v1 import envelope_pb2

_log = structlog.get_logger("yidi.settlement")


def undecided(settlement_id: str, status: status_pb2.Status) -> envelope_pb2.ExchangeResult:
    """Nothing is decided; nobody may conclude that nothing will be."""
    return envelope_pb2.ExchangeResult(id=settlement_id, error=status)


def stored_answer(
    settlement_id: str, request_digest: bytes, stored: Stored
) -> envelope_pb2.ExchangeResult:
    """The row that an id has, for ever; another request under the same id is an alarm."""
    if stored.state is Decision.ABORTED:
        return envelope_pb2.ExchangeResult(id=settlement_id, aborted=stored.rejection or b"")
    if stored.request_digest != request_digest:
        _log.error("alarm: settlement id reused", settlement_id=settlement_id)
        reused = Refusal(Reason.ERROR_REASON_SETTLEMENT_ID_REUSED, settlement_id=settlement_id)
        return undecided(settlement_id, reused.status())
    if stored.state is Decision.COMMITTED:
        return envelope_pb2.ExchangeResult(id=settlement_id, committed=stored.outcome)
    return envelope_pb2.ExchangeResult(id=settlement_id, rejected=stored.rejection or b"")
