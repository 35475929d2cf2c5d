"""One bootstrap: SERVING only while calls are welcome, and nothing begun is dropped (item 3)."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_site import SITE, Doors, Fakes, builders, institution, quote, role, site_settings
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from ports import free_port

from infra.runtime.call import CallerType
from infra.runtime.config import Settings, SettingsError
from infra.runtime.errors import Refusal
from infra.runtime.links import RemoteChannel
from infra.runtime.server import Runtime, running
from infra.runtime.tls import SiteCertificates, server_name
from yidi.gateway.v1.gateway_pb2_grpc import InstitutionServiceStub

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
GATEWAY = "yidi.gateway.v1.InstitutionService"


@pytest.fixture
def settings(pki: Path) -> Settings:
    return site_settings(pki, edge=free_port(), internal=free_port())


def plain_channel(settings: Settings, caller: str = "gateway") -> grpc.aio.Channel:
    """A channel without our wrapping, for the standard services."""
    credentials = SiteCertificates(settings.tls.directory).client(caller)
    address = settings.listen.internal
    assert address is not None
    return grpc.aio.secure_channel(
        address, credentials, options=[("grpc.ssl_target_name_override", server_name(SITE))]
    )


async def test_health_goes_up_after_everything_and_down_before_everything(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    before = health_aio.HealthServicer.set

    async def record(self: Any, service: str, status: Any) -> None:
        if service == "":
            events.append("up" if status == SERVING else "down")
        await before(self, service, status)

    monkeypatch.setattr(health_aio.HealthServicer, "set", record)
    fakes = Fakes()

    async def drain() -> None:
        events.append("drained")

    fakes.drain = drain  # type: ignore[method-assign]
    async with running(settings, builders(fakes, lambda _: events.append("built"))):
        events.append("running")
    assert events == [*["built"] * 3, "down", "up", "running", "down", *["drained"] * 3]


async def test_health_is_told_for_every_service_and_to_watchers_until_the_end(
    settings: Settings,
) -> None:
    settings = settings.model_copy(
        update={"limits": settings.limits.model_copy(update={"drain_ms": 200})}
    )
    channel = plain_channel(settings)
    health = health_pb2_grpc.HealthStub(channel)
    seen: list[int] = []
    async with running(settings, builders(Fakes())):
        for name in ("", GATEWAY):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=GATEWAY))
        seen.append((await watch.read()).status)
    seen.append((await watch.read()).status)
    await channel.close()
    assert seen == [SERVING, NOT_SERVING]


async def test_reflection_lists_the_services_and_gives_their_contracts(settings: Settings) -> None:
    """Needed by `buf curl` (issue, item 7)."""
    channel = plain_channel(settings)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    async with running(settings, builders(Fakes())):
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=GATEWAY),
        ]
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    await channel.close()
    listed = {service.name for service in answers[0].list_services_response.service}
    assert {GATEWAY, "yidi.policy.v1.PolicyService", "grpc.health.v1.Health"} <= listed
    assert answers[1].file_descriptor_response.file_descriptor_proto


async def test_stopping_answers_what_is_under_way_and_then_drains(settings: Settings) -> None:
    fakes, found = Fakes(), list[Runtime]()
    entered, go, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(_: Any) -> None:
        entered.set()
        await go.wait()
        order.append("answered")

    fakes.on_call = wait
    order: list[str] = []

    async def drain() -> None:
        order.append("drained")

    fakes.drain = drain  # type: ignore[method-assign]

    async def serve() -> None:
        async with running(settings, builders(fakes, found.append)):
            ready.set()
            await leave.wait()
        order.append("stopped")

    ready = asyncio.Event()
    server = asyncio.create_task(serve())
    await ready.wait()
    doors = Doors(settings.tls.directory.parent, settings, found[0].dispatcher)
    channel = doors.both(institution())["socket"]
    stub: Any = InstitutionServiceStub(channel)  # type: ignore[arg-type]
    call = asyncio.create_task(stub.Quote(quote(), timeout=30))
    await entered.wait()
    leave.set()
    while True:
        try:  # the server stops a moment after it was told to
            await stub.Quote(quote(), timeout=0.2)
        except Refusal as refusal:
            if refusal.details.get("cause") != "timeout":
                break
    assert order == []
    go.set()
    assert (await call).result.catalogue_version == "B1"
    await server
    assert isinstance(channel, RemoteChannel)
    await channel.close()
    assert order == ["answered", *["drained"] * 3, "stopped"]


async def test_a_drain_that_never_ends_is_cut_off(settings: Settings) -> None:
    settings = settings.model_copy(
        update={"limits": settings.limits.model_copy(update={"drain_ms": 50})}
    )
    fakes = Fakes()

    async def drain() -> None:
        await asyncio.Event().wait()

    fakes.drain = drain  # type: ignore[method-assign]
    async with asyncio.timeout(30):
        async with running(settings, builders(fakes)):
            pass


@pytest.mark.parametrize("which", ["edge", "internal"])
async def test_a_port_in_use_is_named_and_nothing_stays_open(
    settings: Settings, which: str
) -> None:
    listen = settings.listen
    taken = {"edge": listen.edge, "internal": listen.internal}[which]
    assert taken is not None
    port = int(taken.split(":")[1])
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", port))
        occupant.listen()
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with running(settings, builders(Fakes())):
                pytest.fail("it must not start")
    async with running(settings, builders(Fakes())):
        pass


async def test_a_role_of_the_same_process_is_called_in_process_and_others_need_an_address(
    settings: Settings,
) -> None:
    found: list[Runtime] = []
    async with running(settings, builders(Fakes(), found.append)):
        local = found[0].channel("gateway", "policy")
        assert local is found[0].channel("gateway", "policy")
        assert not isinstance(local, RemoteChannel)
        with pytest.raises(SettingsError, match=r"roles\.catalog: no address; role gateway"):
            found[0].channel("gateway", "catalog")


async def test_the_edge_serves_edge_roles_only(pki: Path, settings: Settings) -> None:
    certificates = SiteCertificates(pki / SITE)
    edge = settings.listen.edge
    assert edge is not None
    async with running(settings, builders(Fakes())):
        channel = RemoteChannel.open(
            [edge], certificates.client("settlement"), site=SITE, message_bytes=1 << 20
        )
        call = channel.unary_unary(
            "/yidi.policy.v1.PolicyService/BatchCompute",
            lambda message: message.SerializeToString(),
            lambda data: data,
        )
        with pytest.raises(Refusal) as refusal:
            await call(quote(), timeout=5)
        await channel.close()
    assert refusal.value.details["cause"] == "unimplemented"


async def test_a_client_of_another_site_checks_whom_it_reaches(
    pki: Path, settings: Settings
) -> None:
    """A server that answers for another site is not spoken to."""
    edge = settings.listen.edge
    assert edge is not None
    async with running(settings, builders(Fakes())):
        channel = RemoteChannel.open(
            [edge], SiteCertificates(pki / "110000").edge_client(), site="100000", message_bytes=1
        )
        assert not await channel.connected(0.5)
        await channel.close()


def test_identities_name_themselves() -> None:
    assert role("policy").spiffe_id == f"spiffe://yidi/site/{SITE}/policy"
    assert institution("H1").spiffe_id == f"spiffe://yidi/site/{SITE}/institution/H1"
    assert institution("H1").type is CallerType.INSTITUTION
