"""Fills an insured site with synthetic people who are filed for care at another site."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import islice
from random import Random

from infra.cli.client import Clients
from infra.local.people import COUNTIES, SyntheticPerson, make_people
from infra.runtime.clock import Clock, new_id
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import filing_pb2, filing_pb2_grpc

_BATCH = 250
_SECONDS = 30.0
_BORN = date(1940, 1, 1), date(1960, 1, 1)


async def register(
    clients: Clients,
    clock: Clock,
    *,
    number: int,
    site: str,
    area: str,
    care_place: str,
    filed_on: date,
    seed: int = 7,
) -> list[visit_pb2.Credential]:
    """Register `number` retired employees of `area` and file them as long-term residents of
    `care_place`; return the e-credentials they show. Another `seed` gives other people.
    """
    source = make_people(
        Random(seed), counties=COUNTIES[area], born_from=_BORN[0], born_until=_BORN[1]
    )
    people = list(islice(source, number))
    enrollment = clients.operator(enrollment_pb2_grpc.EnrollmentServiceStub, site, "enrollment")
    filing = clients.operator(filing_pb2_grpc.FilingServiceStub, site, "filing")
    credentials: list[visit_pb2.Credential] = []
    for start in range(0, number, _BATCH):
        part = people[start : start + _BATCH]
        await _register(enrollment, clock, part, area, filed_on)
        shown = [
            visit_pb2.Credential(
                type=types_pb2.CREDENTIAL_TYPE_ELECTRONIC, number=person.electronic_token
            )
            for person in part
        ]
        await _file(filing, clock, shown, area, care_place, filed_on)
        credentials += shown
    return credentials


async def _register(
    enrollment: enrollment_pb2_grpc.EnrollmentServiceStub,
    clock: Clock,
    people: Sequence[SyntheticPerson],
    area: str,
    day: date,
) -> None:
    request = enrollment_pb2.BatchRegisterRequest(
        items=[
            enrollment_pb2.RegisterItem(
                id=new_id(clock),
                name=person.name,
                id_number=person.id_number,
                social_security_card=person.social_security_card,
                electronic_token=person.electronic_token,
                insured_area=area,
                insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                person_class=types_pb2.PERSON_CLASS_RETIRED,
                active_from=(day - timedelta(days=365)).isoformat(),
            )
            for person in people
        ]
    )
    answer = await enrollment.BatchRegister(request, timeout=_SECONDS)
    _require(all(result.HasField("person_id") for result in answer.results), "registration")


async def _file(
    filing: filing_pb2_grpc.FilingServiceStub,
    clock: Clock,
    credentials: Sequence[visit_pb2.Credential],
    area: str,
    care_place: str,
    day: date,
) -> None:
    request = filing_pb2.BatchCreateFilingsRequest(
        items=[
            filing_pb2.CreateFilingItem(
                id=new_id(clock),
                credential=credential,
                insured_area=area,
                insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                kind=types_pb2.FILING_KIND_RETIRED_RESETTLED,
                channel=types_pb2.FILING_CHANNEL_NATIONAL_APP,
                care_place=care_place,
                start_date=day.isoformat(),
                filed_on=day.isoformat(),
                commitment=types_pb2.COMMITMENT_STATE_MATERIAL_COMPLETE,
            )
            for credential in credentials
        ]
    )
    answer = await filing.BatchCreateFilings(request, timeout=_SECONDS)
    _require(all(result.HasField("filing") for result in answer.results), "filing")


def _require(done: bool, what: str) -> None:
    if not done:
        raise RuntimeError(f"the load test could not prepare its data: {what} was refused")
