"""Calling and watching a network of processes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, TypeVar

import asyncpg
from world import (
    BEIJING,
    GUANGDONG,
    GUANGZHOU,
    PEOPLE,
    REFERRED,
    ZHANJIANG,
    Patient,
    settle_request,
)

from infra.cli.client import Clients
from infra.local.health import Target, wait_healthy
from infra.local.network import Process
from infra.local.supervisor import Child, Network
from infra.runtime.clock import SystemClock, business_day, new_id
from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import filing_pb2, filing_pb2_grpc
from yidi.gateway.v1 import gateway_pb2, gateway_pb2_grpc

CLOCK = SystemClock()
SITE_OF = {BEIJING: BEIJING, GUANGZHOU: GUANGDONG, ZHANJIANG: GUANGDONG}
T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], *, within_s: float) -> T:
    """What `look` returns as soon as that is true."""
    async with asyncio.timeout(within_s):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class RealNetwork:
    """A running network, its callers, its databases."""

    network: Network
    clients: Clients
    admins: dict[str, asyncpg.Connection]
    """The superuser's connections, where no server dies; else see `rows`."""

    @property
    def today(self) -> date:
        """The business day."""
        return business_day(CLOCK.now_ms())

    async def connect(self, site: str) -> asyncpg.Connection:
        """A connection of the superuser to the database of a site."""
        return await asyncpg.connect(**self.clients.sites[site].settings.database.admin_login())

    async def rows(self, site: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """What the database of a site answers its superuser, over a connection of its own."""
        connection = await self.connect(site)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def patients(
        self,
        number: int,
        *,
        places: Sequence[str] = (BEIJING, GUANGZHOU),
        area: str = ZHANJIANG,
    ) -> list[Patient]:
        """Register people of `area`: long-term residents of the first of `places`, referred to
        others."""
        people = [next(PEOPLE) for _ in range(number)]
        site = SITE_OF[area]
        enrollment = self.clients.operator(
            enrollment_pb2_grpc.EnrollmentServiceStub, site, "enrollment"
        )
        items = [
            enrollment_pb2.RegisterItem(
                id=new_id(CLOCK),
                name=person.name,
                id_number=person.id_number,
                social_security_card=person.social_security_card,
                electronic_token=person.electronic_token,
                insured_area=area,
                insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                person_class=types_pb2.PERSON_CLASS_RETIRED,
                active_from="2020-01-01",
            )
            for person in people
        ]
        answer = await enrollment.BatchRegister(
            enrollment_pb2.BatchRegisterRequest(items=items), timeout=10
        )
        ids = {result.id: result.person_id for result in answer.results}
        patients = [Patient(p, ids[item.id], area) for p, item in zip(people, items, strict=True)]
        start = (self.today - timedelta(days=60)).isoformat()
        filings = self.clients.operator(filing_pb2_grpc.FilingServiceStub, site, "filing")
        facts: dict[str, Any] = {
            "insured_area": area,
            "insurance": types_pb2.INSURANCE_TYPE_EMPLOYEE,
            "kind": types_pb2.FILING_KIND_RETIRED_RESETTLED,
            "channel": types_pb2.FILING_CHANNEL_NATIONAL_APP,
            "start_date": start,
            "filed_on": start,
            "commitment": types_pb2.COMMITMENT_STATE_MATERIAL_COMPLETE,
        }
        wanted = [
            filing_pb2.CreateFilingItem(
                id=new_id(CLOCK),
                credential=patient.credential,
                care_place=place,
                **(facts | (REFERRED if number else {})),
            )
            for patient in patients
            for number, place in enumerate(places)
        ]
        if wanted:
            made = await filings.BatchCreateFilings(
                filing_pb2.BatchCreateFilingsRequest(items=wanted), timeout=10
            )
            assert all(result.HasField("filing") for result in made.results)
        return patients

    def request(self, patient: Patient, **facts: Any) -> gateway_pb2.SettleRequest:
        """A stay that ends today."""
        return settle_request(patient, **({"day": self.today} | facts))

    def door(self, area: str, code: str, replica: int = 0) -> Any:
        """The front door of a pooling area's site at one of its replicas."""
        kind = gateway_pb2_grpc.InstitutionServiceStub
        return self.clients.institution(kind, SITE_OF[area], code, replica)

    async def settle(
        self, request: gateway_pb2.SettleRequest, *, replica: int = 0, timeout: float = 20
    ) -> gateway_pb2.SettleResponse:
        """Settle as the hospital of the bill."""
        bill = request.bill
        door = self.door(bill.visit.care_area, bill.reference.institution, replica)
        answer: gateway_pb2.SettleResponse = await door.Settle(request, timeout=timeout)
        return answer

    async def standing(
        self, request: gateway_pb2.SettleRequest
    ) -> gateway_pb2.GetSettlementResponse:
        """What the front door says has become of a request."""
        bill = request.bill
        door = self.door(bill.visit.care_area, bill.reference.institution)
        asked = gateway_pb2.GetSettlementRequest(request_id=request.request_id)
        answer: gateway_pb2.GetSettlementResponse = await door.GetSettlement(asked, timeout=5)
        return answer

    async def unreachable(self, patient: Patient, care_area: str) -> Refusal:
        """Settle until the network has noticed that a site is gone, and return its refusal."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.settle(self.request(patient, care_area=care_area))
                except Refusal as refusal:
                    if refusal.name != "OUTCOME_PENDING":
                        return refusal

    async def recovered(self, patient: Patient, care_area: str, *, quotes: int = 16) -> None:
        """Return when every replica on the way has found its neighbours and the directory again.

        Quotes tell, and leave nothing: eight in a row over each door pass through all of them;
        without replicas fewer `quotes` do.
        """
        request = self.request(patient, care_area=care_area)
        quote = gateway_pb2.QuoteRequest(credential=request.credential, bill=request.bill)
        answered = 0
        async with asyncio.timeout(60):
            while answered < quotes:
                door = self.door(care_area, request.bill.reference.institution, answered % 2)
                try:
                    await door.Quote(quote, timeout=5)
                    answered += 1
                except Refusal:
                    answered = await asyncio.sleep(0.05, 0)

    async def answers(self, patient: Patient, care_area: str = BEIJING) -> None:
        """Return when each role on the way of a settlement answers; without replicas."""
        await self.recovered(patient, care_area, quotes=2)

        async def journal_answers() -> bool:
            try:
                await self.standing(self.request(patient, care_area=care_area))
            except Refusal as refusal:
                return refusal.name == "SETTLEMENT_NOT_FOUND"
            return False

        await until(journal_answers, within_s=60)

    def children(self, site: str, role: str) -> list[Child]:
        """The processes of `site` that run `role`, dead ones too."""
        return [
            child
            for child in self.network.children.values()
            if child.plan.site == site and role in child.plan.roles
        ]

    async def killed(self, site: str, role: str, *, within_s: float = 30) -> Process:
        """The plan of the process of `site` with `role` that SIGKILL has ended, once there is one.

        It has killed itself at a failpoint; any other end is a failure.
        """

        async def look() -> list[Child]:
            return [c for c in self.children(site, role) if c.process.poll() is not None]

        dead = await until(look, within_s=within_s)
        assert [child.process.returncode for child in dead] == [-signal.SIGKILL]
        return dead[0].plan

    async def nothing_open(self, *, within_s: float = 30) -> None:
        """Return when no settlement is pending or in doubt at any province."""

        async def look() -> bool:
            statement = (
                "SELECT FROM settlement.care_journal WHERE state IN ('PENDING', 'IN_DOUBT') LIMIT 1"
            )
            return not any([await self.rows(site, statement) for site in self.clients.provinces])

        await until(look, within_s=within_s)

    def kill(self, site: str, role: str) -> list[Process]:
        """SIGKILL every process of `site` that runs `role`; return their plans."""
        found = self.children(site, role)
        for child in found:
            child.process.send_signal(signal.SIGKILL)
            child.process.wait(30)
        return [child.plan for child in found]

    def start(self, plans: Sequence[Process], *, without: Collection[str] = ()) -> None:
        """Start killed processes again; return when all serve, those of `without` aside."""
        for plan in plans:
            self.network.spawn(plan)
        targets = [
            Target(name, child.plan.internal, self.network.plan.tls(child.plan.site), role)
            for name, child in self.network.children.items()
            if name not in without
            for role in child.plan.roles[:1]
        ]
        faults = wait_healthy(targets, timeout_s=60, check=lambda: None)
        assert not faults, faults
