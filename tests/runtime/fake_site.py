"""A province with real certificates and three fake services, reached in process and by socket.

The services answer what a test asks them for in plain fields, so that what stands before them (the
interceptors) is seen: `PolicyService` is a batch between roles, `InstitutionService` a unary front
door, `RelayService` a batch with deadlines, traces and the outside world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.config import NATION, Settings
from infra.runtime.errors import Reason, Refusal
from infra.runtime.links import Channel, Dispatcher, LocalChannel, RemoteChannel
from infra.runtime.server import Builder, Runtime, Service
from infra.runtime.tls import SiteCertificates
from yidi.catalog.v1 import catalog_pb2
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2, visit_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.policy.v1 import policy_pb2
from yidi.relay.v1 import relay_pb2

SITE, OTHER = "440000", "110000"
AREA, COUNTY, FOREIGN_AREA = "440800", "440802", "110000"
HOSPITAL, OTHER_HOSPITAL = "H44080000001", "H44080000002"
PERSONAL = "王小明 440802195001011234"
"""Stands for what must never be logged."""


def unit_id(number: int) -> str:
    """A UUID for item `number`."""
    return f"01890000-0000-7000-8000-{number:012d}"


def compute_unit(number: int, *, area: str = AREA) -> policy_pb2.ComputeUnit:
    """A valid unit of one case."""
    return policy_pb2.ComputeUnit(
        id=unit_id(number),
        insured_area=area,
        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
        cases=[
            policy_pb2.ComputeCase(
                id=unit_id(number),
                facts=policy_pb2.Facts(
                    start_date="2026-11-01", end_date="2026-11-18", business_day="2026-11-18"
                ),
                total_fen=100,
                parts=amounts_pb2.FeeParts(in_scope_fen=100),
            )
        ],
    )


def envelope(
    number: int,
    *,
    care_area: str = AREA,
    insured_area: str = FOREIGN_AREA,
    remaining_ms: int = 5_000,
    traceparent: str = "",
) -> envelope_pb2.Envelope:
    """A valid envelope."""
    return envelope_pb2.Envelope(
        id=unit_id(number),
        kind=types_pb2.EXCHANGE_KIND_QUOTE,
        origin=envelope_pb2.Origin(care_area=care_area, institution=HOSPITAL),
        insured_area=insured_area,
        contract_revision=1,
        remaining_ms=remaining_ms,
        traceparent=traceparent,
        payload_digest=bytes(32),
        payload=b"payload",
    )


def quote(*, institution: str = HOSPITAL, care_area: str = AREA) -> gateway_pb2.QuoteRequest:
    """A valid request at the front door."""
    return gateway_pb2.QuoteRequest(
        credential=visit_pb2.Credential(
            type=types_pb2.CREDENTIAL_TYPE_ID_CARD, number="440802195001011234", name="王小明"
        ),
        bill=gateway_pb2.Bill(
            reference=visit_pb2.BillReference(institution=institution, visit_id="V1", bill_id="B1"),
            visit=visit_pb2.Visit(
                care_area=care_area,
                insured_area=FOREIGN_AREA,
                insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                care_type=types_pb2.CARE_TYPE_OUTPATIENT,
                start_date="2026-11-18",
                end_date="2026-11-18",
            ),
            total_fen=100,
            lines=[
                catalog_pb2.FeeLine(
                    line_id="1",
                    item_code="I1",
                    unit_price_micro_yuan=1_000_000,
                    quantity_e4=10_000,
                    amount_fen=100,
                )
            ],
        ),
    )


@dataclass
class Fakes:
    """The three servicers as one object; `on_call` replaces what they answer."""

    calls: list[tuple[Message, Call]] = field(default_factory=list)
    on_call: Callable[[Any], Awaitable[None]] | None = None
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        self.calls.clear()
        self.on_call = None

    async def _called(self, request: Any, call: Call) -> None:
        self.calls.append((request, call))
        if self.on_call is not None:
            await self.on_call(request)

    async def BatchCompute(
        self, request: policy_pb2.BatchComputeRequest, call: Call
    ) -> policy_pb2.BatchComputeResponse:
        await self._called(request, call)
        results = [
            policy_pb2.ComputeResult(id=item.id, cases=[policy_pb2.CaseResult(id=item.id)])
            for item in request.items
        ]
        # Answers are keyed by id; no caller may count on their order.
        return policy_pb2.BatchComputeResponse(results=reversed(results))

    async def BatchCalculate(
        self, request: policy_pb2.BatchCalculateRequest, call: Call
    ) -> policy_pb2.BatchCalculateResponse:
        await self._called(request, call)
        results = [policy_pb2.ComputeResult(id=item.id) for item in request.items]
        return policy_pb2.BatchCalculateResponse(results=results)

    async def GetCoverage(
        self, request: policy_pb2.GetCoverageRequest, call: Call
    ) -> policy_pb2.GetCoverageResponse:
        await self._called(request, call)
        return policy_pb2.GetCoverageResponse()

    async def Quote(
        self, request: gateway_pb2.QuoteRequest, call: Call
    ) -> gateway_pb2.QuoteResponse:
        await self._called(request, call)
        return gateway_pb2.QuoteResponse(
            result=gateway_pb2.SettlementResult(catalogue_version=request.bill.reference.bill_id)
        )

    async def Settle(
        self, request: gateway_pb2.SettleRequest, call: Call
    ) -> gateway_pb2.SettleResponse:
        raise Refusal(
            Reason.ERROR_REASON_BILL_ALREADY_SETTLED,
            bill_id=request.bill.reference.bill_id,
            settlement_id=unit_id(1),
            request_id=request.request_id,
        )

    async def Reverse(
        self, request: gateway_pb2.ReverseRequest, call: Call
    ) -> gateway_pb2.ReverseResponse:
        await self._called(request, call)
        return gateway_pb2.ReverseResponse(undoes=request.settlement_id)

    async def Refund(
        self, request: gateway_pb2.RefundRequest, call: Call
    ) -> gateway_pb2.RefundResponse:
        await self._called(request, call)
        return gateway_pb2.RefundResponse(undoes=request.settlement_id)

    async def GetSettlement(
        self, request: gateway_pb2.GetSettlementRequest, call: Call
    ) -> gateway_pb2.GetSettlementResponse:
        await self._called(request, call)
        return gateway_pb2.GetSettlementResponse(settlement_id=request.settlement_id)

    async def BatchExchange(
        self, request: relay_pb2.BatchExchangeRequest, call: Call
    ) -> relay_pb2.BatchExchangeResponse:
        await self._called(request, call)
        return relay_pb2.BatchExchangeResponse(
            results=[envelope_pb2.ExchangeResult(id=item.id) for item in request.items]
        )

    async def BatchResolve(
        self, request: relay_pb2.BatchResolveRequest, call: Call
    ) -> relay_pb2.BatchResolveResponse:
        await self._called(request, call)
        return relay_pb2.BatchResolveResponse(
            results=[envelope_pb2.ExchangeResult(id=item.id) for item in request.items]
        )

    async def AnnounceDowntime(
        self, request: relay_pb2.AnnounceDowntimeRequest, call: Call
    ) -> relay_pb2.AnnounceDowntimeResponse:
        await self._called(request, call)
        return relay_pb2.AnnounceDowntimeResponse()

    async def GetDirectory(
        self, request: relay_pb2.GetDirectoryRequest, call: Call
    ) -> relay_pb2.GetDirectoryResponse:
        await self._called(request, call)
        return relay_pb2.GetDirectoryResponse(revision=7)

    async def GetNationJournalDigest(
        self, request: relay_pb2.GetNationJournalDigestRequest, call: Call
    ) -> relay_pb2.GetNationJournalDigestResponse:
        await self._called(request, call)
        return relay_pb2.GetNationJournalDigestResponse()

    async def BatchUploadDetail(
        self, request: relay_pb2.BatchUploadDetailRequest, call: Call
    ) -> relay_pb2.BatchUploadDetailResponse:
        await self._called(request, call)
        return relay_pb2.BatchUploadDetailResponse()

    async def drain(self) -> None:
        self.drained.set()


_CONTRACTS = {
    "policy": policy_pb2.DESCRIPTOR.services_by_name["PolicyService"],
    "gateway": gateway_pb2.DESCRIPTOR.services_by_name["InstitutionService"],
    "relay": relay_pb2.DESCRIPTOR.services_by_name["RelayService"],
}


def builders(
    fakes: Fakes, seen: Callable[[Runtime], None] = lambda _: None
) -> Mapping[str, list[Builder]]:
    """What `running` needs to serve `fakes`; `seen` gets the runtime."""

    def builder(role: str) -> Builder:
        async def build(runtime: Runtime) -> Service:
            seen(runtime)
            return Service(_CONTRACTS[role], fakes, fakes.drain)

        return build

    return {role: [builder(role)] for role in _CONTRACTS}


def site_settings(pki: Path, *, edge: int, internal: int, code: str = SITE) -> Settings:
    """Settings of the fake site; its database is never opened."""
    areas = [{"code": AREA, "name": "湛江市", "aliases": [COUNTY]}]
    neighbours = [
        {"code": SITE, "name": "广东省", "edge": "127.0.0.1:1", "areas": areas},
        {
            "code": OTHER,
            "name": "北京市",
            "edge": "127.0.0.1:1",
            "areas": [{"code": FOREIGN_AREA, "name": "北京市"}],
        },
    ]
    nation = code == NATION
    return Settings.model_validate(
        {
            "site": {"code": code, "name": "测试", "areas": [] if nation else areas},
            "nation": None if nation else {"edge": "127.0.0.1:1"},
            "neighbours": neighbours if nation else [],
            "listen": {"edge": f"127.0.0.1:{edge}", "internal": f"127.0.0.1:{internal}"},
            "database": {"host": "127.0.0.1", "port": 1, "name": "none", "password": "none"},
            "tls": {"directory": str(pki / code)},
            "limits": {"drain_ms": 2_000},
        }
    )


@dataclass(frozen=True)
class Doors:
    """The two ways into one site for the same caller."""

    pki: Path
    settings: Settings
    dispatcher: Dispatcher

    def both(self, caller: Identity) -> dict[str, Channel]:
        """A local channel and a socket for `caller`; close the socket after use."""
        return {"local": LocalChannel(self.dispatcher, caller), "socket": self._remote(caller)}

    def _remote(self, caller: Identity) -> RemoteChannel:
        certificates = SiteCertificates(self.pki / caller.site)
        listen = self.settings.listen
        address = listen.internal
        if caller.site != self.settings.site.code:
            credentials, address = certificates.edge_client(), listen.edge
        elif caller.type is CallerType.ROLE:
            credentials = certificates.client(caller.name)
        else:
            credentials = certificates.client(f"{caller.type.value}/{caller.name}")
        assert address is not None
        return RemoteChannel.open(
            [address], credentials, site=self.settings.site.code, message_bytes=4 << 20
        )


def role(name: str, site: str = SITE) -> Identity:
    """A role of a site."""
    return Identity(site, CallerType.ROLE, name)


def institution(code: str = HOSPITAL) -> Identity:
    """An institution of the site."""
    return Identity(SITE, CallerType.INSTITUTION, code)


def operator() -> Identity:
    """An operator of the site."""
    return Identity(SITE, CallerType.OPERATOR, "clerk")


@dataclass(frozen=True)
class Answer:
    """What a caller sees of a call, whichever way it went in."""

    response: Message | None
    refused: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()


def refusal_answer(refusal: Refusal) -> Answer:
    """A refusal as an answer."""
    return Answer(
        None,
        refusal.name,
        dict(refusal.details),
        tuple((violation.field, violation.description) for violation in refusal.violations),
    )


async def ask_both(
    doors: Doors,
    caller: Identity,
    kind: Callable[[Any], Any],
    method: str,
    request: Message,
    *,
    timeout: float = 5.0,
    traceparent: str = "",
) -> tuple[Answer, Answer]:
    """Make the same call in process and over mTLS; what came of each."""
    answers = []
    for channel in doors.both(caller).values():
        try:
            response = await getattr(kind(channel), method)(
                request, timeout=timeout, traceparent=traceparent
            )
            answers.append(Answer(response))
        except Refusal as refusal:
            answers.append(refusal_answer(refusal))
        finally:
            if isinstance(channel, RemoteChannel):
                await channel.close()
    return answers[0], answers[1]
