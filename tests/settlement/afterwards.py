"""A care journal of its own, on a clock that the test moves, and a nation that answers as told."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock, business_day, instant, monotonic_us, new_id
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from infra.runtime.migrate import migrate
from services.settlement.detail_upload import DetailUpload
from services.settlement.domain.states import State
from services.settlement.service import AuditServicer
from services.settlement.store import SCHEMA
from services.settlement.store.audit import AuditStore
from services.settlement.store.care import CareStore, Closing, Opening
from services.settlement.store.details import DetailStore
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2, visit_pb2
from yidi.relay.v1 import relay_pb2
from yidi.settlement.v1 import payload_pb2

SITE = "370000"
HOSPITAL = "H37010000001"
NOW_MS = 1_795_000_000_000
OPERATOR = Call(Identity(SITE, CallerType.OPERATOR, "clerk"), monotonic_us() + 600_000_000)
FINDING = visit_pb2.AuditFinding(
    rule="repeated_charge", action=types_pb2.AUDIT_ACTION_WARN, line_ids=["1"], message="重复收费"
)


class FakeNation:
    """The own relay with the nation behind it: answers each detail as `answer` says."""

    def __init__(self) -> None:
        self.received: list[relay_pb2.StayDetail] = []
        self.batches: list[set[str]] = []
        self.down = False
        self.answer: Callable[[str], Refusal | None] = lambda _: None
        """Of a settlement id: the refusal, or None when it is stored."""
        self.silent: set[str] = set()
        """Ids that get no answer."""

    async def BatchUploadDetail(
        self, request: relay_pb2.BatchUploadDetailRequest, *, timeout: float
    ) -> relay_pb2.BatchUploadDetailResponse:
        assert timeout > 0
        if self.down:
            raise Refusal(Reason.ERROR_REASON_SITE_UNREACHABLE, site="国家平台")
        self.batches.append({item.id for item in request.items})
        self.received += request.items
        answer = relay_pb2.BatchUploadDetailResponse()
        for item in request.items:
            refusal = self.answer(item.id)
            if item.id in self.silent:
                continue
            if refusal is None:
                answer.results.add(id=item.id, stored=True)
            else:
                answer.results.add(id=item.id, error=refusal.status())
        return answer


@dataclass
class Afterwards:
    """The care side of one site, after its settlements."""

    clock: ManualClock
    database: Database
    care: CareStore = field(init=False)
    details: DetailStore = field(init=False)
    service: AuditServicer = field(init=False)
    nation: FakeNation = field(default_factory=FakeNation)

    def __post_init__(self) -> None:
        self.care, self.details = CareStore(self.database), DetailStore(self.database)
        self.service = AuditServicer(
            store=AuditStore(self.database), details=self.details, clock=self.clock
        )

    def upload(self) -> DetailUpload:
        """A replica of what runs beside the settlements."""
        return DetailUpload(
            store=self.details,
            relay=self.nation,  # type: ignore[arg-type]
            clock=self.clock,
        )

    async def opened(
        self,
        duties: int = 0,
        *,
        route: types_pb2.Route.ValueType = types_pb2.ROUTE_CROSS_PROVINCE,
        kind: types_pb2.ExchangeKind.ValueType = types_pb2.EXCHANGE_KIND_SETTLE,
        undoes: str | None = None,
        findings: Sequence[visit_pb2.AuditFinding] = (),
        line_bytes: int = 10,
    ) -> Opening:
        """A settlement that is under way; its id is behind all those before."""
        self.clock.ms += 1
        line = visit_pb2.LineSplit(
            line_id="1", amount_fen=100_00, in_scope_fen=100_00, reason="甲" * line_bytes
        )
        request = payload_pb2.ExchangePayload(total_fen=100_00, lines=[line], findings=findings)
        opening = Opening(
            settlement_id=new_id(self.clock),
            caller=f"spiffe://yidi/site/{SITE}/institution/{HOSPITAL}",
            method="Settle",
            request_id=f"req-{uuid4()}",
            body_digest=bytes(32),
            payload_digest=bytes(32),
            institution=HOSPITAL,
            visit_id=uuid4().hex,
            bill_id="B1",
            care_area="370100",
            care_site=SITE,
            insured_area="440800",
            insured_site="440000",
            route=route,
            kind=kind,
            undoes=undoes,
            request=request.SerializeToString(),
            deadline_at=instant(self.clock),
            operator="",
            traceparent="",
            duties=int(duties),
        )
        [row] = await self.care.open([opening], instant(self.clock))
        assert row["opened"]
        return opening

    async def closed(
        self, opening: Opening, state: State = State.COMPLETED, fund_fen: int = 60_00
    ) -> None:
        """What came of it."""
        header = outcome = reason = None
        if state is State.COMPLETED:
            header = envelope_pb2.OutcomeHeader(
                settlement_id=opening.settlement_id,
                business_day=business_day(self.clock.now_ms()).isoformat(),
                care_site=SITE,
                insured_site="440000",
                amounts=amounts_pb2.Amounts(total_fen=100_00, fund_total_fen=fund_fen),
            )
            raw = header.SerializeToString()
            outcome = envelope_pb2.Outcome(header=raw, digest=hashlib.sha256(raw).digest())
        else:
            reason = b""
        closing = Closing(opening.settlement_id, state, header, outcome, reason, b"")
        assert await self.care.close([closing], instant(self.clock))

    async def completed(self, duties: int = 0, *, fund_fen: int = 60_00, **facts: Any) -> str:
        """A completed settlement of 100 元; its id."""
        opening = await self.opened(duties, **facts)
        await self.closed(opening, fund_fen=fund_fen)
        return opening.settlement_id

    async def undone(self, settlement_id: str) -> None:
        """The settlement is refunded."""
        await self.completed(
            kind=types_pb2.EXCHANGE_KIND_REFUND, undoes=settlement_id, fund_fen=-60_00
        )


@asynccontextmanager
async def afterwards(database_settings: Callable[..., Settings]) -> AsyncIterator[Afterwards]:
    """A site with an empty journal."""
    clock = ManualClock(NOW_MS)
    settings = database_settings(SITE)
    await migrate(settings, [SCHEMA], clock)
    async with Database.open(settings, "settlement") as database:
        yield Afterwards(clock, database)
