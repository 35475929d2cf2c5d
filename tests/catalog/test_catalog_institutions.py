"""Institutions: who may settle which visit, what may be registered, and how one is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from enum import IntEnum
from typing import Any

import pytest
from google.protobuf.descriptor import EnumDescriptor
from hypothesis import given
from hypothesis import strategies as st
from registry_world import (
    CROSS,
    GATEWAY,
    HOSPITAL,
    INPATIENT,
    OPERATOR,
    OUTPATIENT,
    PHARMACY,
    SHOP,
    SITE,
    hospital,
    new_id,
    open_for,
    opened,
    refused,
    registering,
)

from infra.runtime.clock import ManualClock
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from services.catalog.domain.institution import (
    AgreementNotInForce,
    CareType,
    DiseaseNotOpened,
    InstitutionElsewhere,
    InstitutionGrade,
    InstitutionKind,
    InstitutionNotNetworked,
    InstitutionUnknown,
    OpenedDisease,
    Registration,
    Route,
    Service,
    admitted,
)
from services.catalog.domain.item import Level, ListType
from services.catalog.domain.mapping import MappingState
from services.catalog.load import load_catalogue
from services.catalog.registry_service import RegistryService
from services.catalog.samples.generate import FOLDER
from services.catalog.service import CatalogService
from services.catalog.store import read_snapshot
from yidi.catalog.v1 import catalog_pb2, registry_pb2
from yidi.common.v1 import types_pb2, visit_pb2

JANUARY, JUNE, DECEMBER = date(2026, 1, 1), date(2026, 6, 1), date(2026, 12, 31)
BASE = Registration(
    code=HOSPITAL,
    name="示例",
    area="440800",
    grade=InstitutionGrade.THREE_A,
    deductible_level=Level.THREE,
    price_limit_level=Level.THREE,
    settlement_level=Level.THREE,
    networked={Route.CROSS_PROVINCE: frozenset({Service.INPATIENT, Service.CHRONIC})},
    suspended=False,
    effective_from=JANUARY,
)


def admit(
    *registrations: Registration,
    care_type: CareType = CareType.INPATIENT,
    first_day: date = JUNE,
    day: date = JUNE,
    disease: str = "",
    area: str = "440800",
    route: Route = Route.CROSS_PROVINCE,
) -> Registration:
    return admitted(
        registrations,
        first_day=first_day,
        day=day,
        care_area=area,
        route=route,
        care_type=care_type,
        disease=disease,
    )


@pytest.mark.parametrize(
    ("ours", "contract"),
    [
        (InstitutionKind, registry_pb2.InstitutionKind.DESCRIPTOR),
        (InstitutionGrade, types_pb2.InstitutionGrade.DESCRIPTOR),
        (Level, types_pb2.InstitutionLevel.DESCRIPTOR),
        (Route, types_pb2.Route.DESCRIPTOR),
        (ListType, types_pb2.ListType.DESCRIPTOR),
        (MappingState, registry_pb2.MappingState.DESCRIPTOR),
    ],
)
def test_enumerations_are_those_of_the_contract(
    ours: type[IntEnum], contract: EnumDescriptor
) -> None:
    assert set(map(int, ours)) == set(contract.values_by_number) - {0}


def test_each_fault_of_an_admission_has_its_name() -> None:
    assert admit(BASE) is BASE
    with pytest.raises(InstitutionUnknown):
        admit()
    with pytest.raises(InstitutionElsewhere):
        admit(BASE, area="440100")
    with pytest.raises(InstitutionNotNetworked):
        admit(BASE, route=Route.LOCAL)
    with pytest.raises(InstitutionNotNetworked):
        admit(BASE, care_type=CareType.OUTPATIENT)
    with pytest.raises(InstitutionNotNetworked):
        admit(BASE, day=JANUARY - timedelta(days=1))


BEGINS = replace(BASE, agreement_start=JUNE)
ENDS = replace(BASE, agreement_end=JUNE)
STOPPED = replace(BASE, suspended=True, effective_from=JUNE)


@pytest.mark.parametrize("care_type", [CareType.INPATIENT, CareType.CHRONIC])
@pytest.mark.parametrize(
    ("registrations", "first", "last", "stay", "visit"),
    [
        ([BEGINS], JUNE, JUNE, "", ""),
        ([BEGINS], date(2026, 5, 31), JUNE, "协议自 2026-06-01 起", ""),
        ([BEGINS], date(2026, 5, 1), date(2026, 5, 31), *["协议自 2026-06-01 起"] * 2),
        ([ENDS], JUNE, JUNE, "", ""),
        ([ENDS], JUNE, date(2026, 6, 2), "", "协议已于 2026-06-01 到期"),
        ([ENDS], *[date(2026, 6, 2)] * 2, *["协议已于 2026-06-01 到期"] * 2),
        ([BASE, STOPPED], date(2026, 5, 31), JUNE, "", "协议已暂停"),
        ([BASE, STOPPED], JUNE, JUNE, "协议已暂停", "协议已暂停"),
        ([STOPPED, replace(BASE, effective_from=DECEMBER)], JUNE, DECEMBER, "协议已暂停", ""),
        ([BASE], date(2025, 12, 30), JANUARY, "", ""),
        (
            [replace(BEGINS, effective_from=JUNE)],
            date(2026, 5, 31),
            JUNE,
            "协议自 2026-06-01 起",
            "",
        ),
    ],
)
def test_a_stay_is_judged_by_the_agreement_of_its_first_day(
    care_type: CareType,
    registrations: Sequence[Registration],
    first: date,
    last: date,
    stay: str,
    visit: str,
) -> None:
    """Any other visit by its last; who was admitted in time is never turned away at discharge."""
    cause = stay if care_type is CareType.INPATIENT else visit
    ask: Callable[[], Registration] = lambda: admit(  # noqa: E731
        *registrations, care_type=care_type, first_day=first, day=last
    )
    if not cause:
        assert ask().effective_from <= last
        return
    with pytest.raises(AgreementNotInForce) as caught:
        ask()
    assert caught.value.cause == cause
    assert caught.value.day == (first if care_type is CareType.INPATIENT else last)


DISEASES = (
    OpenedDisease("M00500", date(2026, 3, 1), JUNE),
    OpenedDisease("M03900", JANUARY),
    OpenedDisease("M07803", JANUARY),
)


@pytest.mark.parametrize(
    ("disease", "day", "opened"),
    [
        ("M03900", JUNE, True),
        ("M00503", JUNE, True),
        ("M00500", JUNE, True),
        ("M00503", date(2026, 2, 28), False),
        ("M00503", date(2026, 6, 2), False),
        ("M07803", JUNE, True),
        ("M07804", JUNE, False),
        ("M07800", JUNE, False),
        ("M01600", JUNE, False),
    ],
)
def test_a_class_of_diseases_opens_its_children_on_its_days(
    disease: str, day: date, opened: bool
) -> None:
    """S2-4: which chronic diseases are settled directly is a matter of code and day."""
    limited = replace(BASE, diseases=DISEASES)
    ask: Callable[[Registration], Registration] = lambda one: admit(  # noqa: E731
        one, care_type=CareType.CHRONIC, disease=disease, first_day=day, day=day
    )
    assert ask(BASE) is BASE, "none listed is every disease"
    if opened:
        assert ask(limited) is limited
    else:
        with pytest.raises(DiseaseNotOpened):
            ask(limited)
    assert admit(limited, disease=disease, day=day, first_day=day) is limited, "an inpatient"


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=8),
    st.integers(-1, 21),
)
def test_the_latest_first_day_holds_and_the_later_record_corrects(
    rows: list[tuple[int, int]], day: int
) -> None:
    made = [
        replace(BASE, effective_from=JANUARY + timedelta(days=start), name=str(index))
        for index, (start, _) in enumerate(sorted(rows, key=lambda row: row[0]))
    ]
    on = JANUARY + timedelta(days=day)
    begun = [one for one in made if one.effective_from <= on]
    if begun:
        assert admit(*made, first_day=on, day=on) is begun[-1]
    else:
        with pytest.raises((InstitutionUnknown, InstitutionNotNetworked)):
            admit(*made, first_day=on, day=on)


async def history(registry: RegistryService, code: str) -> list[registry_pb2.InstitutionRecord]:
    answer = await registry.GetInstitution(registry_pb2.GetInstitutionRequest(code=code), GATEWAY)
    return list(answer.registrations)


async def test_a_registration_says_everything_and_leaves_the_former_one(
    registry: RegistryService, database: Database
) -> None:
    first = hospital(
        diseases=[opened("M00500"), opened("M03900", "2026-02-01", "2026-12-31")],
        agreement_start_date="2026-01-01",
        agreement_end_date="2027-12-31",
        place="示例路 1 号",
    )
    later = hospital(start_date="2026-07-01", suspended=True, name="改名医院")
    request = registering(first, later)
    answer = await registry.RegisterInstitutions(request, OPERATOR)
    assert (answer.registered, answer.unchanged) == (2, 0)
    assert await history(registry, first.code) == [first, later]
    # A repetition of the request is answered as before; the same content again is nothing new.
    assert await registry.RegisterInstitutions(request, OPERATOR) == answer
    again = await registry.RegisterInstitutions(registering(later, first), OPERATOR)
    assert (again.registered, again.unchanged) == (0, 2)
    corrected = hospital(start_date="2026-07-01")
    await registry.RegisterInstitutions(registering(corrected), OPERATOR)
    assert await history(registry, first.code) == [first, later, corrected]
    [*_, held] = (await read_snapshot(database, None)).institutions[first.code]
    assert not held.suspended


async def test_loading_again_does_not_undo_what_was_corrected(
    registry: RegistryService, database: Database, clock: ManualClock
) -> None:
    [record] = await history(registry, HOSPITAL)
    record.name = "更正的名称"
    await registry.RegisterInstitutions(registering(record), OPERATOR)
    assert (await load_catalogue(database, FOLDER / SITE, clock)).institutions == 0
    assert (await history(registry, HOSPITAL))[-1].name == "更正的名称"


async def test_a_request_id_stands_for_one_content(registry: RegistryService) -> None:
    name = new_id()
    await registry.RegisterInstitutions(registering(hospital(), request_id=name), OPERATOR)
    other = registering(hospital(name="另一个"), request_id=name)
    fault = await refused(registry.RegisterInstitutions(other, OPERATOR))
    assert fault.name == "REQUEST_ID_REUSED"
    assert len(await history(registry, "H44080099999")) == 1


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        (hospital(area="110000"), "所在统筹区 110000 不属于本省"),
        (hospital("P44080099999"), "编号与机构类型不符"),
        (
            hospital("P44080099999", kind=registry_pb2.INSTITUTION_KIND_PHARMACY),
            "是零售药店，只能开通药店购药",
        ),
        (hospital("P44080300004X"), "X"),
        (
            hospital(agreement_start_date="2026-02-01", agreement_end_date="2026-01-31"),
            "的协议在 2026-01-31 结束，早于开始的 2026-02-01",
        ),
        (
            hospital(networked=[open_for(INPATIENT)], diseases=[opened("M03900")]),
            "没有开通门诊慢特病",
        ),
        (hospital(diseases=[opened("M03900", end="2025-12-31")]), "早于开始的 2026-01-01"),
        (
            hospital(diseases=[opened("M03900", end="2026-06-30"), opened("M03900", "2026-06-30")]),
            "病种 M03900 在 2026-06-30 有两段重叠的日期",
        ),
        (hospital(networked=[open_for(INPATIENT), open_for(OUTPATIENT)]), "写了两次"),
        (hospital(name="  "), "缺少名称"),
    ],
)
async def test_contradictions_are_refused_and_nothing_is_written(
    registry: RegistryService, record: registry_pb2.InstitutionRecord, cause: str
) -> None:
    """INSTITUTION_CHANGE_REFUSED"""
    if cause == "X":  # a code of no national form tells no kind
        await registry.RegisterInstitutions(registering(record), OPERATOR)
        record.kind, cause = registry_pb2.INSTITUTION_KIND_PHARMACY, "已按另一机构类型登记"
    good = hospital("H44080011111")
    fault = await refused(registry.RegisterInstitutions(registering(good, record), OPERATOR))
    assert fault.name == "INSTITUTION_CHANGE_REFUSED"
    assert cause in fault.message
    assert (await refused(history(registry, good.code))).name == "INSTITUTION_UNKNOWN"


async def test_one_institution_is_registered_once_a_day_and_days_exist(
    registry: RegistryService,
) -> None:
    twice = registering(hospital(), hospital(name="又一次"))
    fault = await refused(registry.RegisterInstitutions(twice, OPERATOR))
    assert "登记了两次" in fault.message
    wrong = registering(hospital(start_date="2026-02-30"))
    fault = await refused(registry.RegisterInstitutions(wrong, OPERATOR))
    assert (fault.name, fault.details["field"]) == ("DAY_INVALID", "start_date")
    unstorable = registering(hospital(name="甲\0乙"))
    fault = await refused(registry.RegisterInstitutions(unstorable, OPERATOR))
    assert [each.field for each in fault.violations] == ["institutions.name"]


async def found(registry: RegistryService, **asked: Any) -> list[str]:
    """Codes of all pages, two a page; the answers of one page are the same."""
    request = registry_pb2.SearchInstitutionsRequest(day="2026-10-01", **asked)
    whole = await registry.SearchInstitutions(request, GATEWAY)
    assert not whole.next_page_token
    paged: list[registry_pb2.InstitutionRecord] = []
    request.page_size = 2
    while True:
        answer = await registry.SearchInstitutions(request, GATEWAY)
        paged += answer.institutions
        if not answer.next_page_token:
            break
        assert len(answer.institutions) == 2
        request.page_token = answer.next_page_token
    assert paged == list(whole.institutions)
    return [one.code for one in paged]


async def test_patients_find_who_may_settle(registry: RegistryService) -> None:
    """S3-10: choose a networked institution; S0-6: by place, service and disease on a day."""
    code = "H4408009999{}".format
    await registry.RegisterInstitutions(
        registering(
            hospital(code(1), diseases=[opened("M00500"), opened("M03900", end="2026-09-30")]),
            hospital(code(2), agreement_end_date="2026-09-30"),
            hospital(code(3), networked=[open_for(OUTPATIENT)], name="示例_100%门诊"),
            hospital(code(4), agreement_start_date="2026-10-02"),
            hospital(code(5), suspended=True),
            hospital(code(6), start_date="2026-10-02"),
            hospital(code(7), area="440100"),
        ),
        OPERATOR,
    )
    ours = "H4408009999"
    assert await found(registry, text=ours) == [code(1), code(3), code(7)]
    every = await found(registry, text=ours, all=True)
    assert every == list(map(code, (1, 2, 3, 4, 5, 7)))
    assert await found(registry, text=ours, area="440800") == [code(1), code(3)]
    assert await found(registry, text="100%") == [code(3)]
    assert await found(registry, text="100_") == []
    assert await found(registry, text=ours, service=INPATIENT) == [code(1), code(7)]
    assert await found(registry, text=ours, service=OUTPATIENT, route=CROSS) == list(
        map(code, (1, 3, 7))
    )
    assert await found(registry, text=ours, route=types_pb2.ROUTE_LOCAL) == []
    for disease, those in (("M00503", (1, 7)), ("M03900", (7,)), ("M07800", (7,))):
        assert await found(registry, text=ours, disease_code=disease) == list(map(code, those))
    shops = await found(registry, service=PHARMACY)
    assert (SHOP in shops, {each[0] for each in shops}) == (True, {"P"})
    assert "H44010000003" not in await found(registry), "suspended in the sample"


async def test_a_search_with_a_wrong_token_or_day_is_refused(registry: RegistryService) -> None:
    for field, value, name in (
        ("page_token", "'; --", "MESSAGE_INVALID"),
        ("text", "\0", "MESSAGE_INVALID"),
        ("day", "2026-02-30", "DAY_INVALID"),
    ):
        asked: dict[str, Any] = {"day": "2026-10-01", field: value}
        request = registry_pb2.SearchInstitutionsRequest(**asked)
        assert (await refused(registry.SearchInstitutions(request, GATEWAY))).name == name


async def test_who_registered_what_is_kept_but_not_who_typed_it_in_the_audit(
    registry: RegistryService, admin: Any
) -> None:
    await registry.RegisterInstitutions(registering(hospital()), OPERATOR)
    [row] = await admin.fetch("SELECT * FROM catalog.institution ORDER BY id DESC LIMIT 1")
    assert (row["actor"], row["operator"]) == (OPERATOR.caller.spiffe_id, "张三")
    [audit] = await admin.fetch("SELECT * FROM catalog.audit ORDER BY id DESC LIMIT 1")
    assert (audit["action"], audit["subject"]) == (
        "register_institution",
        "H44080099999/2026-01-01",
    )
    assert "张三" not in str(audit)


async def test_a_bill_hears_why_it_is_not_settled_directly(
    registry: RegistryService, database: Database
) -> None:
    """S4-50: agreement and disease each have their reason; a change is taken over at once."""
    limited = hospital(diseases=[opened("M00500")], agreement_end_date="2026-09-30")
    await registry.RegisterInstitutions(registering(limited), OPERATOR)

    async def reason(care_type: types_pb2.CareType.ValueType, disease: str, first: str) -> Any:
        charged = catalog_pb2.FeeLine(
            line_id="1",
            item_code="own",
            unit_price_micro_yuan=1_000_000,
            quantity_e4=10_000,
            amount_fen=100,
        )
        item = catalog_pb2.SplitFeesItem(
            id="01a200c1-78cc-7b37-94c8-712f478fc03c",
            institution=limited.code,
            visit=visit_pb2.Visit(
                care_area="440800",
                insured_area="110000",
                insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                care_type=care_type,
                start_date=first,
                end_date="2026-10-08",
                disease_code=disease,
            ),
            route=CROSS,
            lines=[charged],
            total_fen=100,
        )
        batch = catalog_pb2.BatchSplitFeesRequest(items=[item])
        [result] = (await service.BatchSplitFees(batch, GATEWAY)).results
        if result.HasField("split"):
            return result.split.institution.name
        refusal = Refusal.from_status(result.error)
        return refusal.name, refusal.message

    chronic, stay = types_pb2.CARE_TYPE_CHRONIC, types_pb2.CARE_TYPE_INPATIENT
    async with CatalogService(database=database, site=SITE, refresh_seconds=3600) as service:
        assert await reason(chronic, "M00503", "2026-10-08") == (
            "INSTITUTION_AGREEMENT_NOT_IN_FORCE",
            f"医药机构 {limited.code} 在 2026-10-08 没有有效的医保服务协议："
            "协议已于 2026-09-30 到期。",
        )
        assert await reason(stay, "", "2026-09-30") == limited.name
        limited.start_date, limited.agreement_end_date = "2026-10-01", ""
        await registry.RegisterInstitutions(registering(limited), OPERATOR)
        assert await service.refresh()
        assert await reason(chronic, "M00503", "2026-10-08") == limited.name
        assert await reason(chronic, "M03900", "2026-10-08") == (
            "INSTITUTION_DISEASE_NOT_OPENED",
            f"医药机构 {limited.code} 在 2026-10-08 未开通门诊慢特病 M03900 的直接结算。",
        )
