"""One settlement over all hops, at most once for its request id; its undo likewise.

Order: admission (a place in the destination's queue) → PENDING durable → exchange → the answer's
bytes durable → institution answered. From PENDING on the settlement is the server's own task: a
caller that leaves changes nothing but who listens. A second call with the same request id joins the
first, in this process directly, over replicas by polling the row; a stored answer is always given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.frontdoor.answering import is_open, pending, refusal_of, result_of
from gateway.frontdoor.preparing import Charge, Prepared, Preparing
from gateway.frontdoor.queues import CareQueues, ExchangeQueue, ExchangeQueues, Leaving
from infra.runtime.call import Call
from infra.runtime.clock import Clock, monotonic_us, new_id
from infra.runtime.coalesce import MissingAnswer, Place
from infra.runtime.config import Limits
from infra.runtime.errors import Reason, Refusal
from infra.runtime.exchange import take_answer
from infra.runtime.failpoints import Failpoints, NullFailpoints
from infra.runtime.failpoints import Place as FailPlace
from infra.runtime.redact import where
from infra.runtime.telemetry import Stopwatch
from infra.runtime.types import STAYS
from yidi.common.v1 import envelope_pb2, types_pb2, visit_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.settlement.v1 import care_pb2, payload_pb2

SETTLE = "Settle"
_log = structlog.get_logger("yidi.gateway")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caller claims: its request id, once for ever, and the bill."""

    caller: str
    method: str
    request_id: str
    body_digest: bytes
    bill: visit_pb2.BillReference
    operator: str
    undoes: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What is unique per request."""
        return (self.caller, self.method, self.request_id)


@dataclass(frozen=True, slots=True)
class Finished:
    """A settlement in a final state."""

    row: care_pb2.JournalRow
    kept: payload_pb2.ExchangePayload
    hops: list[envelope_pb2.HopTime]


@dataclass(slots=True)
class Running:
    """A settlement under way in this process."""

    body_digest: bytes
    task: asyncio.Task[Finished] | None = None
    settlement_id: str = ""
    """Set before request id and bill are claimed."""
    abandoned: bool = False
    """Its caller was told that nothing was claimed: nothing may be claimed any more."""


class Orchestrator:
    """Quotes, settles and undoes bills of one care site."""

    def __init__(
        self,
        *,
        clock: Clock,
        limits: Limits,
        preparing: Preparing,
        care: CareQueues,
        exchanges: ExchangeQueues,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._failpoints = failpoints or NullFailpoints()
        self._clock = clock
        self._limits = limits
        self._preparing = preparing
        self._care = care
        self._exchanges = exchanges
        self._running: dict[tuple[str, str, str], Running] = {}

    async def quote(self, charge: Charge, call: Call) -> gateway_pb2.SettlementResult:
        """The amounts as they would be settled now; writes nothing anywhere."""
        watch = Stopwatch()
        deadline_us = self._deadline_us(call)
        prepared = await self._preparing.prepare(charge, call.traceparent)
        watch.lap(types_pb2.HOP_CATALOG)
        queue, place = self._admit(prepared, quote=True)
        try:
            answer = await queue.submit(Leaving(prepared.envelope, deadline_us), place)
        except MissingAnswer:
            raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="quote") from None
        kind = answer.WhichOneof("outcome")
        if kind == "committed":
            hops = [*watch.hops(), *answer.hops, _total(watch)]
            return result_of(answer.committed, prepared.kept, hops)
        if kind == "rejected":
            raise Refusal.from_status(envelope_pb2.Rejection.FromString(answer.rejected).status)
        raise Refusal.from_status(answer.error)

    async def settle(self, charge: Charge, request_id: str, call: Call) -> Finished:
        """Settle a bill, or give the answer that its request id has already got."""
        claim = Claim(
            caller=call.caller.spiffe_id,
            method=SETTLE,
            request_id=request_id,
            body_digest=charge.body_digest,
            bill=charge.bill.reference,
            operator=charge.operator,
        )

        async def prepare() -> Prepared:
            return await self._preparing.prepare(charge, call.traceparent)

        return await self._once(claim, prepare, call)

    async def undo(
        self, claim: Claim, prepare: Callable[[], Awaitable[Prepared]], call: Call
    ) -> Finished:
        """Undo a settlement, or give the answer that the request id has already got."""
        return await self._once(claim, prepare, call)

    async def cancel(self, settlement_id: str, institution: str, call: Call) -> care_pb2.JournalRow:
        """Ask that an open settlement be cancelled, and wait for what comes of it."""
        item = care_pb2.CancelItem(id=settlement_id, institution=institution)
        result = await self._care.cancels.submit(item)
        if result.HasField("error"):
            raise Refusal.from_status(result.error)
        deadline_us = self._deadline_us(call)
        row = result.row
        while _cancelling(row) and self._may_poll(deadline_us):
            row = await self._poll(settlement_id, institution)
        return row

    async def wait(
        self, settlement_id: str, institution: str, call: Call
    ) -> care_pb2.JournalRow | None:
        """A row, final if it becomes so in time; None while it is not there yet."""
        deadline_us = self._deadline_us(call)
        row: care_pb2.JournalRow | None = None
        while True:
            try:
                row = await self._poll(settlement_id, institution)
            except Refusal as refusal:
                if refusal.reason != Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND:
                    raise
            if (row is not None and not is_open(row)) or not self._may_poll(deadline_us):
                return row

    async def get(self, item: care_pb2.GetItem) -> care_pb2.JournalRow:
        """The journal row that `item` asks for."""
        item.id = new_id(self._clock)
        result = await self._care.gets.submit(item)
        if result.HasField("error"):
            raise Refusal.from_status(result.error)
        return result.row

    async def drain(self) -> None:
        """Wait until every settlement under way has its outcome stored."""
        tasks = [running.task for running in self._running.values() if running.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def _once(
        self, claim: Claim, prepare: Callable[[], Awaitable[Prepared]], call: Call
    ) -> Finished:
        """Run a claim as the server's own task, or join the one that runs."""
        running = self._running.get(claim.key)
        first = running is None
        if running is None:
            if len(self._running) >= self._limits.queue_items:
                raise Refusal(Reason.ERROR_REASON_OVERLOADED, retry_ms=500)
            running = Running(claim.body_digest)
            self._running[claim.key] = running
            self._start(claim, running, self._run(claim, prepare, call, running))
        elif running.body_digest != claim.body_digest:
            raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=claim.request_id)
        assert running.task is not None
        try:
            async with asyncio.timeout(max(self._deadline_us(call) - monotonic_us(), 0) / 1e6):
                return await asyncio.shield(running.task)
        except TimeoutError:
            if first and not running.settlement_id:
                running.abandoned = True
                raise Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT) from None
            # Whoever joined before there was an id asks by the request id.
            raise pending(running.settlement_id, types_pb2.SETTLEMENT_STATE_PENDING) from None

    def _start(self, claim: Claim, running: Running, work: Coroutine[Any, Any, Finished]) -> None:
        running.task = asyncio.get_running_loop().create_task(work)
        running.task.add_done_callback(lambda task: self._finished(claim.key, task))

    def _finished(self, key: tuple[str, str, str], task: asyncio.Task[Finished]) -> None:
        del self._running[key]
        if not task.cancelled():
            error = task.exception()  # whoever joined has been told; nobody may be listening
            if error is not None and not isinstance(error, Refusal):
                _log.error("settlement task failed", at=where(error))

    def _deadline_us(self, call: Call) -> int:
        margin_us = self._limits.hop_margin_ms * 1000
        own_us = monotonic_us() + self._limits.settle_ms * 1000
        return min(call.deadline_us, own_us) - margin_us

    async def _run(
        self,
        claim: Claim,
        prepare: Callable[[], Awaitable[Prepared]],
        call: Call,
        running: Running,
    ) -> Finished:
        watch = Stopwatch()
        deadline_us = self._deadline_us(call)
        try:
            prepared = await prepare()
            watch.lap(types_pb2.HOP_CATALOG)
            queue, place = self._admit(prepared, quote=False)
        except Refusal as refusal:
            # Whatever stands in the way now, an answer once given is given again.
            row = await self._row_of_request(claim)
            if row is None:
                raise refusal from None
            running.settlement_id = row.settlement_id
            return await self._join(row, claim, deadline_us)
        with place:
            if running.abandoned or deadline_us <= monotonic_us():
                raise Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
            running.settlement_id = prepared.settlement_id
            opened = await self._care.opens.submit(_open_item(prepared, claim, deadline_us))
            if opened.HasField("error"):
                raise Refusal.from_status(opened.error)
            if not opened.opened:
                running.settlement_id = opened.existing_settlement_id
                item = care_pb2.GetItem(
                    institution=claim.bill.institution,
                    settlement_id=opened.existing_settlement_id,
                )
                return await self._join(await self.get(item), claim, deadline_us)
            watch.lap(types_pb2.HOP_CARE_OPEN)
            return await self._exchange(prepared, queue, place, deadline_us, watch)

    async def _exchange(
        self,
        prepared: Prepared,
        queue: ExchangeQueue,
        place: Place,
        deadline_us: int,
        watch: Stopwatch,
    ) -> Finished:
        item = care_pb2.CloseItem(id=prepared.settlement_id)
        try:
            answer = await queue.submit(Leaving(prepared.envelope, deadline_us), place)
        except MissingAnswer:
            pass  # unknown: the row becomes IN_DOUBT
        except Refusal as refusal:
            item.refused.status.CopyFrom(refusal.status())
        else:
            take_answer(item, answer)
        item.hops.extend(watch.hops())
        hops = list(item.hops)
        watch = Stopwatch.since(watch)
        try:
            closed = await self._care.closes.submit(item)
        except (Refusal, MissingAnswer):
            closed = care_pb2.CloseResult()
        watch.lap(types_pb2.HOP_CARE_CLOSE)
        if not closed.HasField("row"):
            # Something may have been paid and is not stored here: only asking again can tell.
            _log.error("alarm: outcome not stored", settlement_id=prepared.settlement_id)
            raise pending(prepared.settlement_id, types_pb2.SETTLEMENT_STATE_PENDING)
        await self._failpoints.at(FailPlace.GATEWAY_ANSWER_BEFORE, [prepared.settlement_id])
        return Finished(closed.row, prepared.kept, [*hops, *watch.hops(), _total(watch)])

    async def _join(self, row: care_pb2.JournalRow, claim: Claim, deadline_us: int) -> Finished:
        """Wait for the outcome of a settlement that somebody else is making."""
        if row.body_digest != claim.body_digest:
            raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=row.request_id)
        while is_open(row) and self._may_poll(deadline_us):
            row = await self._poll(row.settlement_id, claim.bill.institution)
        if is_open(row):
            raise refusal_of(row)
        kept = payload_pb2.ExchangePayload()
        if row.kind == types_pb2.EXCHANGE_KIND_SETTLE:
            kept.ParseFromString(row.request)
        return Finished(row, kept, list(row.hops))

    def _admit(self, prepared: Prepared, *, quote: bool) -> tuple[ExchangeQueue, Place]:
        """Admission comes first: a place and a closed breaker, before anything is claimed."""
        return self._exchanges.admit(
            prepared.insured.site,
            prepared.route,
            prepared.envelope.origin.institution,
            quote=quote,
            site_name=prepared.insured.name,
        )

    def _may_poll(self, deadline_us: int) -> bool:
        return monotonic_us() + self._limits.join_poll_ms * 1000 < deadline_us

    async def _poll(self, settlement_id: str, institution: str) -> care_pb2.JournalRow:
        await asyncio.sleep(self._limits.join_poll_ms / 1000)
        return await self.get(
            care_pb2.GetItem(institution=institution, settlement_id=settlement_id)
        )

    async def _row_of_request(self, claim: Claim) -> care_pb2.JournalRow | None:
        key = care_pb2.RequestKey(
            caller=claim.caller, method=claim.method, request_id=claim.request_id
        )
        try:
            return await self.get(care_pb2.GetItem(institution=claim.bill.institution, request=key))
        except Refusal:
            return None


def _cancelling(row: care_pb2.JournalRow) -> bool:
    """Whether a cancelled row is still open, or stands and is not undone yet."""
    return is_open(row) or (
        row.state == types_pb2.SETTLEMENT_STATE_COMPLETED
        and row.cancel_requested
        and not row.undone_by
    )


def _open_item(prepared: Prepared, claim: Claim, deadline_us: int) -> care_pb2.OpenItem:
    kept = prepared.kept
    return care_pb2.OpenItem(
        id=prepared.settlement_id,
        caller=claim.caller,
        method=claim.method,
        request_id=claim.request_id,
        body_digest=claim.body_digest,
        payload_digest=prepared.envelope.payload_digest,
        bill=claim.bill,
        care_area=prepared.care.area,
        insured_area=prepared.insured.area,
        insured_site=prepared.insured.site,
        route=prepared.route,
        kind=prepared.envelope.kind,
        undoes=claim.undoes,
        request=prepared.request,
        remaining_ms=max((deadline_us - monotonic_us()) // 1000, 0),
        operator=claim.operator,
        traceparent=prepared.envelope.traceparent,
        upload_detail=(
            prepared.route == types_pb2.ROUTE_CROSS_PROVINCE and kept.visit.care_type in STAYS
        ),
        injury_declared=(
            kept.visit.injury == types_pb2.ANSWER_YES
            and kept.visit.third_party == types_pb2.ANSWER_NO
        ),
        audit_found=bool(kept.findings),
    )


def _total(watch: Stopwatch) -> envelope_pb2.HopTime:
    return envelope_pb2.HopTime(hop=types_pb2.HOP_TOTAL, duration_us=watch.elapsed_us)
