"""The cases of one unit in order, each computed from what the one before left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from services.policy.domain.case import (
    Benefit,
    CannotCompute,
    Case,
    Counters,
    NotOfficial,
)
from services.policy.domain.compute import compute
from services.policy.domain.document import Document, Provenance


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
            benefit = compute(find(case), case, counters, balance)
            if benefit.provenance is Provenance.ILLUSTRATIVE and not allow_illustrative:
                raise NotOfficial
        except CannotCompute as refusal:
            results.append(refusal)
            continue
        for period, delta in benefit.deltas.items():
            before = counters.get(period)
            counters[period] = delta if before is None else before.plus(delta)
        balance -= benefit.account_fen
        results.append(benefit)
    return results
