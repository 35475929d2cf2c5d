"""One settlement over all hops, at most once for its request id.

Order: admission (a place in the destination's queue) → PENDING durable → exchange → the answer's
bytes durable → institution answered. From PENDING on the settlement is the server's own task: a
caller that leaves changes nothing but who listens. A second call with the same request id joins the
first, in this process directly, over replicas by polling the row; a stored answer is always given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from gateway.frontdoor.answering import is_open, pending, refusal_of, result_of, settled
from gateway.frontdoor.preparing import Charge, Prepared, Preparing
from infra.runtime.call import Call
from infra.runtime.clock import Clock, monotonic_us, new_id
from infra.runtime.coalesce import Bounds, Coalescer, MissingAnswer, Place
from infra.runtime.config import Limits
from infra.runtime.errors import Reason, Refusal
from infra.runtime.redact import where
from infra.runtime.telemetry import Stopwatch
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.settlement.v1 import care_pb2, payload_pb2

METHOD = "Settle"
MAX_HOPS = 12
"""Hop times kept of an answer: a neighbour that reports more must not spoil its own outcome."""
_CROSS = types_pb2.ROUTE_CROSS_PROVINCE
_QUOTE = types_pb2.EXCHANGE_KIND_QUOTE
_log = structlog.get_logger("yidi.gateway")

Exchange = Callable[
    [Sequence[envelope_pb2.Envelope], float], Awaitable[Sequence[envelope_pb2.ExchangeResult]]
]
"""Sends envelopes with a deadline in seconds: to the own insured side, or to the own relay."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """An envelope on its way, and until when its caller waits."""

    envelope: envelope_pb2.Envelope
    deadline_us: int


ExchangeQueue = Coalescer[Leaving, envelope_pb2.ExchangeResult]


@dataclass(slots=True)
class Running:
    """A settlement under way in this process."""

    body_digest: bytes
    task: asyncio.Task[gateway_pb2.SettleResponse] | None = None
    settlement_id: str = ""
    """Set before request id and bill are claimed."""
    abandoned: bool = False
    """Its caller was told that nothing was claimed: nothing may be claimed any more."""


class CareQueues:
    """The coalescers to the own care journal."""

    def __init__(
        self,
        *,
        opens: Coalescer[care_pb2.OpenItem, care_pb2.OpenResult],
        closes: Coalescer[care_pb2.CloseItem, care_pb2.CloseResult],
        gets: Coalescer[care_pb2.GetItem, care_pb2.GetResult],
    ) -> None:
        self.opens = opens
        self.closes = closes
        self.gets = gets


class Orchestrator:
    """Quotes and settles bills of one care site."""

    def __init__(
        self,
        *,
        clock: Clock,
        limits: Limits,
        bounds: Bounds,
        preparing: Preparing,
        care: CareQueues,
        inside: Exchange,
        across: Exchange,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._bounds = bounds
        self._preparing = preparing
        self._care = care
        self._inside = inside
        self._across = across
        self._queues: dict[tuple[str, bool], ExchangeQueue] = {}
        self._running: dict[tuple[str, str], Running] = {}

    async def quote(self, charge: Charge, call: Call) -> gateway_pb2.SettlementResult:
        """The amounts as they would be settled now; writes nothing anywhere."""
        watch = Stopwatch()
        deadline_us = self._deadline_us(call)
        prepared = await self._preparing.prepare(charge, call.traceparent)
        watch.lap(types_pb2.HOP_CATALOG)
        queue = self._queue(prepared, quote=True)
        try:
            answer = await queue.submit(Leaving(prepared.envelope, deadline_us))
        except MissingAnswer:
            raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="quote") from None
        kind = answer.WhichOneof("outcome")
        if kind == "committed":
            hops = [*watch.hops(), *answer.hops, _total(watch)]
            return result_of(answer.committed, prepared.kept, hops)
        if kind == "rejected":
            raise Refusal.from_status(envelope_pb2.Rejection.FromString(answer.rejected).status)
        raise Refusal.from_status(answer.error)

    async def settle(
        self, charge: Charge, request_id: str, call: Call
    ) -> gateway_pb2.SettleResponse:
        """Settle a bill, or give the answer that its request id has already got."""
        key = (call.caller.spiffe_id, request_id)
        running = self._running.get(key)
        first = running is None
        if running is None:
            if len(self._running) >= self._bounds.queue:
                raise Refusal(Reason.ERROR_REASON_OVERLOADED, retry_ms=500)
            running = Running(charge.body_digest)
            self._running[key] = running
            running.task = asyncio.get_running_loop().create_task(
                self._settle(charge, request_id, call, running)
            )
            running.task.add_done_callback(lambda task: self._finished(key, task))
        elif running.body_digest != charge.body_digest:
            raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=request_id)
        assert running.task is not None
        try:
            async with asyncio.timeout(max(self._deadline_us(call) - monotonic_us(), 0) / 1e6):
                return await asyncio.shield(running.task)
        except TimeoutError:
            if first and not running.settlement_id:
                running.abandoned = True
                raise Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT) from None
            raise pending(
                running.settlement_id or request_id, types_pb2.SETTLEMENT_STATE_PENDING
            ) from None

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

    def _finished(
        self, key: tuple[str, str], task: asyncio.Task[gateway_pb2.SettleResponse]
    ) -> None:
        del self._running[key]
        if not task.cancelled():
            error = task.exception()  # whoever joined has been told; nobody may be listening
            if error is not None and not isinstance(error, Refusal):
                _log.error("settlement task failed", at=where(error))

    def _deadline_us(self, call: Call) -> int:
        margin_us = self._limits.hop_margin_ms * 1000
        own_us = monotonic_us() + self._limits.settle_ms * 1000
        return min(call.deadline_us, own_us) - margin_us

    async def _settle(
        self, charge: Charge, request_id: str, call: Call, running: Running
    ) -> gateway_pb2.SettleResponse:
        watch = Stopwatch()
        deadline_us = self._deadline_us(call)
        caller, institution = call.caller.spiffe_id, charge.bill.reference.institution
        try:
            prepared = await self._preparing.prepare(charge, call.traceparent)
            watch.lap(types_pb2.HOP_CATALOG)
            queue = self._queue(prepared, quote=False)
            place = queue.reserve()
        except Refusal as refusal:
            # Whatever stands in the way now, an answer once given is given again.
            row = await self._row_of_request(caller, request_id, institution)
            if row is None:
                raise refusal from None
            running.settlement_id = row.settlement_id
            return await self._join(row, charge, institution, deadline_us)
        with place:
            if running.abandoned or deadline_us <= monotonic_us():
                raise Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
            running.settlement_id = prepared.settlement_id
            opened = await self._care.opens.submit(
                _open_item(prepared, charge, request_id, caller, deadline_us)
            )
            if opened.HasField("error"):
                raise Refusal.from_status(opened.error)
            if not opened.opened:
                running.settlement_id = opened.existing_settlement_id
                item = care_pb2.GetItem(
                    institution=institution, settlement_id=opened.existing_settlement_id
                )
                return await self._join(await self.get(item), charge, institution, deadline_us)
            watch.lap(types_pb2.HOP_CARE_OPEN)
            return await self._exchange(prepared, queue, place, deadline_us, watch)

    async def _exchange(
        self,
        prepared: Prepared,
        queue: ExchangeQueue,
        place: Place,
        deadline_us: int,
        watch: Stopwatch,
    ) -> gateway_pb2.SettleResponse:
        item = care_pb2.CloseItem(id=prepared.settlement_id)
        try:
            answer = await queue.submit(Leaving(prepared.envelope, deadline_us), place)
        except MissingAnswer:
            pass  # unknown: the row becomes IN_DOUBT
        except Refusal as refusal:
            item.refused.status.CopyFrom(refusal.status())
        else:
            _take_answer(item, answer)
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
        return settled(closed.row, prepared.kept, [*hops, *watch.hops(), _total(watch)])

    async def _join(
        self,
        row: care_pb2.JournalRow,
        charge: Charge,
        institution: str,
        deadline_us: int,
    ) -> gateway_pb2.SettleResponse:
        """Wait for the outcome of a settlement that somebody else is making."""
        if row.body_digest != charge.body_digest:
            raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=row.request_id)
        poll_us = self._limits.join_poll_ms * 1000
        while is_open(row) and monotonic_us() + poll_us < deadline_us:
            await asyncio.sleep(poll_us / 1e6)
            row = await self.get(
                care_pb2.GetItem(institution=institution, settlement_id=row.settlement_id)
            )
        if is_open(row):
            raise refusal_of(row)
        return settled(row, payload_pb2.ExchangePayload.FromString(row.request), row.hops)

    async def _row_of_request(
        self, caller: str, request_id: str, institution: str
    ) -> care_pb2.JournalRow | None:
        key = care_pb2.RequestKey(caller=caller, method=METHOD, request_id=request_id)
        try:
            return await self.get(care_pb2.GetItem(institution=institution, request=key))
        except Refusal:
            return None

    def _queue(self, prepared: Prepared, *, quote: bool) -> ExchangeQueue:
        key = (prepared.insured.site, quote)
        if key not in self._queues:
            exchange = self._across if prepared.route == _CROSS else self._inside
            margin_us = self._limits.hop_margin_ms * 1000

            async def send(items: list[Leaving]) -> Mapping[str, envelope_pb2.ExchangeResult]:
                now_us = monotonic_us()
                answers: dict[str, envelope_pb2.ExchangeResult] = {}
                leaving: list[Leaving] = []
                for item in items:
                    remaining_ms = (item.deadline_us - now_us - margin_us) // 1000
                    if remaining_ms > 0:
                        item.envelope.remaining_ms = remaining_ms
                        leaving.append(item)
                    else:
                        answers[item.envelope.id] = _not_sent(item.envelope.id)
                if leaving:
                    seconds = (max(item.deadline_us for item in leaving) - now_us) / 1e6
                    answered = await exchange([item.envelope for item in leaving], seconds)
                    answers |= {answer.id: answer for answer in answered}
                return answers

            self._queues[key] = Coalescer(
                send,
                key=lambda item: item.envelope.id,
                size=lambda item: len(item.envelope.payload) + 512,
                bounds=self._bounds,
            )
        return self._queues[key]


def _not_sent(settlement_id: str) -> envelope_pb2.ExchangeResult:
    """The exchange of an item that waited too long was not begun."""
    late = Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
    return envelope_pb2.ExchangeResult(id=settlement_id, error=late.status(), not_forwarded=True)


def _open_item(
    prepared: Prepared, charge: Charge, request_id: str, caller: str, deadline_us: int
) -> care_pb2.OpenItem:
    return care_pb2.OpenItem(
        id=prepared.settlement_id,
        caller=caller,
        method=METHOD,
        request_id=request_id,
        body_digest=charge.body_digest,
        payload_digest=prepared.envelope.payload_digest,
        bill=charge.bill.reference,
        care_area=prepared.care.area,
        insured_area=prepared.insured.area,
        insured_site=prepared.insured.site,
        route=prepared.route,
        kind=prepared.envelope.kind,
        request=prepared.kept.SerializeToString(),
        remaining_ms=max((deadline_us - monotonic_us()) // 1000, 0),
        operator=charge.operator,
        traceparent=prepared.envelope.traceparent,
    )


def _take_answer(item: care_pb2.CloseItem, answer: envelope_pb2.ExchangeResult) -> None:
    kind = answer.WhichOneof("outcome")
    if kind == "committed":
        item.committed.CopyFrom(answer.committed)
    elif kind == "rejected":
        item.rejected = answer.rejected
    elif kind == "aborted":
        item.aborted = answer.aborted
    elif kind == "error":
        item.refused.not_forwarded = answer.not_forwarded
        item.refused.status.CopyFrom(answer.error)
    item.hops.extend(answer.hops[:MAX_HOPS])


def _total(watch: Stopwatch) -> envelope_pb2.HopTime:
    return envelope_pb2.HopTime(hop=types_pb2.HOP_TOTAL, duration_us=watch.elapsed_us)
