"""The cases of one unit in order, each computed from what the one before left.

A stay over the year's end is one bill. Where the document says so it is split by days: the in-scope
cost of each year is its average daily cost times the nights in it, and each part counts in its own
period as a settlement of its own (规程 art. 41). The stay counts once, in the period it began, and
its deductible is due once, on the bill of the whole stay; a deductible that is topped up over the
year is each year's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

from infra.runtime.money import divide_fen
from services.policy.domain.case import (
    Benefit,
    CannotCompute,
    Case,
    Counters,
    NotOfficial,
)
from services.policy.domain.compute import compute, counted
from services.policy.domain.document import Document, Provenance
from services.policy.domain.stages import Continued

_PARTS = ("full_self_pay_fen", "over_limit_fen", "first_self_pay_fen", "in_scope_fen")


def compute_unit(
    cases: Iterable[Case],
    openings: Mapping[str, Counters],
    account_balance_fen: int,
    find: Callable[[Case], Document],
    *,
    allow_illustrative: bool,
) -> list[Benefit | CannotCompute]:
    """The benefit of each case, or why there is none, in order.

    `find` gives the document of a case or raises `NotFound`. A refused case adds nothing.
    """
    counters = dict(openings)
    balance = account_balance_fen
    results: list[Benefit | CannotCompute] = []
    for case in cases:
        try:
            benefit = compute_visit(find(case), case, counters, balance)
            if benefit.provenance is Provenance.ILLUSTRATIVE and not allow_illustrative:
                raise NotOfficial
        except CannotCompute as refusal:
            results.append(refusal)
            continue
        _add(counters, benefit.deltas)
        balance -= benefit.account_fen
        results.append(benefit)
    return results


def compute_visit(
    document: Document, case: Case, counters: Mapping[str, Counters], account_balance_fen: int
) -> Benefit:
    """The benefit of one visit, split at the year's end where the document says so."""
    if not document.splits_year_end:
        return compute(document, case, counters, account_balance_fen)
    start = case.start_date or case.end_date
    if start[:4] >= case.end_date[:4]:
        return compute(document, case, counters, account_balance_fen)
    counters = dict(counters)
    benefit: Benefit | None = None
    stay, temporary = counted(document, case, counters, start[:4])
    continued = Continued(stay, temporary, case.total_fen, case.in_scope_fen)
    charged = 0
    for year, part in _by_year(case, date.fromisoformat(start), date.fromisoformat(case.end_date)):
        found = compute(
            document, part, counters, account_balance_fen, period=year, continued=continued
        )
        charged += sum(delta.deductible_paid_fen for delta in found.deltas.values())
        continued = continued._replace(deductible_fen=charged)
        account_balance_fen -= found.account_fen
        _add(counters, found.deltas)
        benefit = found if benefit is None else _together(benefit, found)
    assert benefit is not None
    return benefit


def _by_year(case: Case, start: date, end: date) -> list[tuple[str, Case]]:
    """The case's parts by calendar year, in proportion to the nights; they sum to the whole."""
    nights = (end - start).days
    parts: list[tuple[str, Case]] = []
    before = dict.fromkeys(_PARTS, 0)
    for year in range(start.year, end.year + 1):
        passed = (min(end, date(year + 1, 1, 1)) - start).days
        until = {name: divide_fen(getattr(case, name) * passed, nights) for name in _PARTS}
        amounts: dict[str, Any] = {name: until[name] - before[name] for name in _PARTS}
        before = until
        parts.append((f"{year}", case._replace(total_fen=sum(amounts.values()), **amounts)))
    return parts


def _together(first: Benefit, second: Benefit) -> Benefit:
    funds = dict(first.funds)
    for code, fen in second.funds.items():
        funds[code] = funds.get(code, 0) + fen
    deltas = dict(first.deltas)
    _add(deltas, second.deltas)
    return Benefit(
        second.document,
        first.remote_first_pay_fen + second.remote_first_pay_fen,
        first.deductible_fen + second.deductible_fen,
        first.ratio_self_pay_fen + second.ratio_self_pay_fen,
        first.over_cap_fen + second.over_cap_fen,
        funds,
        first.account_fen + second.account_fen,
        first.cash_fen + second.cash_fen,
        deltas,
        max(first.provenance, second.provenance),
        first.told + second.told,
        first.outside_scope_fen + second.outside_scope_fen,
    )


def _add(counters: dict[str, Counters], deltas: Mapping[str, Counters]) -> None:
    for period, delta in deltas.items():
        before = counters.get(period)
        counters[period] = delta if before is None else before.plus(delta)
