"""Plays the story on a running network, as its people would: operators, institutions."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from infra.cli.client import Clients
from infra.cli.demo.facts import refusal_facts, settlement_facts, untied
from infra.cli.demo.showing import Screen
from infra.cli.demo.story import STORY, Chapter, Filing, Patient, Visit, visit_days
from infra.cli.verify import Verification, verify
from infra.local.people import SyntheticPerson, make_person
from infra.runtime.clock import SystemClock, business_day, new_id
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import desk_pb2, filing_pb2, filing_pb2_grpc
from yidi.gateway.v1 import (
    filing_desk_pb2,
    filing_desk_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
)

_CALL_S = 8.0
_EMPLOYEE = types_pb2.INSURANCE_TYPE_EMPLOYEE


@dataclass(slots=True)
class Told:
    """What came of the story."""

    settlements: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[dict[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What does not tie out, and what ended otherwise than the story says."""
    verification: Verification = field(default_factory=lambda: Verification(()))

    def facts(self) -> dict[str, Any]:
        """Everything for programs."""
        return {
            "settlements": self.settlements,
            "refusals": self.refusals,
            "verify": {"ok": self.verification.ok},
        }


async def tell(home: Path, console: Console | None) -> Told:
    """Play every chapter on the network of `home`; `console` shows it, if any."""
    async with Clients.connect(home) as clients:
        return await _Player(clients, Screen(console, clients)).play()


class _Player:
    def __init__(self, clients: Clients, screen: Screen) -> None:
        self._clients = clients
        self._screen = screen
        self._clock = SystemClock()
        self._today = business_day(self._clock.now_ms())
        self._random = Random(secrets.randbits(128))
        self._people: dict[str, SyntheticPerson] = {}
        self._told = Told()

    async def play(self) -> Told:
        self._screen.opening(len(STORY))
        for number, chapter in enumerate(STORY, 1):
            self._screen.chapter(number, chapter, *visit_days(self._today, chapter.visit.days))
            with self._screen.working("办理中 settling …"):
                await self._enroll(chapter.patient)
                if chapter.filing is not None:
                    await self._file(chapter.patient, chapter.visit, chapter.filing)
            await self._settle_chapter(chapter)
        with self._screen.working("对账 comparing the journals …"):
            self._told.verification = await verify(self._clients)
        self._screen.closing(self._told.settlements, self._told.verification)
        return self._told

    async def _settle_chapter(self, chapter: Chapter) -> None:
        bill = self._bill(chapter)
        if chapter.guided is not None:
            await self._guide(chapter, chapter.guided, bill.visit)
        try:
            with self._screen.working("结算中 settling …"):
                answer = await self._settle(chapter, bill)
        except Refusal as refusal:
            self._screen.refused(refusal)
            self._told.faults.append(f"{chapter.case}: {refusal}")
            return
        self._told.settlements.append(settlement_facts(chapter.case, answer.result))
        self._told.faults.extend(untied(chapter.case, answer.result))
        self._screen.settled(chapter, answer)

    async def _guide(self, chapter: Chapter, wanted: Filing, visit: visit_pb2.Visit) -> None:
        """At the hospital's own front door: whether the visit is entitled, how it can be, file."""
        at = chapter.visit
        door = self._clients.institution(
            filing_desk_pb2_grpc.FilingDeskServiceStub, at.care_site, at.institution
        )
        applicant = desk_pb2.Applicant(
            credential=self._credential(chapter.patient),
            insured_area=chapter.patient.area,
            insurance=_EMPLOYEE,
        )
        check = desk_pb2.VisitCheck(applicant=applicant, visit=visit)
        request = filing_desk_pb2.CheckFilingRequest(check=check)
        checked = (await door.CheckFiling(request, timeout=_CALL_S)).answer
        if not checked.HasField("refusal"):
            self._told.faults.append(f"{chapter.case}: entitled without a filing")
            return
        refusal = Refusal.from_status(checked.refusal)
        self._told.refusals.append(refusal_facts(chapter.case, refusal))
        self._screen.refused(refusal)
        if refusal.reason != Reason.ERROR_REASON_FILING_REQUIRED:
            self._told.faults.append(f"{chapter.case}: refused with {refusal.name}")
        guidance = next((k for k in checked.guidance.kinds if k.kind == wanted.kind), None)
        if guidance is None:
            self._told.faults.append(f"{chapter.case}: no guidance on how to file")
            return
        application = desk_pb2.Application(
            request_id=f"demo-{new_id(self._clock)}",
            applicant=applicant,
            kind=wanted.kind,
            channel=wanted.channel,
            care_place=wanted.care_place,
            start_date=visit.start_date,
            materials=[*guidance.required, *guidance.any_of[:1]],
        )
        filed = await door.ApplyFiling(
            filing_desk_pb2.ApplyFilingRequest(application=application), timeout=_CALL_S
        )
        self._screen.filed(guidance, filed.answer.filing)

    async def _enroll(self, patient: Patient) -> None:
        """Register a new synthetic person for this run."""
        if patient.key in self._people:
            return
        person = make_person(self._random, county=patient.county, born=patient.born)
        self._people[patient.key] = person
        stub = self._clients.operator(
            enrollment_pb2_grpc.EnrollmentServiceStub, patient.site, "enrollment"
        )
        item = enrollment_pb2.RegisterItem(
            id=new_id(self._clock),
            name=person.name,
            id_number=person.id_number,
            social_security_card=person.social_security_card,
            electronic_token=person.electronic_token,
            insured_area=patient.area,
            insurance=_EMPLOYEE,
            person_class=patient.person_class,
            active_from="2020-01-01",
        )
        request = enrollment_pb2.BatchRegisterRequest(items=[item])
        result = (await stub.BatchRegister(request, timeout=_CALL_S)).results[0]
        if result.HasField("error"):
            refusal = Refusal.from_status(result.error)
            if refusal.reason != Reason.ERROR_REASON_PARTICIPANT_CONFLICT:
                raise refusal
            # The number was drawn in an earlier run: draw another person.
            del self._people[patient.key]
            await self._enroll(patient)

    async def _file(self, patient: Patient, visit: Visit, filing: Filing) -> None:
        first, _ = visit_days(self._today, visit.days)
        made_on = (first - timedelta(days=filing.days_before)).isoformat()
        item = filing_pb2.CreateFilingItem(
            id=new_id(self._clock),
            credential=self._credential(patient),
            insured_area=patient.area,
            insurance=_EMPLOYEE,
            kind=filing.kind,
            channel=filing.channel,
            care_place=filing.care_place,
            start_date=made_on,
            filed_on=made_on,
            referral_institution=filing.referral_institution,
            commitment=types_pb2.COMMITMENT_STATE_MATERIAL_COMPLETE,
        )
        stub = self._clients.operator(filing_pb2_grpc.FilingServiceStub, patient.site, "filing")
        request = filing_pb2.BatchCreateFilingsRequest(items=[item])
        result = (await stub.BatchCreateFilings(request, timeout=_CALL_S)).results[0]
        if result.HasField("error"):
            raise Refusal.from_status(result.error)

    async def _settle(self, chapter: Chapter, bill: gateway_pb2.Bill) -> gateway_pb2.SettleResponse:
        visit = chapter.visit
        door = self._clients.institution(
            gateway_pb2_grpc.InstitutionServiceStub, visit.care_site, visit.institution
        )
        request = gateway_pb2.SettleRequest(
            request_id=f"demo-{new_id(self._clock)}",
            credential=self._credential(chapter.patient),
            bill=bill,
        )
        answer: gateway_pb2.SettleResponse = await door.Settle(request, timeout=_CALL_S)
        return answer

    def _credential(self, patient: Patient) -> visit_pb2.Credential:
        return visit_pb2.Credential(
            type=types_pb2.CREDENTIAL_TYPE_ELECTRONIC,
            number=self._people[patient.key].electronic_token,
        )

    def _bill(self, chapter: Chapter) -> gateway_pb2.Bill:
        visit = chapter.visit
        first, last = visit_days(self._today, visit.days)
        inpatient = visit.care_type == types_pb2.CARE_TYPE_INPATIENT
        bill = gateway_pb2.Bill(
            reference=visit_pb2.BillReference(
                institution=visit.institution, visit_id=new_id(self._clock), bill_id="1"
            ),
            visit=visit_pb2.Visit(
                care_area=visit.care_area,
                insured_area=chapter.patient.area,
                insurance=_EMPLOYEE,
                care_type=visit.care_type,
                start_date=first.isoformat(),
                end_date=last.isoformat(),
                inpatient_type=visit.inpatient_type,
                injury=types_pb2.ANSWER_NO if inpatient else types_pb2.ANSWER_UNSPECIFIED,
            ),
        )
        for number, item in enumerate(visit.bill, 1):
            bill.lines.add(
                line_id=str(number),
                item_code=item.code,
                unit_price_micro_yuan=item.price_fen * 10_000,
                quantity_e4=item.quantity * 10_000,
                amount_fen=item.price_fen * item.quantity,
            )
        bill.total_fen = sum(line.amount_fen for line in bill.lines)
        return bill
