"""Passing envelopes on, in natural batches, one coalescer per destination and urgency.

A relay reads envelopes and outcome headers and nothing else. Until an item has left, a refusal says
so (`not_forwarded`) and the care place may close it; once it has left, whatever goes wrong is
*unknown*. The nation journals every committed header once, on the way back, before it passes it on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import structlog
from google.protobuf.message import DecodeError

from gateway.relay.store import NationStore
from infra.runtime.clock import Clock, instant, monotonic_us
from infra.runtime.coalesce import Bounds, Coalescer, MissingAnswer
from infra.runtime.errors import Reason, Refusal
from infra.runtime.redact import where
from yidi.common.v1 import envelope_pb2, types_pb2

_log = structlog.get_logger("yidi.relay")
_QUOTE = types_pb2.EXCHANGE_KIND_QUOTE

Send = Callable[
    [Sequence[envelope_pb2.Envelope], float], Awaitable[Sequence[envelope_pb2.ExchangeResult]]
]
"""Sends envelopes with a deadline in seconds and returns their results."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The next hop of an envelope."""

    site: str
    """Site code; with the urgency, the coalescer."""
    name: str
    """For people."""
    send: Send
    connected: Callable[[], Awaitable[bool]]
    """Whether the next hop can be reached at all; asked before anything is sent."""


@dataclass(frozen=True, slots=True)
class _Item:
    envelope: envelope_pb2.Envelope
    received_us: int
    deadline_us: int


class Forwarder:
    """Forwards envelopes for one relay.

    `hop` is the hop whose own time this relay is; `journal` is the nation's, or None.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        bounds: Bounds,
        margin_ms: int,
        hop: types_pb2.Hop.ValueType,
        journal: NationStore | None,
    ) -> None:
        self._clock = clock
        self._bounds = bounds
        self._margin_us = margin_ms * 1000
        self._hop = hop
        self._journal = journal
        self._coalescers: dict[tuple[str, bool], Coalescer[_Item, envelope_pb2.ExchangeResult]] = {}

    async def forward(
        self,
        envelopes: Sequence[envelope_pb2.Envelope],
        choose: Callable[[envelope_pb2.Envelope], Destination],
    ) -> list[envelope_pb2.ExchangeResult]:
        """Pass each envelope to the destination that `choose` names; one result per envelope."""
        now_us = monotonic_us()
        return await asyncio.gather(
            *(self._forward_one(envelope, choose, now_us) for envelope in envelopes)
        )

    async def drain(self) -> None:
        """Wait until nothing is under way."""
        await asyncio.gather(*(coalescer.drain() for coalescer in self._coalescers.values()))

    async def _forward_one(
        self,
        envelope: envelope_pb2.Envelope,
        choose: Callable[[envelope_pb2.Envelope], Destination],
        now_us: int,
    ) -> envelope_pb2.ExchangeResult:
        try:
            coalescer = self._coalescer(choose(envelope), quote=envelope.kind == _QUOTE)
            place = coalescer.reserve()
        except Refusal as refusal:
            return _refused(envelope.id, refusal, not_forwarded=True)
        item = _Item(envelope, now_us, now_us + envelope.remaining_ms * 1000)
        try:
            return await coalescer.submit(item, place)
        except MissingAnswer:
            return envelope_pb2.ExchangeResult(id=envelope.id)
        except Refusal as refusal:
            return _refused(envelope.id, refusal, not_forwarded=False)
        except Exception as error:  # noqa: BLE001 - it must not take other destinations along
            _log.error("internal", settlement_id=envelope.id, at=where(error))
            return envelope_pb2.ExchangeResult(id=envelope.id)

    def _coalescer(
        self, destination: Destination, *, quote: bool
    ) -> Coalescer[_Item, envelope_pb2.ExchangeResult]:
        key = (destination.site, quote)
        if key not in self._coalescers:

            async def send(items: list[_Item]) -> Mapping[str, envelope_pb2.ExchangeResult]:
                return await self._send(destination, items)

            self._coalescers[key] = Coalescer(
                send,
                key=lambda item: item.envelope.id,
                size=lambda item: len(item.envelope.payload) + 512,
                bounds=self._bounds,
            )
        return self._coalescers[key]

    async def _send(
        self, destination: Destination, items: list[_Item]
    ) -> dict[str, envelope_pb2.ExchangeResult]:
        if not await destination.connected():
            down = Refusal(
                Reason.ERROR_REASON_SITE_UNREACHABLE, site=destination.name, retry_ms=2_000
            )
            return {
                item.envelope.id: _refused(item.envelope.id, down, not_forwarded=True)
                for item in items
            }
        results: dict[str, envelope_pb2.ExchangeResult] = {}
        sent: list[_Item] = []
        sent_us = monotonic_us()
        for item in items:
            remaining_us = item.deadline_us - sent_us - self._margin_us
            if remaining_us <= 0:
                late = Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
                results[item.envelope.id] = _refused(item.envelope.id, late, not_forwarded=True)
            else:
                item.envelope.remaining_ms = remaining_us // 1000
                sent.append(item)
        if not sent:
            return results
        seconds = (max(item.deadline_us for item in sent) - sent_us) / 1e6
        answered = await destination.send([item.envelope for item in sent], seconds)
        beyond_us = monotonic_us() - sent_us
        answers = {result.id: result for result in answered}
        if self._journal is not None:
            await self._record(self._journal, sent, answers)
        now_us = monotonic_us()
        for item in sent:
            result = answers.get(item.envelope.id)
            if result is not None:
                _book(result, self._hop, now_us - item.received_us - beyond_us)
                results[result.id] = result
        return results

    async def _record(
        self,
        store: NationStore,
        sent: Sequence[_Item],
        answers: dict[str, envelope_pb2.ExchangeResult],
    ) -> None:
        """Journal what was committed; what cannot be journaled is not passed on as committed."""
        outcomes: dict[str, envelope_pb2.Outcome] = {}
        for item in sent:
            result = answers.get(item.envelope.id)
            if result is None or item.envelope.kind == _QUOTE or not result.HasField("committed"):
                continue
            if not _sound(item.envelope, result.committed):
                _log.error("alarm: outcome is not what was asked", settlement_id=result.id)
                broken = Refusal(Reason.ERROR_REASON_PAYLOAD_CORRUPT)
                answers[result.id] = _refused(result.id, broken, not_forwarded=False)
                continue
            outcomes[result.id] = result.committed
        if not outcomes:
            return
        try:
            standing = await store.record(outcomes, instant(self._clock))
        except Refusal as refusal:
            for settlement_id in outcomes:
                answers[settlement_id] = _refused(settlement_id, refusal, not_forwarded=False)
            return
        for settlement_id, outcome in outcomes.items():
            if standing.get(settlement_id) != outcome.digest:
                _log.error("alarm: another outcome under the same id", settlement_id=settlement_id)
                reused = Refusal(
                    Reason.ERROR_REASON_SETTLEMENT_ID_REUSED, settlement_id=settlement_id
                )
                answers[settlement_id] = _refused(settlement_id, reused, not_forwarded=False)


def _book(result: envelope_pb2.ExchangeResult, hop: types_pb2.Hop.ValueType, own_us: int) -> None:
    """Add this relay's own time to its hop; a relay inside the insured site adds to that site's,
    and the care site's relay has no hop of its own: its time is in the total only.
    """
    if hop == types_pb2.HOP_UNSPECIFIED:
        return
    for booked in result.hops:
        if booked.hop == hop:
            booked.duration_us += max(own_us, 0)
            return
    result.hops.add(hop=hop, duration_us=max(own_us, 0))


def _sound(envelope: envelope_pb2.Envelope, outcome: envelope_pb2.Outcome) -> bool:
    """Whether the outcome's bytes match their digest and answer this very envelope."""
    if hashlib.sha256(outcome.header).digest() != outcome.digest:
        return False
    try:
        header = envelope_pb2.OutcomeHeader.FromString(outcome.header)
        date.fromisoformat(header.business_day)
    except (DecodeError, ValueError):
        return False
    return (header.settlement_id, header.kind, header.care_area, header.insured_area) == (
        envelope.id,
        envelope.kind,
        envelope.origin.care_area,
        envelope.insured_area,
    )


def _refused(
    settlement_id: str, refusal: Refusal, *, not_forwarded: bool
) -> envelope_pb2.ExchangeResult:
    return envelope_pb2.ExchangeResult(
        id=settlement_id, error=refusal.status(), not_forwarded=not_forwarded
    )
