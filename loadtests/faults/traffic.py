"""Institutions and operators at work while things break.

Institutions settle, repeat, ask, reverse and refund; operators of the insured sites post what was
paid elsewhere and what fills accounts. They behave as the contract tells them to: an unknown
outcome is asked for again with the same id or reversed, an answer is taken for true for ever. Every
answer is kept with its request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import count
from random import Random
from typing import Any

from infra.cli.client import Clients
from infra.runtime.clock import SystemClock, monotonic_us, new_id
from infra.runtime.errors import Refusal
from loadtests.faults.people import Person
from loadtests.faults.postings import Posting
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from yidi.settlement.v1 import insured_pb2, insured_pb2_grpc

CALL_S = 8.0
"""Longer than a settlement may take, so that an institution hears what the front door says."""
TRIES = 3
POST, POSTED = "Post", "POSTED"
"""Method and state of an answer to a posting."""
_AGAIN = ("OUTCOME_PENDING", "SERVICE_UNAVAILABLE")
OPENING_FEN = 20_000
"""So little in an account that some run dry."""
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
    people: Sequence[Person]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an institution was told, and what it had asked."""

    method: str
    """Settle, Reverse, Refund or GetSettlement; or POST."""
    care_site: str
    """Of a posting: the insured site."""
    institution: str
    request_id: str
    """Empty for a question by settlement id; a posting's own id."""
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
    content: str = ""
    """Of a posting: everything it means."""


@dataclass(slots=True)
class _Settled:
    """A settlement that a caller knows to stand."""

    way: Way
    request: gateway_pb2.SettleRequest
    settlement_id: str


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
        self._posted: list[tuple[Person, Posting]] = []
        self._people = list({one.person_id: one for way in ways for one in way.people}.values())

    async def open_accounts(self) -> None:
        """Every second person gets an account that can pay something."""
        for number, person in enumerate(self._people):
            if number % 2 == 0:
                posting = self._new_posting(person, account_fen=OPENING_FEN)
                if not await self._post(person, posting):
                    raise RuntimeError("the accounts could not be opened")

    async def run(self, seed: int, *, seconds: float, callers: int) -> None:
        """`callers` at work for `seconds`; returns when each has its last answer."""
        until = monotonic_us() + int(seconds * 1e6)
        await asyncio.gather(*(self._caller(Random(seed + one), until) for one in range(callers)))

    async def ask(self, answers: Sequence[Answer]) -> None:
        """Ask the front doors what became of the settlements that `answers` were given for, and
        send their postings once more, as one does who has heard nothing."""
        known = {
            (answer.care_site, answer.institution, answer.settlement_id)
            for answer in answers
            if answer.settlement_id and answer.method != POST
        }
        posted = {answer.request_id for answer in answers if answer.method == POST}
        limit = asyncio.Semaphore(16)

        async def one(site: str, institution: str, settlement_id: str) -> None:
            async with limit:
                await self._get(site, institution, settlement_id)

        async def again(person: Person, posting: Posting) -> None:
            async with limit:
                await self._post(person, posting)

        await asyncio.gather(
            *(one(*key) for key in sorted(known)),
            *(again(who, what) for who, what in self._posted if what.posting_id in posted),
        )

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
            (2, self._post_new),
            (1, self._post_twice),
            (1, self._post_again),
            (1, self._post_another),
        ]
        weights = [weight for weight, _ in works]
        while monotonic_us() < until_us:
            _, work = random.choices(works, weights)[0]
            await work(random)

    async def _settle_new(self, random: Random) -> None:
        """What stays unknown is asked for again, or reversed."""
        way, request = self._new(random)
        await self._settle(way, request, reverses=random.random() < 0.5)

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

    async def _settle(
        self, way: Way, request: gateway_pb2.SettleRequest, *, reverses: bool = False
    ) -> None:
        for _ in range(TRIES):
            answer = await self._call("Settle", way, request, "")
            if answer.state == "COMPLETED":
                self._settled.append(_Settled(way, request, answer.settlement_id))
                del self._settled[:-KEPT]
                return
            if answer.reason not in _AGAIN:
                return
            if reverses and answer.named_id not in ("", request.request_id):
                await self._undone(_Settled(way, request, answer.named_id), reverse=True)
                return

    async def _undone(self, old: _Settled, *, reverse: bool) -> bool:
        method = "Reverse" if reverse else "Refund"
        kind = gateway_pb2.ReverseRequest if reverse else gateway_pb2.RefundRequest
        request = kind(request_id=self._request_id(), settlement_id=old.settlement_id)
        for _ in range(TRIES):
            answer = await self._call(method, old.way, request, old.settlement_id)
            if not answer.reason:
                return True
            if answer.reason not in _AGAIN:
                return False
        return False

    async def _post_new(self, random: Random) -> None:
        await self._post(*self._random_posting(random))

    async def _post_twice(self, random: Random) -> None:
        """The same posting twice at once: it counts once."""
        person, posting = self._random_posting(random)
        await asyncio.gather(self._post(person, posting), self._post(person, posting))

    async def _post_again(self, random: Random) -> None:
        if self._posted:
            await self._post(*random.choice(self._posted))

    async def _post_another(self, random: Random) -> None:
        """Another content under an id that is taken, or that two now fight for."""
        person, posting = self._random_posting(random)
        other = replace(posting, source=f"{posting.source}-other")
        await asyncio.gather(self._post(person, posting), self._post(person, other))

    async def _post(self, person: Person, posting: Posting) -> bool:
        """Post until an answer comes; whether it says that the posting stands."""
        stub = self._clients.operator(
            insured_pb2_grpc.InsuredServiceStub, person.site, "settlement"
        )
        request = insured_pb2.BatchPostExternalRequest(items=[posting.item])
        for _ in range(TRIES):
            reason = ""
            try:
                response = await stub.BatchPostExternal(request, timeout=CALL_S)
            except Refusal as refusal:
                reason = refusal.name
                await asyncio.sleep(0.1)  # a service that is down must not be hammered
            else:
                [result] = response.results
                if result.HasField("error"):
                    reason = Refusal.from_status(result.error).name
            self.answers.append(
                Answer(
                    method=POST,
                    care_site=person.site,
                    institution="",
                    request_id=posting.posting_id,
                    asked_id="",
                    reason=reason,
                    state="" if reason else POSTED,
                    content=posting.content,
                )
            )
            if reason in ("", "EXTERNAL_CONFLICT"):
                return not reason
        return False

    def _random_posting(self, random: Random) -> tuple[Person, Posting]:
        person = random.choice(self._people)
        fen = random.randint(1, 5_000)
        to_account = random.random() < 0.5
        posting = self._new_posting(
            person, account_fen=fen if to_account else 0, pooled_fen=0 if to_account else fen
        )
        self._posted.append((person, posting))
        return person, posting

    def _new_posting(self, person: Person, *, account_fen: int = 0, pooled_fen: int = 0) -> Posting:
        return Posting(
            posting_id=new_id(SystemClock()),
            area=person.area,
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            person_id=person.person_id,
            source=self._request_id(),
            account_id=person.account_id if account_fen else "",
            account_delta_fen=account_fen,
            period=self._day[:4] if pooled_fen else "",
            pooled_used_fen=pooled_fen,
        )

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
            request_id=request_id, credential=random.choice(way.people).credential
        )
        bill = request.bill
        bill.reference.institution = way.institution
        bill.reference.visit_id, bill.reference.bill_id = request_id, "1"
        bill.visit.care_area, bill.visit.insured_area = way.care_area, way.insured_area
        bill.visit.insurance = types_pb2.INSURANCE_TYPE_EMPLOYEE
        bill.visit.care_type = types_pb2.CARE_TYPE_OUTPATIENT
        bill.visit.use_account = random.random() < 0.5
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
