"""Passing items on, in natural batches, one coalescer per destination and urgency.

Quotes, commits, filing and questions about settlement ids do not wait for each other. A relay reads
envelopes and outcome headers and nothing else. Until an item has left, a refusal says so
(`not_forwarded`) and the care place may close it; once it has left, whatever goes wrong is
*unknown*. While a destination's breaker is open nothing is sent to it, not even an attempt to
connect; a question may be its trial as well as an envelope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import structlog

from gateway.relay.destinations import Destination, Item, Send
from gateway.relay.journaling import Journaling, refused
from infra.runtime.clock import monotonic_us
from infra.runtime.coalesce import Bounds, Coalescer, MissingAnswer
from infra.runtime.errors import Reason, Refusal
from infra.runtime.redact import where
from yidi.common.v1 import envelope_pb2, types_pb2

_log = structlog.get_logger("yidi.relay")
_OWN_LANE = frozenset({types_pb2.EXCHANGE_KIND_QUOTE, types_pb2.EXCHANGE_KIND_FILING})
"""Kinds that wait behind nothing else; all the others share a lane."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all ways of one relay have in common."""

    bounds: Bounds
    margin_us: int
    hop: types_pb2.Hop.ValueType
    """The hop whose own time this relay is."""
    journaling: Journaling | None
    """The nation's."""


class Forwarder:
    """Passes items on for one relay; `journaling` is the nation's, or None."""

    def __init__(
        self,
        *,
        bounds: Bounds,
        margin_ms: int,
        hop: types_pb2.Hop.ValueType,
        journaling: Journaling | None = None,
    ) -> None:
        self._terms = Terms(bounds, margin_ms * 1000, hop, journaling)
        self._exchanges: dict[tuple[str, int], _Way[envelope_pb2.Envelope]] = {}
        self._resolves: dict[str, _Way[envelope_pb2.ResolveItem]] = {}

    async def exchange(
        self,
        envelopes: Sequence[envelope_pb2.Envelope],
        choose: Callable[[envelope_pb2.Envelope], Destination],
        caller: Callable[[envelope_pb2.Origin], str],
    ) -> list[envelope_pb2.ExchangeResult]:
        """Pass each envelope to the destination that `choose` names; one result per envelope.

        `caller` says in whose turn an item leaves.
        """

        def way(envelope: envelope_pb2.Envelope) -> _Way[envelope_pb2.Envelope]:
            destination = choose(envelope)
            key = (destination.site, envelope.kind if envelope.kind in _OWN_LANE else 0)
            if key not in self._exchanges:
                self._exchanges[key] = _Way(
                    destination, destination.exchange, _envelope_size, self._terms
                )
            return self._exchanges[key]

        now_us = monotonic_us()
        return await asyncio.gather(*(_pass(item, way, caller, now_us) for item in envelopes))

    async def resolve(
        self,
        items: Sequence[envelope_pb2.ResolveItem],
        choose: Callable[[envelope_pb2.ResolveItem], Destination],
        caller: Callable[[envelope_pb2.Origin], str],
    ) -> list[envelope_pb2.ExchangeResult]:
        """Pass each question on in the same way; one result per item."""

        def way(item: envelope_pb2.ResolveItem) -> _Way[envelope_pb2.ResolveItem]:
            destination = choose(item)
            if destination.site not in self._resolves:
                self._resolves[destination.site] = _Way(
                    destination, destination.resolve, _question_size, self._terms
                )
            return self._resolves[destination.site]

        now_us = monotonic_us()
        return await asyncio.gather(*(_pass(item, way, caller, now_us) for item in items))

    async def drain(self) -> None:
        """Wait until nothing is under way."""
        await asyncio.gather(
            *(way.drain() for way in self._exchanges.values()),
            *(way.drain() for way in self._resolves.values()),
        )


@dataclass(frozen=True, slots=True)
class _Traveller(Generic[Item]):
    item: Item
    caller: str
    received_us: int
    deadline_us: int


async def _pass(
    item: Item,
    way: Callable[[Item], _Way[Item]],
    caller: Callable[[envelope_pb2.Origin], str],
    now_us: int,
) -> envelope_pb2.ExchangeResult:
    deadline_us = now_us + item.remaining_ms * 1000
    try:
        chosen = way(item)
        traveller = _Traveller(item, caller(item.origin), now_us, deadline_us)
    except Refusal as refusal:
        return refused(item.id, refusal, not_forwarded=True)
    return await chosen.carry(traveller)


class _Way(Generic[Item]):
    """One coalescer to one destination."""

    def __init__(
        self,
        destination: Destination,
        send: Send[Item],
        size: Callable[[Item], int],
        terms: Terms,
    ) -> None:
        self._destination = destination
        self._send_items: Send[Item] = send
        self._terms = terms
        self._coalescer: Coalescer[_Traveller[Item], envelope_pb2.ExchangeResult] = Coalescer(
            self._send,
            key=lambda traveller: traveller.item.id,
            size=lambda traveller: size(traveller.item),
            bounds=terms.bounds,
            caller=lambda traveller: traveller.caller,
        )
        self.drain = self._coalescer.drain

    async def carry(self, traveller: _Traveller[Item]) -> envelope_pb2.ExchangeResult:
        """Send it with the next batch; its result, or that what became of it is unknown."""
        item_id, destination = traveller.item.id, self._destination
        try:
            place = self._coalescer.reserve(traveller.caller)
            try:
                destination.breaker.admit(destination.name)
            except Refusal:
                place.give_back()
                raise
        except Refusal as refusal:
            return refused(item_id, refusal, not_forwarded=True)
        try:
            return await self._coalescer.submit(traveller, place)
        except MissingAnswer:
            return envelope_pb2.ExchangeResult(id=item_id)
        except Refusal as refusal:
            return refused(item_id, refusal, not_forwarded=False)
        except Exception as error:  # noqa: BLE001 - it must not take other destinations along
            _log.error("internal", settlement_id=item_id, at=where(error))
            return envelope_pb2.ExchangeResult(id=item_id)

    async def _send(
        self, travellers: list[_Traveller[Item]]
    ) -> Mapping[str, envelope_pb2.ExchangeResult]:
        destination, breaker = self._destination, self._destination.breaker
        if not breaker.passes:
            # It opened while these waited.
            return _all_refused(travellers, breaker.refusal(destination.name))
        if not await destination.connected():
            breaker.unreachable()
            return _all_refused(travellers, breaker.refusal(destination.name))
        sent_us = monotonic_us()
        sent, results = self._in_time(travellers, sent_us)
        if not sent:
            return results
        seconds = (max(traveller.deadline_us for traveller in sent) - sent_us) / 1e6
        attempt = breaker.begin(seconds)
        items = [traveller.item for traveller in sent]
        try:
            answered = await self._send_items(items, seconds)
        except Refusal as refusal:
            breaker.broke(attempt, refusal)
            raise
        beyond_us = monotonic_us() - sent_us
        if destination.passes_on:
            breaker.succeeded()
        else:
            breaker.answered(attempt, len(sent), answered)
        answers = {result.id: result for result in answered}
        if self._terms.journaling is not None:
            await self._terms.journaling.record(items, answers)
        now_us = monotonic_us()
        for traveller in sent:
            result = answers.get(traveller.item.id)
            if result is not None:
                _book(result, self._terms.hop, now_us - traveller.received_us - beyond_us)
                results[result.id] = result
        return results

    def _in_time(
        self, travellers: Sequence[_Traveller[Item]], now_us: int
    ) -> tuple[list[_Traveller[Item]], dict[str, envelope_pb2.ExchangeResult]]:
        """Those that may still be sent, with their remaining time, and the refusals of the rest."""
        sent: list[_Traveller[Item]] = []
        late: list[_Traveller[Item]] = []
        for traveller in travellers:
            remaining_us = traveller.deadline_us - now_us - self._terms.margin_us
            if remaining_us > 0:
                traveller.item.remaining_ms = remaining_us // 1000
                sent.append(traveller)
            else:
                late.append(traveller)
        return sent, _all_refused(late, Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT))


def _envelope_size(envelope: envelope_pb2.Envelope) -> int:
    return len(envelope.payload) + 512


def _question_size(_: envelope_pb2.ResolveItem) -> int:
    return 512


def _all_refused(
    travellers: Sequence[_Traveller[Item]], refusal: Refusal
) -> dict[str, envelope_pb2.ExchangeResult]:
    return {
        traveller.item.id: refused(traveller.item.id, refusal, not_forwarded=True)
        for traveller in travellers
    }


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
