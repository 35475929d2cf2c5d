"""How the nation's relay is built."""

from __future__ import annotations

from gateway.relay import store as relay_store
from gateway.relay.destinations import Destination, NextHop, relay_destination
from gateway.relay.detailing import Detailing
from gateway.relay.journaling import Journaling
from gateway.relay.listing import Listing
from gateway.relay.service import NationServicer
from infra.cli.roles.shared import CONNECT_SECONDS, failing, forwarder_of
from infra.runtime.breaker import Breaker
from infra.runtime.config import Neighbour
from infra.runtime.directory import site_message
from infra.runtime.failpoints import Place
from infra.runtime.links import stub
from infra.runtime.server import Runtime, Service
from yidi.common.v1 import types_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc


async def nation_relay(runtime: Runtime) -> Service:
    store = relay_store.NationStore(await runtime.database("relay"), runtime.failpoints)
    neighbours = runtime.settings.neighbours
    listing = Listing(
        sites=[
            site_message(n.code, n.name, n.areas, (n.min_revision, n.max_revision))
            for n in neighbours
        ],
        store=store,
        clock=runtime.clock,
        every_ms=runtime.settings.limits.directory_poll_ms,
    )
    await listing.refresh()
    runtime.stack.push_async_callback(listing.stop)
    listing.start()
    forwarder = forwarder_of(
        runtime, types_pb2.HOP_NATION, Journaling(store=store, clock=runtime.clock)
    )
    servicer = NationServicer(
        listing=listing,
        forwarder=forwarder,
        sites={n.code: _province(runtime, n) for n in neighbours},
        store=store,
        detailing=Detailing(store=store, clock=runtime.clock),
    )
    return Service(
        relay_pb2.DESCRIPTOR.services_by_name["RelayService"], servicer, drain=forwarder.drain
    )


def _province(runtime: Runtime, neighbour: Neighbour) -> NextHop:
    channel = runtime.edge_channel(neighbour.code, neighbour.edge)

    async def connected() -> bool:
        return await channel.connected(CONNECT_SECONDS)

    def hop(breaker: Breaker) -> Destination:
        province = relay_destination(
            neighbour.code,
            neighbour.name,
            stub(relay_pb2_grpc.RelayServiceStub, channel),
            connected,
            breaker,
        )
        return failing(runtime, province, Place.NATION_RELAY_BEFORE, Place.NATION_RELAY_AFTER)

    return NextHop.of(hop, runtime.breaker_limits)
