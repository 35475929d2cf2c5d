"""Filing and enrollment together, behind the runtime's interceptors: contract, access, areas."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import date

import pytest

from infra.local.people import make_person
from infra.runtime.call import CallerType, Identity
from infra.runtime.clock import ManualClock, new_id
from infra.runtime.config import Settings
from infra.runtime.contract import methods
from infra.runtime.database import Database
from infra.runtime.directory import Directory
from infra.runtime.errors import Refusal
from infra.runtime.interceptors import (
    AccessInterceptor,
    OwnershipInterceptor,
    ValidationInterceptor,
    chain,
)
from infra.runtime.links import Dispatcher, LocalChannel, stub
from infra.runtime.migrate import migrate
from services.enrollment.service import EnrollmentService
from services.enrollment.store import SCHEMA as ENROLLMENT
from services.filing.places import Places
from services.filing.service import FilingService
from services.filing.written_rules import load_area_rules
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import filing_pb2, filing_pb2_grpc

SITE = "440000"
AREAS = {"440800": SITE, "440100": SITE}


@pytest.fixture
async def dispatcher(
    migrated: Settings, database: Database, clock: ManualClock, directory: Directory
) -> AsyncIterator[Dispatcher]:
    await migrate(migrated, [ENROLLMENT], clock)
    dispatcher = Dispatcher()
    async with Database.open(migrated, "enrollment") as people:
        enrollment = EnrollmentService(database=people, clock=clock, secret=b"s" * 32)
        filing = FilingService(
            database=database,
            clock=clock,
            enrollment=stub(
                enrollment_pb2_grpc.EnrollmentServiceStub,
                LocalChannel(dispatcher, Identity(SITE, CallerType.ROLE, "filing")),
            ),
            places=Places(directory, SITE),
            rules=load_area_rules(),
            area_names={},
            call_seconds=2,
            allow_illustrative=True,
        )
        interceptors = (
            AccessInterceptor(SITE),
            ValidationInterceptor(),
            OwnershipInterceptor(SITE, AREAS.get),
        )
        for contract, servicer in ((enrollment_pb2, enrollment), (filing_pb2, filing)):
            (descriptor,) = contract.DESCRIPTOR.services_by_name.values()
            for method in methods(descriptor):
                handler = getattr(servicer, method.name)
                dispatcher.add(method, chain(method, handler, interceptors))
        yield dispatcher


async def test_register_file_and_resolve(dispatcher: Dispatcher, clock: ManualClock) -> None:
    """S0-4, S0-17: who is registered files with a card and is entitled at once."""
    operator = LocalChannel(dispatcher, Identity(SITE, CallerType.OPERATOR, "经办示例"))
    settlement = LocalChannel(dispatcher, Identity(SITE, CallerType.ROLE, "settlement"))
    enrollment = stub(enrollment_pb2_grpc.EnrollmentServiceStub, operator)
    filing = stub(filing_pb2_grpc.FilingServiceStub, operator)
    person = make_person(random.Random(5), county="440802", born=date(1958, 3, 1))
    registered = await enrollment.BatchRegister(
        enrollment_pb2.BatchRegisterRequest(
            items=[
                enrollment_pb2.RegisterItem(
                    id=new_id(clock),
                    name=person.name,
                    id_number=person.id_number,
                    social_security_card=person.social_security_card,
                    electronic_token=person.electronic_token,
                    insured_area="440800",
                    insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                    person_class=types_pb2.PERSON_CLASS_RETIRED,
                    active_from="2019-01-01",
                )
            ]
        ),
        timeout=30,
    )
    person_id = registered.results[0].person_id

    def wanted(name: str, area: str) -> filing_pb2.CreateFilingItem:
        return filing_pb2.CreateFilingItem(
            id=new_id(clock),
            credential=visit_pb2.Credential(
                type=types_pb2.CREDENTIAL_TYPE_ID_CARD, number=person.id_number, name=name
            ),
            insured_area=area,
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            kind=types_pb2.FILING_KIND_LONG_TERM_RESIDENT,
            channel=types_pb2.FILING_CHANNEL_WINDOW,
            care_place="110000",
            start_date="2026-11-01",
            filed_on="2026-11-01",
            commitment=types_pb2.COMMITMENT_STATE_MATERIAL_COMPLETE,
        )

    items = [
        wanted(person.name, "440800"),
        wanted("某某某", "440800"),
        wanted(person.name, "440100"),
        wanted(person.name, "370800"),
    ]
    response = await filing.BatchCreateFilings(
        filing_pb2.BatchCreateFilingsRequest(items=items), timeout=30
    )
    answers = {result.id: result for result in response.results}
    made, *refused = (answers[item.id] for item in items)
    assert [Refusal.from_status(one.error).name for one in refused] == [
        "PERSON_NOT_IDENTIFIED",
        "PERSON_NOT_IDENTIFIED",
        "FOREIGN_CODE",
    ]
    resolved = await stub(filing_pb2_grpc.FilingServiceStub, settlement).BatchResolveEntitlement(
        filing_pb2.BatchResolveEntitlementRequest(
            items=[
                filing_pb2.ResolveEntitlementItem(
                    id=new_id(clock),
                    person_id=person_id,
                    person_class=types_pb2.PERSON_CLASS_RETIRED,
                    visit=visit_pb2.Visit(
                        care_area="110000",
                        insured_area="440800",
                        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                        care_type=types_pb2.CARE_TYPE_INPATIENT,
                        start_date="2026-11-10",
                        end_date="2026-11-20",
                        inpatient_type=types_pb2.INPATIENT_TYPE_ORDINARY,
                    ),
                    care_site="110000",
                    route=types_pb2.ROUTE_CROSS_PROVINCE,
                    day="2026-11-21",
                )
            ]
        ),
        timeout=30,
    )
    entitlement = resolved.results[0].entitlement
    assert entitlement.benefit_class == types_pb2.BENEFIT_CLASS_LONG_TERM_AT_PLACE
    assert entitlement.filing_id == made.filing.filing_id
    with pytest.raises(Refusal, match="ACCESS_DENIED"):
        await filing.BatchResolveEntitlement(
            filing_pb2.BatchResolveEntitlementRequest(), timeout=10
        )
