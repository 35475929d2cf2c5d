"""Stays over the year's end, whole or split by days, and which day picks version and period."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_samples import a_case, cap, deductible, document, fund, only, row

from services.policy.domain.book import Book, Publication
from services.policy.domain.case import Benefit, Case, Counters, NotFound
from services.policy.domain.chain import compute_unit, compute_visit
from services.policy.domain.document import Document

SPLIT = {"by": "discharge", "year_end": "split_by_days"}
DUE = deductible(row("1000元", stays="1"), row("500元", stays="2-"))


def stay(start: str, end: str, **changes: Any) -> Case:
    return a_case(start_date=start, end_date=end, business_day=end, **changes)


def visit(policy: Document, case: Case, counters: dict[str, Counters] | None = None) -> Benefit:
    return compute_visit(policy, case, counters or {}, 0)


def test_whole_in_the_year_of_the_day_that_counts() -> None:
    """规程 art. 41: one bill at discharge; the period is that of discharge or of settlement."""
    case = stay("2025-12-21", "2026-01-10")._replace(business_day="2027-01-02")
    for by, year in (("discharge", "2026"), ("settlement", "2027")):
        policy = document(DUE, fund("80%"), period={"by": by, "year_end": "whole"})
        found = visit(policy, case)
        assert found.deductible_fen == 100_000
        assert found.deltas == {year: Counters(1, 100_000, 720_000)}


def test_split_by_the_nights_of_each_year() -> None:
    """20 nights, 11 of them in 2025: 5500 and 4500 of 10,000; the deductible is due once."""
    policy = document(DUE, fund("80%"), period=SPLIT)
    found = visit(policy, stay("2025-12-21", "2026-01-10"))
    assert found.deductible_fen == 100_000
    assert found.funds == {"hifp_pay": 360_000 + 360_000}
    assert found.deltas == {"2025": Counters(1, 100_000, 360_000), "2026": Counters(0, 0, 360_000)}
    assert found.cash_fen == 1_000_000 - 720_000


def test_each_part_counts_against_the_limits_of_its_own_year() -> None:
    policy = document(fund("80%", caps=[cap("5000元")]), period=SPLIT)
    used = {"2025": Counters(pooled_used_fen=400_000)}
    found = visit(policy, stay("2025-12-21", "2026-01-10"), used)
    assert found.funds == {"hifp_pay": 100_000 + 360_000}
    assert found.deltas["2025"].pooled_used_fen == 100_000


def test_the_stay_is_the_same_one_in_both_years() -> None:
    """The third stay of 2025 owes 500, though it would be the first of 2026."""
    policy = document(DUE, fund("80%"), period=SPLIT)
    used = {"2025": Counters(stay_count=2)}
    case = stay("2025-12-21", "2026-01-10")
    found = visit(policy, case, used)
    assert found.deductible_fen == 50_000
    assert (found.deltas["2025"].stay_count, found.deltas["2026"].stay_count) == (1, 0)
    # What the first part cannot bear, the second one does.
    late = visit(policy, stay("2025-12-31", "2026-01-10", in_scope_fen=100_000), used)
    assert [late.deltas[year].deductible_paid_fen for year in ("2025", "2026")] == [10_000, 40_000]


def test_a_deductible_by_share_is_that_of_the_whole_bill() -> None:
    """20 % of 10,000 once, not 20 % of each part less the other's."""
    policy = document(
        deductible({**row(), "share": "20%", "of": "total", "at_least": "500元"}),
        fund("80%"),
        period=SPLIT,
    )
    found = visit(policy, stay("2025-12-21", "2026-01-10"))
    assert found.deductible_fen == 200_000
    assert found.deltas["2025"].deductible_paid_fen == 200_000


def test_a_yearly_deductible_is_each_years_own() -> None:
    policy = document(deductible("1500元", due="topped_up"), fund("80%"), period=SPLIT)
    found = visit(policy, stay("2025-12-21", "2026-01-10"))
    assert found.deductible_fen == 300_000
    used = {"2025": Counters(deductible_paid_fen=150_000)}
    assert visit(policy, stay("2025-12-21", "2026-01-10"), used).deductible_fen == 150_000


def test_a_temporary_visit_counts_once_in_the_year_it_began() -> None:
    policy = document(
        fund("80%", adjust=[only("minus", "30个百分点", temporaries="2-")]), period=SPLIT
    )
    away = {"route": "cross_province", "benefit_class": "other_temporary"}
    cases = [stay("2025-12-21", "2026-01-10", **away), stay("2026-02-01", "2026-02-03", **away)]
    used = {"2025-temporary": Counters(stay_count=1)}
    first, second = compute_unit(cases, used, 0, lambda _: policy, allow_illustrative=True)
    assert isinstance(first, Benefit)
    assert isinstance(second, Benefit)
    assert (first.fund_total_fen, second.fund_total_fen) == (500_000, 800_000)
    assert first.deltas["2025-temporary"] == Counters(1)
    assert "2026-temporary" not in first.deltas


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.dates(date(2020, 1, 1), date(2027, 12, 31)),
    st.integers(0, 1200),
    st.lists(st.integers(0, 10_000), min_size=4, max_size=4),
)
def test_the_parts_sum_to_the_whole(start: date, nights: int, parts: list[int]) -> None:
    """Over several years too; no part is negative."""
    end = start + timedelta(days=nights)
    names = ("full_self_pay_fen", "over_limit_fen", "first_self_pay_fen", "in_scope_fen")
    case = stay(start.isoformat(), end.isoformat(), **dict(zip(names, parts, strict=True)))
    policy = document(deductible("10元"), fund("80%"), period=SPLIT)
    found = visit(policy, case)
    paid = (found.deductible_fen, found.ratio_self_pay_fen, found.fund_total_fen)
    assert min(*paid, found.cash_fen) >= 0
    assert sum(paid) == case.in_scope_fen
    assert found.fund_total_fen + found.cash_fen == case.total_fen
    assert found.deductible_fen == min(1_000, case.in_scope_fen)
    assert all(min(delta) >= 0 for delta in found.deltas.values())


def test_discharged_on_new_years_day_is_all_of_the_old_year() -> None:
    """There is no night in the new one."""
    policy = document(DUE, fund("80%"), period=SPLIT)
    found = visit(policy, stay("2025-12-21", "2026-01-01"))
    assert found.deltas == {"2025": Counters(1, 100_000, 720_000)}


@pytest.mark.parametrize(
    ("by", "version"), [("discharge", "new"), ("admission", "old"), ("settlement", "new")]
)
def test_which_day_picks_the_version(by: str, version: str) -> None:
    old = document(version="old", effective={"start": "2020-01-01", "by": by})
    new = document(version="new", effective={"start": "2026-01-01", "by": by})
    book = Book([Publication(1, 0, old), Publication(2, 0, new)])

    def found(case: Case) -> str:
        return book.find("999900", "310", case, 0).version

    assert found(stay("2025-12-21", "2026-01-10")) == version
    # Without a day of admission it is that of discharge.
    assert found(stay("", "2025-12-31")) == "old"
    late = stay("2025-12-01", "2025-12-31")._replace(business_day="2026-01-05")
    assert found(late) == ("new" if by == "settlement" else "old")
    with pytest.raises(NotFound):
        found(stay("2019-12-01", "2019-12-31"))
