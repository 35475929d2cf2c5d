"""The decision on a visit: what holds for all visits, and rules that no single area shows."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import date, timedelta
from enum import IntEnum

import pytest
from filing_facts import (
    AREA,
    AWAY,
    DAY,
    FILING,
    HOME,
    IN_PROVINCE,
    LONG_TERM,
    NAMED_HOSPITAL,
    NOTICE,
    OUTPATIENT,
    REFERRAL,
    VISIT,
    exempt,
    make_rules,
    stated,
    table,
)
from hypothesis import given
from hypothesis import strategies as st

from services.filing import wording
from services.filing.domain import facts
from services.filing.domain.area_rules import BackHome, Provenance, Referrals
from services.filing.domain.covering import lacking
from services.filing.domain.entitlement import (
    Entitlement,
    InstitutionNotChosen,
    ThirdPartyLiable,
    resolve,
)
from services.filing.domain.facts import (
    Answer,
    BenefitClass,
    CareType,
    CommitmentState,
    EmergencyReferral,
    FilingBasis,
    FilingKind,
    FilingState,
    InpatientType,
    InsuranceType,
    Route,
)
from services.filing.domain.near_misses import (
    FilingCancelled,
    FilingExpired,
    FilingFormerArea,
    FilingNotStarted,
    FilingOtherInsurance,
    FilingPending,
    FilingPlaceMismatch,
    FilingReferralDisease,
    FilingRequired,
)
from services.filing.domain.reasons import EntitlementReason as Why
from services.filing.domain.reasons import Given
from services.filing.domain.samples import without_samples
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import filing_pb2

RULES = make_rules()
EMERGENCIES = [
    {"care_type": CareType.EMERGENCY},
    {"inpatient_type": InpatientType.EMERGENCY},
    {"emergency_referral": EmergencyReferral.EMERGENCY},
    {"emergency_referral": EmergencyReferral.BOTH},
]
SAMPLE = Provenance.ILLUSTRATIVE


def entitled(visit=VISIT, filings=(FILING,), rules=RULES, day=DAY) -> Entitlement:
    outcome = resolve(visit, filings, rules, day)
    assert isinstance(outcome, Entitlement), outcome
    return outcome


def codes(outcome: Entitlement) -> list[Why]:
    return [given.code for given in outcome.reasons]


def test_numbers_of_the_facts_are_those_of_the_contract():
    contracts = {**vars(types_pb2), **vars(filing_pb2)}
    mirrored = {
        name: mine
        for name, mine in {**vars(facts), "EntitlementReason": Why}.items()
        if isinstance(mine, type) and issubclass(mine, IntEnum) and mine is not IntEnum
    }
    assert len(mirrored) > 10
    for name, mine in mirrored.items():
        contract = contracts[name]
        prefix = contract.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
        numbers = {name.removeprefix(prefix): number for name, number in contract.items()}
        assert {one.name: one.value for one in mine}.items() <= numbers.items()
    assert len(Why) == len(filing_pb2.EntitlementReason.items()) - 1


# --- before any filing is looked at


@pytest.mark.parametrize("route", list(Route))
@pytest.mark.parametrize("how", [{"injury": Answer.YES}, {"care_type": CareType.INJURY_INPATIENT}])
def test_third_party_injury_is_refused_on_every_route(route, how):
    """S2-30, S4-12: injury settles only without a third party."""
    visit = replace(VISIT, route=route, third_party=Answer.YES, **how)
    assert resolve(visit, [FILING], RULES, DAY) == ThirdPartyLiable()
    for answer in (Answer.NO, Answer.UNSPECIFIED):
        entitled(replace(visit, third_party=answer))


@pytest.mark.parametrize("route", list(Route))
@pytest.mark.parametrize(
    ("care_type", "own"),
    [
        (CareType.OUTPATIENT, {"contracted_institution": "H1"}),
        (CareType.CHRONIC, {"chosen_institutions": frozenset({"H1"})}),
    ],
)
def test_who_is_bound_to_an_institution(route, care_type, own):
    """S0-8: outpatients go where the insured area's rule says; nobody in an emergency."""
    bound = make_rules(bound_to_institution=table(True, [care_type], Route))
    visit = replace(OUTPATIENT, route=route, care_type=care_type, institution="H2", **own)
    assert resolve(visit, [FILING], bound, DAY) == InstitutionNotChosen(("H1",))
    for other in (
        replace(visit, institution="H1"),
        replace(visit, institution=""),
        replace(visit, contracted_institution="", chosen_institutions=frozenset()),
        replace(visit, emergency_referral=EmergencyReferral.EMERGENCY),
        replace(visit, care_type=CareType.INPATIENT),
    ):
        assert not {Why.NOT_BOUND_OUTPATIENT, Why.NOT_BOUND_CHRONIC} & {
            *codes(entitled(other, rules=bound))
        }
    free = codes(entitled(visit))
    if route is Route.LOCAL:
        assert free == [Why.LOCAL]
    else:
        assert free[-1] is Why[f"NOT_BOUND_{care_type.name}"]


# --- back home


def test_home_is_local_without_a_long_term_filing():
    outcome = entitled(HOME, [FILING, REFERRAL])
    assert (outcome.basis, outcome.benefit_class) == (FilingBasis.LOCAL, BenefitClass.LOCAL)
    assert outcome.filing is None


@pytest.mark.parametrize("kind", LONG_TERM)
def test_long_term_resident_back_home(kind):
    """S0-27, S0-29, S4-13: a long-term filing elsewhere, in force on the first day."""
    filing = replace(FILING, kind=kind, end_date=None)
    outcome = entitled(HOME, [filing])
    assert (outcome.basis, outcome.benefit_class, outcome.filing) == (
        FilingBasis.LOCAL,
        BenefitClass.LONG_TERM_BACK_HOME,
        filing,
    )
    for nothing in (
        replace(filing, start_date=HOME.start + timedelta(days=1)),
        replace(filing, end_date=HOME.start - timedelta(days=1)),
        replace(filing, state=FilingState.PENDING),
        replace(filing, state=FilingState.CANCELLED),
        replace(filing, insured_area="440100"),
        replace(filing, insurance=InsuranceType.RESIDENT),
    ):
        assert codes(entitled(HOME, [nothing])) == [Why.LOCAL]
    moved = replace(HOME, insured_since=filing.filed_on + timedelta(days=1))
    assert codes(entitled(moved, [filing])) == [Why.LOCAL]


@pytest.mark.parametrize(
    ("months", "start", "promised"),
    [
        (None, HOME.start, False),
        (0, date(2020, 1, 1), True),
        (6, date(2026, 5, 11), True),
        (6, date(2026, 5, 10), False),
    ],
)
def test_a_promise_alone_gives_less_at_home_for_the_areas_months(months, start, promised):
    """S0-30, S2-27, S4-14: two-way benefit only after the material is complete."""
    rule = BackHome(months, BenefitClass.OTHER_TEMPORARY)
    rules = make_rules(back_home=table(rule, InsuranceType))
    filing = replace(
        FILING,
        kind=FilingKind.LONG_TERM_RESIDENT,
        start_date=start,
        filed_on=start,
        end_date=None,
        commitment=CommitmentState.PROMISED,
    )
    outcome = entitled(HOME, [filing], rules)
    if promised:
        assert codes(outcome) == [Why.BACK_HOME_PROMISED]
        assert outcome.reasons[0].citation == NOTICE
        assert outcome.benefit_class is BenefitClass.OTHER_TEMPORARY
    else:
        assert codes(outcome) == [Why.BACK_HOME, Why.PROMISE_OPEN]
    complete = replace(filing, commitment=CommitmentState.MATERIAL_COMPLETE)
    assert codes(entitled(HOME, [complete], rules)) == [Why.BACK_HOME]
    both = [filing, replace(complete, filing_id="f2")]
    assert entitled(HOME, both, rules).filing == both[1]


# --- filed


@pytest.mark.parametrize(
    ("filing", "level", "code"),
    [
        *[
            (replace(FILING, kind=kind), BenefitClass.LONG_TERM_AT_PLACE, Why.LONG_TERM_AT_PLACE)
            for kind in LONG_TERM
        ],
        (REFERRAL, BenefitClass.REFERRAL, Why.REFERRAL),
        (
            replace(REFERRAL, referral_institution=NAMED_HOSPITAL),
            BenefitClass.REFERRAL_NAMED,
            Why.REFERRAL_NAMED,
        ),
        (
            replace(FILING, kind=FilingKind.EMERGENCY),
            BenefitClass.EMERGENCY,
            Why.EMERGENCY_FILED,
        ),
        (FILING, BenefitClass.OTHER_TEMPORARY, Why.OTHER_TEMPORARY),
    ],
)
@pytest.mark.parametrize("visit", [VISIT, replace(IN_PROVINCE, care_area="110000")])
def test_the_filing_gives_the_level(visit, filing, level, code):
    """S0-28, S0-33, S0-34, S4-13, S4-16, S4-17, S4-18."""
    outcome = entitled(visit, [filing])
    assert (outcome.basis, outcome.benefit_class) == (FilingBasis.FILED, level)
    assert (outcome.filing, codes(outcome)) == (filing, [code])
    assert not outcome.late_filing


def test_preference_at_one_place():
    """Long-term, referral (named before others), emergency, other temporary; then the surer one:
    complete before promised, timely before late, the newer, and the id last."""
    later = FILING.start_date + timedelta(days=1)
    late = VISIT.start + timedelta(days=1)
    best_first = [
        replace(FILING, filing_id="a", kind=FilingKind.POSTED_WORKER, start_date=date(2020, 1, 1)),
        replace(REFERRAL, filing_id="b", referral_institution=NAMED_HOSPITAL),
        replace(REFERRAL, filing_id="c"),
        replace(FILING, filing_id="d", kind=FilingKind.EMERGENCY),
        replace(FILING, filing_id="h", start_date=later),
        replace(FILING, filing_id="f"),
        replace(FILING, filing_id="g"),
        replace(FILING, filing_id="e", start_date=later, filed_on=late),
        replace(FILING, filing_id="a0", start_date=later, commitment=CommitmentState.PROMISED),
    ]
    while best_first:
        assert entitled(filings=reversed(best_first)).filing == best_first[0]
        best_first.pop(0)


@pytest.mark.parametrize("flags", EMERGENCIES)
@pytest.mark.parametrize("kind", list(FilingKind))
def test_filed_and_emergency_at_the_filed_place(flags, kind):
    """S2-37: a long-term or referral filing wins; other temporary yields."""
    outcome = entitled(replace(VISIT, **flags), [replace(FILING, kind=kind)])
    if kind is FilingKind.OTHER_TEMPORARY:
        assert outcome.basis is FilingBasis.DEEMED_EMERGENCY
        assert codes(outcome) == [Why.EMERGENCY_OVER_TEMPORARY]
        assert outcome.filing is None
    else:
        assert outcome.basis is FilingBasis.FILED


@pytest.mark.parametrize("flags", EMERGENCIES)
def test_emergency_is_deemed_filed(flags):
    """S0-9, S2-36, S4-16: whatever is filed, and whatever the area would grant without."""
    visit = replace(VISIT, **flags)
    elsewhere = replace(FILING, care_place="310000", kind=FilingKind.LONG_TERM_RESIDENT)
    lapsed = replace(FILING, start_date=date(2026, 1, 1), end_date=date(2026, 7, 1))
    generous = make_rules(exemption=exempt(places=frozenset({"110000"})))
    for rules in (RULES, generous):
        for filings in ([], [elsewhere], [lapsed]):
            outcome = entitled(visit, filings, rules)
            assert outcome.basis is FilingBasis.DEEMED_EMERGENCY
            assert outcome.benefit_class is BenefitClass.EMERGENCY
            assert codes(outcome) == [Why.DEEMED_EMERGENCY]


def test_long_term_resident_referred_elsewhere_gets_the_level_of_that_filing():
    """S0-31, S4-15: filings of different kinds and places stand side by side."""
    resident = replace(FILING, kind=FilingKind.LONG_TERM_RESIDENT, care_place="310000")
    referred = entitled(filings=[resident, REFERRAL])
    assert referred.benefit_class is BenefitClass.REFERRAL
    assert codes(referred) == [Why.REFERRAL, Why.LONG_TERM_REFERRED]
    assert referred.reasons[1].place == "310000"
    gone = replace(resident, end_date=date(2026, 11, 9))
    assert codes(entitled(filings=[gone, REFERRAL])) == [Why.REFERRAL]
    assert codes(entitled(filings=[resident, FILING])) == [Why.OTHER_TEMPORARY]


def test_coverage_is_judged_on_the_first_day():
    """S0-14, S0-15, S4-24, 规程 第十二、十六条: the rest of the stay does not matter."""
    first = VISIT.start
    last = replace(FILING, end_date=first)
    assert codes(entitled(filings=[last])) == [Why.OTHER_TEMPORARY, Why.ADMITTED_WITHIN_VALIDITY]
    until_discharge = replace(FILING, end_date=VISIT.end)
    assert codes(entitled(filings=[until_discharge])) == [Why.OTHER_TEMPORARY]
    late = replace(FILING, start_date=first, filed_on=VISIT.end)
    outcome = entitled(filings=[late])
    assert outcome.late_filing
    assert outcome.reasons[1] == Given(Why.LATE_FILING, day=VISIT.end)
    assert not entitled(filings=[replace(late, filed_on=first)]).late_filing
    yesterday = DAY - timedelta(days=1)
    assert resolve(VISIT, [late], RULES, yesterday) == FilingRequired()
    after = replace(late, start_date=first + timedelta(days=1))
    assert resolve(VISIT, [after], RULES, DAY) == FilingNotStarted(after.start_date)


def test_a_filing_ended_since_keeps_the_stay_that_began_under_it():
    ended = replace(
        FILING, state=FilingState.ENDED, end_date=date(2026, 11, 15), changed_on=date(2026, 11, 15)
    )
    outcome = entitled(filings=[ended])
    assert codes(outcome) == [Why.OTHER_TEMPORARY, Why.FILING_ENDED_SINCE]
    assert codes(entitled(filings=[replace(ended, end_date=VISIT.end)])) == [Why.OTHER_TEMPORARY]
    before = replace(ended, end_date=date(2026, 11, 9))
    assert resolve(VISIT, [before], RULES, DAY) == FilingCancelled(date(2026, 11, 9))


@pytest.mark.parametrize(
    ("care_area", "care_site", "filed", "code"),
    [
        ("110000", "110000", "110000", None),
        ("469001", "460000", "460000", Why.FILED_TO_PROVINCE),
        ("660100", "660000", "660000", Why.FILED_TO_PROVINCE),
        ("370800", "370000", "370800", None),
        ("370199", "370000", "370100", Why.LINKED_PLACE),
        ("370100", "370000", "370199", Why.LINKED_PLACE),
    ],
)
def test_a_filing_names_a_place(care_area, care_site, filed, code):
    """S0-6, S0-7, S1-17, S1-18, S2-40, 医保发〔2024〕21号 一（一）: never an institution."""
    pair = {"370100": frozenset({"370199"}), "370199": frozenset({"370100"})}
    rules = make_rules(linked_places={(): stated(pair)})
    visit = replace(VISIT, care_area=care_area, care_site=care_site)
    outcome = entitled(visit, [replace(FILING, care_place=filed)], rules)
    assert codes(outcome) == [Why.OTHER_TEMPORARY, *([code] if code else [])]


@pytest.mark.parametrize(
    ("filed", "visit", "covered"),
    [
        ("", {"diagnosis_codes": ("S72.000",)}, True),
        ("C34.900", {}, True),
        ("C34.900", {"diagnosis_codes": ("J18.900", "C34.101")}, True),
        ("C34.900", {"diagnosis_codes": ("C50.900",)}, False),
        ("M00500", {"disease_code": "M00503"}, True),
        ("M07800", {"disease_code": "M07804"}, True),
        ("M00500", {"disease_code": "M00200"}, False),
        ("M00500", {"diagnosis_codes": ("C34.900",)}, True),
        ("M03.900", {"disease_code": "M03900"}, True),
        ("M03.900", {"disease_code": "M03900", "diagnosis_codes": ("I10.x00",)}, False),
    ],
)
def test_a_referral_is_for_its_disease(filed, visit, covered):
    """S0-23, S4-23: the class of a 病种, the category of a diagnosis; each within its own table."""
    referral = replace(REFERRAL, disease_code=filed)
    outcome = resolve(replace(VISIT, **visit), [referral], RULES, DAY)
    if covered:
        assert isinstance(outcome, Entitlement)
    else:
        assert outcome == FilingReferralDisease(filed)


# --- without a filing


@pytest.mark.parametrize(
    ("rule", "visit", "code"),
    [
        ({"routes": frozenset({Route.IN_PROVINCE})}, IN_PROVINCE, Why.EXEMPT_IN_PROVINCE),
        ({"routes": frozenset(AWAY)}, VISIT, Why.EXEMPT_PAIR),
        ({"places": frozenset({"110000", "120000"})}, VISIT, Why.EXEMPT_PAIR),
        ({"places": frozenset({"440000"})}, IN_PROVINCE, Why.EXEMPT_PAIR),
    ],
)
@pytest.mark.parametrize("level", [BenefitClass.OTHER_TEMPORARY, BenefitClass.LOCAL])
def test_places_that_need_no_filing(rule, visit, code, level):
    """S2-9: in-province; pairs of areas such as 京津冀. The area's rule is cited and gives the
    level; a filing is preferred; without samples a sample exempts nobody."""
    rules = make_rules(exemption=exempt(level=level, **rule))
    outcome = entitled(visit, [], rules)
    assert (outcome.basis, outcome.benefit_class) == (FilingBasis.EXEMPT, level)
    assert outcome.reasons == (Given(code, NOTICE, visit.care_area),)
    filed = replace(FILING, care_place=visit.care_area)
    assert entitled(visit, [filed], rules).basis is FilingBasis.FILED
    assert without_samples(rules).exemption == rules.exemption
    sample = make_rules(exemption=exempt(level=level, provenance=SAMPLE, **rule))
    assert entitled(visit, [], sample).basis is FilingBasis.EXEMPT
    assert resolve(visit, [], without_samples(sample), DAY) == FilingRequired()


def test_account_only_where_the_area_allows_it():
    """S1-20."""
    rules = table(True, [InsuranceType.EMPLOYEE], CareType)
    rules |= table(False, [InsuranceType.RESIDENT], CareType)
    allowed = make_rules(account_without_filing=rules)
    visit = replace(OUTPATIENT, use_account=True)
    outcome = entitled(visit, [], allowed)
    assert (outcome.basis, codes(outcome)) == (FilingBasis.ACCOUNT_ONLY, [Why.ACCOUNT_ONLY])
    assert outcome.reasons[0].citation == NOTICE
    for refused in (
        replace(visit, use_account=False),
        replace(visit, insurance=InsuranceType.RESIDENT),
    ):
        assert resolve(refused, [], allowed, DAY) == FilingRequired()
    sample = make_rules(
        account_without_filing=table(True, InsuranceType, CareType, provenance=SAMPLE)
    )
    assert resolve(visit, [], without_samples(sample), DAY) == FilingRequired()


def test_unfiled_level_where_the_area_pays_it():
    """规程 第十四条: what is not filed follows the insured area's rules."""
    dimensions = (AWAY, InsuranceType, CareType)
    rules = make_rules(unfiled_class=table(BenefitClass.OTHER_TEMPORARY, *dimensions))
    lapsed = replace(FILING, end_date=date(2026, 11, 9))
    outcome = entitled(VISIT, [lapsed], rules)
    assert (outcome.basis, codes(outcome)) == (FilingBasis.NONE, [Why.UNFILED_LEVEL])
    assert outcome.filing is None
    account = replace(rules, account_without_filing=table(True, InsuranceType, CareType))
    assert entitled(VISIT, [], account).basis is FilingBasis.NONE
    assert entitled(replace(VISIT, use_account=True), [], account).basis is FilingBasis.ACCOUNT_ONLY
    sample = make_rules(
        unfiled_class=table(BenefitClass.OTHER_TEMPORARY, *dimensions, provenance=SAMPLE)
    )
    assert resolve(VISIT, [], without_samples(sample), DAY) == FilingRequired()


def test_without_samples_names_and_links_nothing_either():
    pair = {"120000": frozenset({"110000"})}
    named = Referrals({NAMED_HOSPITAL: "某医院"}, True)
    rules = make_rules(
        linked_places={(): stated(pair, SAMPLE)}, referrals=table(named, AWAY, provenance=SAMPLE)
    )
    linked = replace(FILING, care_place="120000")
    referral = replace(REFERRAL, referral_institution=NAMED_HOSPITAL)
    assert codes(entitled(VISIT, [linked], rules))[1] is Why.LINKED_PLACE
    assert codes(entitled(VISIT, [referral], rules)) == [Why.REFERRAL_NAMED]
    sober = without_samples(rules)
    assert resolve(VISIT, [linked], sober, DAY) == FilingPlaceMismatch(("120000",))
    assert entitled(VISIT, [referral], sober).benefit_class is BenefitClass.REFERRAL
    assert sober.referrals[Route.IN_PROVINCE,].value.others_accepted


# --- near misses

EARLIER = date(2026, 11, 9)
MISSES = [
    (replace(FILING, start_date=date(2026, 11, 11)), FilingNotStarted(date(2026, 11, 11))),
    (
        replace(FILING, state=FilingState.PENDING, due_date=date(2026, 11, 24)),
        FilingPending(date(2026, 11, 24)),
    ),
    (replace(FILING, end_date=EARLIER), FilingExpired(EARLIER)),
    (
        replace(FILING, state=FilingState.CANCELLED, changed_on=date(2026, 11, 8)),
        FilingCancelled(date(2026, 11, 8)),
    ),
    (replace(FILING, insured_area="440100"), FilingFormerArea(date(2026, 10, 1))),
    (
        replace(FILING, insurance=InsuranceType.RESIDENT),
        FilingOtherInsurance(InsuranceType.RESIDENT),
    ),
    (replace(REFERRAL, disease_code="C34.900"), FilingReferralDisease("C34.900")),
    (replace(FILING, care_place="310000"), FilingPlaceMismatch(("310000",))),
]
MISSED_VISIT = replace(VISIT, insured_since=date(2026, 10, 1), diagnosis_codes=("I10.x00",))


@pytest.mark.parametrize("nearest", range(len(MISSES)))
def test_the_most_helpful_near_miss_is_told(nearest):
    """The order is that of `Lack`; what lacks two things is not near."""
    filings = [replace(filing, filing_id=f"f{number}") for number, (filing, _) in enumerate(MISSES)]
    assert resolve(MISSED_VISIT, filings[nearest:], RULES, DAY) == MISSES[nearest][1]
    assert resolve(MISSED_VISIT, reversed(filings[nearest:]), RULES, DAY) == MISSES[nearest][1]
    twice = replace(filings[nearest], start_date=date(2026, 11, 11), care_place="120000")
    assert resolve(MISSED_VISIT, [twice], RULES, DAY) == FilingRequired()


def test_among_like_misses_the_latest_is_told():
    expired = [replace(FILING, end_date=EARLIER - timedelta(days=days)) for days in (30, 0, 9)]
    assert resolve(VISIT, expired, RULES, DAY) == FilingExpired(EARLIER)
    places = [replace(FILING, care_place=place) for place in ("310000", "120000", "310000")]
    assert resolve(VISIT, places, RULES, DAY) == FilingPlaceMismatch(("120000", "310000"))
    pending = replace(FILING, state=FilingState.PENDING)
    assert resolve(VISIT, [pending], RULES, DAY) == FilingPending(None)
    due = [replace(pending, due_date=date(2026, 11, day)) for day in (25, 24, 26)]
    assert resolve(VISIT, [pending, *due], RULES, DAY) == FilingPending(date(2026, 11, 24))


def test_what_was_refused_or_is_not_filed_yet_says_nothing():
    refused = replace(FILING, state=FilingState.REFUSED, changed_on=date(2026, 11, 2))
    tomorrow = replace(FILING, filed_on=DAY + timedelta(days=1))
    assert resolve(VISIT, [refused, tomorrow], RULES, DAY) == FilingRequired()


# --- what holds for every visit

DATES = st.dates(date(2026, 1, 1), date(2027, 3, 31))
ONE_FILING = st.builds(
    lambda number, length, start, named, changes: replace(
        FILING,
        filing_id=f"f{number:02}",
        start_date=start,
        end_date=None if length is None else start + timedelta(days=length),
        referral_institution=NAMED_HOSPITAL if named else "",
        **changes,
    ),
    st.integers(0, 99),
    st.none() | st.integers(0, 400),
    DATES,
    st.booleans(),
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(FilingKind),
            "care_place": st.sampled_from(["110000", "110000", "310000", "440100"]),
            "state": st.sampled_from([FilingState.ACCEPTED, *FilingState]),
            "insured_area": st.sampled_from([AREA, AREA, "440100"]),
            "insurance": st.sampled_from([InsuranceType.EMPLOYEE, *InsuranceType]),
            "commitment": st.sampled_from(CommitmentState),
            "disease_code": st.sampled_from(["", "C34.900", "I10.x00"]),
            "filed_on": DATES,
            "changed_on": st.none() | DATES,
            "due_date": st.none() | DATES,
        }
    ),
)
FILINGS = st.lists(ONE_FILING, max_size=6, unique_by=lambda filing: filing.filing_id)
VISITS = st.builds(
    lambda where, start, length, flags, since, diagnoses: replace(
        where,
        start=start,
        end=start + timedelta(days=length),
        insured_since=since,
        diagnosis_codes=diagnoses,
        **flags,
    ),
    st.sampled_from([VISIT, HOME, IN_PROVINCE]),
    DATES,
    st.integers(0, 90),
    st.sampled_from([{}, {}, *EMERGENCIES]),
    st.none() | DATES,
    st.sampled_from([(), ("C34.900",), ("I10.x00", "J18.900")]),
)
AREAS_RULES = st.sampled_from(
    [
        RULES,
        make_rules(exemption=exempt(routes=frozenset({Route.IN_PROVINCE}))),
        make_rules(
            unfiled_class=table(BenefitClass.OTHER_TEMPORARY, AWAY, InsuranceType, CareType)
        ),
        make_rules(
            back_home=table(BackHome(6, BenefitClass.OTHER_TEMPORARY), InsuranceType),
            linked_places={(): stated({"310000": frozenset({"110000"})})},
        ),
    ]
)


@given(VISITS, FILINGS, AREAS_RULES, DATES, st.randoms())
def test_the_order_of_filings_never_matters(visit, filings, rules, day, random):
    before = deepcopy(filings)
    outcome = resolve(visit, filings, rules, day)
    assert filings == before
    random.shuffle(filings)
    assert resolve(visit, filings, rules, day) == outcome


@given(VISITS, FILINGS, AREAS_RULES, DATES)
def test_what_entitles_is_a_filing_that_covers_or_none(visit, filings, rules, day):
    outcome = resolve(visit, filings, rules, day)
    covering = [
        one
        for one in filings
        if one.counts
        and one.start_date <= visit.start
        and (one.end_date is None or visit.start <= one.end_date)
        and one.filed_on <= day
        and (visit.insured_since is None or visit.insured_since <= one.filed_on)
        and (one.insured_area, one.insurance) == (AREA, InsuranceType.EMPLOYEE)
    ]
    if visit.route is Route.LOCAL:
        assert outcome.basis is FilingBasis.LOCAL
        assert (outcome.filing is None) == (not any(one.kind.long_term for one in covering))
        return
    here = [one for one in covering if not lacking(one, visit, rules)]
    if isinstance(outcome, Entitlement):
        assert outcome.filing is None or outcome.filing in here
        assert (outcome.basis is FilingBasis.FILED) == (outcome.filing is not None)
        if any(one.kind.long_term for one in here):
            assert outcome.benefit_class is BenefitClass.LONG_TERM_AT_PLACE
    else:
        assert not here
        assert not visit.emergency
    if isinstance(outcome, Entitlement) and outcome.filing is not None:
        assert outcome.late_filing == (outcome.filing.filed_on > visit.start)


@given(VISITS, FILINGS, ONE_FILING, AREAS_RULES, DATES)
def test_one_more_filing(visit, filings, more, rules, day):
    """One that covers nothing changes at most the near miss; no filing takes coverage away."""
    before = resolve(visit, filings, rules, day)
    after = resolve(visit, [*filings, replace(more, filing_id="new")], rules, day)
    if isinstance(before, Entitlement):
        assert isinstance(after, Entitlement)
        unseen = more.filed_on > day or more.state is FilingState.REFUSED
        if unseen or (lacking(more, visit, rules) and not more.kind.long_term):
            assert after == before
    elif lacking(more, visit, rules):
        assert not isinstance(after, Entitlement)


@given(VISITS, FILINGS, AREAS_RULES, DATES)
def test_every_outcome_has_its_sentence(visit, filings, rules, day):
    """Each sentence is filled to the last placeholder and rests on a clause."""
    outcome = resolve(visit, filings, rules, day)
    if isinstance(outcome, Entitlement):
        answer = wording.entitlement(outcome, {"110000": "北京市"})
        assert [one.code for one in answer.reasons] == codes(outcome)
        assert answer.reason == "；".join(one.text for one in answer.reasons)
        assert all(one.text and one.clause and "{" not in one.text for one in answer.reasons)
    else:
        refusal = wording.refusal(outcome, visit, {"110000": "北京市"})
        assert refusal.decided
        assert "{" not in refusal.message
        assert "None" not in refusal.message
