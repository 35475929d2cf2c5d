"""One bootstrap for every server.

Start: settings → telemetry → services (each with its database) → listeners → health SERVING.
Stop: NOT_SERVING → services drain → grace → close. Two listeners: the edge serves the roles that
other organisations reach, the internal one all of them; both speak mTLS only.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from infra.runtime.breaker import BreakerLimits
from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import Clock, SystemClock, monotonic_us
from infra.runtime.coalesce import Bounds
from infra.runtime.config import EDGE_ROLES, Settings, SettingsError
from infra.runtime.contract import Method, methods
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal, Violation, grpc_code
from infra.runtime.failpoints import Failpoints, failpoints_of
from infra.runtime.interceptors import (
    AccessInterceptor,
    DeadlineInterceptor,
    ErrorInterceptor,
    Handler,
    Interceptor,
    OwnershipInterceptor,
    TraceInterceptor,
    ValidationInterceptor,
    chain,
)
from infra.runtime.links import (
    STATUS_KEY,
    TRACE_KEY,
    Channel,
    Dispatcher,
    LocalChannel,
    RemoteChannel,
)
from infra.runtime.redact import configure_logs
from infra.runtime.telemetry import Telemetry
from infra.runtime.tls import IdentityCheck, SiteCertificates, UntrustedCertificate

_log = structlog.get_logger("yidi.server")
_GC_THRESHOLDS = (20_000, 20, 50)
"""A batch makes thousands of short-lived messages: collect less often than the default 700."""
_DEFAULT_DEADLINE_SECONDS = 30.0
"""For callers that set none: gRPC has no default."""


@dataclass(frozen=True, slots=True)
class Service:
    """A contract and what serves it: an object with one coroutine method per RPC."""

    descriptor: ServiceDescriptor
    servicer: object
    drain: Callable[[], Awaitable[None]] | None = None
    """Waits until what the service has begun is done."""


@dataclass(slots=True)
class Runtime:
    """What a role is built from."""

    settings: Settings
    clock: Clock
    certificates: SiteCertificates
    dispatcher: Dispatcher
    telemetry: Telemetry
    failpoints: Failpoints
    local_roles: frozenset[str]
    stack: AsyncExitStack
    _channels: dict[tuple[str, str], Channel] = field(default_factory=dict)
    _edges: dict[str, RemoteChannel] = field(default_factory=dict)

    async def database(self, service: str) -> Database:
        """The database of one service, closed on shutdown."""
        return await self.stack.enter_async_context(Database.open(self.settings, service))

    def channel(self, caller: str, role: str) -> Channel:
        """A channel for role `caller` of this site to role `role` of this site."""
        key = (caller, role)
        if key not in self._channels:
            site = self.settings.site.code
            if role in self.local_roles:
                identity = Identity(site, CallerType.ROLE, caller)
                self._channels[key] = LocalChannel(self.dispatcher, identity)
            else:
                addresses = self.settings.roles.get(role)
                if not addresses:
                    raise SettingsError(
                        f"roles.{role}: no address; role {caller} of this process calls it"
                    )
                self._channels[key] = self._remote(
                    addresses, self.certificates.client(caller), site
                )
        return self._channels[key]

    def edge_channel(self, site: str, address: str) -> RemoteChannel:
        """A channel from this site's relay to another site's edge."""
        if site not in self._edges:
            self._edges[site] = self._remote([address], self.certificates.edge_client(), site)
        return self._edges[site]

    @property
    def bounds(self) -> Bounds:
        """The bounds of a coalescer inside the site, from the settings."""
        limits = self.settings.limits
        return Bounds(
            items=limits.batch_items,
            bytes=limits.batch_bytes,
            in_flight=limits.in_flight,
            queue=limits.queue_items,
        )

    @property
    def exchange_bounds(self) -> Bounds:
        """The bounds of a coalescer towards other sites."""
        limits = self.settings.limits
        return replace(
            self.bounds,
            in_flight=limits.exchange_in_flight,
            per_caller=limits.per_caller_items,
        )

    @property
    def breaker_limits(self) -> BreakerLimits:
        """When the breaker of a site opens, and for how long."""
        limits = self.settings.limits
        return BreakerLimits(
            failures=limits.breaker_failures,
            open_ms=limits.breaker_open_ms,
            patience_ms=limits.breaker_patience_ms,
        )

    @property
    def local_seconds(self) -> float:
        """Deadline of calls inside the site, seconds."""
        return self.settings.limits.local_call_ms / 1000

    def _remote(
        self, addresses: Sequence[str], credentials: grpc.ChannelCredentials, site: str
    ) -> RemoteChannel:
        channel = RemoteChannel.open(
            addresses,
            credentials,
            site=site,
            message_bytes=self.settings.limits.message_bytes,
        )
        self.stack.push_async_callback(channel.close)
        return channel


Builder = Callable[[Runtime], Awaitable[Service]]
RawHandlers = Mapping[str, Callable[[bytes, Any], Awaitable[bytes]]]


class Server:
    """A running server of some roles of one site; make it with `running`."""

    def __init__(self, health_servicer: health_aio.HealthServicer, names: list[str]) -> None:
        self._health = health_servicer
        self._names = names
        self.stopped = asyncio.Event()

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks whether calls are welcome."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        value = status.SERVING if serving else status.NOT_SERVING
        for name in ["", *self._names]:
            await self._health.set(name, value)


@asynccontextmanager
async def running(
    settings: Settings,
    builders: Mapping[str, Sequence[Builder]],
    *,
    clock: Clock | None = None,
    raw_handlers: RawHandlers | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[Server]:
    """Serve the roles that `builders` names until the block is left.

    `raw_handlers` are extra edge methods that bypass everything: the bench's echo, nothing else.
    """
    async with AsyncExitStack() as stack:
        clock = clock or SystemClock()
        telemetry = telemetry or Telemetry.of(settings)
        stack.callback(telemetry.close)
        certificates = SiteCertificates(settings.tls.directory)
        runtime = Runtime(
            settings=settings,
            clock=clock,
            certificates=certificates,
            dispatcher=Dispatcher(),
            telemetry=telemetry,
            failpoints=failpoints_of(settings),
            local_roles=frozenset(builders),
            stack=stack,
        )
        interceptors = _interceptors(settings, clock, telemetry)
        services: list[tuple[str, Service]] = []
        for role, makers in builders.items():
            for make in makers:
                service = await make(runtime)
                services.append((role, service))
                for method in methods(service.descriptor):
                    handler: Handler = getattr(service.servicer, method.name)
                    runtime.dispatcher.add(method, chain(method, handler, interceptors))
        health_servicer = health_aio.HealthServicer()
        names = [service.descriptor.full_name for _, service in services]
        server = Server(health_servicer, names)
        await server.set_serving(False)
        identities = IdentityCheck(
            settings.site.code,
            site_ca=certificates.site_ca,
            nation_ca=certificates.nation_ca,
        )
        listeners = await _listen(
            settings, runtime, services, health_servicer, identities, raw_handlers or {}
        )
        await server.set_serving(True)
        _log.info("serving", site=settings.site.code, roles=sorted(builders))
        try:
            yield server
        finally:
            await server.set_serving(False)
            drain_s = settings.limits.drain_ms / 1000
            # Stopping refuses new calls at once and lets the ones under way finish.
            await asyncio.gather(*(listener.stop(drain_s) for listener in listeners))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    for _, service in services:
                        if service.drain is not None:
                            await service.drain()
            _log.info("stopped", site=settings.site.code)


async def serve_until_signal(
    settings: Settings,
    builders: Mapping[str, Sequence[Builder]],
    *,
    raw_handlers: RawHandlers | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    configure_logs(settings.telemetry.log_level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, builders, raw_handlers=raw_handlers):
        # What serving needs stays; without this every collection walks modules and descriptors.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        await stop.wait()


def _interceptors(
    settings: Settings, clock: Clock, telemetry: Telemetry
) -> tuple[Interceptor, ...]:
    site = settings.site.code
    return (
        TraceInterceptor(telemetry),
        ErrorInterceptor(clock),
        DeadlineInterceptor(),
        AccessInterceptor(site),
        ValidationInterceptor(),
        OwnershipInterceptor(site, _own_areas(settings).get),
    )


def _own_areas(settings: Settings) -> dict[str, str]:
    """Area or county code → site, for the areas that the site file itself lists."""
    listed = [(settings.site.code, settings.site.areas)]
    listed += [(neighbour.code, neighbour.areas) for neighbour in settings.neighbours]
    return {
        code: site
        for site, areas in listed
        for area in areas
        for code in (area.code, *area.aliases)
    }


async def _listen(
    settings: Settings,
    runtime: Runtime,
    services: Sequence[tuple[str, Service]],
    health_servicer: health_aio.HealthServicer,
    identities: IdentityCheck,
    raw_handlers: RawHandlers,
) -> list[grpc.aio.Server]:
    plans: list[tuple[str, grpc.ServerCredentials, list[Service], RawHandlers]] = []
    edge = [service for role, service in services if role in EDGE_ROLES]
    if settings.listen.edge and edge:
        plans.append((settings.listen.edge, runtime.certificates.edge_server(), edge, raw_handlers))
    if settings.listen.internal:
        role = services[0][0]
        plans.append(
            (
                settings.listen.internal,
                runtime.certificates.internal_server(role),
                [service for _, service in services],
                {},
            )
        )
    listeners: list[grpc.aio.Server] = []
    for address, credentials, offered, raw in plans:
        listener = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.limits.message_bytes),
                ("grpc.max_send_message_length", settings.limits.message_bytes),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                # Callers have certificates; on a busy machine their pings come in bunches.
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
        handlers = _Handlers(runtime.dispatcher, offered, identities, raw)
        listener.add_generic_rpc_handlers((handlers,))
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, listener)
        names = [service.descriptor.full_name for service in offered]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], listener
        )
        try:
            listener.add_secure_port(address, credentials)
        except RuntimeError as error:
            await asyncio.gather(*(started.stop(None) for started in listeners))
            raise SettingsError(
                f"listen: cannot listen on {address}; is another process using the port?"
            ) from error
        await listener.start()
        listeners.append(listener)
    return listeners


class _Handlers(grpc.GenericRpcHandler):
    """The methods of one listener: bytes in, bytes out, everything between is ours."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        services: Sequence[Service],
        identities: IdentityCheck,
        raw_handlers: RawHandlers,
    ) -> None:
        self._identities = identities
        names = {service.descriptor.full_name for service in services}
        self._handlers: dict[str, Any] = {
            method.path: grpc.unary_unary_rpc_method_handler(self._behaviour(method, handler))
            for method, handler in (
                dispatcher.find(method.path) or (method, None)
                for method in dispatcher.methods()
                if method.service in names
            )
            if handler is not None
        }
        for path, raw in raw_handlers.items():
            self._handlers[path] = grpc.unary_unary_rpc_method_handler(raw)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)

    def _behaviour(self, method: Method, handler: Handler) -> Callable[..., Awaitable[bytes]]:
        async def behave(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            try:
                response = await handler(_parse(method, data), self._call(context))
                return response.SerializeToString()
            except Refusal as refusal:
                status = refusal.status()
                await context.abort(
                    grpc_code(status),
                    f"{refusal.name}: {refusal.message}",
                    ((STATUS_KEY, status.SerializeToString()),),
                )

        return behave

    def _call(self, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
        certificate = context.auth_context().get("x509_pem_cert")
        if not certificate:
            raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED)
        try:
            caller = self._identities.identify(next(iter(certificate)))
        except UntrustedCertificate as error:
            _log.warning("untrusted certificate", cause=str(error))
            raise Refusal(Reason.ERROR_REASON_ACCESS_DENIED) from error
        remaining = context.time_remaining()
        seconds = _DEFAULT_DEADLINE_SECONDS if remaining is None else remaining
        seconds = min(seconds, 3_600.0)
        traceparent = ""
        for key, value in context.invocation_metadata() or ():
            if key == TRACE_KEY and isinstance(value, str):
                traceparent = value
        return Call(caller, monotonic_us() + int(seconds * 1e6), traceparent)


def _parse(method: Method, data: bytes) -> Message:
    try:
        return method.request.FromString(data)
    except DecodeError as error:
        broken = Violation("", f"不是 {method.request.DESCRIPTOR.full_name} 的编码")
        raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=[broken]) from error
