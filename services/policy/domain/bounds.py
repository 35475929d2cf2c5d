"""The dated national bounds, and where a document leaves them: warnings, since real areas differ.

What a bound compares is the share of in-scope cost above the deductible that the pooled fund pays,
whatever lowered it: points, a multiple, a table of its own, or a first pay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from infra.runtime.money import BASIS_POINTS, divide_fen, percent
from services.policy.domain.document import (
    Adjustment,
    Bracket,
    Change,
    Document,
    FirstPay,
    Fund,
)
from services.policy.domain.scopes import Found, Path, Plan, TooMany, plans, rows_of
from services.policy.domain.shares import changed_share
from services.policy.domain.table import Combination, Table
from services.policy.domain.written import (
    BenefitClass,
    CareType,
    Day,
    Points,
    Route,
    Share,
    Text,
    Written,
)


class Visit(Written):
    """What a share is compared for or with."""

    route: Route
    classes: tuple[BenefitClass, ...] = Field(min_length=1)


class Bound(Written):
    """One dated rule on the share of some visits: `least`, or compared with those of `against`."""

    start: Day
    end: Day | None = None
    insurances: tuple[str, ...] = ("employee", "resident")
    care_types: tuple[CareType, ...] = Field(min_length=1)
    visits: Visit
    against: Visit | None = None
    below: Points = 0
    """How far it may lie below `against`."""
    least: Share | None = None
    text: Text
    clause: Text
    url: str | None = None
    """Of the repost, where the text itself was not read; the clause says so."""


class _Bounds(Written):
    bounds: tuple[Bound, ...] = Field(min_length=1)


class Breach(NamedTuple):
    """A share outside a bound."""

    path: Path
    text: str
    clause: str


def read_bounds(data: Mapping[str, Any]) -> tuple[Bound, ...]:
    """The bounds of a national table; raise `ValueError`."""
    try:
        return _Bounds.model_validate(data).bounds
    except ValidationError as error:
        raise ValueError(f"national bounds: {error}") from None


_REGULAR = {"unfiled": ("false",), "late_filing": ("false",), "settled_directly": ("true",)}
"""The bounds are on filed visits that are settled directly; areas may lower the others further."""


def breaches(document: Document, bounds: Sequence[Bound]) -> Iterator[Breach]:
    """Where the document leaves the bounds that hold on some day of its effective period."""
    held = [each for each in bounds if _holds(each, document)]
    for plan in plans(document):
        plan = replace(plan, allowed={**plan.allowed, **_REGULAR})
        wanted = [each for each in held if set(each.care_types) & set(plan.benefit.care_types)]
        if not wanted or plan.benefit.no_funds is not None:
            continue
        try:
            yield from _of_plan(plan, wanted)
        except TooMany:
            # The check of the tables says so already.
            continue


def _holds(bound: Bound, document: Document) -> bool:
    return (
        document.written.insurance in bound.insurances
        and bound.start <= document.effective_to
        and (bound.end is None or document.effective_from <= bound.end)
    )


Steps = tuple[tuple[int | None, Fraction], ...]
"""Share up to a bound (None: no bound), ascending."""


def _of_plan(plan: Plan, bounds: Sequence[Bound]) -> Iterator[Breach]:
    stages = list(plan.stages)
    found = next(
        (
            (path, stage)
            for path, stage in stages
            if isinstance(stage, Fund) and stage.of == "remaining"
        ),
        None,
    )
    if found is None:
        return
    path, fund = found
    shares = _Shares(plan, [s for _, s in stages if isinstance(s, FirstPay)], fund)
    for bound in bounds:
        told = Found()
        for combination, share, limit in shares.compared(bound):
            told.see(combination)
            if share < limit:
                told.add((share, limit), combination)
        worst = sorted(told.items(), key=lambda each: each[0][0] - each[0][1])
        if worst:
            (share, limit), words = worst[0]
            more = f" (and {len(worst) - 1} more)" if len(worst) > 1 else ""
            text = (
                f"the fund pays {percentage(share)}, the least is {percentage(limit)}, for {words}"
                f"{more}: {bound.text} ({bound.clause}, from {bound.start}"
                f"{f' to {bound.end}' if bound.end else ''}); keep it if the local text says so"
            )
            yield Breach(path, text, bound.clause)


class _Shares:
    """What the pooled fund pays, for every combination of facts that makes a difference."""

    def __init__(self, plan: Plan, first_pays: Sequence[FirstPay], fund: Fund) -> None:
        self._by_visit: dict[tuple[Combination, str, str], Steps] = {}
        self._rest: dict[Combination, None] = {}
        stages: list[FirstPay | Fund] = [*first_pays, fund]
        tables = [table for stage in stages for table in _tables(stage)]
        for combination, masks in plan.enumerate(tables):
            steps = _steps(first_pays, fund, iter(masks))
            if steps is None:
                continue
            named = dict(combination)
            rest = tuple(each for each in combination if each[0] not in ("routes", "classes"))
            visit = (rest, named.get("routes", ""), named.get("classes", ""))
            self._by_visit[visit] = steps
            self._rest[rest] = None

    def compared(self, bound: Bound) -> Iterator[tuple[Combination, Fraction, Fraction]]:
        """Combination, its share and the least that it may be, at the worst point of the bill."""
        least: Steps = ((None, Fraction(bound.least or 0, BASIS_POINTS)),)
        for rest in self._rest:
            if not _concerns(rest, bound):
                continue
            compared: Steps | None = least
            if bound.against is not None:
                compared = self._of(rest, bound.against.route, bound.against.classes[0])
            for name in bound.visits.classes:
                steps = self._of(rest, bound.visits.route, name)
                if steps is not None and compared is not None:
                    yield (*rest, ("classes", name)), *_worst(steps, compared, bound.below)

    def _of(self, rest: Combination, route: str, name: str) -> Steps | None:
        for visit in ((route, name), ("", name), (route, ""), ("", "")):
            steps = self._by_visit.get((rest, *visit))
            if steps is not None:
                return steps
        return None


def _concerns(rest: Combination, bound: Bound) -> bool:
    cares = dict(rest).get("care_types")
    return cares is None or bool(set(cares.split("|")) & set(bound.care_types))


def _tables(stage: FirstPay | Fund) -> Iterator[Table[Any]]:
    """The tables that decide the share, in the order in which `_steps` takes their masks."""
    if stage.when is not None:
        yield stage.when
    if isinstance(stage, FirstPay):
        yield stage.rows
        return
    yield stage.ratio
    for adjustment in stage.adjust:
        if adjustment.when is not None:
            yield adjustment.when
        yield adjustment.rows


def _steps(first_pays: Sequence[FirstPay], fund: Fund, masks: Iterator[int]) -> Steps | None:
    """The share for one combination; None where it is not decided."""
    left = Fraction(1)
    for stage in first_pays:
        applies = stage.when is None or bool(next(masks))
        values = rows_of(stage.rows, next(masks))
        if applies:
            if len(values) != 1 or values[0].amount is None:
                return None
            left *= 1 - Fraction(values[0].amount, BASIS_POINTS)
    pays = fund.when is None or bool(next(masks))
    brackets = in_order(rows_of(fund.ratio, next(masks)))
    changes = list(applied(fund.adjust, masks))
    if not pays:
        return ((None, Fraction(0)),)
    if brackets is None or None in changes:
        return None
    steps: list[tuple[int | None, Fraction]] = []
    for bracket in brackets:
        if bracket.value.amount is None:
            return None
        share = bracket.value.amount, BASIS_POINTS
        for change in changes:
            if change is not None:
                share = changed_share(*share, change)
        steps.append((bracket.up_to_fen, left * Fraction(*share)))
    return tuple(steps)


def in_order(brackets: Sequence[Bracket]) -> list[Bracket] | None:
    """Brackets by their bounds; None when two have the same or none is the last."""
    bounds = {each.up_to_fen for each in brackets}
    if None not in bounds or len(bounds) < len(brackets):
        return None
    return sorted(brackets, key=lambda each: (each.up_to_fen is None, each.up_to_fen or 0))


def applied(adjustments: Sequence[Adjustment], masks: Iterator[int]) -> Iterator[Change | None]:
    """The change of each adjustment that applies; None for one that is not decided."""
    for each in adjustments:
        applies = each.when is None or bool(next(masks))
        changes = rows_of(each.rows, next(masks))
        if applies:
            stated = len(changes) == 1 and changes[0].value.amount is not None
            yield changes[0] if stated else None


def _worst(steps: Steps, against: Steps, below: int) -> tuple[Fraction, Fraction]:
    """Share and least share where the share is lowest beside it."""
    points = {bound for bound, _ in (*steps, *against)}
    compared = [
        (_at(steps, bound), max(_at(against, bound) - Fraction(below, BASIS_POINTS), Fraction(0)))
        for bound in points
    ]
    return min(compared, key=lambda each: each[0] - each[1])


def _at(steps: Steps, bound: int | None) -> Fraction:
    for up_to, share in steps:
        if up_to is None or (bound is not None and bound <= up_to):
            return share
    raise AssertionError("the last bracket has no bound")


def percentage(share: Fraction) -> str:
    """A share for people, e.g. `72%` or `77.35%`."""
    return percent(divide_fen(share.numerator * BASIS_POINTS, share.denominator))
