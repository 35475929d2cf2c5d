"""The servicer on a real PostgreSQL with the sample catalogue of 广东."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from itertools import count

import protovalidate
import pytest

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock, instant
from infra.runtime.config import Settings
from infra.runtime.contract import methods
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from infra.runtime.interceptors import OwnershipInterceptor
from services.catalog.domain import institution as registered
from services.catalog.domain import item as items
from services.catalog.load import load_catalogue, read_folder, register_institutions
from services.catalog.samples.generate import FOLDER, extra_institutions
from services.catalog.service import CatalogService
from services.catalog.store import Publication, newest, publish
from yidi.catalog.v1 import catalog_pb2
from yidi.common.v1 import types_pb2, visit_pb2

CALL = Call(Identity("440000", CallerType.ROLE, "gateway"), deadline_us=1 << 62)
HOSPITAL, COUNTY, COMMUNITY = "H44080000001", "H44082300002", "H44080200003"
SUSPENDED, SHOP = "H44010000003", "P44080300004"
STENT, CT, ASPIRIN = "C0201010010000101-SAMPLE", "0021030000120000-SAMPLE", "XB01AC06A013-SAMPLE"
INPATIENT, OUTPATIENT, PHARMACY = (
    types_pb2.CARE_TYPE_INPATIENT,
    types_pb2.CARE_TYPE_OUTPATIENT,
    types_pb2.CARE_TYPE_PHARMACY,
)
_numbers = count(1)


@pytest.fixture
async def service(database: Database, clock: ManualClock) -> AsyncIterator[CatalogService]:
    await load_catalogue(database, FOLDER / "440000", clock)
    async with CatalogService(database=database, site="440000", refresh_seconds=3600) as service:
        yield service


def line(
    national_code: str, yuan: int, quantity: int = 1, *, item_code: str = "own", line_id: str = "1"
) -> catalog_pb2.FeeLine:
    return catalog_pb2.FeeLine(
        line_id=line_id,
        item_code=item_code,
        national_code=national_code,
        unit_price_micro_yuan=yuan * 1_000_000,
        quantity_e4=quantity * 10_000,
        amount_fen=yuan * quantity * 100,
    )


def refund(
    line_id: str, original: str, national_code: str, yuan: int, quantity: int
) -> catalog_pb2.FeeLine:
    found = line(national_code, yuan, -quantity, line_id=line_id)
    found.original_line_id = original
    return found


def bill(
    *lines: catalog_pb2.FeeLine,
    institution: str = HOSPITAL,
    care_area: str = "440800",
    care_type: types_pb2.CareType.ValueType = INPATIENT,
    route: types_pb2.Route.ValueType = types_pb2.ROUTE_CROSS_PROVINCE,
    end_date: str = "2026-10-08",
    total_fen: int | None = None,
) -> catalog_pb2.SplitFeesItem:
    charged = lines or (line(ASPIRIN, 10),)
    return catalog_pb2.SplitFeesItem(
        id=str(uuid.UUID(int=next(_numbers))),
        institution=institution,
        visit=visit_pb2.Visit(
            care_area=care_area,
            insured_area="110000",
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            care_type=care_type,
            start_date=min("2026-10-01", end_date),
            end_date=end_date,
        ),
        route=route,
        lines=charged,
        total_fen=sum(each.amount_fen for each in charged) if total_fen is None else total_fen,
    )


async def split(
    service: CatalogService, *bills: catalog_pb2.SplitFeesItem
) -> list[catalog_pb2.SplitFeesResult]:
    """The results in the order of the bills, whatever the order of the answer."""
    request = catalog_pb2.BatchSplitFeesRequest(items=bills)
    protovalidate.validate(request)
    answer = await service.BatchSplitFees(request, CALL)
    by_id = {result.id: result for result in answer.results}
    assert len(by_id) == len(answer.results) == len(bills)
    return [by_id[each.id] for each in bills]


async def one(service: CatalogService, item: catalog_pb2.SplitFeesItem) -> catalog_pb2.FeeSplit:
    [result] = await split(service, item)
    assert result.WhichOneof("outcome") == "split", result
    protovalidate.validate(result.split)
    return result.split


async def refused(service: CatalogService, item: catalog_pb2.SplitFeesItem) -> Refusal:
    [result] = await split(service, item)
    assert result.WhichOneof("outcome") == "error", result
    return Refusal.from_status(result.error)


async def test_a_stay_is_split_line_by_line_and_summed_by_category(service: CatalogService) -> None:
    """S0-37: detail becomes national 大类; S0-25: drugs, services and consumables."""
    found = await one(
        service,
        bill(
            line(STENT, 1_200, 2, line_id="1"),
            line(CT, 210, line_id="2"),
            line(ASPIRIN, 30, 2, line_id="3"),
            line("", 88, line_id="4", item_code="QT9001"),
        ),
    )
    assert found.institution.code == HOSPITAL
    assert found.institution.settlement_level == types_pb2.INSTITUTION_LEVEL_THREE
    assert found.catalogue_version == "示例目录-440000-2026.2"
    stent, ct, aspirin, unmapped = found.lines
    # Limit 810 at level 3 in 广东: 2 × 390 over, 20 % of 1,620 first.
    assert (stent.over_limit_fen, stent.first_self_pay_fen, stent.in_scope_fen) == (
        78_000,
        32_400,
        129_600,
    )
    assert (ct.over_limit_fen, ct.first_self_pay_fen, ct.in_scope_fen) == (3_000, 1_800, 16_200)
    assert (aspirin.catalog_class, aspirin.in_scope_fen) == (types_pb2.CATALOG_CLASS_A, 6_000)
    assert (unmapped.full_self_pay_fen, unmapped.national_code, unmapped.name) == (8_800, "", "")
    assert [(each.fee_category, each.amount_fen) for each in found.categories] == [
        (types_pb2.FEE_CATEGORY_EXAMINATION, 21_000),
        (types_pb2.FEE_CATEGORY_MATERIAL, 240_000),
        (types_pb2.FEE_CATEGORY_WESTERN_DRUG, 6_000),
        (types_pb2.FEE_CATEGORY_OTHER, 8_800),
    ]
    parts = found.parts
    assert found.total_fen == 275_800
    assert (
        parts.full_self_pay_fen
        + parts.over_limit_fen
        + parts.first_self_pay_fen
        + parts.in_scope_fen
        == found.total_fen
    )


async def test_the_institutions_own_code_is_mapped(service: CatalogService) -> None:
    [found] = (await one(service, bill(line("", 30, item_code="Y013")))).lines
    assert (found.national_code, found.in_scope_fen) == (ASPIRIN, 3_000)
    other = bill(line("", 30, item_code="Y013"), institution=COUNTY)
    [found] = (await one(service, other)).lines
    assert found.full_self_pay_fen == 3_000


async def test_each_line_names_the_rules_that_decided_it(service: CatalogService) -> None:
    found = await one(
        service,
        bill(
            line(STENT, 1_200, 2, line_id="1"),
            refund("2", "1", STENT, 1_200, 1),
            line("", 88, line_id="3", item_code="QT9001"),
        ),
    )
    stent, returned, unmapped = found.lines
    assert stent.rules[0] == types_pb2.SPLIT_RULE_OVER_PRICE
    assert stent.rules[-1] == types_pb2.SPLIT_RULE_IN_SCOPE
    assert (list(returned.rules), returned.over_limit_fen, returned.amount_fen) == (
        [types_pb2.SPLIT_RULE_REFUND],
        -39_000,
        -120_000,
    )
    assert list(unmapped.rules) == [types_pb2.SPLIT_RULE_UNMAPPED]


async def test_a_manual_claim_is_split_by_the_list_at_home(service: CatalogService) -> None:
    """S1-25: the home list decides a claim; the institution may be anywhere and is not asked."""
    claimed = bill(line("", 30, item_code="Y013"), line(STENT, 1_200, line_id="2"))
    claimed.institution, claimed.visit.care_area = "H11010000099", "110100"
    claimed.claim.list_area = "440800"
    claimed.claim.price_limit_level = types_pb2.INSTITUTION_LEVEL_TWO
    found = await one(service, claimed)
    assert not found.HasField("institution")
    own, stent = found.lines
    assert own.full_self_pay_fen == 3_000, "no mapping of an institution counts here"
    assert (stent.over_limit_fen, found.catalogue_version) == (55_200, "示例目录-440000-2026.2")


@pytest.mark.parametrize("role", ["gateway", "settlement"])
async def test_a_manual_claim_is_split_by_no_list_of_another_site(
    service: CatalogService, role: str
) -> None:
    """owned_by: the list is one of this site, the place of care may be anywhere; without a claim
    that is this site's, too."""
    described = catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"]
    [method] = methods(described)
    sites = {"440800": "440000", "110100": "110000", "440000": "440000", "110000": "110000"}
    ownership = OwnershipInterceptor("440000", sites.get)
    elsewhere = bill(care_area="110100")
    own, foreign, province = [bill(care_area="110100") for _ in range(3)]
    for claimed, area in ((own, "440800"), (foreign, "110100"), (province, "110000")):
        claimed.claim.list_area = area
        claimed.claim.price_limit_level = types_pb2.INSTITUTION_LEVEL_TWO
    request = catalog_pb2.BatchSplitFeesRequest(items=[own, foreign, province, elsewhere])
    caller = Call(Identity("440000", CallerType.ROLE, role), deadline_us=1 << 62)
    answer = await ownership(method, request, caller, service.BatchSplitFees)
    assert isinstance(answer, catalog_pb2.BatchSplitFeesResponse)
    results = {result.id: result for result in answer.results}
    assert results.pop(own.id).split.total_fen == 1_000
    refusals = {key: Refusal.from_status(each.error) for key, each in results.items()}
    assert {key: (each.name, each.details["field"]) for key, each in refusals.items()} == {
        foreign.id: ("FOREIGN_CODE", "claim.list_area"),
        province.id: ("FOREIGN_CODE", "claim.list_area"),
        elsewhere.id: ("FOREIGN_CODE", "visit.care_area"),
    }


async def test_two_hospitals_of_a_city_price_by_their_own_level(service: CatalogService) -> None:
    high, low = [
        await one(service, bill(line(STENT, 1_200), institution=code))
        for code in (HOSPITAL, COUNTY)
    ]
    assert (high.parts.over_limit_fen, low.parts.over_limit_fen) == (39_000, 55_200)


@pytest.mark.parametrize(
    ("item", "reason", "details"),
    [
        (bill(institution="H44089999999"), "INSTITUTION_UNKNOWN", {"institution": "H44089999999"}),
        (bill(care_area="440100"), "FOREIGN_CODE", {"field": "visit.care_area", "value": "440100"}),
        (bill(institution=SUSPENDED, care_area="440100"), "INSTITUTION_AGREEMENT_NOT_IN_FORCE", {}),
        (bill(institution=SHOP), "INSTITUTION_NOT_NETWORKED", {"institution": SHOP}),
        (bill(institution=COMMUNITY, care_type=OUTPATIENT), "INSTITUTION_NOT_NETWORKED", {}),
        (bill(end_date="2022-12-31"), "INSTITUTION_NOT_NETWORKED", {}),
        (bill(end_date="2026-10-32"), "DAY_INVALID", {"field": "visit.end_date"}),
        (bill(total_fen=1), "TOTAL_MISMATCH", {"total": "0.01", "sum": "10.00"}),
        (
            bill(catalog_pb2.FeeLine(line_id="9", item_code="x", quantity_e4=1, amount_fen=2)),
            "LINE_AMOUNT_MISMATCH",
            {"line_id": "9"},
        ),
        (bill(line(ASPIRIN, 10), line(CT, 10)), "LINE_REPEATED", {"line_id": "1"}),
        (
            bill(line(ASPIRIN, 10), refund("2", "1", ASPIRIN, 10, 2)),
            "REFUND_LINE_INVALID",
            {"line_id": "2", "cause": "退费数量合计超过原明细1的数量"},
        ),
    ],
)
async def test_each_refusal(
    service: CatalogService,
    item: catalog_pb2.SplitFeesItem,
    reason: str,
    details: dict[str, str],
) -> None:
    """S4-50: every refusal names its reason, its values and the next step."""
    refusal = await refused(service, item)
    assert refusal.name == reason
    assert details.items() <= refusal.details.items()
    assert "{" not in refusal.message + refusal.next_step
    assert "（" not in refusal.message  # a placeholder without its value shows so


async def test_routes_and_services_are_networked_separately(service: CatalogService) -> None:
    """S0-7 inpatient at every networked institution; S0-8 outpatient by its own rule."""
    local = types_pb2.ROUTE_LOCAL
    community = bill(institution=COMMUNITY, care_type=OUTPATIENT, route=local)
    assert (await one(service, community)).institution.area == "440800"
    assert (await one(service, bill(institution=SHOP, care_type=PHARMACY))).total_fen == 1_000
    stay = bill(institution=COMMUNITY, route=local)
    assert (await refused(service, stay)).name == "INSTITUTION_NOT_NETWORKED"


async def test_one_bad_bill_of_64_fails_alone(service: CatalogService) -> None:
    bills = [bill(line(ASPIRIN, number + 1)) for number in range(64)]
    bills[17].total_fen += 1
    results = await split(service, *bills)
    outcomes = [result.WhichOneof("outcome") for result in results]
    assert outcomes == ["split"] * 17 + ["error"] + ["split"] * 46
    for number, result in enumerate(results):
        if number != 17:
            assert result.split.total_fen == (number + 1) * 100


@pytest.mark.parametrize("size", [1, 7, 256])
async def test_splitting_runs_no_statement(
    settings: Settings, clock: ManualClock, size: int
) -> None:
    """The database is closed before the first bill comes (PROTOCOL §8: catalogue, 0 trips)."""
    async with Database.open(settings, "catalog") as database:
        await load_catalogue(database, FOLDER / "440000", clock)
        service = CatalogService(database=database, site="440000", refresh_seconds=3600)
        await service.start()
    results = await split(service, *(bill() for _ in range(size)))
    assert all(result.WhichOneof("outcome") == "split" for result in results)
    with pytest.raises(Refusal, match="DATABASE_UNAVAILABLE"):
        await service.refresh()
    assert (await one(service, bill())).total_fen == 1_000
    await service.stop()


async def test_before_the_first_snapshot_nothing_is_split(database: Database) -> None:
    service = CatalogService(database=database, site="440000")
    with pytest.raises(Refusal, match="SERVICE_UNAVAILABLE"):
        await service.BatchSplitFees(catalog_pb2.BatchSplitFeesRequest(items=[bill()]), CALL)


def priced(limit: int) -> items.Item:
    return items.Item(
        national_code=ASPIRIN,
        name="阿司匹林肠溶片",
        list_type=items.ListType.DRUG,
        catalog_class=items.CatalogClass.A,
        fee_category=items.FeeCategory.WESTERN_DRUG,
        first_self_pay_bp={items.InsuranceType.EMPLOYEE: 0, items.InsuranceType.RESIDENT: 0},
        limits_micro_yuan={items.Level.THREE: limit * 1_000_000},
        limited_use="",
        effective_from=date(2023, 1, 1),
    )


async def test_versions_are_chosen_by_area_then_province_and_by_day(
    service: CatalogService, database: Database, clock: ManualClock
) -> None:
    """S1-24/S1-25: an area's own list goes before the province's, from its first day on."""
    who = {"actor": "test", "at": instant(clock)}
    for version, first_day, limit in (("a", date(2026, 6, 1), 8), ("b", date(2026, 10, 1), 7)):
        published = Publication("440800", version, first_day, (priced(limit),))
        await publish(database, publication=published, **who)  # type: ignore[arg-type]

    async def seen(end_date: str) -> tuple[str, int]:
        found = await one(service, bill(end_date=end_date))
        return found.catalogue_version, found.parts.over_limit_fen

    province = ("示例目录-440000-2026.2", 0)
    assert await seen("2026-10-08") == province, "nothing is new before the refresh"
    assert await service.refresh()
    assert not await service.refresh()
    assert await seen("2026-05-31") == province
    assert await seen("2026-06-01") == ("a", 200)
    assert await seen("2026-10-08") == ("b", 300)
    guangzhou = bill(institution="H44010000001", care_area="440100")
    assert (await one(service, guangzhou)).catalogue_version == province[0]
    # A correction of the earlier version leaves the later one in force.
    corrected = Publication("440800", "a2", date(2026, 6, 1), (priced(9),))
    await publish(database, publication=corrected, **who)  # type: ignore[arg-type]
    assert await service.refresh()
    assert await seen("2026-06-01") == ("a2", 100)
    assert await seen("2026-10-08") == ("b", 300)


async def test_no_catalogue_for_the_day(database: Database, clock: ManualClock) -> None:
    folder = read_folder(FOLDER / "440000")
    early = [replace(each, effective_from=date(2020, 1, 1)) for each in folder.registrations]
    await register_institutions(database, early, clock)
    async with CatalogService(database=database, site="440000", refresh_seconds=3600) as service:
        refusal = await refused(service, bill())
    assert refusal.name == "CATALOGUE_NOT_FOUND"
    assert refusal.details == {"area": "440800", "date": "2026-10-08"}


async def test_institution_state_is_that_of_the_day(
    service: CatalogService, database: Database, clock: ManualClock
) -> None:
    """A suspension from October on: September's bills still settle (S4-29)."""
    [hospital] = [
        each for each in read_folder(FOLDER / "440000").registrations if each.code == HOSPITAL
    ]
    ended = replace(hospital, suspended=True, effective_from=date(2026, 10, 1))
    await register_institutions(database, [ended], clock)
    await service.refresh()
    assert (await one(service, bill(end_date="2026-09-30"))).total_fen == 1_000
    assert (await refused(service, bill())).name == "INSTITUTION_AGREEMENT_NOT_IN_FORCE"
    restored = replace(ended, suspended=False, settlement_level=items.Level.TWO)
    await register_institutions(database, [restored], clock)
    await service.refresh()
    found = (await one(service, bill())).institution
    assert found.settlement_level == types_pb2.INSTITUTION_LEVEL_TWO


async def test_the_background_task_takes_over_what_was_published(
    database: Database, clock: ManualClock
) -> None:
    await load_catalogue(database, FOLDER / "440000", clock)
    async with CatalogService(database=database, site="440000", refresh_seconds=0) as service:
        added = extra_institutions("440000", 64)
        assert (await register_institutions(database, added, clock)).institutions == 64
        item = bill(institution=added[1].code)
        outcome = "error"
        async with asyncio.timeout(10):
            while outcome == "error":
                await newest(database)  # a round trip, in which the task gets its turns
                outcome = (await split(service, item))[0].WhichOneof("outcome") or ""
        assert outcome == "split"


def test_domain_numbers_are_those_of_the_contract() -> None:
    for domain, contract in (
        (items.ListType, types_pb2.ListType),
        (items.CatalogClass, types_pb2.CatalogClass),
        (items.FeeCategory, types_pb2.FeeCategory),
        (items.InsuranceType, types_pb2.InsuranceType),
        (items.Level, types_pb2.InstitutionLevel),
        (registered.InstitutionGrade, types_pb2.InstitutionGrade),
        (registered.CareType, types_pb2.CareType),
        (registered.Route, types_pb2.Route),
    ):
        values = list(contract.DESCRIPTOR.values)
        prefix = values[0].name.removesuffix("UNSPECIFIED")
        assert {each.name: int(each) for each in domain} == {
            each.name.removeprefix(prefix): each.number for each in values[1:]
        }
    assert types_pb2.ANSWER_YES == 2
