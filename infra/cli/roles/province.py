"""How the roles of a province are built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from random import SystemRandom

from gateway.frontdoor.catalog_desk import CatalogDeskServicer
from gateway.frontdoor.filing import FilingDesks
from gateway.frontdoor.filing_desk import FilingDeskServicer
from gateway.frontdoor.orchestrating import Orchestrator
from gateway.frontdoor.preparing import Preparing
from gateway.frontdoor.queues import CareQueues, ExchangeQueues
from gateway.frontdoor.service import InstitutionServicer
from gateway.frontdoor.undoing import Undoing
from gateway.relay.asking import NationJournal
from gateway.relay.destinations import Destination, NextHop, Send, relay_destination
from gateway.relay.service import RelayServicer
from infra.cli.roles.shared import (
    CONNECT_SECONDS,
    DIRECTORY_SECONDS,
    exchange_client,
    failing,
    filing_client,
    forwarder_of,
    keyed,
)
from infra.runtime.breaker import Breaker
from infra.runtime.config import NATION, Settings, SettingsError
from infra.runtime.directory import Directory, DirectoryFollower
from infra.runtime.failpoints import Place
from infra.runtime.links import Channel, RemoteChannel, stub
from infra.runtime.server import Builder, Runtime, Service
from services.catalog.audit_rules import load_audit_rules
from services.catalog.listing_service import ListingService
from services.catalog.registry_service import RegistryService
from services.catalog.service import CatalogService
from services.enrollment.participants import ParticipantService
from services.enrollment.service import EnrollmentService
from services.filing.desk_service import DeskServicer
from services.filing.domain.area_rules import AreaRules
from services.filing.places import Places
from services.filing.service import FilingService
from services.filing.written_rules import load_area_rules
from services.policy.publishing import PublishingServicer
from services.policy.service import PolicyService
from services.settlement.comparing import Comparing
from services.settlement.deciding import Decider
from services.settlement.detail_upload import DetailUpload
from services.settlement.recovering import Recovery
from services.settlement.resolving import Resolver
from services.settlement.service import AuditServicer, CareServicer, InsuredServicer
from services.settlement.store.audit import AuditStore
from services.settlement.store.care import CareStore
from services.settlement.store.comparing import ComparingStore
from services.settlement.store.costs import CostsStore
from services.settlement.store.details import DetailStore
from services.settlement.store.external import ExternalStore
from services.settlement.store.insured import InsuredStore
from services.settlement.store.operating import OperatingStore
from services.settlement.store.recovery import RecoveryStore
from services.settlement.store.resolution import ResolutionStore
from services.settlement.undoing import Undoer
from yidi.catalog.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    listing_pb2,
    listing_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc, participant_pb2
from yidi.filing.v1 import desk_pb2, desk_pb2_grpc, filing_pb2, filing_pb2_grpc
from yidi.gateway.v1 import catalog_desk_pb2, filing_desk_pb2, gateway_pb2
from yidi.policy.v1 import policy_pb2, policy_pb2_grpc, publishing_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import (
    audit_pb2,
    care_pb2,
    care_pb2_grpc,
    insured_pb2,
    insured_pb2_grpc,
)

_NATION_NAME = "国家平台"


class Province:
    """Builds the roles of a province; those of one process share one directory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory: Directory | None = None
        self._computing: PolicyService | None = None
        self._filing_rules: Mapping[str, AreaRules] = {}

    def roles(self) -> dict[str, Sequence[Builder]]:
        return {
            "enrollment": [self._enrollment, self._participants],
            "filing": [self._filing, self._filing_desk],
            "policy": [self._policy, self._publishing],
            "catalog": [self._catalog, self._listing, self._registry],
            "settlement": [self._care, self._insured, self._audit],
            "gateway": [self._gateway, self._filing_door, self._catalog_door],
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

    def _enrollment_secret(self) -> bytes:
        try:
            secret = bytes.fromhex(self._settings.enrollment_key.get_secret_value())
        except ValueError:
            secret = b""
        if len(secret) != 32:
            raise SettingsError("enrollment_key: must be 32 bytes in hex")
        return secret

    async def _enrollment(self, runtime: Runtime) -> Service:
        servicer = EnrollmentService(
            database=await runtime.database("enrollment"),
            clock=runtime.clock,
            secret=self._enrollment_secret(),
        )
        return Service(enrollment_pb2.DESCRIPTOR.services_by_name["EnrollmentService"], servicer)

    async def _participants(self, runtime: Runtime) -> Service:
        directory = await self.directory(runtime, "enrollment")
        servicer = ParticipantService(
            database=await runtime.database("enrollment"),
            clock=runtime.clock,
            secret=self._enrollment_secret(),
            place=directory.place,
            site=runtime.settings.site.code,
        )
        return Service(participant_pb2.DESCRIPTOR.services_by_name["ParticipantService"], servicer)

    async def _filing(self, runtime: Runtime) -> Service:
        directory = await self.directory(runtime, "filing")
        self._filing_rules = load_area_rules()
        servicer = FilingService(
            database=await runtime.database("filing"),
            clock=runtime.clock,
            enrollment=stub(
                enrollment_pb2_grpc.EnrollmentServiceStub, runtime.channel("filing", "enrollment")
            ),
            places=Places(directory, runtime.settings.site.code),
            rules=self._filing_rules,
            area_names=_Names(directory),
            call_seconds=runtime.local_seconds,
            allow_illustrative=runtime.settings.allow_illustrative,
        )
        return Service(filing_pb2.DESCRIPTOR.services_by_name["FilingService"], servicer)

    async def _filing_desk(self, runtime: Runtime) -> Service:
        directory = await self.directory(runtime, "filing")
        servicer = DeskServicer(
            database=await runtime.database("filing"),
            clock=runtime.clock,
            enrollment=stub(
                enrollment_pb2_grpc.EnrollmentServiceStub, runtime.channel("filing", "enrollment")
            ),
            settlement=stub(
                insured_pb2_grpc.InsuredServiceStub, runtime.channel("filing", "settlement")
            ),
            directory=directory,
            places=Places(directory, runtime.settings.site.code),
            rules=self._filing_rules,
            area_names=_Names(directory),
            call_seconds=runtime.local_seconds,
            allow_illustrative=runtime.settings.allow_illustrative,
        )
        return Service(desk_pb2.DESCRIPTOR.services_by_name["DeskService"], servicer)

    async def _policy(self, runtime: Runtime) -> Service:
        servicer = PolicyService(
            database=await runtime.database("policy"),
            clock=runtime.clock,
            allow_illustrative=runtime.settings.allow_illustrative,
        )
        await servicer.start()
        runtime.stack.push_async_callback(servicer.stop)
        self._computing = servicer
        return Service(policy_pb2.DESCRIPTOR.services_by_name["PolicyService"], servicer)

    async def _publishing(self, runtime: Runtime) -> Service:
        assert self._computing is not None, "built before, by the same role"

        async def past(
            request: insured_pb2.ListPastCasesRequest,
        ) -> insured_pb2.ListPastCasesResponse:
            channel = runtime.channel("policy", "settlement")
            insured = stub(insured_pb2_grpc.InsuredServiceStub, channel)
            return await insured.ListPastCases(request, timeout=runtime.local_seconds)

        servicer = PublishingServicer(
            database=await runtime.database("policy"),
            clock=runtime.clock,
            computing=self._computing,
            past=past,
        )
        return Service(publishing_pb2.DESCRIPTOR.services_by_name["PublishingService"], servicer)

    async def _catalog(self, runtime: Runtime) -> Service:
        servicer = CatalogService(
            database=await runtime.database("catalog"),
            site=runtime.settings.site.code,
            audit_rules=load_audit_rules(),
        )
        await servicer.start()
        runtime.stack.push_async_callback(servicer.stop)
        return Service(catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"], servicer)

    async def _listing(self, runtime: Runtime) -> Service:
        servicer = ListingService(
            database=await runtime.database("catalog"),
            clock=runtime.clock,
            site=runtime.settings.site.code,
        )
        return Service(listing_pb2.DESCRIPTOR.services_by_name["ListingService"], servicer)

    async def _registry(self, runtime: Runtime) -> Service:
        site = runtime.settings.site
        servicer = RegistryService(
            database=await runtime.database("catalog"),
            clock=runtime.clock,
            site=site.code,
            areas=[area.code for area in site.areas],
        )
        return Service(registry_pb2.DESCRIPTOR.services_by_name["RegistryService"], servicer)

    async def _care(self, runtime: Runtime) -> Service:
        database = await runtime.database("settlement")
        failpoints = runtime.failpoints
        store = CareStore(database, failpoints)
        recovery_store = RecoveryStore(database, failpoints)
        recovery = Recovery(
            care=store,
            store=recovery_store,
            exchange=exchange_client(runtime, "settlement"),
            clock=runtime.clock,
            random=SystemRandom().random,
        )
        if runtime.settings.limits.recover:
            runtime.stack.push_async_callback(recovery.stop)
            recovery.start()
        servicer = CareServicer(
            site=runtime.settings.site.code,
            store=store,
            recovery=recovery_store,
            operating=OperatingStore(database),
            clock=runtime.clock,
        )
        return Service(care_pb2.DESCRIPTOR.services_by_name["CareService"], servicer)

    async def _insured(self, runtime: Runtime) -> Service:
        database = await runtime.database("settlement")
        store = InsuredStore(database, runtime.failpoints)
        resolution = ResolutionStore(database, runtime.failpoints)
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
        comparing = Comparing(
            site=runtime.settings.site.code,
            insured=store,
            store=ComparingStore(database),
            nation=stub(relay_pb2_grpc.RelayServiceStub, runtime.channel("settlement", "relay")),
            clock=runtime.clock,
        )
        if runtime.settings.limits.recover:
            runtime.stack.push_async_callback(comparing.stop)
            comparing.start()
        servicer = InsuredServicer(
            store=store,
            external=ExternalStore(database),
            costs=CostsStore(database),
            decider=decider,
            undoer=Undoer(store=store, resolution=resolution, clock=runtime.clock),
            resolver=Resolver(store=resolution, clock=runtime.clock),
            comparing=comparing,
            directory=await self.directory(runtime, "settlement"),
            clock=runtime.clock,
        )
        return Service(insured_pb2.DESCRIPTOR.services_by_name["InsuredService"], servicer)

    async def _audit(self, runtime: Runtime) -> Service:
        database = await runtime.database("settlement")
        details = DetailStore(database)
        upload = DetailUpload(
            store=details,
            relay=stub(relay_pb2_grpc.RelayServiceStub, runtime.channel("settlement", "relay")),
            clock=runtime.clock,
        )
        if runtime.settings.limits.recover:
            runtime.stack.push_async_callback(upload.stop)
            upload.start()
        servicer = AuditServicer(store=AuditStore(database), details=details, clock=runtime.clock)
        return Service(audit_pb2.DESCRIPTOR.services_by_name["AuditService"], servicer)

    async def _gateway(self, runtime: Runtime) -> Service:
        directory = await self.directory(runtime, "gateway")
        catalog = stub(catalog_pb2_grpc.CatalogServiceStub, runtime.channel("gateway", "catalog"))
        care = stub(care_pb2_grpc.CareServiceStub, runtime.channel("gateway", "settlement"))
        seconds = runtime.local_seconds

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

        async def cancels(items: list[care_pb2.CancelItem]) -> Sequence[care_pb2.CloseResult]:
            batch = care_pb2.BatchCancelRequest(items=items)
            return (await care.BatchCancel(batch, timeout=seconds)).results

        bounds, limits = runtime.bounds, runtime.settings.limits
        # A line comes back four times as long as it was sent: with its name, parts and reason.
        splitting = replace(bounds, bytes=bounds.bytes // 4)
        preparing = Preparing(
            clock=runtime.clock, directory=directory, split=keyed(split, splitting)
        )
        orchestrator = Orchestrator(
            clock=runtime.clock,
            limits=limits,
            preparing=preparing,
            care=CareQueues(
                opens=keyed(opens, bounds),
                closes=keyed(closes, bounds),
                gets=keyed(gets, bounds),
                cancels=keyed(cancels, bounds),
            ),
            exchanges=ExchangeQueues(
                exchange=exchange_client(runtime, "gateway").exchange,
                bounds=runtime.exchange_bounds,
                margin_ms=limits.hop_margin_ms,
                breaker=runtime.breaker_limits,
            ),
            failpoints=runtime.failpoints,
        )
        return Service(
            gateway_pb2.DESCRIPTOR.services_by_name["InstitutionService"],
            InstitutionServicer(
                orchestrator=orchestrator,
                undoing=Undoing(orchestrator=orchestrator, preparing=preparing),
            ),
            drain=orchestrator.drain,
        )

    async def _filing_door(self, runtime: Runtime) -> Service:
        limits = runtime.settings.limits
        desks = FilingDesks(
            clock=runtime.clock,
            directory=await self.directory(runtime, "gateway"),
            area=_any_area(runtime.settings),
            limits=limits,
            exchanges=ExchangeQueues(
                exchange=filing_client(runtime, "gateway").exchange,
                bounds=runtime.exchange_bounds,
                margin_ms=limits.hop_margin_ms,
                breaker=runtime.breaker_limits,
            ),
        )
        return Service(
            filing_desk_pb2.DESCRIPTOR.services_by_name["FilingDeskService"],
            FilingDeskServicer(desks),
        )

    async def _catalog_door(self, runtime: Runtime) -> Service:
        channel = runtime.channel("gateway", "catalog")
        servicer = CatalogDeskServicer(
            registry=stub(registry_pb2_grpc.RegistryServiceStub, channel),
            listing=stub(listing_pb2_grpc.ListingServiceStub, channel),
            call_seconds=runtime.local_seconds,
        )
        return Service(catalog_desk_pb2.DESCRIPTOR.services_by_name["CatalogDeskService"], servicer)

    async def _relay(self, runtime: Runtime) -> Service:
        directory = await self.directory(runtime, "relay")
        nation_channel = self._nation(runtime)
        nation = stub(relay_pb2_grpc.RelayServiceStub, nation_channel)
        insured = stub(insured_pb2_grpc.InsuredServiceStub, runtime.channel("relay", "settlement"))
        desk = stub(desk_pb2_grpc.DeskServiceStub, runtime.channel("relay", "filing"))

        async def to_filing(
            envelopes: Sequence[envelope_pb2.Envelope], deadline_s: float
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = desk_pb2.BatchHandleRequest(items=envelopes)
            return (await desk.BatchHandle(request, timeout=deadline_s)).results

        async def to_settlement(
            envelopes: Sequence[envelope_pb2.Envelope], deadline_s: float
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = insured_pb2.BatchExchangeRequest(items=envelopes)
            return (await insured.BatchExchange(request, timeout=deadline_s)).results

        async def ask_settlement(
            items: Sequence[envelope_pb2.ResolveItem], deadline_s: float
        ) -> Sequence[envelope_pb2.ExchangeResult]:
            request = insured_pb2.BatchResolveRequest(items=items)
            return (await insured.BatchResolve(request, timeout=deadline_s)).results

        async def nation_connected() -> bool:
            return await nation_channel.connected(CONNECT_SECONDS)

        async def inside() -> bool:
            return True

        settling, filing = Breaker(runtime.breaker_limits), Breaker(runtime.breaker_limits)

        def beyond(site: str, breaker: Breaker) -> Destination:
            nation_hop = relay_destination(
                site, _NATION_NAME, nation, nation_connected, breaker, passes_on=True
            )
            return failing(runtime, nation_hop, Place.RELAY_NATION_BEFORE, Place.RELAY_NATION_AFTER)

        @cache
        def outward(site: str) -> NextHop:
            return NextHop(beyond(site, settling), beyond(site, filing))

        own = runtime.settings.site

        def role(send: Send[envelope_pb2.Envelope]) -> Destination:
            hop = Destination(
                own.code, own.name, send, ask_settlement, inside, Breaker(runtime.breaker_limits)
            )
            return failing(runtime, hop, Place.RELAY_INSURED_BEFORE, Place.RELAY_INSURED_AFTER)

        outward_forwarder = forwarder_of(runtime, types_pb2.HOP_UNSPECIFIED)
        inward_forwarder = forwarder_of(runtime, types_pb2.HOP_INSURED)
        servicer = RelayServicer(
            site=own.code,
            directory=directory,
            outward_forwarder=outward_forwarder,
            inward_forwarder=inward_forwarder,
            outward=outward,
            inward=NextHop(role(to_settlement), role(to_filing)),
            nation_journal=NationJournal(
                site=own.code,
                nation=nation,
                name=_NATION_NAME,
                connected=nation_connected,
                breaker=Breaker(runtime.breaker_limits),
                margin_ms=runtime.settings.limits.hop_margin_ms,
            ),
        )

        async def drain() -> None:
            await outward_forwarder.drain()
            await inward_forwarder.drain()

        return Service(relay_pb2.DESCRIPTOR.services_by_name["RelayService"], servicer, drain=drain)


def _any_area(settings: Settings) -> str:
    if not settings.site.areas:
        raise SettingsError("site.areas is missing: a province has at least one pooling area")
    return settings.site.areas[0].code


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
