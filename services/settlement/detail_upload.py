"""What follows a settlement at the care place: audit cases, and the detail of stays to the nation.

Any replica may run it, beside the path of settlements and slower than it: a round takes a bounded
number of duties and uploads a bounded number of details, for the law gives three days. The nation
keeps a detail once for ever, so an upload whose answer was lost is simply sent again. What the
nation refuses stays listed and is tried again; a detail that differs from its settlement and one
that is late are alarms, each told once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from infra.runtime.background import Background
from infra.runtime.clock import Clock, instant
from infra.runtime.errors import Reason, Refusal
from services.settlement.domain.detail import wait
from services.settlement.store.details import DetailStore, Leased
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import payload_pb2

DUTIES = 1_024
"""Settlements whose duties a round takes at most."""
BATCH = 64
BATCH_BYTES = 1 << 20
BATCHES = 4
"""Uploads of a round."""
LATE = 100
"""Alarms of a round."""
LEASE = timedelta(seconds=30)
"""Longer than a call: while a row is leased its holder is alive or has died."""
CALL_SECONDS = 10.0
EVERY_SECONDS = 5.0
_log = structlog.get_logger("yidi.settlement")


class DetailUpload:
    """Carries out the duties of one care site's completed settlements."""

    def __init__(
        self, *, store: DetailStore, relay: relay_pb2_grpc.RelayServiceStub, clock: Clock
    ) -> None:
        self._store = store
        self._relay = relay
        self._clock = clock
        self._background = Background("detail upload", self.tick, rest=lambda: EVERY_SECONDS)

    def start(self) -> None:
        """Run until `stop`."""
        self._background.start()

    async def stop(self) -> None:
        """End; what is leased is left to whoever comes next."""
        await self._background.stop()

    async def tick(self) -> None:
        """Take duties, tell what has become late, upload until nothing is due or answered."""
        await self._store.take(DUTIES)
        for row in await self._store.late(instant(self._clock), LATE):
            _log.error(
                "alarm: detail is late",
                settlement_id=row["settlement_id"],
                due_at=row["due_at"].isoformat(),
                cause=row["cause"],
            )
        for _ in range(BATCHES):
            now = instant(self._clock)
            leased = await self._store.lease(now, now + LEASE, BATCH, BATCH_BYTES)
            if not leased or not await self._upload(leased):
                return

    async def _upload(self, leased: Sequence[Leased]) -> bool:
        """Send details and write what the nation says of each; False when it said nothing."""
        request = relay_pb2.BatchUploadDetailRequest(items=[_detail(one) for one in leased])
        stored: list[str] = []
        refused: dict[str, Refusal] = {}
        results: Sequence[relay_pb2.UploadDetailResult] = ()
        try:
            results = (await self._relay.BatchUploadDetail(request, timeout=CALL_SECONDS)).results
        except Refusal as refusal:
            _log.info("details not uploaded", reason=refusal.name, count=len(leased))
            refused = {one.settlement_id: refusal for one in leased}
        for result in results:
            if result.stored:
                stored.append(result.id)
            elif result.HasField("error"):
                refused[result.id] = Refusal.from_status(result.error)
        now = instant(self._clock)
        if stored:
            await self._store.uploaded(stored, now)
        waiting = {
            one.settlement_id: self._again(one, refused.get(one.settlement_id), now)
            for one in leased
            if one.settlement_id not in stored
        }
        if waiting:
            await self._store.postpone(waiting)
        return bool(results)

    def _again(self, one: Leased, refusal: Refusal | None, now: datetime) -> tuple[datetime, str]:
        """When to send a detail again, and why it is not there."""
        cause = "国家平台没有答复" if refusal is None else refusal.message
        if refusal is not None and cause != one.cause:
            if refusal.reason == Reason.ERROR_REASON_DETAIL_DIFFERS:
                _log.error(
                    "alarm: detail differs from its settlement",
                    settlement_id=one.settlement_id,
                    cause=cause,
                )
            else:
                _log.info("detail refused", settlement_id=one.settlement_id, reason=refusal.name)
        return now + wait(one.attempts), cause


def _detail(one: Leased) -> relay_pb2.StayDetail:
    return relay_pb2.StayDetail(
        id=one.settlement_id,
        care_area=one.care_area,
        lines=payload_pb2.ExchangePayload.FromString(one.request).lines,
    )
