"""The composition root: what each role of a site is made of, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from gateway.frontdoor.orchestrating import CareQueues, Exchange, Orchestrator
from gateway.frontdoor.preparing import Preparing
from gateway.frontdoor.service import InstitutionServicer
from gateway.relay import store as relay_store
from gateway.relay.forwarding import Destination, Forwarder
from gateway.relay.service import NationServicer, RelayServicer
from infra.runtime.coalesce import Bounds, Coalescer
from infra.runtime.config import NATION, Settings, SettingsError
from infra.runtime.directory import Directory, DirectoryFollower, site_message
from infra.runtime.links import Channel, RemoteChannel, stub
from infra.runtime.schema import Schema
from infra.runtime.server import Builder, Runtime, Service
from services.catalog import store as catalog_store
from services.catalog.service import CatalogService
from services.enrollment import store as enrollment_store
from services.enrollment.service import EnrollmentService
from services.filing import store as filing_store
from services.filing.area_rules import load_area_rules
from services.filing.service import FilingService
from services.policy import store as policy_store
from services.policy.service import PolicyService
from services.settlement import store as settlement_store
from services.settlement.deciding import Decider
from services.settlement.service import CareServicer, InsuredServicer
from services.settlement.store.care import CareStore
from services.settlement.store.insured import InsuredStore
from yidi.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import filing_pb2, filing_pb2_grpc
from yidi.gateway.v1 import gateway_pb2
from yidi.policy.v1 import policy_pb2, policy_pb2_grpc
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc

DIRECTORY_SECONDS = 5.0
"""How long a starting process waits for the first directory before it serves without."""
CONNECT_SECONDS = 1.0
"""How long a relay tries to reach the next hop before it says that it is not there."""
Item = TypeVar("Item", bound=object)
Result = TypeVar("Result", bound=object)


def schemas(settings: Settings) -> list[Schema]:
    """The schemas that a site has."""
    if settings.is_nation:
        return [relay_store.SCHEMA]
    return [
        enrollment_store.SCHEMA,
        filing_store.SCHEMA,
        policy_store.SCHEMA,
        catalog_store.SCHEMA,
        settlement_store.SCHEMA,
    ]


def builders(settings: Settings, roles: Iterable[str]) -> dict[str, Sequence[Builder]]:
    """How to build each of `roles` for one process of the site."""
    known = {"relay": [_nation_relay]} if settings.is_nation else _Province(settings).roles()
    unknown = [role for role in roles if role not in known]
    if unknown:
        raise SettingsError(
            f"roles: site {settings.site.code} has no role {', '.join(unknown)}; "
            f"it has {', '.join(known)}"
        )
    return {role: known[role] for role in roles}


class _Province:
    """Builds the roles of a province; those of one process share one directory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory: Directory | None = None

    def roles(self) -> dict[str, Sequence[Builder]]:
        return {
            "enrollment": [self._enrollment],
            "filing": [self._filing],
            "policy": [self._policy],
            "catalog": [self._catalog],
            "settlement": [self._care, self._insured],
            "gateway": [self._gateway],
            "relay": [self._relay],
        }

    async def directory(self, runtime: Runtime, role: str) -> Directory:
        """The directory of this process: in the relay's it follows the nation, else the relay."""
        if self._directory is None:
            self._directory = Directory(runtime.settings, runtime.clock)
            if "relay" in runtime.local_roles:
                channel: Channel = self._nation(runtime)
            else:
                channel = runtime.channel(role, "relay")
            nation = stub(relay_pb2_grpc.RelayServiceStub, channel)

            async def fetch(
                request: relay_pb2.GetDirectoryRequest,
            ) -> relay_pb2.GetDirectoryResponse:
                return await nation.GetDirectory(request, timeout=runtime.local_seconds)

            follower = DirectoryFollower(
                self._directory, fetch, every_ms=runtime.settings.limits.directory_poll_ms
            )
            runtime.stack.push_async_callback(follower.stop)
            follower.start()
            await follower.first(DIRECTORY_SECONDS)
        return self._directory

    def _nation(self, runtime: Runtime) -> RemoteChannel:
        if runtime.settings.nation is None:
            raise SettingsError("nation.edge is missing: a province must know the nation's relay")
        return runtime.edge_channel(NATION, runtime.settings.nation.edge)

    async def _enrollment(self, runtime: Runtime) -> Service:
        key = runtime.settings.enrollment_key.get_secret_value()
        try:
            secret = bytes.fromhex(key)
        except ValueError:
            secret = b""
        if len(secret) != 32:
            raise SettingsError("enrollment_key: must be 32 bytes in hex")
        servicer = EnrollmentService(
            database=await runtime.database("enrollment"), clock=runtime.clock, secret=secret
        )
        return Service(enrollment_pb2.DESCRIPTOR.services_by_name["EnrollmentService"], servicer)

    async def _filing(self, runtime: Runtime) -> Service:
        directory = await self.directory(runtime, "filing")
        servicer = FilingService(
            database=await runtime.database("filing"),
            clock=runtime.clock,
            enrollment=stub(
                enrollment_pb2_grpc.EnrollmentServiceStub, runtime.channel("filing", "enrollment")
            ),
            rules=load_area_rules(),
            area_names=_Names(directory),
            call_seconds=runtime.local_seconds,
        )
        return Service(filing_pb2.DESCRIPTOR.services_by_name["FilingService"], servicer)

    async def _policy(self, runtime: Runtime) -> Service:
        servicer = PolicyService(
            database=await runtime.database("policy"),
            clock=runtime.clock,
            allow_illustrative=runtime.settings.allow_illustrative,
        )
        await servicer.start()
        runtime.stack.push_async_callback(servicer.stop)
        return Service(policy_pb2.DESCRIPTOR.services_by_name["PolicyService"], servicer)

    async def _catalog(self, runtime: Runtime) -> Service:
        servicer = CatalogService(
            database=await runtime.database("catalog"), site=runtime.settings.site.code
        )
        await servicer.start()
        runtime.stack.push_async_callback(servicer.stop)
        return Service(catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"], servicer)

    async def _care(self, runtime: Runtime) -> Service:
        servicer = CareServicer(
            site=runtime.settings.site.code,
            store=CareStore(await runtime.database("settlement")),
            clock=runtime.clock,
        )
        return Service(care_pb2.DESCRIPTOR.services_by_name["CareService"], servicer)

    async def _insured(self, runtime: Runtime) -> Service:
        store = InsuredStore(await runtime.database("settlement"))
        decider = Decider(
            store=store,
            enrollment=stub(
                enrollment_pb2_grpc.EnrollmentServiceStub,
                runtime.channel("settlement", "enrollment"),
            ),
            filing=stub(filing_pb2_grpc.FilingServiceStub, runtime.channel("settlement", "filing")),
            policy=stub(policy_pb2_grpc.PolicyServiceStub, runtime.channel("settlement", "policy")),
            directory=await self.directory(runtime, "settlement"),
            clock=runtime.clock,
            call_seconds=runtime.local_seconds,
        )
        servicer = InsuredServicer(store=store, decider=decider)
        return Service(insured_pb2.DESCRIPTOR.services_by_name["InsuredService"], servicer)

    async def _gateway(self, runtime: Runtime) -> Service:
        directory = await self.directory(runtime, "gateway")
        catalog = stub(catalog_pb2_grpc.CatalogServiceStub, runtime.channel("gateway", "catalog"))
        care = stub(care_pb2_grpc.CareServiceStub, runtime.channel("gateway", "settlement"))
        insured = stub(
            insured_pb2_grpc.InsuredServiceStub, runtime.channel("gateway", "settlement")
        )
        relay = stub(relay_pb2_grpc.RelayServiceStub, runtime.channel("gateway", "relay"))
        seconds = runtime.local_seconds

        async def inside(
            envelopes: Sequence[envelope_pb2.Envelope], deadline_s: float
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = insured_pb2.BatchExchangeRequest(items=envelopes)
            return (await insured.BatchExchange(request, timeout=deadline_s)).results

        async def across(
            envelopes: Sequence[envelope_pb2.Envelope], deadline_s: float
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = relay_pb2.BatchExchangeRequest(items=envelopes)
            return (await relay.BatchExchange(request, timeout=deadline_s)).results

        async def split(
            request: list[catalog_pb2.SplitFeesItem],
        ) -> Sequence[catalog_pb2.SplitFeesResult]:
            batch = catalog_pb2.BatchSplitFeesRequest(items=request)
            return (await catalog.BatchSplitFees(batch, timeout=seconds)).results

        async def opens(items: list[care_pb2.OpenItem]) -> Sequence[care_pb2.OpenResult]:
            batch = care_pb2.BatchOpenRequest(items=items)
            return (await care.BatchOpen(batch, timeout=seconds)).results

        async def closes(items: list[care_pb2.CloseItem]) -> Sequence[care_pb2.CloseResult]:
            batch = care_pb2.BatchCloseRequest(items=items)
            return (await care.BatchClose(batch, timeout=seconds)).results

        async def gets(items: list[care_pb2.GetItem]) -> Sequence[care_pb2.GetResult]:
            batch = care_pb2.BatchGetRequest(items=items)
            return (await care.BatchGet(batch, timeout=seconds)).results

        bounds = runtime.bounds
        exchanges: tuple[Exchange, Exchange] = (inside, across)
        orchestrator = Orchestrator(
            clock=runtime.clock,
            limits=runtime.settings.limits,
            bounds=runtime.exchange_bounds,
            preparing=Preparing(
                clock=runtime.clock, directory=directory, split=_keyed(split, bounds)
            ),
            care=CareQueues(
                opens=_keyed(opens, bounds),
                closes=_keyed(closes, bounds),
                gets=_keyed(gets, bounds),
            ),
            inside=exchanges[0],
            across=exchanges[1],
        )
        return Service(
            gateway_pb2.DESCRIPTOR.services_by_name["InstitutionService"],
            InstitutionServicer(orchestrator),
            drain=orchestrator.drain,
        )

    async def _relay(self, runtime: Runtime) -> Service:
        directory = await self.directory(runtime, "relay")
        nation_channel = self._nation(runtime)
        nation = stub(relay_pb2_grpc.RelayServiceStub, nation_channel)
        insured = stub(insured_pb2_grpc.InsuredServiceStub, runtime.channel("relay", "settlement"))

        async def to_nation(
            envelopes: Sequence[envelope_pb2.Envelope], deadline_s: float
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = relay_pb2.BatchExchangeRequest(items=envelopes)
            return (await nation.BatchExchange(request, timeout=deadline_s)).results

        async def to_settlement(
            envelopes: Sequence[envelope_pb2.Envelope], deadline_s: float
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = insured_pb2.BatchExchangeRequest(items=envelopes)
            return (await insured.BatchExchange(request, timeout=deadline_s)).results

        async def nation_connected() -> bool:
            return await nation_channel.connected(CONNECT_SECONDS)

        async def inside() -> bool:
            return True

        def outward(site: str) -> Destination:
            return Destination(site, "国家平台", to_nation, nation_connected)

        outward_forwarder = _forwarder(runtime, types_pb2.HOP_UNSPECIFIED)
        inward_forwarder = _forwarder(runtime, types_pb2.HOP_INSURED)
        servicer = RelayServicer(
            site=runtime.settings.site.code,
            directory=directory,
            outward_forwarder=outward_forwarder,
            inward_forwarder=inward_forwarder,
            outward=outward,
            inward=Destination(
                runtime.settings.site.code, runtime.settings.site.name, to_settlement, inside
            ),
        )

        async def drain() -> None:
            await outward_forwarder.drain()
            await inward_forwarder.drain()

        return Service(relay_pb2.DESCRIPTOR.services_by_name["RelayService"], servicer, drain=drain)


async def _nation_relay(runtime: Runtime) -> Service:
    store = relay_store.NationStore(await runtime.database("relay"))
    neighbours = runtime.settings.neighbours
    sites = [
        site_message(n.code, n.name, n.areas, (n.min_revision, n.max_revision)) for n in neighbours
    ]
    content = b"".join(site.SerializeToString(deterministic=True) for site in sites)
    directory = relay_pb2.GetDirectoryResponse(
        # Another content is another revision, also after a restart.
        revision=int.from_bytes(hashlib.sha256(content).digest()[:6]) + 1,
        sites=sites,
    )
    destinations: dict[str, Destination] = {}
    for neighbour in neighbours:
        channel = runtime.edge_channel(neighbour.code, neighbour.edge)
        destinations[neighbour.code] = _site_destination(neighbour.code, neighbour.name, channel)
    forwarder = _forwarder(runtime, types_pb2.HOP_NATION, store)
    servicer = NationServicer(
        clock=runtime.clock,
        directory=directory,
        forwarder=forwarder,
        sites=destinations,
        store=store,
    )
    return Service(
        relay_pb2.DESCRIPTOR.services_by_name["RelayService"], servicer, drain=forwarder.drain
    )


def _site_destination(code: str, name: str, channel: RemoteChannel) -> Destination:
    relay = stub(relay_pb2_grpc.RelayServiceStub, channel)

    async def send(
        envelopes: Sequence[envelope_pb2.Envelope], deadline_s: float
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        request = relay_pb2.BatchExchangeRequest(items=envelopes)
        return (await relay.BatchExchange(request, timeout=deadline_s)).results

    async def connected() -> bool:
        return await channel.connected(CONNECT_SECONDS)

    return Destination(code, name, send, connected)


def _forwarder(
    runtime: Runtime,
    hop: types_pb2.Hop.ValueType,
    journal: relay_store.NationStore | None = None,
) -> Forwarder:
    return Forwarder(
        clock=runtime.clock,
        bounds=runtime.exchange_bounds,
        margin_ms=runtime.settings.limits.hop_margin_ms,
        hop=hop,
        journal=journal,
    )


def _keyed(
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


class _Names(Mapping[str, str]):
    """The directory's names as filing wants them."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def __getitem__(self, area: str) -> str:
        return self._directory.name(area)

    def __contains__(self, area: object) -> bool:
        return isinstance(area, str)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
