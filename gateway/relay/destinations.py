"""The next hop of an item: how to send to it, and whether it can be reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from infra.runtime.breaker import Breaker, BreakerLimits
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc

Item = TypeVar("Item", envelope_pb2.Envelope, envelope_pb2.ResolveItem)
"""What a relay passes on: id, kind, origin, insured area and remaining time are in both."""
Send: TypeAlias = Callable[
    [Sequence[Item], float], Awaitable[Sequence[envelope_pb2.ExchangeResult]]
]
"""Sends items with a deadline in seconds and returns their results."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The next hop of an item."""

    site: str
    """Site code of the insured place; with the urgency, the coalescer."""
    name: str
    """The next hop, for people."""
    exchange: Send[envelope_pb2.Envelope]
    resolve: Send[envelope_pb2.ResolveItem]
    connected: Callable[[], Awaitable[bool]]
    """Whether the next hop can be reached at all; asked before anything is sent."""
    breaker: Breaker
    """Of the next hop, for what is settled or what is filed: destinations behind it share it."""
    passes_on: bool = False
    """Whether the next hop only passes on: then any answer shows that it is there."""


@dataclass(frozen=True, slots=True)
class NextHop:
    """The next hop by what is asked of it: what is filed and what is settled have a breaker each,
    so that neither closes the way to the other.
    """

    settling: Destination
    filing: Destination

    @classmethod
    def of(cls, make: Callable[[Breaker], Destination], limits: BreakerLimits) -> NextHop:
        """One hop that takes both: `make` gets the breaker of each."""
        return cls(make(Breaker(limits)), make(Breaker(limits)))

    def toward(self, envelope: envelope_pb2.Envelope) -> Destination:
        """Where an envelope of this kind goes."""
        filed = envelope.kind == types_pb2.EXCHANGE_KIND_FILING
        return self.filing if filed else self.settling


def relay_destination(
    site: str,
    name: str,
    relay: relay_pb2_grpc.RelayServiceStub,
    connected: Callable[[], Awaitable[bool]],
    breaker: Breaker,
    *,
    passes_on: bool = False,
) -> Destination:
    """The insured place `site` behind another relay."""

    async def exchange(
        items: Sequence[envelope_pb2.Envelope], seconds: float
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        request = relay_pb2.BatchExchangeRequest(items=items)
        return (await relay.BatchExchange(request, timeout=seconds)).results

    async def resolve(
        items: Sequence[envelope_pb2.ResolveItem], seconds: float
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        request = relay_pb2.BatchResolveRequest(items=items)
        return (await relay.BatchResolve(request, timeout=seconds)).results

    return Destination(site, name, exchange, resolve, connected, breaker, passes_on)
