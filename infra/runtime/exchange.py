"""The way to an insured place, by route: the gateway settles and files over it, recovery asks.

LOCAL and IN_PROVINCE enter this site's own insured side; CROSS_PROVINCE goes through the own relay.
The route picks only the client: the protocol is the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from infra.runtime.failpoints import Failpoints, NullFailpoints, Place
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.filing.v1 import desk_pb2, desk_pb2_grpc
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, insured_pb2, insured_pb2_grpc

_CROSS_PROVINCE = types_pb2.ROUTE_CROSS_PROVINCE
MAX_HOPS = 12
"""Hop times kept of an answer: a neighbour that reports more must not spoil its own outcome."""


Exchange: TypeAlias = Callable[
    [types_pb2.Route.ValueType, Sequence[envelope_pb2.Envelope], float],
    Awaitable[Sequence[envelope_pb2.ExchangeResult]],
]
"""Sends envelopes of one route once, with a deadline in seconds."""


class ExchangeClient:
    """Sends envelopes and questions of one route; a deadline in seconds bounds every call."""

    def __init__(
        self,
        *,
        insured: insured_pb2_grpc.InsuredServiceStub,
        relay: relay_pb2_grpc.RelayServiceStub,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._insured = insured
        self._relay = relay
        self._failpoints = failpoints or NullFailpoints()

    async def exchange(
        self,
        route: types_pb2.Route.ValueType,
        envelopes: Sequence[envelope_pb2.Envelope],
        seconds: float,
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        """Send envelopes once; whatever goes wrong after that is unknown, never a refusal."""

        async def inside(
            items: Sequence[envelope_pb2.Envelope],
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = insured_pb2.BatchExchangeRequest(items=items)
            return (await self._insured.BatchExchange(request, timeout=seconds)).results

        send = _across(self._relay, seconds) if route == _CROSS_PROVINCE else inside
        return await self._failpoints.hop(*_places(route), envelopes, send)

    async def resolve(
        self,
        route: types_pb2.Route.ValueType,
        items: Sequence[envelope_pb2.ResolveItem],
        seconds: float,
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        """Ask what became of settlement ids, or make them final."""

        async def across(
            part: Sequence[envelope_pb2.ResolveItem],
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = relay_pb2.BatchResolveRequest(items=part)
            return (await self._relay.BatchResolve(request, timeout=seconds)).results

        async def inside(
            part: Sequence[envelope_pb2.ResolveItem],
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = insured_pb2.BatchResolveRequest(items=part)
            return (await self._insured.BatchResolve(request, timeout=seconds)).results

        send = across if route == _CROSS_PROVINCE else inside
        return await self._failpoints.hop(*_places(route), items, send)


class FilingClient:
    """Sends envelopes of the kind FILING: to the own desk, or through the own relay."""

    def __init__(
        self,
        *,
        desk: desk_pb2_grpc.DeskServiceStub,
        relay: relay_pb2_grpc.RelayServiceStub,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._desk = desk
        self._relay = relay
        self._failpoints = failpoints or NullFailpoints()

    async def exchange(
        self,
        route: types_pb2.Route.ValueType,
        envelopes: Sequence[envelope_pb2.Envelope],
        seconds: float,
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        """Send envelopes once; what became of them is unknown when this fails."""

        async def inside(
            items: Sequence[envelope_pb2.Envelope],
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = desk_pb2.BatchHandleRequest(items=items)
            return (await self._desk.BatchHandle(request, timeout=seconds)).results

        send = _across(self._relay, seconds) if route == _CROSS_PROVINCE else inside
        return await self._failpoints.hop(*_places(route), envelopes, send)


def _across(
    relay: relay_pb2_grpc.RelayServiceStub, seconds: float
) -> Callable[[Sequence[envelope_pb2.Envelope]], Awaitable[Sequence[envelope_pb2.ExchangeResult]]]:
    async def across(
        items: Sequence[envelope_pb2.Envelope],
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        request = relay_pb2.BatchExchangeRequest(items=items)
        return (await relay.BatchExchange(request, timeout=seconds)).results

    return across


def _places(route: types_pb2.Route.ValueType) -> tuple[Place, Place]:
    if route == _CROSS_PROVINCE:
        return Place.GATEWAY_RELAY_BEFORE, Place.GATEWAY_RELAY_AFTER
    return Place.GATEWAY_INSURED_BEFORE, Place.GATEWAY_INSURED_AFTER


def take_answer(item: care_pb2.CloseItem, answer: envelope_pb2.ExchangeResult) -> None:
    """Put what came back for a settlement into the item that closes it; nothing set is unknown."""
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
