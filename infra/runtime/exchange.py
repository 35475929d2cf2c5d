"""The way to an insured place, by route: the gateway settles over it, recovery asks over it.

LOCAL and IN_PROVINCE enter this site's own insured side; CROSS_PROVINCE goes through the own relay.
The route picks only the client: the protocol is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from infra.runtime.failpoints import Failpoints, NullFailpoints, Place
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, insured_pb2, insured_pb2_grpc

MAX_HOPS = 12
"""Hop times kept of an answer: a neighbour that reports more must not spoil its own outcome."""


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

        async def across(
            items: Sequence[envelope_pb2.Envelope],
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = relay_pb2.BatchExchangeRequest(items=items)
            return (await self._relay.BatchExchange(request, timeout=seconds)).results

        async def inside(
            items: Sequence[envelope_pb2.Envelope],
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = insured_pb2.BatchExchangeRequest(items=items)
            return (await self._insured.BatchExchange(request, timeout=seconds)).results

        send = across if route == types_pb2.ROUTE_CROSS_PROVINCE else inside
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

        send = across if route == types_pb2.ROUTE_CROSS_PROVINCE else inside
        return await self._failpoints.hop(*_places(route), items, send)


def _places(route: types_pb2.Route.ValueType) -> tuple[Place, Place]:
    if route == types_pb2.ROUTE_CROSS_PROVINCE:
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
