"""Institutions at work while things break: they settle, repeat, ask, reverse and refund.

They behave as the contract tells institutions to: an unknown outcome is asked for again with the
same request id, an answer is taken for true for ever. Every answer is kept with its request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import count
from random import Random
from typing import Any

from infra.cli.client import Clients
from infra.runtime.clock import monotonic_us
from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.gateway.v1 import gateway_pb2, gateway_pb2_grpc

CALL_S = 8.0
"""Longer than a settlement may take, so that an institution hears what the front door says."""
TRIES = 3
KEPT = 60
"""Settlements that a caller may still repeat or undo."""
_SAMPLES = (
    ("X002", "0011020000120000-SAMPLE", 45, 1),
    ("X001", "0011010000110000-SAMPLE", 5, 1),
    ("X029", "0025030300430000-SAMPLE", 54, 1),
    ("Y007", "XA10BA02A007-SAMPLE", 11, 2),
    ("Y009", "XA10BH01A009-SAMPLE", 6, 3),
)
"""Item code, national code, price in yuan, quantity: lines of an outpatient bill."""
_PREFIX = "SETTLEMENT_STATE_"


@dataclass(frozen=True, slots=True)
class Way:
    """Where people of one area are treated."""

    care_site: str
    institution: str
    care_area: str
    insured_area: str
    credentials: Sequence[visit_pb2.Credential]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an institution was told, and what it had asked."""

    method: str
    """Settle, Reverse, Refund or GetSettlement."""
    care_site: str
    institution: str
    request_id: str
    """Empty for a question by settlement id."""
    asked_id: str
    """The settlement that was to be undone or was asked about, or empty."""
    reason: str = ""
    """Of a refusal; empty when there was an answer."""
    named_id: str = ""
    """A refusal's `settlement_id` or `undo_id`."""
    settlement_id: str = ""
    state: str = ""
    digest: str = ""
    """Of the outcome header, hex."""


@dataclass(slots=True)
class _Settled:
    """A settlement that a caller knows to stand."""

    way: Way
    request: gateway_pb2.SettleRequest
    settlement_id: str
    undo_request: gateway_pb2.ReverseRequest | gateway_pb2.RefundRequest | None = None


class Traffic:
    """Callers of one network; every answer is in `answers`, in the order they came."""

    def __init__(self, clients: Clients, ways: Sequence[Way], *, day: date, run: str) -> None:
        self.answers: list[Answer] = []
        self._clients = clients
        self._ways = ways
        self._day = day.isoformat()
        self._run = run
        self._numbers = count()
        self._settled: list[_Settled] = []

    async def run(self, seed: int, *, seconds: float, callers: int) -> None:
        """`callers` at work for `seconds`; returns when each has its last answer."""
        until = monotonic_us() + int(seconds * 1e6)
        await asyncio.gather(*(self._caller(Random(seed + one), until) for one in range(callers)))

    async def ask(self, answers: Sequence[Answer]) -> list[Answer]:
        """Ask the front doors what became of settlements that `answers` were given for."""
        known = {
            (answer.care_site, answer.institution, answer.settlement_id)
            for answer in answers
            if answer.settlement_id
        }
        limit = asyncio.Semaphore(16)
        asked: list[Answer] = []

        async def one(site: str, institution: str, settlement_id: str) -> None:
            async with limit:
                asked.append(await self._get(site, institution, settlement_id))

        await asyncio.gather(*(one(*key) for key in sorted(known)))
        return asked

    async def _caller(self, random: Random, until_us: int) -> None:
        works: list[tuple[int, Callable[[Random], Awaitable[None]]]] = [
            (10, self._settle_new),
            (2, self._settle_impatiently),
            (2, self._same_bill_twice),
            (1, self._same_request_twice),
            (2, self._repeat),
            (2, self._look),
            (3, self._undo),
            (1, self._undo_twice),
            (1, self._undo_in_doubt),
        ]
        weights = [weight for weight, _ in works]
        while monotonic_us() < until_us:
            _, work = random.choices(works, weights)[0]
            await work(random)

    async def _settle_new(self, random: Random) -> None:
        way, request = self._new(random)
        await self._settle(way, request)

    async def _settle_impatiently(self, random: Random) -> None:
        """The caller cancels, and asks again later."""
        way, request = self._new(random)
        await self._call("Settle", way, request, "", seconds=random.choice((0.005, 0.02, 0.1)))
        await self._settle(way, request)

    async def _same_bill_twice(self, random: Random) -> None:
        way, first = self._new(random)
        second = gateway_pb2.SettleRequest()
        second.CopyFrom(first)
        second.request_id += "-again"
        await asyncio.gather(self._settle(way, first), self._settle(way, second))

    async def _same_request_twice(self, random: Random) -> None:
        way, request = self._new(random)
        await asyncio.gather(self._settle(way, request), self._settle(way, request))

    async def _repeat(self, random: Random) -> None:
        """An old request again: its first answer must come again."""
        if self._settled:
            old = random.choice(self._settled)
            await self._call("Settle", old.way, old.request, "")

    async def _look(self, random: Random) -> None:
        if self._settled:
            old = random.choice(self._settled)
            await self._get(old.way.care_site, old.way.institution, old.settlement_id)

    async def _undo(self, random: Random) -> None:
        if self._settled:
            old = self._settled.pop(random.randrange(len(self._settled)))
            if await self._undone(old, reverse=random.random() < 0.5) and random.random() < 0.5:
                # The bill is free again.
                request = gateway_pb2.SettleRequest()
                request.CopyFrom(old.request)
                request.request_id = self._request_id()
                await self._settle(old.way, request)

    async def _undo_twice(self, random: Random) -> None:
        """Reversal and refund of one original at once: one of them may stand."""
        if self._settled:
            old = self._settled.pop(random.randrange(len(self._settled)))
            await asyncio.gather(self._undone(old, reverse=True), self._undone(old, reverse=False))

    async def _undo_in_doubt(self, random: Random) -> None:
        """The answer does not come in time: the institution cancels what it does not know."""
        way, request = self._new(random)
        answer = await self._call("Settle", way, request, "", seconds=0.05)
        if answer.reason:
            bill = gateway_pb2.GetSettlementRequest(request_id=request.request_id)
            found = await self._call("GetSettlement", way, bill, "")
            if found.settlement_id:
                await self._undone(_Settled(way, request, found.settlement_id), reverse=True)

    async def _settle(self, way: Way, request: gateway_pb2.SettleRequest) -> None:
        for _ in range(TRIES):
            answer = await self._call("Settle", way, request, "")
            if answer.state == "COMPLETED":
                self._settled.append(_Settled(way, request, answer.settlement_id))
                del self._settled[:-KEPT]
                return
            if answer.reason not in ("OUTCOME_PENDING", "SERVICE_UNAVAILABLE"):
                return

    async def _undone(self, old: _Settled, *, reverse: bool) -> bool:
        method = "Reverse" if reverse else "Refund"
        kind = gateway_pb2.ReverseRequest if reverse else gateway_pb2.RefundRequest
        request = kind(request_id=self._request_id(), settlement_id=old.settlement_id)
        for _ in range(TRIES):
            answer = await self._call(method, old.way, request, old.settlement_id)
            if not answer.reason:
                return True
            if answer.reason not in ("OUTCOME_PENDING", "SERVICE_UNAVAILABLE"):
                return False
        return False

    async def _get(self, site: str, institution: str, settlement_id: str) -> Answer:
        way = Way(site, institution, "", "", ())
        request = gateway_pb2.GetSettlementRequest(settlement_id=settlement_id)
        return await self._call("GetSettlement", way, request, settlement_id)

    async def _call(
        self, method: str, way: Way, request: Any, asked_id: str, *, seconds: float = CALL_S
    ) -> Answer:
        """Call and keep what was answered."""
        stub = self._clients.institution(
            gateway_pb2_grpc.InstitutionServiceStub, way.care_site, way.institution
        )
        asked = {
            "method": method,
            "care_site": way.care_site,
            "institution": way.institution,
            "request_id": getattr(request, "request_id", ""),
            "asked_id": asked_id,
        }
        try:
            response = await getattr(stub, method)(request, timeout=seconds)
        except Refusal as refusal:
            of_whom = "undo_id" if refusal.name == "ALREADY_UNDONE" else "settlement_id"
            named = refusal.details.get(of_whom, "")
            answer = Answer(**asked, reason=refusal.name, named_id=named)
            if refusal.name == "SERVICE_UNAVAILABLE" and seconds == CALL_S:
                await asyncio.sleep(0.1)  # a front door that is down must not be hammered
        else:
            answer = Answer(
                **asked,
                settlement_id=response.settlement_id,
                state=types_pb2.SettlementState.Name(response.state).removeprefix(_PREFIX),
                digest=response.result.outcome_digest.hex(),
            )
        self.answers.append(answer)
        return answer

    def _request_id(self) -> str:
        return f"{self._run}-{next(self._numbers):07d}"

    def _new(self, random: Random) -> tuple[Way, gateway_pb2.SettleRequest]:
        way = random.choice(self._ways)
        request_id = self._request_id()
        request = gateway_pb2.SettleRequest(
            request_id=request_id, credential=random.choice(way.credentials)
        )
        bill = request.bill
        bill.reference.institution = way.institution
        bill.reference.visit_id, bill.reference.bill_id = request_id, "1"
        bill.visit.care_area, bill.visit.insured_area = way.care_area, way.insured_area
        bill.visit.insurance = types_pb2.INSURANCE_TYPE_EMPLOYEE
        bill.visit.care_type = types_pb2.CARE_TYPE_OUTPATIENT
        bill.visit.start_date = bill.visit.end_date = self._day
        for number in range(random.randint(1, 4)):
            item, national, price, quantity = random.choice(_SAMPLES)
            bill.lines.add(
                line_id=str(number + 1),
                item_code=item,
                national_code=national,
                unit_price_micro_yuan=price * 1_000_000,
                quantity_e4=quantity * 10_000,
                amount_fen=price * quantity * 100,
            )
        bill.total_fen = sum(line.amount_fen for line in bill.lines)
        return way, request
