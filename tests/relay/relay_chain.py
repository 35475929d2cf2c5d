"""Relays in one process: one that passes on to a peer, and the whole way over three of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from relay_peers import (
    CLOCK,
    SITES,
    FakeNation,
    MemoryStore,
    Peer,
    behind,
    call_of,
    filed,
)

from gateway.relay.destinations import Destination, NextHop
from gateway.relay.detailing import Detailing
from gateway.relay.forwarding import Forwarder
from gateway.relay.journaling import Journaling
from gateway.relay.listing import Listing
from gateway.relay.service import NationServicer, RelayServicer
from gateway.relay.store import NationStore
from infra.runtime.breaker import BreakerLimits
from infra.runtime.call import CallerType, Identity
from infra.runtime.coalesce import Bounds
from infra.runtime.config import Settings
from infra.runtime.directory import Directory
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.relay.v1 import relay_pb2

GATEWAY = Identity("440000", CallerType.ROLE, "gateway")
LIMITS = BreakerLimits()


def forwarder(store: MemoryStore | None = None, *, bounds: Bounds | None = None) -> Forwarder:
    journaling = None if store is None else Journaling(store=as_store(store), clock=CLOCK)
    return Forwarder(
        bounds=bounds or Bounds(),
        margin_ms=50,
        hop=types_pb2.HOP_NATION,
        journaling=journaling,
    )


def as_store(store: MemoryStore) -> NationStore:
    return store  # type: ignore[return-value]


def institution(origin: envelope_pb2.Origin) -> str:
    return origin.institution


async def exchange(
    forwarding: Forwarder, destination: Destination, *envelopes: envelope_pb2.Envelope
) -> list[envelope_pb2.ExchangeResult]:
    return await forwarding.exchange(envelopes, lambda _: destination, institution)


async def resolve(
    forwarding: Forwarder, destination: Destination, *items: envelope_pb2.ResolveItem
) -> list[envelope_pb2.ExchangeResult]:
    return await forwarding.resolve(items, lambda _: destination, institution)


class Chain:
    """广东 → nation → 北京 in one process; beyond are a fake settlement and desk."""

    def __init__(self, settings: Settings) -> None:
        self.store, self.settlement, self.desk = MemoryStore(), Peer(), Peer(answer=filed)
        self.listing = Listing(
            sites=SITES, store=as_store(self.store), clock=CLOCK, every_ms=60_000
        )
        insured = self._province(settings, "110000")
        inside = Forwarder(bounds=Bounds(), margin_ms=50, hop=types_pb2.HOP_INSURED)
        beijing = RelayServicer(
            site="110000",
            directory=insured,
            outward_forwarder=inside,
            inward_forwarder=inside,
            outward=lambda site: NextHop.of(partial(self.settlement.destination, site), LIMITS),
            inward=NextHop(self.settlement.destination("110000"), self.desk.destination("110000")),
            nation_journal=FakeNation().journal("110000"),
        )
        self.nation = NationServicer(
            listing=self.listing,
            forwarder=forwarder(self.store),
            sites={
                "110000": NextHop.of(partial(behind, beijing, "100000", "110000"), LIMITS),
                "370000": NextHop.of(partial(Peer(up=False).destination, "370000"), LIMITS),
            },
            store=as_store(self.store),
            detailing=Detailing(store=as_store(self.store), clock=CLOCK),
        )
        self.to_nation = NextHop.of(
            partial(behind, self.nation, "440000", "110000", passes_on=True), LIMITS
        )
        self.care = RelayServicer(
            site="440000",
            directory=self._province(settings, "440000"),
            outward_forwarder=Forwarder(
                bounds=Bounds(), margin_ms=50, hop=types_pb2.HOP_UNSPECIFIED
            ),
            inward_forwarder=inside,
            outward=self._outward,
            inward=NextHop.of(partial(self.settlement.destination, "440000"), LIMITS),
            nation_journal=FakeNation().journal("440000"),
        )

    def _outward(self, site: str) -> NextHop:
        return NextHop(
            replace(self.to_nation.settling, site=site), replace(self.to_nation.filing, site=site)
        )

    def _province(self, settings: Settings, site: str) -> Directory:
        own = settings.site.model_copy(update={"code": site, "areas": ()})
        directory = Directory(settings.model_copy(update={"site": own}), CLOCK)
        directory.update(self.listing.snapshot())
        return directory

    async def exchange(self, *items: envelope_pb2.Envelope) -> list[envelope_pb2.ExchangeResult]:
        request = relay_pb2.BatchExchangeRequest(items=items)
        return list((await self.care.BatchExchange(request, call_of(GATEWAY))).results)

    async def resolve(self, *items: envelope_pb2.ResolveItem) -> list[envelope_pb2.ExchangeResult]:
        request = relay_pb2.BatchResolveRequest(items=items)
        return list((await self.care.BatchResolve(request, call_of(GATEWAY))).results)
