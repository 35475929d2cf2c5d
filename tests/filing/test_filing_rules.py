"""The rules of filing, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from enum import IntEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.filing.area_rules import RULES, RulesError, load_area_rules
from services.filing.domain import facts
from services.filing.domain.area_rules import Provenance, Stated
from services.filing.domain.eligibility import inside, obstacle
from services.filing.domain.entitlement import (
    Entitlement,
    FilingExpired,
    FilingPlaceMismatch,
    FilingRequired,
    ThirdPartyLiable,
    resolve,
)
from services.filing.domain.facts import (
    Answer,
    BenefitClass,
    CareType,
    CommitmentState,
    EmergencyReferral,
    Filing,
    FilingBasis,
    FilingKind,
    InpatientType,
    InsuranceType,
    PersonClass,
    Route,
    Visit,
)
from services.filing.domain.validity import last_day
from yidi.common.v1 import types_pb2

AREAS = load_area_rules()
ZHANJIANG, JINING, DATONG = AREAS["440800"], AREAS["370800"], AREAS["140200"]
NAMED_HOSPITAL = "H44080300001"
LONG_TERM = [kind for kind in FilingKind if kind.long_term]

VISIT = Visit(
    route=Route.CROSS_PROVINCE,
    care_area="110000",
    care_site="110000",
    insured_area="440800",
    insurance=InsuranceType.EMPLOYEE,
    care_type=CareType.INPATIENT,
    start=date(2026, 11, 10),
    end=date(2026, 11, 20),
    inpatient_type=InpatientType.ORDINARY,
    emergency_referral=EmergencyReferral.UNSPECIFIED,
    injury=Answer.UNSPECIFIED,
    third_party=Answer.UNSPECIFIED,
    use_account=False,
)
DAY = VISIT.end
FILING = Filing(
    filing_id="f1",
    insured_area="440800",
    insurance=InsuranceType.EMPLOYEE,
    kind=FilingKind.OTHER_TEMPORARY,
    channel=1,
    care_place="110000",
    start_date=date(2026, 11, 1),
    end_date=date(2027, 5, 1),
    filed_on=date(2026, 11, 1),
    referral_institution="",
    commitment=CommitmentState.NOT_NEEDED,
)
REFERRAL = replace(FILING, kind=FilingKind.REFERRAL, referral_institution="H44080000001")
HOME = replace(VISIT, route=Route.LOCAL, care_area="440800", care_site="440000")
IN_PROVINCE = replace(VISIT, route=Route.IN_PROVINCE, care_area="440100", care_site="440000")
EMERGENCIES = [
    {"care_type": CareType.EMERGENCY},
    {"inpatient_type": InpatientType.EMERGENCY},
    {"emergency_referral": EmergencyReferral.EMERGENCY},
    {"emergency_referral": EmergencyReferral.BOTH},
]


def entitled(visit=VISIT, filings=(FILING,), rules=ZHANJIANG, day=DAY) -> Entitlement:
    outcome = resolve(visit, filings, rules, day)
    assert isinstance(outcome, Entitlement), outcome
    assert outcome.reason
    assert outcome.clause
    return outcome


def test_numbers_of_the_facts_are_those_of_the_contract():
    for name, mine in vars(facts).items():
        if isinstance(mine, type) and issubclass(mine, IntEnum) and mine is not IntEnum:
            contract = getattr(types_pb2, name)
            prefix = contract.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
            assert {prefix + one.name: one.value for one in mine}.items() <= dict(
                contract.items()
            ).items()


# --- entitlement


@pytest.mark.parametrize("route", list(Route))
@pytest.mark.parametrize("how", [{"injury": Answer.YES}, {"care_type": CareType.INJURY_INPATIENT}])
def test_third_party_injury_is_refused_on_every_route(route, how):
    """S2-30, S4-12: injury settles only without a third party."""
    visit = replace(VISIT, route=route, third_party=Answer.YES, **how)
    assert resolve(visit, [FILING], ZHANJIANG, DAY) == ThirdPartyLiable()
    for answer in (Answer.NO, Answer.UNSPECIFIED):
        entitled(replace(visit, third_party=answer))


def test_home_is_local_without_filing():
    outcome = entitled(HOME, [FILING])
    assert (outcome.basis, outcome.benefit_class) == (FilingBasis.LOCAL, BenefitClass.LOCAL)
    assert outcome.filing is None


@pytest.mark.parametrize("kind", LONG_TERM)
def test_long_term_resident_back_home(kind):
    """S0-27, S0-29, S4-13: a long-term filing elsewhere, valid on the day of admission."""
    filing = replace(FILING, kind=kind, end_date=None)
    outcome = entitled(HOME, [filing])
    assert (outcome.basis, outcome.benefit_class, outcome.filing) == (
        FilingBasis.LOCAL,
        BenefitClass.LONG_TERM_BACK_HOME,
        filing,
    )
    later = replace(filing, start_date=HOME.start + timedelta(days=1))
    ended = replace(filing, end_date=HOME.start - timedelta(days=1))
    assert entitled(HOME, [later, ended]).benefit_class is BenefitClass.LOCAL


def test_jining_promise_of_less_than_six_months_gives_the_temporary_level_at_home():
    """S2-27."""
    filing = replace(
        FILING,
        insured_area="370800",
        kind=FilingKind.LONG_TERM_RESIDENT,
        start_date=date(2026, 5, 11),
        end_date=None,
        commitment=CommitmentState.PROMISED,
    )
    visit = replace(HOME, insured_area="370800", care_area="370800", care_site="370000")
    temporary = entitled(visit, [filing], JINING)
    assert temporary.benefit_class is BenefitClass.OTHER_TEMPORARY
    assert "济宁市" in temporary.clause
    for other in (
        replace(filing, commitment=CommitmentState.MATERIAL_COMPLETE),
        replace(filing, start_date=date(2026, 5, 10)),
    ):
        assert entitled(visit, [other], JINING).benefit_class is BenefitClass.LONG_TERM_BACK_HOME


@pytest.mark.parametrize(
    ("filing", "expected"),
    [
        *[(replace(FILING, kind=kind), BenefitClass.LONG_TERM_AT_PLACE) for kind in LONG_TERM],
        (REFERRAL, BenefitClass.REFERRAL),
        (replace(REFERRAL, referral_institution=NAMED_HOSPITAL), BenefitClass.REFERRAL_NAMED),
        (replace(FILING, kind=FilingKind.EMERGENCY), BenefitClass.EMERGENCY),
        (FILING, BenefitClass.OTHER_TEMPORARY),
    ],
)
def test_the_filing_gives_the_level(filing, expected):
    """S0-28, S0-33, S0-34, S4-13, S4-16, S4-17, S4-18."""
    outcome = entitled(filings=[filing])
    assert (outcome.basis, outcome.benefit_class) == (FilingBasis.FILED, expected)
    assert outcome.filing == filing
    assert not outcome.late_filing


def test_named_referral_quotes_its_clause():
    """S4-18, S4-19."""
    named = replace(REFERRAL, referral_institution=NAMED_HOSPITAL)
    assert entitled(filings=[named]).clause == "湛医保〔2023〕11号 二（六）"
    assert entitled(filings=[named], rules=JINING).benefit_class is BenefitClass.REFERRAL


@pytest.mark.parametrize("flags", EMERGENCIES)
def test_emergency_is_deemed_filed(flags):
    """S0-9, S2-36, S4-16: no filing, a lapsed one and one to another place make no difference."""
    visit = replace(VISIT, **flags)
    elsewhere = replace(FILING, care_place="310000", kind=FilingKind.LONG_TERM_RESIDENT)
    lapsed = replace(FILING, start_date=date(2026, 1, 1), end_date=date(2026, 7, 1))
    for filings in ([], [FILING], [elsewhere], [lapsed]):
        outcome = entitled(visit, filings)
        assert outcome.basis is FilingBasis.DEEMED_EMERGENCY
        assert outcome.benefit_class is BenefitClass.EMERGENCY
        assert outcome.filing is None
        assert "第三十四条" in outcome.clause


@pytest.mark.parametrize("flags", EMERGENCIES)
@pytest.mark.parametrize("kind", [*LONG_TERM, FilingKind.REFERRAL])
def test_filed_and_emergency_at_the_filed_place(flags, kind):
    """S2-37: the long-term or referral filing wins."""
    outcome = entitled(replace(VISIT, **flags), [replace(FILING, kind=kind)])
    assert outcome.basis is FilingBasis.FILED


def test_a_referral_flag_alone_is_no_emergency():
    visit = replace(VISIT, emergency_referral=EmergencyReferral.REFERRAL)
    assert resolve(visit, [], ZHANJIANG, DAY) == FilingRequired()


def test_admitted_within_validity_settles_after_it():
    """S4-24; 规程 第十二条."""
    last = replace(FILING, end_date=VISIT.start)
    outcome = entitled(filings=[last])
    assert "第十二条" in outcome.clause
    assert resolve(VISIT, [replace(last, end_date=date(2026, 11, 9))], ZHANJIANG, DAY) == (
        FilingExpired(date(2026, 11, 9))
    )


def test_late_filing_before_discharge_settles_directly():
    """S0-14, S0-15, S2-18, S4-11; and not before it is made."""
    late = replace(FILING, start_date=VISIT.end, filed_on=VISIT.end)
    outcome = entitled(filings=[late])
    assert outcome.late_filing
    assert "第十六条" in outcome.clause
    assert resolve(VISIT, [late], ZHANJIANG, DAY - timedelta(days=1)) == FilingRequired()
    on_admission = replace(FILING, start_date=VISIT.start, filed_on=VISIT.start)
    assert not entitled(filings=[on_admission]).late_filing
    after = replace(late, start_date=VISIT.end + timedelta(days=1))
    assert resolve(VISIT, [after], ZHANJIANG, DAY + timedelta(days=1)) == FilingRequired()


@pytest.mark.parametrize(
    ("care_area", "care_site", "filed", "covered"),
    [
        ("110000", "110000", "110000", True),
        ("500000", "500000", "500000", True),
        ("469001", "460000", "460000", True),
        ("370800", "370000", "370800", True),
        ("370800", "370000", "370000", False),
        ("370800", "370000", "370100", False),
    ],
)
def test_filed_to_the_city_or_to_the_province_where_that_is_done(
    care_area, care_site, filed, covered
):
    """S0-6, S0-7, S1-17, S1-18, S2-40: a place, never an institution."""
    visit = replace(VISIT, care_area=care_area, care_site=care_site)
    outcome = resolve(visit, [replace(FILING, care_place=filed)], ZHANJIANG, DAY)
    assert isinstance(outcome, Entitlement) == covered
    assert covered or outcome == FilingPlaceMismatch((filed,))


def test_preference_at_one_place():
    """Long-term, referral (named before others), emergency, other temporary."""
    best_first = [
        replace(FILING, filing_id="a", kind=FilingKind.POSTED_WORKER, start_date=date(2020, 1, 1)),
        replace(REFERRAL, filing_id="b", referral_institution=NAMED_HOSPITAL),
        replace(REFERRAL, filing_id="c"),
        replace(FILING, filing_id="d", kind=FilingKind.EMERGENCY),
        FILING,
    ]
    while best_first:
        assert entitled(filings=reversed(best_first)).filing == best_first[0]
        best_first.pop(0)


def test_long_term_resident_referred_elsewhere_gets_the_referral_level():
    """S0-31, S4-15."""
    resident = replace(FILING, kind=FilingKind.LONG_TERM_RESIDENT, care_place="310000")
    assert entitled(filings=[resident, REFERRAL]).benefit_class is BenefitClass.REFERRAL


def test_refusals_say_what_helps_most():
    lapsed = replace(FILING, start_date=date(2025, 1, 1), end_date=date(2025, 7, 1))
    earlier = replace(lapsed, end_date=date(2025, 6, 1))
    elsewhere = replace(FILING, care_place="310000")
    third = replace(FILING, care_place="120000")
    assert resolve(VISIT, [], ZHANJIANG, DAY) == FilingRequired()
    assert resolve(VISIT, [elsewhere, third], ZHANJIANG, DAY) == (
        FilingPlaceMismatch(("120000", "310000"))
    )
    assert resolve(VISIT, [elsewhere, earlier, lapsed], ZHANJIANG, DAY) == (
        FilingExpired(date(2025, 7, 1))
    )
    gone = replace(lapsed, care_place="310000")
    assert resolve(VISIT, [gone], ZHANJIANG, DAY) == FilingRequired()


def test_filings_of_another_insurance_or_area_say_nothing():
    """S4-8: valid while the insured status is unchanged."""
    others = [
        replace(FILING, insurance=InsuranceType.RESIDENT),
        replace(FILING, insured_area="440100"),
    ]
    assert resolve(VISIT, others, ZHANJIANG, DAY) == FilingRequired()


def test_in_province_temporary_needs_no_filing_in_jining_only():
    """S2-9; S4-58: 湛江 treats in-province like cross-province."""
    visit = replace(IN_PROVINCE, insured_area="370800", care_area="370100", care_site="370000")
    outcome = entitled(visit, [], JINING)
    assert (outcome.basis, outcome.benefit_class) == (
        FilingBasis.EXEMPT,
        BenefitClass.OTHER_TEMPORARY,
    )
    assert resolve(IN_PROVINCE, [], ZHANJIANG, DAY) == FilingRequired()
    cross = replace(visit, route=Route.CROSS_PROVINCE)
    assert resolve(cross, [], JINING, DAY) == FilingRequired()
    resident = replace(
        FILING,
        insured_area="370800",
        care_place="370100",
        kind=FilingKind.LONG_TERM_RESIDENT,
    )
    assert entitled(visit, [resident], JINING).benefit_class is BenefitClass.LONG_TERM_AT_PLACE


def test_account_without_filing_in_datong():
    """S1-20: employees, ordinary outpatient and pharmacy; nowhere else in our data."""
    visit = replace(
        VISIT,
        insured_area="140200",
        care_type=CareType.PHARMACY,
        inpatient_type=InpatientType.UNSPECIFIED,
        use_account=True,
    )
    assert entitled(visit, [], DATONG).basis is FilingBasis.ACCOUNT_ONLY
    for other in (
        replace(visit, insurance=InsuranceType.RESIDENT),
        replace(visit, use_account=False),
        replace(visit, care_type=CareType.INPATIENT),
    ):
        assert resolve(other, [], DATONG, DAY) == FilingRequired()
    for rules in (ZHANJIANG, JINING):
        assert resolve(visit, [], rules, DAY) == FilingRequired()


DATES = st.dates(date(2025, 1, 1), date(2027, 12, 31))
FILINGS = st.lists(
    st.builds(
        lambda number, kind, place, start, length, filed, named: replace(
            FILING,
            filing_id=f"f{number}",
            kind=kind,
            care_place=place,
            start_date=start,
            end_date=None if length is None else start + timedelta(days=length),
            filed_on=filed,
            referral_institution=NAMED_HOSPITAL if named else "",
        ),
        st.integers(0, 99),
        st.sampled_from(FilingKind),
        st.sampled_from(["110000", "310000", "440100"]),
        DATES,
        st.none() | st.integers(0, 400),
        DATES,
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda filing: filing.filing_id,
)
VISITS = st.builds(
    lambda where, start, length, flags: replace(
        where, start=start, end=start + timedelta(days=length), **flags
    ),
    st.sampled_from([VISIT, HOME, IN_PROVINCE]),
    DATES,
    st.integers(0, 90),
    st.sampled_from([{}, *EMERGENCIES]),
)


@given(VISITS, FILINGS, DATES, st.randoms())
def test_what_holds_for_every_visit(visit, filings, day, random):
    outcome = resolve(visit, filings, ZHANJIANG, day)
    shuffled = list(filings)
    random.shuffle(shuffled)
    assert resolve(visit, shuffled, ZHANJIANG, day) == outcome
    covering = [
        one
        for one in filings
        if one.care_place in (visit.care_area, visit.care_site)
        and one.start_date <= visit.end
        and (one.end_date is None or one.end_date >= visit.start)
        and one.filed_on <= day
    ]
    if visit.route is Route.LOCAL:
        assert outcome.basis is FilingBasis.LOCAL
    elif covering or visit.emergency:
        assert isinstance(outcome, Entitlement)
        assert outcome.filing is None or outcome.filing in covering
        if any(one.kind.long_term for one in covering):
            assert outcome.benefit_class is BenefitClass.LONG_TERM_AT_PLACE
    else:
        assert not isinstance(outcome, Entitlement)
    if isinstance(outcome, Entitlement) and outcome.filing is not None:
        assert outcome.late_filing == (outcome.filing.filed_on > visit.start)


# --- validity and eligibility


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


@given(DATES, st.integers(1, 36))
def test_last_day_is_in_the_month_it_should_be(start, months):
    last = last_day(start, months)
    assert (last.year * 12 + last.month) - (start.year * 12 + start.month) == months
    assert last.day == start.day or (last.day < start.day and (last + timedelta(1)).day == 1)


def problem(rules=ZHANJIANG, **changes) -> str | None:
    facts_ = {
        "kind": FilingKind.OTHER_TEMPORARY,
        "person_class": PersonClass.EMPLOYED,
        "care_place": "110000",
        "start": DAY,
        "filed_on": DAY,
        "referral_institution": "",
    }
    return obstacle(rules, **(facts_ | changes))


def test_what_may_be_filed():
    assert problem() is None
    assert problem(kind=FilingKind.REFERRAL, referral_institution="H44080000001") is None
    assert problem(care_place="440100") is None
    assert problem(start=DAY + timedelta(days=30)) is None


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"kind": FilingKind.EMERGENCY}, "视同已备案"),
        ({"kind": FilingKind.REFERRAL}, "转出医疗机构"),
        ({"care_place": "440800"}, "统筹区内"),
        ({"care_place": "440802"}, "统筹区内"),
        ({"care_place": "370000"}, "不能只备案到省"),
        ({"care_place": "440000"}, "不能只备案到省"),
    ],
)
def test_what_may_not_be_filed(changes, cause):
    assert cause in problem(**changes)


@pytest.mark.parametrize(("days", "allowed"), [(0, True), (5, True), (6, False)])
def test_jining_long_term_starts_at_most_five_days_before_filing(days, allowed):
    """S2-16; S2-17: temporary filings any number of days; 湛江 states no limit."""
    start = DAY - timedelta(days=days)
    found = problem(JINING, kind=FilingKind.LONG_TERM_RESIDENT, start=start)
    assert (found is None) == allowed
    assert allowed or "5天" in found
    assert problem(JINING, start=DAY - timedelta(days=300)) is None
    assert problem(kind=FilingKind.LONG_TERM_RESIDENT, start=start) is None


@pytest.mark.parametrize(
    ("person_class", "allowed"),
    [
        (PersonClass.RETIRED, True),
        (PersonClass.BANKRUPT_UNIT, True),
        (PersonClass.SELF_EMPLOYED, True),
        (PersonClass.ADULT_RESIDENT, True),
        (PersonClass.EMPLOYED, False),
        (None, False),
    ],
)
def test_who_may_file_as_long_term_resident_in_datong(person_class, allowed):
    """S1-5."""
    kind = FilingKind.LONG_TERM_RESIDENT
    assert (problem(DATONG, kind=kind, person_class=person_class) is None) == allowed
    assert problem(DATONG, kind=FilingKind.POSTED_WORKER, person_class=person_class) is None


def test_counties_lie_inside_their_area():
    assert inside("110105", "110000")
    assert inside("440883", "440800")
    assert not inside("440100", "440800")
    assert not inside("429004", "429005")


# --- the documents


def test_every_value_of_the_sample_areas_says_where_it_stands():
    assert set(AREAS) == {"440800", "440100", "370800", "370100", "110000", "140200"}
    for rules in AREAS.values():
        values = [
            *rules.validity_months.values(),
            *rules.back_dating_days.values(),
            *rules.person_classes.values(),
            rules.province_places,
            rules.exempt_routes,
            rules.account_without_filing,
            rules.named_institutions,
            rules.promised_back_home_months,
        ]
        assert all(isinstance(value, Stated) and value.citation for value in values)
        for value in values:
            assert ("示例" in value.citation) == (value.provenance is Provenance.ILLUSTRATIVE)


def test_values_of_the_documents():
    """S0-10, S2-11, S2-12, S4-8, S4-10, S4-18, S1-12, S1-14, S1-16, S1-18."""
    months = {area: rules.validity_months for area, rules in AREAS.items()}
    assert {months[area][kind].value for area in AREAS for kind in LONG_TERM} == {None}
    for kind in (FilingKind.REFERRAL, FilingKind.OTHER_TEMPORARY):
        assert [months[area][kind].value for area in ("440800", "370800", "140200")] == [6, None, 6]
    assert len(ZHANJIANG.named_institutions.value) == 9
    assert len(ZHANJIANG.province_places.value) == 7


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("name: 湛江市", "name: 湛江市\nname: 湛江", "written twice"),
        ("name: 湛江市", "name: 湛江市\ncolour: red", "colour: Extra inputs"),
        ("name: 湛江市", "", "name: Field required"),
        ("  value: 6", '  value: "6"', "validity_months.referral.value"),
        ("provenance: official", "provenance: hearsay", "provenance"),
        ("exempt_routes:\n", "exempt_routes:\n  clause: 3\n", "exempt_routes.clause"),
        ("value: []", "value: [teleport]", "teleport is none of local, in_province"),
        ('area: "440800"', 'area: "440100"', "name of the file"),
        ("name: 湛江市", "name: [", "440800.yaml: while parsing"),
    ],
)
def test_a_bad_document_is_named_with_its_fault(tmp_path: Path, old, new, complaint):
    text = (RULES / "440800.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "440800.yaml").write_text(text.replace(old, new), encoding="utf-8")
    national = (RULES / "national.yaml").read_text(encoding="utf-8")
    (tmp_path / "national.yaml").write_text(national, encoding="utf-8")
    with pytest.raises(RulesError, match=r"440800\.yaml") as raised:
        load_area_rules(tmp_path)
    assert complaint in str(raised.value)
