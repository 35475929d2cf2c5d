"""The computation: identities, caps, annual sums, chaining, refusals, explanation."""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policy_random import Drawing
from policy_samples import (
    a_case,
    cap,
    deductible,
    document,
    first_pay,
    fund,
    only,
    row,
    with_in_scope,
)

from infra.runtime.money import percent, yuan
from services.policy.domain import explain
from services.policy.domain.book import Book, Publication
from services.policy.domain.case import (
    Ambiguous,
    Benefit,
    CannotCompute,
    Case,
    Counters,
    DiseaseRefused,
    NotFound,
    NotOfficial,
    NotStated,
)
from services.policy.domain.chain import compute_unit
from services.policy.domain.compiling import compile_document
from services.policy.domain.compute import compute
from services.policy.domain.document import Document, Fund, Provenance

Situation = tuple[Document, Case, dict[str, Counters], int]
RANDOMS = st.randoms(use_true_random=True)


def situation(random: Random, *, tame: bool = False) -> Situation:
    """A random document over the whole model, a case, and what was used before."""
    drawing = Drawing(random, tame=tame)
    made = compile_document(drawing.document())
    return made, drawing.case(), drawing.counters(), drawing.fen()


def try_compute(found: Situation) -> Benefit | None:
    try:
        return compute(*found)
    except CannotCompute:
        return None


many = settings(max_examples=200, deadline=None, derandomize=True)


@many
@given(RANDOMS)
def test_parts_sum_to_the_whole(random: Random) -> None:
    """S0-40: every part is there, none is negative, both identities of the contract hold."""
    found = situation(random)
    benefit = try_compute(found)
    if benefit is None:
        return
    _, case, _, balance = found
    parts = (
        benefit.remote_first_pay_fen,
        benefit.deductible_fen,
        benefit.fund_total_fen,
        benefit.ratio_self_pay_fen,
        benefit.over_cap_fen,
    )
    assert min(*parts, *benefit.funds.values(), benefit.account_fen, benefit.cash_fen) >= 0
    assert sum(parts) == case.in_scope_fen + benefit.outside_scope_fen
    assert 0 <= benefit.outside_scope_fen <= case.first_self_pay_fen
    assert benefit.fund_total_fen + benefit.account_fen + benefit.cash_fen == case.total_fen
    assert benefit.account_fen <= (balance if case.use_account else 0)


@many
@given(RANDOMS, st.integers(1, 100_000))
def test_a_higher_fee_never_lowers_what_is_paid(random: Random, more: int) -> None:
    """Neither what the funds pay nor, where one fund at most follows the pooled one, the patient's
    side: two that count the same fen may both round up."""
    policy, case, counters, balance = situation(random, tame=True)
    funds = [each for each in policy.benefits["inpatient"].stages if isinstance(each, Fund)]
    few = len(funds) < 3 and funds[0].floor is None
    fees = [case.in_scope_fen, case.in_scope_fen + 1, case.in_scope_fen + 1 + more]
    results = [try_compute((policy, with_in_scope(case, fee), counters, balance)) for fee in fees]
    for low, high in pairwise(results):
        assert low is not None
        assert high is not None
        assert high.fund_total_fen >= low.fund_total_fen
        if few:
            assert high.account_fen + high.cash_fen >= low.account_fen + low.cash_fen


@given(st.integers(0, 300), st.integers(1, 10_000), st.integers(0, 10_000), st.booleans())
@example(cap_fen=1, ratio=1, above=10_000, by_year=False)
@example(cap_fen=10, ratio=1_000, above=9_000, by_year=True)
def test_at_the_cap_one_fen_more_moves_one_fen(
    cap_fen: int, ratio: int, above: int, by_year: bool
) -> None:
    """Around the cap, where the pooled fund hands over to the fund above it."""
    policy = document(
        fund(
            share(ratio),
            brackets={"over": "year" if by_year else "stay"},
            caps=[cap(money(cap_fen))],
        ),
        fund(share(above), of="over_cap", code="hifob_pay"),
    )
    paid = [compute(policy, a_case(in_scope_fen=fee), {}, 0) for fee in range(1_500)]
    assert all(b.fund_total_fen - a.fund_total_fen in (0, 1) for a, b in pairwise(paid))
    assert max(each.funds.get("hifp_pay", 0) for each in paid) <= cap_fen


@many
@given(RANDOMS)
def test_no_fund_pays_past_a_cap(random: Random) -> None:
    """S2-29: local and remote cost share the yearly caps; above them nothing more is paid."""
    found = situation(random)
    benefit = try_compute(found)
    if benefit is None:
        return
    policy, _, counters, _ = found
    used = {
        "hifp_pay": "pooled_used_fen",
        "hifob_pay": "large_amount_used_fen",
        "hifmi_pay": "major_illness_used_fen",
        "maf_pay": "assistance_used_fen",
    }
    name = policy.benefits["inpatient"].counter
    for step in benefit.steps:
        if step.kind != "cap":
            continue
        _, kind, is_fee, limit, room = step.facts
        assert isinstance(limit, int)
        assert isinstance(room, int)
        if is_fee:
            assert room <= limit
            continue
        period = f"2026-{name}" if kind == "own" and name else "2026"
        before = counters.get(period, Counters())
        spent = 0 if kind == "stay" else getattr(before, used[step.stage])
        assert room == max(limit - spent, 0)
        assert benefit.funds.get(step.stage, 0) <= room


@many
@given(RANDOMS)
def test_replay_gives_identical_bytes(random: Random) -> None:
    """From another copy of the document too: nothing depends on what was computed before."""
    drawing = Drawing(random)
    data = drawing.document()
    rest = drawing.case(), drawing.counters(), drawing.fen()
    first, second = compile_document(data), compile_document(data)
    assert first.hash == second.hash
    answers = [told(try_compute((policy, *rest))) for policy in (first, first, second)]
    assert len(set(answers)) == 1


def told(benefit: Benefit | None) -> bytes:
    if benefit is None:
        return b""
    return repr((benefit[1:], [explain.text(step) for step in benefit.steps])).encode()


@many
@given(RANDOMS)
def test_every_step_is_explained(random: Random) -> None:
    """Each names its row, its clause and what came of it; the weakest source is said."""
    benefit = try_compute(situation(random))
    if benefit is None:
        return
    assert benefit.steps
    for step in benefit.steps:
        assert step.value.row.startswith(("inpatient/", "account"))
        assert step.value.clause == "例 一"
        text = explain.text(step)
        assert text.endswith("。")
        assert "_" not in text
        if step.kind != "cap" or "不设" not in text:
            assert yuan(step.result_fen) in text
    assert benefit.provenance is Provenance.SECONDARY


@st.composite
def annual(draw: st.DrawFn) -> Document:
    """Yearly brackets, yearly caps, a deductible of the year, 大病 of the year."""
    drawing = Drawing(draw(RANDOMS), tame=True)

    def ratios() -> tuple[list[dict[str, Any]], dict[str, Any]]:
        bounds = {drawing.yuan(300) for _ in range(drawing.random.randrange(3))}
        rows = [row(drawing.percent(), up_to=bound) for bound in sorted(bounds)]
        changes = drawing.random.choice(({}, {"adjust": [only("times", drawing.percent())]}))
        return [*rows, row(drawing.percent())], changes

    def some_caps(kinds: tuple[str, ...]) -> list[dict[str, Any]]:
        chosen = drawing.random.sample(kinds, drawing.random.randrange(len(kinds) + 1))
        return [cap(drawing.yuan(400), limit=kind) for kind in chosen]

    count = {"count": drawing.random.choice(("in_scope", "above_deductible"))}
    rows, changes = ratios()
    stages = [
        fund(
            *rows, **changes, brackets={**count, "over": "year"}, caps=some_caps(("payment", "fee"))
        )
    ]
    if draw(st.booleans()):
        stages.insert(0, deductible(drawing.yuan(100), due="topped_up"))
    if draw(st.booleans()):
        rows, changes = ratios()
        year = {**count, "over": "year"}
        caps = some_caps(("payment",))
        stages.append(
            fund(*rows, **changes, of="over_cap", code="hifob_pay", brackets=year, caps=caps)
        )
    rows, changes = ratios()
    parts = ["ratio_self_pay", "over_cap", "deductible"]
    stages.append(
        fund(
            *rows,
            **changes,
            of="own",
            code=drawing.random.choice(("hifmi_pay", "maf_pay")),
            parts=parts[: draw(st.integers(1, 3))],
            accumulate="year",
            deductible=[row(drawing.yuan(200))],
            brackets=count,
            caps=some_caps(("payment",)),
        )
    )
    return document(*stages)


@many
@given(annual(), st.lists(st.integers(0, 20_000), min_size=2, max_size=6))
def test_an_annual_sum_does_not_depend_on_how_it_is_cut(policy: Document, fees: list[int]) -> None:
    """Any split of the same cost into visits pays the same, to the fen, caps included."""
    whole = compute(policy, a_case(in_scope_fen=sum(fees)), {}, 0)
    parts = compute_unit(
        [a_case(in_scope_fen=fee) for fee in fees], {}, 0, lambda _: policy, allow_illustrative=True
    )
    assert sums(parts) == sums([whole])


def sums(benefits: list[Benefit | CannotCompute]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in benefits:
        assert isinstance(each, Benefit)
        named = {
            "deductible": each.deductible_fen,
            "patient": each.cash_fen,
            "ratio or beyond": each.ratio_self_pay_fen + each.over_cap_fen,
            **each.funds,
        }
        for name, fen in named.items():
            total[name] = total.get(name, 0) + fen
    return total


@many
@given(RANDOMS, st.integers(2, 5))
def test_chaining_equals_one_by_one(random: Random, number: int) -> None:
    """And a refused case adds nothing: it may as well not be there."""
    drawing = Drawing(random)
    policy = compile_document(drawing.document())
    cases = [drawing.case() for _ in range(number)]
    counters, balance = drawing.counters(), drawing.fen()
    chained = compute_unit(cases, counters, balance, lambda _: policy, allow_illustrative=True)
    used, left = dict(counters), balance
    for case, found in zip(cases, chained, strict=True):
        alone = try_compute((policy, case, used, left))
        assert (alone is None) is isinstance(found, CannotCompute)
        if alone is None:
            continue
        assert alone == found
        left -= alone.account_fen
        for period, delta in alone.deltas.items():
            used[period] = used.get(period, Counters()).plus(delta)


@many
@given(RANDOMS)
def test_deltas_are_what_was_paid(random: Random) -> None:
    """Undo negates deltas, so each fen paid stands in exactly the counters it was held against."""
    policy, case, counters, balance = situation(random)
    benefit = try_compute((policy, case, counters, balance))
    if benefit is None:
        return
    rules = policy.benefits["inpatient"]
    own = benefit.deltas[f"2026-{rules.counter}" if rules.counter else "2026"]
    assert own.stay_count == 1
    assert own.pooled_used_fen == benefit.funds.get("hifp_pay", 0)
    charged = [step for step in benefit.steps if step.kind.startswith("deductible")]
    assert own.deductible_paid_fen == (charged[-1].result_fen if charged else 0)
    whole = benefit.deltas.get("2026", Counters())
    if rules.counter:
        (pooled,) = (
            each
            for each in rules.stages
            if isinstance(each, Fund) and not each.parts and each.of == "remaining"
        )
        shared = any(each.name == "shared" for each in pooled.caps)
        assert whole.pooled_used_fen == (own.pooled_used_fen if shared else 0)
    for delta in benefit.deltas.values():
        assert min(delta) >= 0


def test_account_pays_last_and_only_when_asked() -> None:
    visit = {"full_self_pay_fen": 30_000, "in_scope_fen": 1_000_000}
    policy = document(fund("80%"), account=row())
    assert compute(policy, a_case(**visit), {}, 500_000).account_fen == 0
    asked = a_case(**visit, use_account=True)
    assert compute(policy, asked, {}, 10_000).account_fen == 10_000
    assert compute(policy, asked, {}, 10**9).account_fen == 200_000 + 30_000
    in_scope = document(fund("80%"), account={**row(), "pays": ["in_scope"]})
    assert compute(in_scope, asked, {}, 10**9).account_fen == 200_000
    assert compute(document(), asked, {}, 10**9).account_fen == 0


def test_account_only_pays_no_fund() -> None:
    """S1-20: without a filing the personal account may pay, the funds do not."""
    visit = a_case(basis="account_only", use_account=True)
    benefit = compute(document(account=row()), visit, {}, 400_000)
    assert (benefit.fund_total_fen, benefit.account_fen, benefit.cash_fen) == (0, 400_000, 600_000)
    assert benefit.ratio_self_pay_fen == 1_000_000
    assert benefit.deltas == {}
    with pytest.raises(NotStated, match="account"):
        compute(document(), visit, {}, 400_000)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"care_type": "pharmacy"}, "care_type/pharmacy"),
        ({"basis": "none"}, "basis/none"),
        ({"deductible_level": "one"}, "inpatient/deductible(levels=one)"),
        ({"deductible_level": "two"}, "inpatient/deductible[levels=two]"),
        ({"settlement_level": "one"}, "inpatient/hifp_pay/ratio(levels=one)"),
        # What is not known refuses where a rule asks for it, also where only a condition does.
        ({"settlement_level": ""}, "inpatient/hifp_pay/ratio(levels=)"),
        ({"benefit_class": ""}, "inpatient/hifp_pay/adjust/when(classes=)"),
        ({"age": -1}, "inpatient/hifp_pay/adjust1/when(ages=-1)"),
        ({"care_area": ""}, "inpatient/hifp_pay/adjust2/when(places=)"),
    ],
)
def test_not_stated_names_what_is_missing(changes: dict[str, object], missing: str) -> None:
    policy = document(
        deductible(row("600元", levels=["three"]), row("not_stated", levels=["two"])),
        fund(
            row("80%", levels=["three"]),
            adjust=[
                only("minus", "10个百分点", classes=["referral"]),
                only("plus", "5个百分点", ages="70-"),
                only("plus", "5个百分点", places=["51"]),
            ],
        ),
    )
    with pytest.raises(NotStated) as refusal:
        compute(policy, a_case(**changes), {}, 0)
    assert refusal.value.missing == missing


@pytest.mark.parametrize(
    ("stages", "rows"),
    [
        ([deductible(row("1元"), row("2元", ages="60-")), fund("80%")], "inpatient/deductible"),
        ([fund(row("80%"), row("90%", persons=["retired"]))], "inpatient/hifp_pay/ratio"),
        (
            [fund(row("80%", up_to="1元"), row("90%", up_to="1元"), "1%")],
            "inpatient/hifp_pay/ratio",
        ),
        ([deductible("1元"), deductible("2元"), fund("80%")], "inpatient/deductible"),
    ],
)
def test_two_rules_that_both_apply_are_an_error(stages: list[dict[str, object]], rows: str) -> None:
    case = a_case(person_class="retired", age=66)
    with pytest.raises(Ambiguous) as refusal:
        compute(document(*stages), case, {}, 0)
    assert refusal.value.rows.split("(")[0] == rows


def test_a_visit_outside_every_fund_is_refused_whatever_it_costs() -> None:
    """Also below the deductible, where nothing would be left to pay."""
    policy = document(deductible("600元"), fund("80%", when={"persons": ["retired"]}))
    for fee in (0, 1_000, 1_000_000):
        with pytest.raises(NotStated, match="inpatient/hifp_pay"):
            compute(policy, a_case(in_scope_fen=fee), {}, 0)


def test_illustrative_values_may_not_pay_unless_allowed() -> None:
    sample = {"example": {"title": "例", "provenance": "illustrative"}}
    policy = document(sources=sample)

    def run(allowed: bool) -> object:
        return compute_unit([a_case()], {}, 0, lambda _: policy, allow_illustrative=allowed)[0]

    assert isinstance(run(False), NotOfficial)
    assert isinstance(run(True), Benefit)


def test_provenance_is_that_of_the_weakest_row_used() -> None:
    sources = {
        "example": {"title": "例", "provenance": "official"},
        "page": {"title": "网页", "provenance": "secondary"},
    }
    change = {"when": {"persons": ["retired"]}, "rows": [{"plus": "1个百分点", **FROM_PAGE}]}
    policy = document(fund("80%", adjust=[change]), sources=sources)
    assert compute(policy, a_case(), {}, 0).provenance is Provenance.OFFICIAL
    retired = a_case(person_class="retired")
    assert compute(policy, retired, {}, 0).provenance is Provenance.SECONDARY


FROM_PAGE = {"source": "page", "clause": "二"}


def test_a_refused_case_adds_nothing() -> None:
    """The nth stay: 600, then (after a refused case) 450; the account is spent in order."""
    policy = document(
        deductible(row("600元", stays="1"), row("450元", stays="2-")),
        fund(row("80%", levels=["three"])),
        account=row(),
    )
    cases = [
        a_case(use_account=True),
        a_case(settlement_level="other", use_account=True),
        a_case(use_account=True),
    ]
    first, refused, second = compute_unit(
        cases, {}, 300_000, lambda _: policy, allow_illustrative=False
    )
    assert isinstance(first, Benefit)
    assert isinstance(refused, NotStated)
    assert isinstance(second, Benefit)
    assert (first.deductible_fen, second.deductible_fen) == (60_000, 45_000)
    assert (first.account_fen, second.account_fen) == (248_000, 300_000 - 248_000)


def test_book_picks_by_day_activation_and_number() -> None:
    """S0-26: the version that applies is chosen by the visit's last day."""
    old = document(version="1", effective={"start": "2020-01-01"})
    new = document(version="2", effective={"start": "2026-01-01"})
    fixed = document(version="3", effective={"start": "2026-01-01", "end": "2026-06-30"})
    book = Book([Publication(1, 0, old), Publication(2, 0, new), Publication(3, 1_000, fixed)])

    def version(day: str, now_ms: int) -> str:
        case = a_case(end_date=day, business_day=day)
        return book.find("999900", "310", case, now_ms).version

    assert version("2025-12-31", 0) == "1"
    assert version("2026-01-01", 999) == "2"
    assert version("2026-01-01", 1_000) == "3"
    assert version("2026-07-01", 1_000) == "2"
    for area, insurance, day in (
        ("999900", "310", "2019-12-31"),
        ("999900", "390", "2026-01-01"),
        ("999901", "310", "2026-01-01"),
    ):
        with pytest.raises(NotFound):
            book.find(area, insurance, a_case(end_date=day), 1_000)


def test_diseases_outside_the_benefit() -> None:
    """They fall to ordinary outpatient care by all its rules, or are refused by name."""
    listed = {**row(), "covered": ["M03900", "M00500"], "otherwise": "outpatient"}
    chronic: dict[str, Any] = {
        "care_types": ["chronic"],
        "counter": "chronic",
        "diseases": listed,
        "stages": [fund("90%")],
    }
    ordinary = {
        "care_types": ["outpatient"],
        "counter": "outpatient",
        "stages": [fund(row("50%", care_types=["outpatient"]))],
    }
    policy = document(benefits={"chronic": chronic, "outpatient": ordinary})

    def paid(disease: str) -> tuple[int, list[str]]:
        case = a_case(care_type="chronic", disease=disease, in_scope_fen=10_000)
        found = compute(policy, case, {}, 0)
        return found.fund_total_fen, list(found.deltas)

    assert paid("M03900") == (9_000, ["2026-chronic"])
    assert paid("M00503") == (9_000, ["2026-chronic"])  # by its class code
    assert paid("M04600") == (5_000, ["2026-outpatient"])
    case = a_case(care_type="chronic", disease="M04600", in_scope_fen=10_000)
    step = compute(policy, case, {}, 0).steps[0]
    assert explain.text(step) == "病种M04600不在参保地门诊慢特病范围，按普通门诊计算。"
    refusing = {**chronic, "diseases": {**listed, "otherwise": "refused"}}
    strict = document(benefits={"chronic": refusing, "outpatient": ordinary})
    with pytest.raises(DiseaseRefused, match="M04600"):
        compute(strict, case, {}, 0)


def test_texts() -> None:
    assert [yuan(fen) for fen in (0, 5, 130_000, -7)] == ["0.00", "0.05", "1300.00", "-0.07"]
    assert [percent(ratio) for ratio in (0, 9220, 8000, 8005)] == ["0%", "92.2%", "80%", "80.05%"]
    policy = document(
        first_pay("10%"),
        deductible("800元"),
        fund("80%", adjust=[only("minus", "10个百分点", classes=["referral"])]),
    )
    case = a_case(route="cross_province", benefit_class="referral")
    texts = [explain.text(step) for step in compute(policy, case, {}, 0).steps]
    assert texts[0] == "转外自理：扣除起付线前先行自付10%，10000.00元中自付1000.00元。"
    assert texts[1] == "第1次住院起付线800.00元，本次800.00元。"
    assert re.fullmatch(r".*8200\.00元的（80%－10个百分点）70%，计5740\.00元。", texts[2])


def money(fen: int) -> str:
    return f"{yuan(fen)}元"


def share(basis_points: int) -> str:
    return percent(basis_points)
