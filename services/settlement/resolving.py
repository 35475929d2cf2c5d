"""What became of a settlement id, and making it final (PROTOCOL: one id, one decision).

ABORT inserts a tombstone if there is no row and returns the row there is: after it the outcome is
final, and a commit that comes later returns the tombstone. QUERY says what the row is; no row
proves nothing. No commit window holds here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from infra.runtime.clock import Clock, business_day
from infra.runtime.errors import Reason, Refusal
from services.settlement.answers import stored_answer, undecided
from services.settlement.store.resolution import ResolutionStore, Tombstone
from yidi.common.v1 import envelope_pb2, types_pb2


class Resolver:
    """Resolves batches of settlement ids; holds no state between them."""

    def __init__(self, *, store: ResolutionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def resolve(
        self, items: Sequence[envelope_pb2.ResolveItem]
    ) -> list[envelope_pb2.ExchangeResult]:
        """One result per item, in any order."""
        aborts = [item for item in items if item.intent == types_pb2.RESOLVE_INTENT_ABORT]
        queries = [item.id for item in items if item.intent == types_pb2.RESOLVE_INTENT_QUERY]
        now_ms = self._clock.now_ms()
        final = {}
        if aborts:
            now = datetime.fromtimestamp(now_ms / 1000, UTC)
            final = await self._store.abort([_tombstone(i, now_ms) for i in aborts], now)
        if queries:
            final |= await self._store.find(queries)
        results = []
        for item in items:
            row = final.get(item.id)
            if row is not None:
                results.append(stored_answer(item.id, item.payload_digest, row))
            elif item.intent == types_pb2.RESOLVE_INTENT_QUERY:
                results.append(envelope_pb2.ExchangeResult(id=item.id, unknown=True))
            else:
                busy = Refusal(Reason.ERROR_REASON_PERSON_BUSY)
                results.append(undecided(item.id, busy.status()))
        return results


def _tombstone(item: envelope_pb2.ResolveItem, now_ms: int) -> Tombstone:
    aborted = Refusal(Reason.ERROR_REASON_SETTLEMENT_ABORTED, settlement_id=item.id)
    rejection = envelope_pb2.Rejection(
        settlement_id=item.id,
        state=types_pb2.DECISION_STATE_ABORTED,
        request_digest=item.payload_digest,
        business_day=business_day(now_ms).isoformat(),
        status=aborted.status(),
    )
    rejection.decided_at.FromMilliseconds(now_ms)
    return Tombstone(
        settlement_id=item.id,
        kind=item.kind,
        request_digest=item.payload_digest,
        institution=item.origin.institution,
        care_area=item.origin.care_area,
        insured_area=item.insured_area,
        rejection=rejection.SerializeToString(),
    )
