"""The computation: identities, caps, chaining, refusals, explanation."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_samples import OWN, a_case, document

from infra.runtime.money import percent, yuan
from services.policy.domain.book import Book, Publication
from services.policy.domain.case import Benefit, Case, Counters, NotFound, NotOfficial, NotStated
from services.policy.domain.chain import compute_unit
from services.policy.domain.compute import compute
from services.policy.domain.document import Provenance, Unit
from services.policy.domain.names import (
    BENEFIT_CLASSES,
    CARE_TYPES,
    PERSONS_OF_INSURANCE,
    ROUTES,
)

FEN = st.integers(0, 10**8)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Any, Case, dict[str, Counters], int]:
    """A case that one of our documents states, with anything used before."""
    key = draw(st.sampled_from(sorted(OWN)))
    case = a_case(
        route=draw(st.sampled_from(sorted(ROUTES))),
        benefit_class=draw(st.sampled_from(sorted(BENEFIT_CLASSES))),
        basis=draw(st.sampled_from(["filed", "local", "account_only"])),
        care_type=draw(st.sampled_from(sorted(CARE_TYPES))),
        person_class=draw(st.sampled_from(PERSONS_OF_INSURANCE[key[1]])),
        age=draw(st.integers(0, 100)),
        deductible_level=draw(st.sampled_from(["one", "two", "three"])),
        settlement_level=draw(st.sampled_from(["one", "two", "three"])),
        use_account=draw(st.booleans()),
        full_self_pay_fen=draw(FEN),
        over_limit_fen=draw(FEN),
        first_self_pay_fen=draw(FEN),
        in_scope_fen=draw(FEN),
    )
    counters = {
        period: Counters(draw(st.integers(0, 5)), draw(FEN), draw(FEN), draw(FEN))
        for period in ("2026", "2026-outpatient", "2026-chronic")
    }
    return OWN[key], case, counters, draw(FEN)


def try_compute(situation: tuple[Any, Case, dict[str, Counters], int]) -> Benefit | None:
    try:
        return compute(*situation)
    except NotStated:
        return None


@given(situations())
def test_parts_sum_to_the_whole(situation: tuple[Any, Case, dict[str, Counters], int]) -> None:
    """S0-40: every part is there, none is negative, both identities of the contract hold."""
    benefit = try_compute(situation)
    if benefit is None:
        return
    _, case, _, balance = situation
    parts = (
        benefit.remote_first_pay_fen,
        benefit.deductible_fen,
        benefit.fund_total_fen,
        benefit.ratio_self_pay_fen,
        benefit.over_cap_fen,
    )
    assert min(*parts, benefit.account_fen, benefit.cash_fen) >= 0
    assert sum(parts) == case.in_scope_fen
    assert benefit.fund_total_fen + benefit.account_fen + benefit.cash_fen == case.total_fen
    assert benefit.account_fen <= (balance if case.use_account else 0)


@given(situations(), st.integers(1, 10_000))
def test_a_higher_fee_never_lowers_the_patients_side(
    situation: tuple[Any, Case, dict[str, Counters], int], more: int
) -> None:
    policy, case, counters, balance = situation
    fees = [case.in_scope_fen, case.in_scope_fen + 1, case.in_scope_fen + 1 + more]
    results = [
        try_compute((policy, a_case(**{**fields(case), "in_scope_fen": fee}), counters, balance))
        for fee in fees
    ]
    for fee, (low, high) in zip(fees, pairwise(results), strict=False):
        if low is None or high is None:
            assert low is high, fee
            continue
        assert high.account_fen + high.cash_fen >= low.account_fen + low.cash_fen
        assert high.fund_total_fen >= low.fund_total_fen


@given(st.integers(0, 300), st.integers(1, 10_000), st.integers(0, 10_000))
def test_at_the_cap_one_fen_more_moves_one_fen(cap: int, ratio: int, above: int) -> None:
    """Around the cap, where the pooled fund hands over to the fund above it."""
    founded = {"source": "example", "clause": "一"}
    layer = {"ratios": [{"basis_points": above, **founded}]}
    policy = document(segments=[[None, ratio]], cap=cap, above_period_cap=layer)
    paid = [
        compute(policy, a_case(in_scope_fen=fee), {}, 0).fund_total_fen for fee in range(0, 1_500)
    ]
    assert all(after - before in (0, 1) for before, after in pairwise(paid))


@given(situations())
def test_caps_hold(situation: tuple[Any, Case, dict[str, Counters], int]) -> None:
    """S2-29: local and remote cost share the yearly caps; above them nothing more is paid."""
    benefit = try_compute(situation)
    if benefit is None:
        return
    policy, case, counters, _ = situation
    plan = policy.plans[case.care_type]
    used = counters["2026"]
    if plan.in_period_cap:
        room = policy.period_caps[case.person_class].amount - used.pooled_used_fen
        assert benefit.pooled_fen <= max(room, 0)
    if plan.caps:
        own = counters[f"2026-{plan.counter}"].pooled_used_fen
        assert benefit.pooled_fen <= max(plan.caps[case.person_class].amount - own, 0)
    layer = policy.above_period_cap
    if layer is not None and layer.cap is not None and not plan.caps:
        room = layer.cap.amount - used.large_amount_used_fen
        assert benefit.large_amount_fen <= max(room, 0)


@given(situations())
def test_deltas_are_what_was_paid(situation: tuple[Any, Case, dict[str, Counters], int]) -> None:
    """Undo negates deltas, so each fen paid stands in exactly the counters it was held against."""
    benefit = try_compute(situation)
    if benefit is None:
        return
    policy, case, _, _ = situation
    plan = policy.plans[case.care_type]
    if plan.no_funds is not None or case.basis == "account_only":
        assert benefit.deltas == {}
        return
    own = benefit.deltas.get(f"2026-{plan.counter}" if plan.counter else "2026", Counters())
    assert own.deductible_paid_fen == benefit.deductible_fen
    assert own.pooled_used_fen == benefit.pooled_fen
    assert sum(delta.large_amount_used_fen for delta in benefit.deltas.values()) == (
        benefit.large_amount_fen
    )
    if plan.in_period_cap:
        assert benefit.deltas.get("2026", Counters()).pooled_used_fen == benefit.pooled_fen


@given(situations())
def test_every_step_is_explained(situation: tuple[Any, Case, dict[str, Counters], int]) -> None:
    benefit = try_compute(situation)
    if benefit is None:
        return
    assert benefit.steps
    for step in benefit.steps:
        assert step.row
        assert step.clause
        assert step.text.endswith("。")
        assert "_" not in step.text
    assert benefit.provenance == max(step.provenance for step in benefit.steps)
    if benefit.account_fen:
        assert yuan(benefit.account_fen) in benefit.steps[-1].text


def test_first_pay_position_is_stated() -> None:
    """S2-20: 10 % before the deductible pays 35,520.00, after it 35,568.00."""
    founded = {"source": "example", "clause": "一"}
    paid = {}
    for position in ("first_pay_before_deductible", "first_pay_after_deductible"):
        remote = [
            {
                "care": ["inpatient"],
                "classes": ["other_temporary"],
                "lower": position,
                "basis_points": 1000,
                **founded,
            }
        ]
        benefit = compute(
            document(deductible=[60_000], remote=remote),
            a_case(in_scope_fen=5_000_000, route="cross_province", benefit_class="other_temporary"),
            {},
            0,
        )
        paid[position] = benefit.pooled_fen
        assert benefit.deductible_fen == 60_000
    assert paid == {
        "first_pay_before_deductible": 3_552_000,
        "first_pay_after_deductible": 3_556_800,
    }


def test_cap_then_large_amount_then_over_cap() -> None:
    """济宁: pooled fund to 100,000, then 90 % from the large-amount fund to its cap, then none."""
    case = a_case(in_scope_fen=50_000_000)
    benefit = compute(OWN["370800", "310"], case, {}, 0)
    assert (benefit.pooled_fen, benefit.large_amount_fen) == (10_000_000, 25_000_000)
    assert benefit.over_cap_fen == 50_000_000 - 60_000 - 12_500_000 - 27_777_778
    stages = [step.stage for step in benefit.steps]
    assert stages == ["deductible", "pooled_fund", "pooled_cap", "large_amount", "large_amount_cap"]
    assert benefit.provenance is Provenance.SECONDARY


def test_outpatient_has_counters_of_its_own() -> None:
    """A stay's deductible is not an outpatient one; the yearly cap counts both."""
    policy = OWN["370800", "310"]
    opening = {"2026": Counters(1, 60_000, 9_990_000, 0)}
    visit = a_case(care_type="outpatient", in_scope_fen=100_000)
    benefit = compute(policy, visit, opening, 0)
    assert benefit.deductible_fen == 60_000
    assert benefit.pooled_fen == 10_000  # 400 yuan at 50 % is 200, but the year has 100 left
    assert benefit.deltas == {
        "2026-outpatient": Counters(0, 60_000, 10_000, 0),
        "2026": Counters(0, 0, 10_000, benefit.large_amount_fen),
    }


def test_outpatient_deductible_is_topped_up_across_levels() -> None:
    """济宁 累计补差: 200 paid at level one leaves 400 of level three's 600."""
    visits = [
        a_case(care_type="outpatient", in_scope_fen=50_000, deductible_level=level)
        for level in ("one", "three", "one")
    ]
    results = compute_unit(visits, {}, 0, lambda _: OWN["370800", "310"], allow_illustrative=True)
    assert [each.deductible_fen for each in results if isinstance(each, Benefit)] == [
        20_000,
        40_000,
        0,
    ]


def test_beijing_outpatient_by_age_and_above_its_limit() -> None:
    """北京: 85 % below 70, 90 % from 70; above 20,000 paid, 80 % without a limit."""
    policy = OWN["110000", "310"]
    opening = {"2026-outpatient": Counters(0, 130_000, 1_990_000, 0)}
    for age, covered in ((69, 11_764), (70, 11_111)):
        visit = a_case(
            care_type="outpatient", person_class="retired", age=age, in_scope_fen=100_000
        )
        benefit = compute(policy, visit, opening, 0)
        assert benefit.pooled_fen == 10_000
        assert abs(benefit.large_amount_fen - (100_000 - covered) * 8 // 10) <= 1
        assert benefit.over_cap_fen == 0
        assert set(benefit.deltas) == {"2026-outpatient"}


def test_account_pays_last_and_only_when_asked() -> None:
    visit = {"full_self_pay_fen": 30_000, "in_scope_fen": 1_000_000}
    policy = OWN["370800", "310"]
    assert compute(policy, a_case(**visit), {}, 500_000).account_fen == 0
    asked = a_case(**visit, use_account=True)
    personal = asked.total_fen - compute(policy, asked, {}, 0).fund_total_fen
    assert compute(policy, asked, {}, 10_000).account_fen == 10_000
    assert compute(policy, asked, {}, 10**9).account_fen == personal
    resident = a_case(**visit, use_account=True, person_class="adult_resident")
    assert compute(OWN["370800", "390"], resident, {}, 10**9).account_fen == 0


def test_account_only_pays_no_fund() -> None:
    """S1-20: without a filing the personal account may pay, the funds do not."""
    visit = a_case(basis="account_only", care_type="outpatient", use_account=True)
    benefit = compute(OWN["440800", "310"], visit, {}, 400_000)
    assert (benefit.fund_total_fen, benefit.account_fen, benefit.cash_fen) == (0, 400_000, 600_000)
    assert benefit.ratio_self_pay_fen == 1_000_000
    assert benefit.deltas == {}
    assert benefit.provenance is Provenance.SECONDARY
    resident = a_case(basis="account_only", care_type="outpatient", person_class="adult_resident")
    with pytest.raises(NotStated, match="account"):
        compute(OWN["440800", "390"], resident, {}, 0)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"care_type": ""}, "care_type/"),
        ({"basis": "none"}, "basis/none"),
        ({"deductible_level": "unrated"}, "inpatient/deductible/unrated/employed"),
        ({"settlement_level": "other"}, "inpatient/ratio/other/employed"),
        ({"person_class": "adult_resident"}, "inpatient/deductible/three/adult_resident"),
        (
            {"route": "cross_province", "benefit_class": ""},
            "inpatient/remote/cross_province/",
        ),
    ],
)
def test_not_stated_names_what_is_missing(changes: dict[str, str], missing: str) -> None:
    with pytest.raises(NotStated) as refusal:
        compute(OWN["370800", "310"], a_case(**changes), {}, 0)
    assert refusal.value.missing == missing


def test_unit_chains_cases_and_a_refused_one_changes_nothing() -> None:
    """The nth stay: 600, then (after a refused case) 450; the account is spent in order."""
    cases = [
        a_case(use_account=True),
        a_case(settlement_level="other", use_account=True),
        a_case(use_account=True),
    ]
    first, refused, second = compute_unit(
        cases, {}, 300_000, lambda _: OWN["370800", "310"], allow_illustrative=False
    )
    assert isinstance(first, Benefit)
    assert isinstance(refused, NotStated)
    assert isinstance(second, Benefit)
    assert (first.deductible_fen, second.deductible_fen) == (60_000, 45_000)
    assert first.account_fen == 248_000
    assert second.account_fen == 300_000 - 248_000


def test_illustrative_values_may_not_pay_unless_allowed() -> None:
    def run(allowed: bool) -> object:
        policy = OWN["440800", "310"]
        return compute_unit([a_case()], {}, 0, lambda _: policy, allow_illustrative=allowed)[0]

    assert isinstance(run(False), NotOfficial)
    assert isinstance(run(True), Benefit)


def test_book_picks_by_day_activation_and_number() -> None:
    """S0-26: the version that applies is chosen by the visit's last day."""
    old = document(version="1", effective_from="2020-01-01")
    new = document(version="2", effective_from="2026-01-01")
    fixed = document(version="3", effective_from="2026-01-01", effective_to="2026-06-30")
    book = Book([Publication(1, 0, old), Publication(2, 0, new), Publication(3, 1_000, fixed)])

    def version(day: str, now_ms: int) -> str:
        return book.find("999900", "310", day, now_ms).version

    assert version("2025-12-31", 0) == "1"
    assert version("2026-01-01", 999) == "2"
    assert version("2026-01-01", 1_000) == "3"
    assert version("2026-07-01", 1_000) == "2"
    assert book.last_number == 3
    for area, insurance, day in (
        ("999900", "310", "2019-12-31"),
        ("999900", "390", "2026-01-01"),
        ("999901", "310", "2026-01-01"),
    ):
        with pytest.raises(NotFound):
            book.find(area, insurance, day, 1_000)


def test_texts_and_units() -> None:
    assert [yuan(fen) for fen in (0, 5, 130_000, -7)] == ["0.00", "0.05", "1300.00", "-0.07"]
    assert [percent(ratio) for ratio in (0, 9220, 8000, 8005)] == ["0%", "92.2%", "80%", "80.05%"]
    benefit = compute(
        OWN["440800", "310"],
        a_case(route="cross_province", benefit_class="referral"),
        {},
        0,
    )
    reduction, deductible, pooled, _ = benefit.steps
    assert (reduction.value, reduction.unit) == (1000, Unit.BASIS_POINTS)
    assert reduction.provenance is Provenance.OFFICIAL
    assert reduction.clause.startswith("湛医保〔2023〕11号 二(五)")
    assert (deductible.value, deductible.unit) == (80_000, Unit.FEN)
    assert re.fullmatch(r".*（80%－10个百分点）70%，计6440\.00元。", pooled.text)
    assert benefit.provenance is Provenance.ILLUSTRATIVE


def fields(case: Case) -> dict[str, Any]:
    return {name: getattr(case, name) for name in Case.__dataclass_fields__ if name != "total_fen"}
