"""What people are told about filing: materials, validity, lock-in, late filing, telephone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.runtime.types import chinese
from services.filing.domain.area_rules import Provenance
from services.filing.domain.facts import (
    CareType,
    FilingChannel,
    FilingKind,
    InsuranceType,
    Material,
    PersonClass,
    Route,
)
from services.filing.domain.guidance import ORDER, Guidance, guide
from services.filing.domain.places import Place
from services.filing.domain.samples import without_samples
from services.filing.written_rules import load_area_rules
from yidi.common.v1 import types_pb2

AREAS = load_area_rules()
SHANGHAI = Place("310000", True, True, Route.CROSS_PROVINCE, "310000")
JINAN = Place("370100", True, False, Route.IN_PROVINCE, "370000")
GUANGZHOU = Place("440100", True, False, Route.IN_PROVINCE, "440000")
JINING_ITSELF = Place("370800", True, False, Route.LOCAL, "370000")
EMPLOYEE, RESIDENT = InsuranceType.EMPLOYEE, InsuranceType.RESIDENT


def name(person_class: PersonClass) -> str:
    return chinese(types_pb2.PersonClass.DESCRIPTOR, person_class)


def told(area: str, place: Place = SHANGHAI, insurance: InsuranceType = EMPLOYEE, **asked):
    return guide(place, insurance, AREAS[area], name, **asked)


def of_kind(area: str, kind: FilingKind, place: Place = SHANGHAI):
    (found,) = told(area, place, kind=kind).kinds
    return found


def test_the_best_kind_stands_first():
    """S0-2, S0-3; no emergency: it is deemed filed (S0-9)."""
    assert tuple(one.kind for one in told("440800").kinds) == ORDER
    assert FilingKind.EMERGENCY not in ORDER


def test_only_the_kinds_that_a_person_may_file():
    """S1-5."""
    employed = told("140200", person_class=PersonClass.EMPLOYED)
    assert [one.kind for one in employed.kinds] == [
        FilingKind.POSTED_WORKER,
        FilingKind.REFERRAL,
        FilingKind.OTHER_TEMPORARY,
    ]
    retired = told("140200", person_class=PersonClass.RETIRED)
    assert [one.kind for one in retired.kinds] == list(ORDER)
    assert of_kind("140200", FilingKind.LONG_TERM_RESIDENT).eligible == (
        "限退休、灵活就业、破产企业职工"
    )
    assert of_kind("140200", FilingKind.REFERRAL).eligible == "不限人员类别"


@pytest.mark.parametrize(
    ("area", "kind", "validity", "late", "lock", "handling"),
    [
        (
            "440800",
            FilingKind.LONG_TERM_RESIDENT,
            "长期有效，直到变更备案或参保状态变更",
            "出院结算前可以补办，开始日期可早于备案日期，不限天数",
            "自备案起满6个月后可变更、取消，无论是否发生费用",
            "即时办理、即时生效",
        ),
        (
            "370800",
            FilingKind.LONG_TERM_RESIDENT,
            "长期有效，直到变更备案或参保状态变更",
            "出院结算前可以补办，开始日期可早于备案日期，最多早5天",
            "备案地没有发生费用的可随时变更、取消；已发生的，自备案起满6个月后；须通过原备案渠道办理",
            "国家线上渠道、参保地线上渠道2个工作日内办结；经办窗口即时办理、即时生效",
        ),
        (
            "370800",
            FilingKind.OTHER_TEMPORARY,
            "不设截止日期，期内可多次就医",
            "出院结算前可以补办，开始日期可早于备案日期，不限天数",
            "可随时变更、取消；须通过原备案渠道办理",
            "即时办理、即时生效",
        ),
        (
            "140200",
            FilingKind.REFERRAL,
            "自开始日期起6个月，期内可多次就医",
            "出院结算前可以补办，开始日期可早于备案日期，不限天数",
            "可随时变更、取消",
            "即时办理、即时生效",
        ),
    ],
)
def test_sentences_of_the_areas(area, kind, validity, late, lock, handling):
    """S1-13, S1-14, S2-11 to S2-13, S2-15 to S2-17, S4-8 to S4-10, S4-21."""
    found = of_kind(area, kind)
    assert (found.validity, found.late_filing, found.lock_in, found.handling) == (
        validity,
        late,
        lock,
        handling,
    )


def test_an_area_without_late_filing_says_so():
    rules = AREAS["440800"]
    never = {key: replace(one, value=0) for key, one in rules.back_dating_days.items()}
    found = guide(SHANGHAI, EMPLOYEE, replace(rules, back_dating_days=never), name)
    assert {one.late_filing for one in found.kinds} == {"不能补办"}


def test_material_and_channels_by_kind_and_route():
    """S1-6, S1-13, S2-7, S2-8, S2-10."""
    resident = of_kind("140200", FilingKind.LONG_TERM_RESIDENT)
    assert resident.any_of == (Material.RESIDENCE_PERMIT, Material.COMMUNITY_CERTIFICATE)
    assert (resident.required, resident.promise) == ((), True)
    assert of_kind("140200", FilingKind.REFERRAL).channels == (FilingChannel.HOSPITAL_UPLOAD,)
    assert of_kind("370800", FilingKind.LONG_TERM_RESIDENT, JINAN).channels == (
        FilingChannel.LOCAL_ONLINE,
        FilingChannel.WINDOW,
    )
    assert FilingChannel.PHONE in of_kind("370800", FilingKind.OTHER_TEMPORARY).channels


def test_where_no_filing_is_needed():
    """S2-9 in 济宁, S4-58 not in 湛江; inside the area nowhere."""
    assert told("370800", JINAN).exemption == (
        "省内临时外出就医无需备案（济宁市异地就医联网结算服务指南（2024年1月））"
    )
    assert told("370800").exemption == ""
    assert told("440800", GUANGZHOU).exemption == ""
    inside = told("370800", JINING_ITSELF)
    assert (inside.exemption, inside.kinds) == ("在参保统筹区内就医，无需备案", ())
    assert inside.telephone


def test_pairs_of_areas_and_samples():
    """成都 insured need none in five provinces; a sample does not grant where it must not."""
    chongqing = Place("500000", True, True, Route.CROSS_PROVINCE, "500000")
    assert "无需备案" in told("510100", chongqing).exemption
    tianjin = Place("120000", True, True, Route.CROSS_PROVINCE, "120000")
    assert "示例" in told("110000", tianjin).exemption
    official = guide(tianjin, EMPLOYEE, without_samples(AREAS["110000"]), name)
    assert official.exemption == ""


@pytest.mark.parametrize(
    "place",
    [
        Place("370000", True, True, Route.CROSS_PROVINCE, "370000"),
        Place("999900", False, False, Route.CROSS_PROVINCE, "999900"),
    ],
)
def test_to_some_places_nobody_files(place):
    assert told("440800", place).kinds == ()


def test_where_a_bill_is_claimed():
    """S1-22, S2-23, S2-24, S2-28, S4-11, S0-16."""
    chronic = CareType.CHRONIC
    temporary = told("370800", kind=FilingKind.OTHER_TEMPORARY, care_type=chronic)
    assert "门诊慢特病定点医院" in temporary.manual_claim
    for asked in (
        told("370800", kind=FilingKind.LONG_TERM_RESIDENT, care_type=chronic),
        told("370800", kind=FilingKind.OTHER_TEMPORARY),
    ):
        assert "经办机构手工报销" in asked.manual_claim
    both = told("370800", care_type=chronic)
    assert both.manual_claim.count("；") == 1
    assert "居住地认定" in told("140200", care_type=chronic).manual_claim
    assert told("440800").manual_claim.endswith("湛江市医保经办机构手工报销。")


def test_telephone_and_office_are_marked_samples():
    """S2-43: shown; the numbers are no real ones."""
    for area in AREAS:
        found = told(area)
        assert found.telephone.endswith("-00000000（示例）")
        assert "示例" in found.office


def test_sources_say_how_well_they_are_founded():
    sources = of_kind("370800", FilingKind.LONG_TERM_RESIDENT).sources
    assert ("济宁市异地就医联网结算服务指南（2024年1月）", Provenance.OFFICIAL) in sources
    assert len(set(sources)) == len(sources)
    for citation, provenance in sources:
        assert ("示例" in citation) == (provenance is Provenance.ILLUSTRATIVE)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(AREAS)),
    st.sampled_from([SHANGHAI, JINAN, GUANGZHOU]),
    st.sampled_from(InsuranceType),
    st.none() | st.sampled_from(PersonClass),
    st.sampled_from(CareType),
)
def test_guidance_is_complete_for_everybody(area, place, insurance, person_class, care_type):
    if place.site[:2] != area[:2]:
        place = replace(place, route=Route.CROSS_PROVINCE)
    found = told(area, place, insurance, person_class=person_class, care_type=care_type)
    assert isinstance(found, Guidance)
    assert found.manual_claim
    order = [ORDER.index(one.kind) for one in found.kinds]
    assert order == sorted(order)
    for one in found.kinds:
        assert all((one.eligible, one.validity, one.late_filing, one.lock_in, one.handling))
        assert one.channels
        assert one.sources
