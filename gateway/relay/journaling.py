"""What the nation does with an answer on its way back: write what was committed, then pass it on.

Whatever shows a committed outcome is journaled: a commit, an undo, or what a question brought up;
quotes and filing leave nothing here.
What cannot be journaled is not passed on as committed, so a completed row at the care place is
always a row here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date

import structlog
from google.protobuf.message import DecodeError

from gateway.relay.store import NationStore
from infra.runtime.clock import Clock, instant
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2, types_pb2

_log = structlog.get_logger("yidi.relay")
_UNJOURNALED = frozenset({types_pb2.EXCHANGE_KIND_QUOTE, types_pb2.EXCHANGE_KIND_FILING})


class Journaling:
    """The nation's journal as the way back sees it."""

    def __init__(self, *, store: NationStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def record(
        self,
        sent: Sequence[envelope_pb2.Envelope] | Sequence[envelope_pb2.ResolveItem],
        answers: dict[str, envelope_pb2.ExchangeResult],
    ) -> None:
        """Journal what was committed; put an undecided error in place of what could not be."""
        outcomes: dict[str, envelope_pb2.Outcome] = {}
        for item in sent:
            result = answers.get(item.id)
            if item.kind in _UNJOURNALED or result is None or not result.HasField("committed"):
                continue
            if _sound(item, result.committed):
                outcomes[item.id] = result.committed
            else:
                _log.error("alarm: outcome is not what was asked", settlement_id=item.id)
                broken = Refusal(Reason.ERROR_REASON_PAYLOAD_CORRUPT)
                answers[item.id] = refused(item.id, broken, not_forwarded=False)
        if not outcomes:
            return
        try:
            standing = await self._store.record(outcomes, instant(self._clock))
        except Refusal as refusal:
            for settlement_id in outcomes:
                answers[settlement_id] = refused(settlement_id, refusal, not_forwarded=False)
            return
        for settlement_id, outcome in outcomes.items():
            if standing.get(settlement_id) != outcome.digest:
                _log.error("alarm: another outcome under the same id", settlement_id=settlement_id)
                reused = Refusal(
                    Reason.ERROR_REASON_SETTLEMENT_ID_REUSED, settlement_id=settlement_id
                )
                answers[settlement_id] = refused(settlement_id, reused, not_forwarded=False)


def refused(
    settlement_id: str, refusal: Refusal, *, not_forwarded: bool
) -> envelope_pb2.ExchangeResult:
    """The result of an item that this relay refuses."""
    return envelope_pb2.ExchangeResult(
        id=settlement_id, error=refusal.status(), not_forwarded=not_forwarded
    )


def _sound(
    item: envelope_pb2.Envelope | envelope_pb2.ResolveItem, outcome: envelope_pb2.Outcome
) -> bool:
    """Whether the outcome's bytes match their digest and answer this very item."""
    if hashlib.sha256(outcome.header).digest() != outcome.digest:
        return False
    try:
        header = envelope_pb2.OutcomeHeader.FromString(outcome.header)
        date.fromisoformat(header.business_day)
    except (DecodeError, ValueError):
        return False
    return (header.settlement_id, header.kind, header.care_area, header.insured_area) == (
        item.id,
        item.kind,
        item.origin.care_area,
        item.insured_area,
    )
