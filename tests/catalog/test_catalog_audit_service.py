"""The fee audit behind BatchSplitFees, on a PostgreSQL with the sample list of 广东 (S3-17)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import protovalidate
import pytest

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from services.catalog.audit_rules import load_audit_rules
from services.catalog.auditing import LINES_NAMED, fill
from services.catalog.domain.audit import LONGEST_MESSAGE, Finding
from services.catalog.load import load_catalogue
from services.catalog.samples.generate import FOLDER
from services.catalog.service import CatalogService
from yidi.catalog.v1 import catalog_pb2
from yidi.common.v1 import types_pb2, visit_pb2

CALL = Call(Identity("440000", CallerType.ROLE, "gateway"), deadline_us=1 << 62)
HOSPITAL, COMMUNITY = "H44080000001", "H44080200003"
BLOOD, GENERAL, PCI = "2501010151", "1213000018", "3205000023"
WOMEN = "3313000001"


@pytest.fixture
async def service(database: Database, clock: ManualClock) -> AsyncIterator[CatalogService]:
    await load_catalogue(database, FOLDER / "440000", clock)
    async with CatalogService(
        database=database,
        site="440000",
        audit_rules=load_audit_rules(),
        refresh_seconds=3600,
    ) as service:
        yield service


def bill(*codes: str, institution: str = HOSPITAL, **patient: object) -> catalog_pb2.SplitFeesItem:
    """A stay in 湛江 with a line of one yuan for each service."""
    return catalog_pb2.SplitFeesItem(
        id=str(uuid.uuid4()),
        institution=institution,
        visit=visit_pb2.Visit(
            care_area="440800",
            insured_area="110000",
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            care_type=types_pb2.CARE_TYPE_INPATIENT,
            start_date="2026-10-01",
            end_date="2026-10-08",
        ),
        route=types_pb2.ROUTE_CROSS_PROVINCE,
        lines=[
            catalog_pb2.FeeLine(
                line_id=f"L{number}",
                item_code="own",
                national_code=f"00{code}0000-SAMPLE",
                unit_price_micro_yuan=1_000_000,
                quantity_e4=10_000,
                amount_fen=100,
                charged_on="2026-10-02",
            )
            for number, code in enumerate(codes, 1)
        ],
        total_fen=100 * len(codes),
        patient=visit_pb2.Patient(**patient) if patient else None,
    )


async def asked(
    service: CatalogService, *bills: catalog_pb2.SplitFeesItem
) -> list[catalog_pb2.FeeSplit | Refusal]:
    """What came of each bill, in their order."""
    request = catalog_pb2.BatchSplitFeesRequest(items=bills)
    protovalidate.validate(request)
    answer = await service.BatchSplitFees(request, CALL)
    by_id = {result.id: result for result in answer.results}
    found = [by_id[each.id] for each in bills]
    return [
        result.split if result.HasField("split") else Refusal.from_status(result.error)
        for result in found
    ]


async def test_a_warning_travels_with_the_split(service: CatalogService) -> None:
    [split] = await asked(service, bill(BLOOD, PCI, BLOOD))
    assert isinstance(split, catalog_pb2.FeeSplit)
    protovalidate.validate(split)
    [found] = split.findings
    assert (found.rule, found.action) == ("DUP-EXAM", types_pb2.AUDIT_ACTION_WARN)
    assert list(found.line_ids) == ["L1", "L3"]
    assert found.message.startswith("血常规在2026-10-02以同一单价收费两行")


async def test_a_finding_of_many_lines_names_some_and_counts_them(
    service: CatalogService,
) -> None:
    """What travels is bounded: 20 lines of up to 2,000."""
    [split] = await asked(service, bill(*[BLOOD] * (LINES_NAMED + 1)))
    assert isinstance(split, catalog_pb2.FeeSplit)
    protovalidate.validate(split)
    [found] = split.findings
    assert list(found.line_ids) == sorted(each.line_id for each in split.lines)[:LINES_NAMED]
    assert found.message.endswith("（所列明细等21行）")
    [split] = await asked(service, bill(*[BLOOD] * LINES_NAMED))
    assert isinstance(split, catalog_pb2.FeeSplit)
    assert (len(split.findings[0].line_ids), "等" in split.findings[0].message) == (20, False)


def test_the_count_of_a_finding_fits_its_message() -> None:
    rules = load_audit_rules()[""]
    lines = tuple(f"{number}" for number in range(2_000))
    answer = catalog_pb2.FeeSplit()
    fill(answer, [Finding(rules[0], lines, "请" * LONGEST_MESSAGE)])
    [found] = answer.findings
    protovalidate.validate(found)
    assert (len(found.message), found.message[-7:]) == (LONGEST_MESSAGE, "等2000行）")


async def test_a_refusal_names_the_rule_the_lines_and_the_next_step(
    service: CatalogService,
) -> None:
    """The other bills of the batch are split."""
    refusal, split = await asked(service, bill(PCI, GENERAL, BLOOD, BLOOD), bill(PCI))
    assert isinstance(refusal, Refusal)
    assert refusal.name == "FEE_AUDIT_REFUSED"
    assert "（规则 LEVEL-GENERAL-TREATMENT，明细 L2）" in refusal.message
    assert "请改按门诊诊察费收取" in refusal.message
    assert "DUP-EXAM" not in refusal.message
    assert "更正相应明细" in refusal.next_step
    assert isinstance(split, catalog_pb2.FeeSplit)
    assert list(split.findings) == []


async def test_several_refusals_are_told_in_one_that_a_trailer_holds(
    service: CatalogService,
) -> None:
    """The first in full, the others as far as 300 characters hold them."""
    many = bill(*[f"{WOMEN[:9]}{n}" for n in range(5)], GENERAL, PCI, institution=COMMUNITY, sex=1)
    many.visit.care_type = types_pb2.CARE_TYPE_OUTPATIENT
    many.route = types_pb2.ROUTE_LOCAL
    [refusal] = await asked(service, many)
    assert isinstance(refusal, Refusal)
    assert "（规则 LEVEL-PCI，明细 L7）；" in refusal.message
    assert "（规则 SEX-FEMALE，明细 L1、L2、L3等5行）" in refusal.message
    assert len(refusal.status().SerializeToString()) < 4096


async def test_what_nobody_says_of_the_patient_is_not_judged(service: CatalogService) -> None:
    """An unlisted item has a code all the same, and rules select by it."""
    male, female = types_pb2.SEX_MALE, types_pb2.SEX_FEMALE
    known = [{"sex": male}, {"sex": female}, {"birth_date": "1960-05-01"}, {}]
    answers = await asked(service, *(bill(WOMEN, **patient) for patient in known))
    assert [getattr(each, "name", "split") for each in answers] == [
        "FEE_AUDIT_REFUSED",
        "split",
        "split",
        "split",
    ]


async def test_a_birth_date_that_is_no_day_is_not_repeated(service: CatalogService) -> None:
    [refusal] = await asked(service, bill(BLOOD, birth_date="1960-02-31"))
    assert isinstance(refusal, Refusal)
    assert refusal.name == "DAY_INVALID"
    assert refusal.details["field"] == "bill.patient.birth_date"
    assert "1960" not in str(refusal.status())


async def test_a_manual_claim_is_not_audited(service: CatalogService) -> None:
    """The door is the care place's; the claim's institution may be anywhere."""
    claimed = bill(GENERAL, BLOOD, BLOOD, institution="H99999999999")
    claimed.claim.list_area = "440800"
    claimed.claim.price_limit_level = types_pb2.INSTITUTION_LEVEL_THREE
    [split] = await asked(service, claimed)
    assert isinstance(split, catalog_pb2.FeeSplit)
    assert list(split.findings) == []
