"""In-process relays with fake peers: what they send is what the next one gets, as bytes would."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.relay.asking import NationJournal
from gateway.relay.destinations import Destination, relay_destination
from infra.runtime.breaker import Breaker, BreakerLimits
from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock, business_day, monotonic_us, new_id
from infra.runtime.config import Area
from infra.runtime.directory import site_message
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2
from yidi.relay.v1 import relay_pb2

NOW_MS = 1_795_000_000_000
CLOCK = ManualClock(NOW_MS)
CARE_AREA, INSURED_AREA, OTHER_AREA = "440100", "110000", "370100"
SITES = [
    site_message("440000", "广东省", [Area(code=CARE_AREA, name="广州市")]),
    site_message("110000", "北京市", [Area(code=INSURED_AREA, name="北京市", aliases=("110105",))]),
    site_message("370000", "山东省", [Area(code=OTHER_AREA, name="济南市")]),
]
SETTLE = types_pb2.EXCHANGE_KIND_SETTLE
QUOTE = types_pb2.EXCHANGE_KIND_QUOTE
FILING = types_pb2.EXCHANGE_KIND_FILING


def envelope(
    area: str = INSURED_AREA,
    *,
    kind: types_pb2.ExchangeKind.ValueType = SETTLE,
    remaining_ms: int = 6_000,
    institution: str = "H44010000001",
) -> envelope_pb2.Envelope:
    return envelope_pb2.Envelope(
        id=new_id(CLOCK),
        kind=kind,
        origin=envelope_pb2.Origin(care_area=CARE_AREA, institution=institution),
        insured_area=area,
        remaining_ms=remaining_ms,
        payload=b"sealed",
    )


def question(area: str = INSURED_AREA, remaining_ms: int = 5_000) -> envelope_pb2.ResolveItem:
    return envelope_pb2.ResolveItem(
        id=new_id(CLOCK),
        intent=types_pb2.RESOLVE_INTENT_ABORT,
        kind=SETTLE,
        origin=envelope_pb2.Origin(care_area=CARE_AREA, institution="H44010000001"),
        insured_area=area,
        remaining_ms=remaining_ms,
    )


def outcome(
    item: envelope_pb2.Envelope | envelope_pb2.ResolveItem, total_fen: int = 100_00
) -> envelope_pb2.Outcome:
    header = envelope_pb2.OutcomeHeader(
        settlement_id=item.id,
        kind=item.kind,
        care_area=item.origin.care_area,
        care_site="440000",
        insured_area=item.insured_area,
        insured_site="110000",
        amounts=amounts_pb2.Amounts(total_fen=total_fen),
        funds=[amounts_pb2.FundPayment(code="hifp_pay", fen=total_fen)],
        business_day=business_day(NOW_MS).isoformat(),
    ).SerializeToString()
    return envelope_pb2.Outcome(header=header, digest=hashlib.sha256(header).digest())


def committed(
    item: envelope_pb2.Envelope | envelope_pb2.ResolveItem,
) -> envelope_pb2.ExchangeResult:
    return envelope_pb2.ExchangeResult(id=item.id, committed=outcome(item))


def filed(
    item: envelope_pb2.Envelope | envelope_pb2.ResolveItem,
) -> envelope_pb2.ExchangeResult:
    """What a filing desk answers; no relay can read it."""
    return envelope_pb2.ExchangeResult(id=item.id, filed=b"\xff sealed")


def failing(
    reason: Reason.ValueType, *, not_forwarded: bool = False
) -> Callable[[envelope_pb2.Envelope | envelope_pb2.ResolveItem], envelope_pb2.ExchangeResult]:
    """Answers every item with an error."""
    status = Refusal(reason).status()

    def answer(
        item: envelope_pb2.Envelope | envelope_pb2.ResolveItem,
    ) -> envelope_pb2.ExchangeResult:
        return envelope_pb2.ExchangeResult(id=item.id, error=status, not_forwarded=not_forwarded)

    return answer


@dataclass
class Peer:
    """A next hop that answers as it is told, and remembers what reached it."""

    answer: Callable[
        [envelope_pb2.Envelope | envelope_pb2.ResolveItem], envelope_pb2.ExchangeResult | None
    ] = committed
    broken: Refusal | None = None
    up: bool = True
    connections: int = 0
    exchanged: list[list[str]] = field(default_factory=list)
    resolved: list[list[str]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """Exchanges (not questions) wait for it."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """An exchange is here."""

    async def connected(self) -> bool:
        self.connections += 1
        return self.up

    async def exchange(
        self, items: Sequence[envelope_pb2.Envelope], seconds: float
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        self.exchanged.append([item.id for item in items])
        self.reached.set()
        if self.gate is not None:
            await self.gate.wait()
        return self._answers(items)

    async def resolve(
        self, items: Sequence[envelope_pb2.ResolveItem], seconds: float
    ) -> Sequence[envelope_pb2.ExchangeResult]:
        self.resolved.append([item.id for item in items])
        return self._answers(items)

    def destination(
        self, site: str, breaker: Breaker | None = None, *, passes_on: bool = False
    ) -> Destination:
        return Destination(
            site,
            site,
            self.exchange,
            self.resolve,
            self.connected,
            breaker or Breaker(BreakerLimits()),
            passes_on,
        )

    def _answers(
        self, items: Sequence[envelope_pb2.Envelope] | Sequence[envelope_pb2.ResolveItem]
    ) -> list[envelope_pb2.ExchangeResult]:
        if self.broken is not None:
            raise self.broken
        answers = [self.answer(item) for item in items]
        return [answer for answer in answers if answer is not None]


class MemoryStore:
    """The nation's store without a database."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.fails: Refusal | None = None
        self.announcements: dict[tuple[str, str], relay_pb2.Downtime] = {}

    async def record(
        self, outcomes: dict[str, envelope_pb2.Outcome], _: object
    ) -> dict[str, bytes]:
        if self.fails is not None:
            raise self.fails
        for settlement_id, made in outcomes.items():
            self.rows.setdefault(settlement_id, made.digest)
        return {settlement_id: self.rows[settlement_id] for settlement_id in outcomes}

    async def announced(self, announcer: str, request_id: str) -> relay_pb2.Downtime | None:
        return self.announcements.get((announcer, request_id))

    async def announce(
        self, announcer: str, request_id: str, downtime: relay_pb2.Downtime, _: object
    ) -> relay_pb2.Downtime:
        return self.announcements.setdefault((announcer, request_id), downtime)

    async def downtimes(self, now: datetime) -> list[relay_pb2.Downtime]:
        return [
            downtime
            for downtime in self.announcements.values()
            if downtime.end_time.ToMilliseconds() > now.timestamp() * 1000
        ]


class ServicerStub:
    """A relay's servicer as the relay before it sees it, called by `caller`."""

    def __init__(self, servicer: object, caller: Identity) -> None:
        self._servicer = servicer
        self._caller = caller

    def __getattr__(self, name: str) -> object:
        async def call(request: relay_pb2.BatchExchangeRequest, *, timeout: float) -> object:
            copy = type(request).FromString(request.SerializeToString())
            return await getattr(self._servicer, name)(copy, call_of(self._caller, timeout))

        return call


def behind(
    servicer: object, caller: str, site: str, breaker: Breaker, *, passes_on: bool = False
) -> Destination:
    """A destination behind another relay of this process."""

    async def connected() -> bool:
        return True

    stub = ServicerStub(servicer, Identity(caller, CallerType.ROLE, "relay"))
    return relay_destination(
        site,
        site,
        stub,  # type: ignore[arg-type]
        connected,
        breaker,
        passes_on=passes_on,
    )


def call_of(caller: Identity, seconds: float = 6.0) -> Call:
    return Call(caller, monotonic_us() + int(seconds * 1e6))


def reason_of(result: envelope_pb2.ExchangeResult) -> str:
    return Refusal.from_status(result.error).name if result.HasField("error") else ""


@dataclass
class FakeNation:
    """A nation that answers questions about its journal as it is told, and takes every detail."""

    broken: Refusal | None = None
    up: bool = True
    timeouts: list[float] = field(default_factory=list)
    """How long each question that arrived was given, seconds."""

    async def connected(self) -> bool:
        return self.up

    async def GetNationJournalDigest(
        self, request: relay_pb2.GetNationJournalDigestRequest, *, timeout: float
    ) -> relay_pb2.GetNationJournalDigestResponse:
        self.timeouts.append(timeout)
        if self.broken is not None:
            raise self.broken
        return relay_pb2.GetNationJournalDigestResponse(
            journal=envelope_pb2.JournalDigest(count=len(self.timeouts))
        )

    async def BatchUploadDetail(
        self, request: relay_pb2.BatchUploadDetailRequest, *, timeout: float
    ) -> relay_pb2.BatchUploadDetailResponse:
        self.timeouts.append(timeout)
        stored = [relay_pb2.UploadDetailResult(id=item.id, stored=True) for item in request.items]
        return relay_pb2.BatchUploadDetailResponse(results=stored)

    def journal(self, site: str, breaker: Breaker | None = None) -> NationJournal:
        """The way of the relay of `site` to it."""
        return NationJournal(
            site=site,
            nation=self,  # type: ignore[arg-type]
            name="国家平台",
            connected=self.connected,
            breaker=breaker or Breaker(BreakerLimits()),
            margin_ms=50,
        )
