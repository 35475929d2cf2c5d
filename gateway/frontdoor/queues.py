"""The coalescers that the front door sends through: the own care journal, and each insured site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infra.runtime.breaker import Breaker, BreakerLimits
from infra.runtime.clock import monotonic_us
from infra.runtime.coalesce import Bounds, Coalescer, Place
from infra.runtime.errors import Reason, Refusal
from infra.runtime.exchange import Exchange
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.settlement.v1 import care_pb2


@dataclass(frozen=True, slots=True)
class Leaving:
    """An envelope on its way, and until when its caller waits."""

    envelope: envelope_pb2.Envelope
    deadline_us: int


ExchangeQueue = Coalescer[Leaving, envelope_pb2.ExchangeResult]


@dataclass(frozen=True, slots=True)
class CareQueues:
    """The coalescers to the own care journal."""

    opens: Coalescer[care_pb2.OpenItem, care_pb2.OpenResult]
    closes: Coalescer[care_pb2.CloseItem, care_pb2.CloseResult]
    gets: Coalescer[care_pb2.GetItem, care_pb2.GetResult]
    cancels: Coalescer[care_pb2.CancelItem, care_pb2.CloseResult]


class ExchangeQueues:
    """One coalescer per insured site and urgency, one breaker per insured site.

    Quotes never wait behind commits, and both obey the breaker. What is filed has queues and
    breakers of its own: another object of this class.
    """

    def __init__(
        self,
        *,
        exchange: Exchange,
        bounds: Bounds,
        margin_ms: int,
        breaker: BreakerLimits,
        now_us: Callable[[], int] = monotonic_us,
    ) -> None:
        self._exchange = exchange
        self._bounds = bounds
        self._margin_us = margin_ms * 1000
        self._breaker_limits = breaker
        self._now_us = now_us
        self._queues: dict[tuple[str, bool], ExchangeQueue] = {}
        self._breakers: dict[str, Breaker] = {}

    def admit(
        self,
        site: str,
        route: types_pb2.Route.ValueType,
        institution: str,
        *,
        quote: bool,
        site_name: str,
    ) -> tuple[ExchangeQueue, Place]:
        """A place in the queue to an insured site, before anything is claimed or written.

        Refuses with OVERLOADED when the queue or the institution's share of it is full, and with
        SITE_UNREACHABLE while the site's breaker is open. `submit(leaving, place)` uses the place.
        """
        breaker = self._breaker(site)
        queue = self._queue(site, site_name, route, breaker, quote=quote)
        place = queue.reserve(institution)
        try:
            # Last: the first one after a while is the breaker's trial and must really leave.
            breaker.admit(site_name)
        except Refusal:
            place.give_back()
            raise
        return queue, place

    def _breaker(self, site: str) -> Breaker:
        if site not in self._breakers:
            self._breakers[site] = Breaker(self._breaker_limits, self._now_us)
        return self._breakers[site]

    def _queue(
        self,
        site: str,
        site_name: str,
        route: types_pb2.Route.ValueType,
        breaker: Breaker,
        *,
        quote: bool,
    ) -> ExchangeQueue:
        # By site alone: LOCAL and IN_PROVINCE use one client, and no site is both own and foreign.
        key = (site, quote)
        if key not in self._queues:

            async def send(items: list[Leaving]) -> Mapping[str, envelope_pb2.ExchangeResult]:
                return await self._send(route, site_name, breaker, items)

            self._queues[key] = Coalescer(
                send,
                key=lambda item: item.envelope.id,
                size=lambda item: len(item.envelope.payload) + 512,
                bounds=self._bounds,
                caller=lambda item: item.envelope.origin.institution,
            )
        return self._queues[key]

    async def _send(
        self,
        route: types_pb2.Route.ValueType,
        site_name: str,
        breaker: Breaker,
        items: list[Leaving],
    ) -> dict[str, envelope_pb2.ExchangeResult]:
        if not breaker.passes:
            # It opened while these waited: they have not left, so they can be closed at once.
            refusal = breaker.refusal(site_name)
            return {item.envelope.id: _not_sent(item.envelope.id, refusal) for item in items}
        now_us = self._now_us()
        late = Refusal(Reason.ERROR_REASON_DEADLINE_TOO_SHORT)
        answers: dict[str, envelope_pb2.ExchangeResult] = {}
        leaving: list[Leaving] = []
        for item in items:
            remaining_ms = (item.deadline_us - now_us - self._margin_us) // 1000
            if remaining_ms > 0:
                item.envelope.remaining_ms = remaining_ms
                leaving.append(item)
            else:
                answers[item.envelope.id] = _not_sent(item.envelope.id, late)
        if leaving:
            seconds = (max(item.deadline_us for item in leaving) - now_us) / 1e6
            envelopes = [item.envelope for item in leaving]
            attempt = breaker.begin(seconds)
            try:
                answered = await self._exchange(route, envelopes, seconds)
            except Refusal as refusal:
                breaker.broke(attempt, refusal)
                raise
            breaker.answered(attempt, len(leaving), answered)
            answers |= {answer.id: answer for answer in answered}
        return answers


def _not_sent(settlement_id: str, refusal: Refusal) -> envelope_pb2.ExchangeResult:
    """The exchange of this item was not begun."""
    return envelope_pb2.ExchangeResult(id=settlement_id, error=refusal.status(), not_forwarded=True)
