"""What roles of more than one kind are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from gateway.relay.destinations import Destination
from gateway.relay.forwarding import Forwarder
from gateway.relay.journaling import Journaling
from infra.runtime.coalesce import Bounds, Coalescer
from infra.runtime.exchange import ExchangeClient, FilingClient
from infra.runtime.failpoints import Place, around
from infra.runtime.links import stub
from infra.runtime.server import Runtime
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2_grpc
from yidi.relay.v1 import relay_pb2_grpc
from yidi.settlement.v1 import insured_pb2_grpc

DIRECTORY_SECONDS = 5.0
"""How long a starting process waits for the first directory before it serves without."""
CONNECT_SECONDS = 1.0
"""How long a relay tries to reach the next hop before it says that it is not there."""
Item = TypeVar("Item", bound=object)
Result = TypeVar("Result", bound=object)


def exchange_client(runtime: Runtime, caller: str) -> ExchangeClient:
    """The way from role `caller` to the insured places."""
    return ExchangeClient(
        insured=stub(insured_pb2_grpc.InsuredServiceStub, runtime.channel(caller, "settlement")),
        relay=stub(relay_pb2_grpc.RelayServiceStub, runtime.channel(caller, "relay")),
        failpoints=runtime.failpoints,
    )


def filing_client(runtime: Runtime, caller: str) -> FilingClient:
    """The way from role `caller` to the filing desks of the insured places."""
    return FilingClient(
        desk=stub(desk_pb2_grpc.DeskServiceStub, runtime.channel(caller, "filing")),
        relay=stub(relay_pb2_grpc.RelayServiceStub, runtime.channel(caller, "relay")),
        failpoints=runtime.failpoints,
    )


def failing(runtime: Runtime, destination: Destination, before: Place, after: Place) -> Destination:
    """The destination with the failpoints of its hop."""
    failpoints = runtime.failpoints
    return replace(
        destination,
        exchange=around(failpoints, before, after, destination.exchange),
        resolve=around(failpoints, before, after, destination.resolve),
    )


def forwarder_of(
    runtime: Runtime,
    hop: types_pb2.Hop.ValueType,
    journaling: Journaling | None = None,
) -> Forwarder:
    """What a relay passes items on with."""
    return Forwarder(
        bounds=runtime.exchange_bounds,
        margin_ms=runtime.settings.limits.hop_margin_ms,
        hop=hop,
        journaling=journaling,
    )


def keyed(
    call: Callable[[list[Item]], Awaitable[Sequence[Result]]], bounds: Bounds
) -> Coalescer[Item, Result]:
    """A coalescer for a batch method whose items and results carry `id`."""

    async def send(items: list[Item]) -> Mapping[str, Result]:
        return {result.id: result for result in await call(items)}  # type: ignore[attr-defined]

    return Coalescer(
        send,
        key=lambda item: item.id,  # type: ignore[attr-defined]
        size=lambda item: item.ByteSize(),  # type: ignore[attr-defined]
        bounds=bounds,
    )
