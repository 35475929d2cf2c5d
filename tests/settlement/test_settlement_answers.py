"""An RPC error on a batch leaves no item REJECTED, whatever its code (PROTOCOL §1, §7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from healing import Healing
from peers import Pass, Results
from ports import free_port
from world import BEIJING, GUANGDONG, GUANGZHOU, ZHANJIANG, Patient, World, outcomes, world

from infra.cli.roles import province
from infra.cli.roles.shared import exchange_client
from infra.local.postgres import HOST
from infra.runtime.clock import SystemClock
from infra.runtime.config import Settings
from infra.runtime.errors import Refusal
from infra.runtime.exchange import ExchangeClient
from infra.runtime.links import RemoteChannel, stub
from infra.runtime.server import Runtime
from yidi.common.v1 import envelope_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import insured_pb2, insured_pb2_grpc

SITE_OF = {BEIJING: BEIJING, GUANGZHOU: GUANGDONG, ZHANJIANG: GUANGDONG}
"""Care areas of the three routes: CROSS_PROVINCE, IN_PROVINCE, LOCAL."""
CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
LOST = (
    "CANCELLED",
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
    "UNAVAILABLE",
)
"""What a hop breaks with when it has already passed the batch on."""
BREAKS = [(code, False) for code in CODES] + [(grpc.StatusCode[name], True) for name in LOST]
BATCH = 7
_CALLS: dict[str, Any] = {
    "/yidi.relay.v1.RelayService/BatchExchange": relay_pb2.BatchExchangeRequest,
    "/yidi.settlement.v1.InsuredService/BatchExchange": insured_pb2.BatchExchangeRequest,
}
Send = Callable[[str, Any], Awaitable[Any]]


@dataclass
class Wire:
    """A real gRPC hop between a front door and its exchange; it breaks as the test says."""

    code: grpc.StatusCode | None = None
    """What every batch fails with; None: nothing fails."""
    garbles: bool = False
    """Whether answers arrive as bytes that are no message."""
    passes: bool = False
    """Whether a batch that fails was passed on and decided."""
    arrived: asyncio.Event | None = None
    """Set when the first batch is here."""
    gate: asyncio.Event | None = None
    """What the first batch waits for, so that the others gather behind it."""
    batches: list[list[str]] = field(default_factory=list)

    async def carry(self, path: str, payload: bytes, context: Any, send: Send) -> bytes:
        request = _CALLS[path].FromString(payload)
        self.batches.append([item.id for item in request.items])
        if len(self.batches) == 1 and self.gate is not None and self.arrived is not None:
            self.arrived.set()
            await self.gate.wait()
        answer: Any = await send(path, request) if self.code is None or self.passes else None
        if self.code is not None:
            await context.abort(self.code, "broken on the way")
        content: bytes = b"\xff" if self.garbles else answer.SerializeToString()
        return content


@pytest.fixture(scope="module")
def wire() -> Wire:
    return Wire()


@pytest.fixture(scope="module")
async def wired(
    database_settings: Callable[..., Settings], sample_pki: Path, wire: Wire
) -> AsyncIterator[World]:
    """A world whose front doors reach their exchange over the wire, one batch at a time."""
    stack: list[Callable[[], Awaitable[None]]] = []

    def over_the_wire(runtime: Runtime, caller: str) -> ExchangeClient:
        if caller != "gateway":
            return exchange_client(runtime, caller)
        inner: dict[str, Any] = {
            "RelayService": stub(
                relay_pb2_grpc.RelayServiceStub, runtime.channel("gateway", "relay")
            ),
            "InsuredService": stub(
                insured_pb2_grpc.InsuredServiceStub, runtime.channel("gateway", "settlement")
            ),
        }

        async def send(path: str, request: Any) -> Any:
            service = path.split("/")[1].rpartition(".")[2]
            return await inner[service].BatchExchange(request, timeout=30)

        address = f"{HOST}:{free_port()}"
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handlers(wire, send),))
        server.add_insecure_port(address)
        starting = asyncio.ensure_future(server.start())
        channel = RemoteChannel(grpc.aio.insecure_channel(address))

        async def close() -> None:
            await starting
            await channel.close()
            await server.stop(0)

        stack.append(close)
        return ExchangeClient(
            insured=stub(insured_pb2_grpc.InsuredServiceStub, channel),
            relay=stub(relay_pb2_grpc.RelayServiceStub, channel),
        )

    try:
        async with AsyncExitStack() as running:
            # Only while this world is built: another one may be built while it runs.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(province, "exchange_client", over_the_wire)
                made = await running.enter_async_context(
                    world(
                        database_settings=database_settings,
                        pki=sample_pki,
                        clock=SystemClock(),
                        limits={
                            "recover": False,
                            "breaker_failures": 1_000,
                            "exchange_in_flight": 1,
                        },
                    )
                )
            yield made
    finally:
        for close in stack:
            await close()


class _Handlers(grpc.GenericRpcHandler):
    """Takes the two exchange methods as bytes."""

    def __init__(self, wire: Wire, send: Send) -> None:
        self._wire = wire
        self._send = send

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method

        async def handle(payload: bytes, context: Any) -> bytes:
            return await self._wire.carry(path, payload, context, self._send)

        return grpc.unary_unary_rpc_method_handler(handle) if path in _CALLS else None


@pytest.fixture(scope="module")
async def crowd(wired: World) -> list[Patient]:
    return await wired.patients(BATCH + 1)


async def _rows(made: World, site: str, requests: Sequence[Any]) -> list[tuple[str, str, str]]:
    """Settlement id, state of the row, state of the bill."""
    rows = await (await made.admin(site)).fetch(
        """SELECT j.settlement_id::text, j.state, b.state
           FROM settlement.care_journal j
           JOIN settlement.bill b USING (institution, visit_id, bill_id)
           WHERE j.request_id = ANY($1) ORDER BY 1""",
        [request.request_id for request in requests],
    )
    return [tuple(row) for row in rows]


async def _pending(made: World, site: str, requests: Sequence[Any]) -> None:
    """Return when every request is durable."""
    async with asyncio.timeout(30):
        durable = False
        while not durable:
            rows = await _rows(made, site, requests)
            durable = len(rows) == len(requests) or await asyncio.sleep(0.005, False)


@pytest.mark.parametrize(
    ("code", "passes"),
    BREAKS,
    ids=[f"{code.name}-{'decided' if passes else 'not-decided'}" for code, passes in BREAKS],
)
async def test_no_code_makes_an_item_of_a_batch_rejected(
    wired: World, wire: Wire, crowd: list[Patient], code: grpc.StatusCode, passes: bool
) -> None:
    """Over each route one bill alone and seven that gather behind it, decided beyond or not: each
    is sent once, all are in doubt, nothing is free."""
    for care_area, site in SITE_OF.items():
        requests = [wired.request(patient, care_area=care_area) for patient in crowd]
        wire.code, wire.passes = code, passes
        wire.arrived, wire.gate = asyncio.Event(), asyncio.Event()
        wire.batches.clear()
        first = asyncio.ensure_future(outcomes([wired.settle(requests[0])]))
        async with asyncio.timeout(30):
            await wire.arrived.wait()
        rest = asyncio.ensure_future(outcomes(wired.settle(one) for one in requests[1:]))
        await _pending(wired, site, requests)
        wire.gate.set()
        answers = [*await first, *await rest]
        rows = await _rows(wired, site, requests)
        assert {row[1:] for row in rows} == {("IN_DOUBT", "IN_DOUBT")}, rows
        told = [answer.details["settlement_id"] for answer in answers]
        assert {answer.name for answer in answers} == {"OUTCOME_PENDING"}
        assert sorted(told) == [row[0] for row in rows]
        # How many batches the others make is the front door's affair: it may not have them all yet.
        assert wire.batches[0] == told[:1]
        assert sorted(item for batch in wire.batches for item in batch) == sorted(told)
        decided = await (await wired.admin(GUANGDONG)).fetchval(
            """SELECT count(*) FROM settlement.decision
               WHERE settlement_id = ANY($1::uuid[]) AND state = 'COMMITTED'""",
            told,
        )
        assert decided == (len(rows) if passes else 0)


async def test_the_wire_itself_breaks_nothing(
    wired: World, wire: Wire, crowd: list[Patient]
) -> None:
    """What the other tests prove is the doing of the code alone."""
    wire.code = wire.gate = None
    for care_area, site in SITE_OF.items():
        requests = [wired.request(patient, care_area=care_area) for patient in crowd]
        answers = await outcomes(wired.settle(one) for one in requests)
        assert not [one for one in answers if isinstance(one, Refusal)]
        rows = await _rows(wired, site, requests)
        assert {row[1:] for row in rows} == {("COMPLETED", "COMPLETED")}


async def test_an_answer_that_is_no_message_is_no_answer(
    wired: World, wire: Wire, crowd: list[Patient]
) -> None:
    """Its bytes cannot be read: what became of the batch is unknown, and the caller is told so."""
    wire.code, wire.gate, wire.garbles = None, None, True
    try:
        for care_area, site in SITE_OF.items():
            requests = [wired.request(patient, care_area=care_area) for patient in crowd]
            answers = await outcomes(wired.settle(one) for one in requests)
            assert {answer.name for answer in answers} == {"OUTCOME_PENDING"}
            rows = await _rows(wired, site, requests)
            assert {row[1:] for row in rows} == {("IN_DOUBT", "IN_DOUBT")}
    finally:
        wire.garbles = False


async def test_no_code_at_the_far_end_makes_an_item_rejected(healing: Healing) -> None:
    """The insured province's relay fails the whole call: the nation says only what it knows."""
    patients = await healing.world.patients(BATCH)
    doubtful: list[str] = []
    for code in CODES:

        async def fail(
            envelopes: Sequence[envelope_pb2.Envelope], onward: Pass, code: int = code.value[0]
        ) -> Results:
            raise Refusal.from_status(status_pb2.Status(code=code))

        healing.peer.answer = fail
        answers = await outcomes(
            healing.world.settle(healing.world.request(one)) for one in patients
        )
        assert {answer.name for answer in answers} == {"OUTCOME_PENDING"}, code
        doubtful += [answer.details["settlement_id"] for answer in answers]
    assert len(set(doubtful)) == BATCH * len(CODES)
    rows = [await healing.row(one) for one in doubtful]
    assert {(row["state"], row["bill"]) for row in rows} == {("IN_DOUBT", "IN_DOUBT")}
    healing.peer.reset()
    await healing.heal()
    assert {await healing.state(one) for one in doubtful} == {"ABORTED"}
