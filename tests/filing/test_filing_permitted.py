"""What may be filed, and on which terms: pure, with the rules of real areas."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.filing.domain.area_rules import AreaRules, Evidence
from services.filing.domain.channels import Family, family
from services.filing.domain.evidence import MaterialMissing, given_by, judge
from services.filing.domain.facts import (
    CommitmentState,
    Filing,
    FilingChannel,
    FilingKind,
    FilingState,
    InsuranceType,
    Material,
    PersonClass,
    Route,
)
from services.filing.domain.permitted import (
    ChannelNotAllowed,
    NotEligible,
    PlaceUnknown,
    Terms,
    Wanted,
    denied,
    permit,
)
from services.filing.domain.places import Place, inside
from services.filing.domain.validity import last_day
from services.filing.written_rules import load_area_rules

AREAS = load_area_rules()
ZHANJIANG, JINING, DATONG, BEIJING = (
    AREAS[code] for code in ("440800", "370800", "140200", "110000")
)
LONG_TERM = [kind for kind in FilingKind if kind.long_term]
APP, WINDOW, PHONE = FilingChannel.NATIONAL_APP, FilingChannel.WINDOW, FilingChannel.PHONE
UPLOAD, LOCAL_ONLINE = FilingChannel.HOSPITAL_UPLOAD, FilingChannel.LOCAL_ONLINE
DAY = date(2026, 11, 20)
SHANGHAI = Place("310000", True, True, Route.CROSS_PROVINCE, "310000")
HANGZHOU = Place("330100", True, False, Route.CROSS_PROVINCE, "330000")
GUANGZHOU = Place("440100", True, False, Route.IN_PROVINCE, "440000")
JINAN = Place("370100", True, False, Route.IN_PROVINCE, "370000")
NAMED, OTHER_HOSPITAL = "H44080300001", "H44080000001"
WANTED = Wanted(
    kind=FilingKind.OTHER_TEMPORARY,
    insurance=InsuranceType.EMPLOYEE,
    person_class=PersonClass.EMPLOYED,
    place=SHANGHAI,
    start=DAY,
    day=DAY,
)
REFERRED = replace(WANTED, kind=FilingKind.REFERRAL, referral_institution=OTHER_HOSPITAL)
RESIDENT = replace(WANTED, kind=FilingKind.LONG_TERM_RESIDENT)
EARLIER = Filing(
    filing_id="f1",
    insured_area="440800",
    insurance=InsuranceType.EMPLOYEE,
    kind=FilingKind.REFERRAL,
    channel=UPLOAD,
    care_place="330100",
    start_date=date(2026, 1, 10),
    end_date=date(2026, 7, 10),
    filed_on=date(2026, 1, 10),
    referral_institution=NAMED,
    commitment=CommitmentState.NOT_NEEDED,
    disease_code="C34.900",
)


def cause(wanted: Wanted, rules: AreaRules = ZHANJIANG) -> str:
    found = denied(wanted, rules)
    assert isinstance(found, NotEligible), found
    assert permit(wanted, APP, frozenset(Material), rules) == found
    return found.cause


def terms(
    wanted: Wanted,
    channel: FilingChannel = APP,
    materials: frozenset[Material] = frozenset(Material),
    rules: AreaRules = ZHANJIANG,
) -> Terms:
    found = permit(wanted, channel, materials, rules)
    assert isinstance(found, Terms), found
    return found


def taken(rules: AreaRules, wanted: Wanted) -> set[FilingChannel]:
    """The channels that take an application with all material."""
    found = {
        channel: permit(wanted, channel, frozenset(Material), rules) for channel in FilingChannel
    }
    allowed = {channel for channel, one in found.items() if isinstance(one, Terms)}
    for channel, one in found.items():
        assert channel in allowed or one == ChannelNotAllowed(channel, frozenset(allowed))
    return allowed


# --- kinds and places


def test_an_emergency_needs_no_filing():
    """S0-9, S4-16."""
    assert "视同已备案" in cause(replace(WANTED, kind=FilingKind.EMERGENCY))


@pytest.mark.parametrize("code", ["440800", "440802", "440883"])
def test_inside_the_area_nothing_is_filed(code):
    """S1-2, S2-1: 异地 is outside the pooling area."""
    place = Place(code, True, False, Route.LOCAL, "440000")
    assert "统筹区内" in cause(replace(WANTED, place=place))


def test_counties_lie_inside_their_area():
    assert inside("110105", "110000")
    assert inside("440883", "440800")
    assert not inside("440100", "440800")
    assert not inside("429004", "429005")


def test_a_place_that_the_directory_does_not_list_is_unknown():
    place = Place("999900", False, False, Route.CROSS_PROVINCE, "999900")
    assert denied(replace(WANTED, place=place), ZHANJIANG) == PlaceUnknown("999900")


@pytest.mark.parametrize("code", ["110000", "120000", "310000", "460000", "540000", "660000"])
def test_a_whole_province_is_filed_to_where_that_is_done(code):
    """S0-6, S1-17, S1-18."""
    whole = Place(code, True, True, Route.CROSS_PROVINCE, code)
    assert denied(replace(WANTED, place=whole), ZHANJIANG) is None
    other = Place("370000", True, True, Route.CROSS_PROVINCE, "370000")
    assert "不能只备案到省" in cause(replace(WANTED, place=other))
    own = Place("440000", True, True, Route.IN_PROVINCE, "440000")
    assert "不能只备案到省" in cause(replace(WANTED, place=own))


# --- who


@pytest.mark.parametrize(
    ("insurance", "person_class", "allowed"),
    [
        (InsuranceType.EMPLOYEE, PersonClass.RETIRED, True),
        (InsuranceType.EMPLOYEE, PersonClass.BANKRUPT_UNIT, True),
        (InsuranceType.EMPLOYEE, PersonClass.SELF_EMPLOYED, True),
        (InsuranceType.EMPLOYEE, PersonClass.EMPLOYED, False),
        (InsuranceType.EMPLOYEE, None, False),
        (InsuranceType.RESIDENT, PersonClass.ADULT_RESIDENT, True),
        (InsuranceType.RESIDENT, PersonClass.MINOR_OR_STUDENT, True),
        (InsuranceType.RESIDENT, None, True),
    ],
)
def test_who_may_file_as_long_term_resident_in_datong(insurance, person_class, allowed):
    """S1-5: employees who retired, whose unit went bankrupt or who work for themselves."""
    wanted = replace(RESIDENT, insurance=insurance, person_class=person_class)
    found = denied(wanted, DATONG)
    assert (found is None) == allowed
    if found is not None:
        assert "大同市异地就医问答" in cause(wanted, DATONG)
    assert denied(replace(wanted, kind=FilingKind.POSTED_WORKER), DATONG) is None


def test_only_the_retired_resettle():
    """S0-2, S1-3."""
    wanted = replace(WANTED, kind=FilingKind.RETIRED_RESETTLED)
    assert "人员类别" in cause(wanted)
    assert denied(replace(wanted, person_class=PersonClass.RETIRED), ZHANJIANG) is None


# --- days


@pytest.mark.parametrize(("days", "allowed"), [(0, True), (5, True), (6, False)])
@pytest.mark.parametrize("kind", [FilingKind.LONG_TERM_RESIDENT, FilingKind.POSTED_WORKER])
@pytest.mark.parametrize("place", [SHANGHAI, JINAN])
def test_jining_long_term_starts_at_most_five_days_before_filing(days, allowed, kind, place):
    """S2-16; S2-17: temporary filings any number of days; 湛江 (S4-11) states no limit."""
    wanted = replace(WANTED, kind=kind, place=place, start=DAY - timedelta(days=days))
    assert (denied(wanted, JINING) is None) == allowed
    assert allowed or "最多早于备案日期5天（济宁市" in cause(wanted, JINING)
    assert denied(wanted, ZHANJIANG) is None
    late = replace(WANTED, place=place, start=DAY - timedelta(days=300))
    assert denied(late, JINING) is None


def test_a_filing_begins_within_a_year():
    assert denied(replace(WANTED, start=date(2027, 11, 20)), ZHANJIANG) is None
    assert "最多晚于备案日期12个月" in cause(replace(WANTED, start=date(2027, 11, 21)))


# --- referrals


def test_referrals_come_from_the_institutions_that_the_area_accepts():
    """S0-20, S4-18: the nine named ones and other hospitals of the area; nobody asks for a stay at
    home before (S0-22, S4-22)."""
    assert len(ZHANJIANG.referrals[(Route.CROSS_PROVINCE,)].value.named) == 9
    for institution in (NAMED, OTHER_HOSPITAL, "H44082500001"):
        assert terms(replace(REFERRED, referral_institution=institution)).handling_days == 0
    for institution in ("H11010100001", "P44080300001", "H4408030000", "湛江某医院"):
        wanted = replace(REFERRED, referral_institution=institution)
        assert institution in cause(wanted)
        assert "湛医保〔2023〕11号 二（六）" in cause(wanted)
    assert "须填写转出医疗机构" in cause(replace(REFERRED, referral_institution=""))


def test_an_area_may_accept_nobody_but_those_it_names():
    key = (Route.CROSS_PROVINCE,)
    stated = ZHANJIANG.referrals[key]
    only = replace(stated, value=replace(stated.value, others_accepted=False))
    rules = replace(ZHANJIANG, referrals={**ZHANJIANG.referrals, key: only})
    assert denied(replace(REFERRED, referral_institution=NAMED), rules) is None
    assert "不是参保地规定的转诊机构" in cause(REFERRED, rules)


@pytest.mark.parametrize(
    ("disease", "earlier", "place"),
    [
        ("C34.101", EARLIER, HANGZHOU),
        ("", EARLIER, HANGZHOU),
        ("C34.900", EARLIER, SHANGHAI),
        ("J18.900", replace(EARLIER, disease_code=""), HANGZHOU),
        ("M00503", replace(EARLIER, disease_code="M00500"), HANGZHOU),
        ("", replace(EARLIER, state=FilingState.ENDED), HANGZHOU),
    ],
)
def test_the_same_disease_needs_no_new_certificate(disease, earlier, place):
    """S0-23, S4-23: further treatment there, or a second transfer to another place."""
    wanted = replace(
        WANTED, kind=FilingKind.REFERRAL, place=place, disease_code=disease, earlier=earlier
    )
    found = terms(wanted, materials=frozenset())
    assert found.referral_institution == NAMED
    assert found.disease_code == (disease or earlier.disease_code)
    assert permit(
        replace(wanted, earlier=None, referral_institution=NAMED), APP, frozenset(), ZHANJIANG
    ) == MaterialMissing(frozenset({Material.REFERRAL_CERTIFICATE}), frozenset(), False)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": FilingKind.OTHER_TEMPORARY}, "不是有效的转诊备案"),
        ({"state": FilingState.CANCELLED}, "不是有效的转诊备案"),
        ({"state": FilingState.PENDING}, "不是有效的转诊备案"),
        ({"insured_area": "440100"}, "不属于现在的参保关系"),
        ({"insurance": InsuranceType.RESIDENT}, "不属于现在的参保关系"),
        ({"start_date": date(2026, 12, 1)}, "早于原转诊备案"),
        ({"disease_code": "J18.900"}, "不是同一种疾病"),
        ({"disease_code": "M00500"}, "不是同一种疾病"),
    ],
)
def test_what_is_no_earlier_referral_for_this_one(changes, why):
    wanted = replace(
        WANTED,
        kind=FilingKind.REFERRAL,
        disease_code="C34.900",
        earlier=replace(EARLIER, **changes),
    )
    assert why in cause(wanted)


# --- channels


def test_channels_of_jining_by_kind_and_route():
    """S2-7, S2-8, S2-10: by telephone only other provinces, only temporarily."""
    assert taken(JINING, replace(RESIDENT, place=JINAN)) == {WINDOW, LOCAL_ONLINE}
    online = {WINDOW, LOCAL_ONLINE, APP, FilingChannel.MINI_PROGRAM}
    assert taken(JINING, RESIDENT) == online
    assert taken(JINING, WANTED) == {*online, PHONE}


def test_channels_of_datong():
    """S1-11, S1-13, S1-15."""
    national = Family.NATIONAL.channels
    wanted = replace(RESIDENT, person_class=PersonClass.RETIRED)
    assert taken(DATONG, wanted) == {*national, LOCAL_ONLINE, WINDOW}
    assert taken(DATONG, WANTED) == {*national, LOCAL_ONLINE, WINDOW}
    referred = replace(REFERRED, referral_institution="H14020200001")
    assert taken(DATONG, referred) == {UPLOAD}


def test_channels_of_zhanjiang():
    """S4-20, S4-58: inside the province the same."""
    for place in (SHANGHAI, GUANGZHOU):
        national = {*Family.NATIONAL.channels, WINDOW}
        assert taken(ZHANJIANG, replace(WANTED, place=place)) == national
        assert taken(ZHANJIANG, replace(REFERRED, place=place)) == {*national, UPLOAD}


def test_families_of_channels():
    """S2-15: a change goes through the family of the filing."""
    assert {channel for one in Family for channel in one.channels} == set(FilingChannel)
    assert Family.NATIONAL.channels == {
        APP,
        FilingChannel.MINI_PROGRAM,
        FilingChannel.STATE_COUNCIL_CLIENT,
    }
    assert [family(one) for one in (LOCAL_ONLINE, WINDOW, PHONE, UPLOAD)] == [
        Family.LOCAL_ONLINE,
        Family.WINDOW,
        Family.PHONE,
        Family.HOSPITAL,
    ]
    assert all(JINING.same_channel[(kind,)].value for kind in (*LONG_TERM, FilingKind.REFERRAL))
    assert not ZHANJIANG.same_channel[(FilingKind.REFERRAL,)].value


# --- material


@pytest.mark.parametrize(
    ("kind", "material"),
    [
        (FilingKind.RETIRED_RESETTLED, Material.HOUSEHOLD_REGISTER),
        (FilingKind.RETIRED_RESETTLED, Material.ID_CARD_OF_PLACE),
        (FilingKind.LONG_TERM_RESIDENT, Material.RESIDENCE_PERMIT),
        (FilingKind.LONG_TERM_RESIDENT, Material.COMMUNITY_CERTIFICATE),
        (FilingKind.POSTED_WORKER, Material.EMPLOYER_APPLICATION),
    ],
)
def test_material_of_datong(kind, material):
    """S1-4, S1-6, S1-8."""
    wanted = replace(WANTED, kind=kind, person_class=PersonClass.RETIRED)
    found = terms(wanted, WINDOW, frozenset({material}), DATONG)
    assert found.commitment is CommitmentState.MATERIAL_COMPLETE
    missing = permit(wanted, WINDOW, frozenset({Material.LABOUR_CONTRACT}), DATONG)
    assert isinstance(missing, MaterialMissing)
    assert material in missing.any_of


def test_unreferred_care_in_datong_is_filed_without_material_at_once():
    """S1-15, S1-16."""
    found = terms(WANTED, APP, frozenset(), DATONG)
    assert found == Terms(
        date(2027, 5, 20), CommitmentState.NOT_NEEDED, FilingState.ACCEPTED, 0, "", ""
    )


def test_jining_promises_to_stay_and_may_prove_it():
    """S2-6, S2-7, S2-26."""
    promise = frozenset({Material.COMMITMENT})
    assert terms(RESIDENT, APP, promise, JINING).commitment is CommitmentState.PROMISED
    proved = promise | {Material.RESIDENCE_PERMIT}
    assert terms(RESIDENT, APP, proved, JINING).commitment is CommitmentState.MATERIAL_COMPLETE
    assert permit(RESIDENT, APP, frozenset({Material.RESIDENCE_PERMIT}), JINING) == MaterialMissing(
        promise, frozenset(), True
    )


def test_form_1_is_paper_at_the_window_only():
    assert Material.FILING_FORM in given_by(APP, ())
    assert given_by(UPLOAD, ()) >= {Material.FILING_FORM, Material.REFERRAL_CERTIFICATE}
    assert given_by(WINDOW, {Material.COMMITMENT}) == {Material.COMMITMENT}
    assert permit(WANTED, WINDOW, frozenset(), BEIJING) == MaterialMissing(
        frozenset({Material.FILING_FORM}), frozenset(), False
    )
    assert terms(WANTED, APP, frozenset(), BEIJING).commitment is CommitmentState.NOT_NEEDED


NAMES = {
    Material.FILING_FORM: "备案表",
    Material.HOUSEHOLD_REGISTER: "户口簿",
    Material.RESIDENCE_PERMIT: "居住证明",
    Material.COMMITMENT: "个人承诺书",
}


@pytest.mark.parametrize(
    ("required", "any_of", "promise", "text"),
    [
        ({Material.FILING_FORM}, set(), False, "备案表"),
        ({Material.FILING_FORM, Material.COMMITMENT}, set(), False, "备案表、个人承诺书"),
        (set(), {Material.RESIDENCE_PERMIT}, False, "居住证明"),
        (set(), {Material.RESIDENCE_PERMIT}, True, "下列之一：居住证明、个人承诺书"),
        (
            {Material.FILING_FORM},
            {Material.HOUSEHOLD_REGISTER, Material.RESIDENCE_PERMIT},
            False,
            "备案表，以及下列之一：户口簿、居住证明",
        ),
    ],
)
def test_what_is_missing_is_said_in_chinese(required, any_of, promise, text):
    missing = MaterialMissing(frozenset(required), frozenset(any_of), promise)
    assert missing.text(NAMES.__getitem__) == text


MATERIALS = st.frozensets(st.sampled_from(Material))


@settings(deadline=None)
@given(
    st.builds(
        Evidence,
        MATERIALS,
        MATERIALS.map(lambda materials: materials - {Material.COMMITMENT}),
        st.booleans(),
    ),
    MATERIALS,
    MATERIALS,
)
def test_more_material_never_makes_it_worse(evidence, given_, more):
    """What is said to be missing is enough, and what was enough stays so."""
    ranks = {
        CommitmentState.PROMISED: 0,
        CommitmentState.NOT_NEEDED: 1,
        CommitmentState.MATERIAL_COMPLETE: 1,
    }
    found = judge(evidence, given_)
    if isinstance(found, MaterialMissing):
        assert not found.required & given_
        supplied = given_ | found.required | found.any_of
        assert isinstance(judge(evidence, supplied), CommitmentState)
    else:
        after = judge(evidence, given_ | more)
        assert isinstance(after, CommitmentState)
        assert ranks[after] >= ranks[found]


# --- terms


@pytest.mark.parametrize(
    ("rules", "months"), [(ZHANJIANG, 6), (DATONG, 6), (JINING, None), (BEIJING, 6)]
)
def test_validity_of_the_areas(rules, months):
    """S0-10, S0-11, S1-12, S1-14, S1-16, S2-11, S2-12, S4-8, S4-10."""
    retired = replace(WANTED, person_class=PersonClass.RETIRED)
    for kind in LONG_TERM:
        assert terms(replace(retired, kind=kind), WINDOW, rules=rules).end_date is None
    assert terms(retired, rules=rules).end_date == last_day(DAY, months)


@pytest.mark.parametrize(
    ("rules", "wanted", "channel", "days"),
    [
        (ZHANJIANG, RESIDENT, APP, 0),
        (ZHANJIANG, WANTED, WINDOW, 0),
        (DATONG, WANTED, LOCAL_ONLINE, 0),
        (DATONG, replace(REFERRED, referral_institution="H14020200001"), UPLOAD, 0),
        (DATONG, replace(RESIDENT, person_class=PersonClass.RETIRED), APP, 2),
        (JINING, WANTED, PHONE, 0),
        (JINING, RESIDENT, APP, 2),
        (BEIJING, WANTED, APP, 2),
        (BEIJING, WANTED, WINDOW, 0),
    ],
)
def test_handling_at_once_or_within_days(rules, wanted, channel, days):
    """S1-13, S1-15, S2-11, S4-21; 规程 第九条: national channels within 2 working days."""
    found = terms(wanted, channel, rules=rules)
    assert found.handling_days == days
    assert found.state is (FilingState.PENDING if days else FilingState.ACCEPTED)


# --- validity


@pytest.mark.parametrize(
    ("start", "months", "last"),
    [
        (date(2026, 11, 21), 6, date(2027, 5, 21)),
        (date(2026, 8, 31), 6, date(2027, 2, 28)),
        (date(2027, 8, 31), 6, date(2028, 2, 29)),
        (date(2026, 12, 1), 1, date(2027, 1, 1)),
        (date(2026, 12, 1), None, None),
    ],
)
def test_last_day(start, months, last):
    """S4-10: six months; counted as 民法典 第201、202条 counts."""
    assert last_day(start, months) == last


@settings(deadline=None)
@given(st.dates(date(2025, 1, 1), date(2027, 12, 31)), st.integers(1, 36))
def test_last_day_is_in_the_month_it_should_be(start, months):
    last = last_day(start, months)
    assert last is not None
    assert (last.year * 12 + last.month) - (start.year * 12 + start.month) == months
    assert last.day == start.day or (last.day < start.day and (last + timedelta(1)).day == 1)


@settings(deadline=None)
@given(
    st.sampled_from(list(AREAS.values())),
    st.builds(
        replace,
        st.just(WANTED),
        kind=st.sampled_from(FilingKind),
        insurance=st.sampled_from(InsuranceType),
        person_class=st.none() | st.sampled_from(PersonClass),
        place=st.sampled_from([SHANGHAI, HANGZHOU, GUANGZHOU, JINAN]),
        start=st.dates(date(2026, 1, 1), date(2028, 1, 1)),
        referral_institution=st.sampled_from(["", NAMED, OTHER_HOSPITAL, "H11010100001"]),
    ),
    st.sampled_from(FilingChannel),
    MATERIALS,
)
def test_every_application_has_an_answer(rules, wanted, channel, materials):
    """A filing that is made could be taken over, and begins before it ends."""
    if wanted.place.site[:2] == rules.area[:2]:
        same = wanted.place.code == rules.area
        route = Route.LOCAL if same else Route.IN_PROVINCE
        wanted = replace(wanted, place=replace(wanted.place, route=route))
    found: Any = permit(wanted, channel, materials, rules)
    if isinstance(found, Terms):
        assert denied(wanted, rules) is None
        assert found.end_date is None or found.end_date > wanted.start
    elif isinstance(found, ChannelNotAllowed):
        assert found.allowed
        assert channel not in found.allowed
    else:
        assert isinstance(found, NotEligible | PlaceUnknown | MaterialMissing)
