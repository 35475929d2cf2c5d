"""The table of situations: who is entitled where, on what basis, and what is said if not."""

from __future__ import annotations

import pytest
from filing_situations import Situation, load_situations

from infra.runtime.errors import Refusal
from services.filing import wording
from services.filing.domain.entitlement import Entitlement, resolve
from services.filing.domain.facts import BenefitClass, FilingBasis, FilingKind
from services.filing.domain.reasons import EntitlementReason
from services.filing.domain.samples import without_samples
from services.filing.written_rules import load_area_rules

AREAS = load_area_rules()
NAMES = {area: rules.name for area, rules in AREAS.items()} | {
    "120000": "天津市",
    "130100": "石家庄市",
    "310000": "上海市",
    "330100": "杭州市",
    "330200": "宁波市",
    "460000": "海南省",
    "500000": "重庆市",
}
SITUATIONS = load_situations()
REFUSALS = {
    "THIRD_PARTY_LIABLE",
    "INSTITUTION_NOT_CHOSEN",
    "FILING_REQUIRED",
    "FILING_EXPIRED",
    "FILING_PLACE_MISMATCH",
    "FILING_NOT_STARTED",
    "FILING_PENDING",
    "FILING_CANCELLED",
    "FILING_FORMER_AREA",
    "FILING_OTHER_INSURANCE",
    "FILING_REFERRAL_DISEASE",
}


def decide(situation: Situation) -> Entitlement | Refusal:
    rules = situation.but.rules(AREAS[situation.area])
    if not situation.samples:
        rules = without_samples(rules)
    visit = situation.visit
    outcome = resolve(visit, situation.made, rules, situation.day or visit.end)
    if isinstance(outcome, Entitlement):
        return outcome
    return wording.refusal(outcome, visit, NAMES)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_situation(situation):
    outcome, expected = decide(situation), situation.expect
    if isinstance(outcome, Refusal):
        assert outcome.name == expected.refused
        assert expected.details.items() <= outcome.details.items()
        assert expected.says in outcome.message
        return
    assert not expected.refused
    assert (outcome.basis, outcome.benefit_class) == (expected.basis, expected.level)
    assert tuple(given.code for given in outcome.reasons) == expected.reasons
    used = None if expected.filing is None else situation.made[expected.filing - 1]
    assert outcome.filing == used
    answer = wording.entitlement(outcome, NAMES)
    assert expected.says in f"{answer.reason} {answer.clause}"
    assert all(reason.clause for reason in answer.reasons)


def test_the_table_is_whole():
    """At least 150 situations, each with its source; everything that can be answered occurs."""
    names = [situation.name for situation in SITUATIONS]
    assert len(names) >= 150
    assert len(set(names)) == len(names)
    assert all(situation.source for situation in SITUATIONS)
    expected = [situation.expect for situation in SITUATIONS]
    assert {one.refused for one in expected} - {""} == REFUSALS
    assert {reason for one in expected for reason in one.reasons} == set(EntitlementReason)
    assert {one.basis for one in expected} - {None} == set(FilingBasis)
    assert {one.level for one in expected} - {None} == set(BenefitClass)
    assert {filing.kind for one in SITUATIONS for filing in one.filings} == set(FilingKind)
    assert {situation.area for situation in SITUATIONS} == set(AREAS)
