"""Whether a document that can be computed with may be published.

Every table must hold exactly one row for every combination of facts that a visit can have where the
table is asked; what no combination reaches is a mistake too. The rest are doubts: values that are
probably misspelt, sources that cannot be looked up, and national bounds that are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any, Literal, NamedTuple

from infra.runtime.money import BASIS_POINTS, percent, yuan
from services.policy.domain.bounds import Bound, applied, breaches, in_order
from services.policy.domain.compiling import walk
from services.policy.domain.document import (
    Adjustment,
    Bracket,
    Change,
    Deductible,
    Document,
    FirstPay,
    Fund,
    Money,
    Operation,
    Unit,
    Value,
)
from services.policy.domain.facts import OTHER
from services.policy.domain.scopes import (
    MAX_COMBINATIONS,
    Found,
    Path,
    Place,
    Plan,
    TooMany,
    plans,
    rows_of,
)
from services.policy.domain.shares import changed_share
from services.policy.domain.table import Table
from services.policy.domain.written import Conditions

Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """One thing that is wrong (error) or doubtful (warning)."""

    severity: Severity
    path: Path
    """Where in the data; see `compiling.dotted`."""
    text: str
    """What is wrong and what to do."""
    clause: str = ""
    """The national clause that the document leaves, or empty."""


def check(document: Document, bounds: Sequence[Bound] = ()) -> list[Finding]:
    """Everything that is wrong or doubtful; empty: nothing."""
    findings = list(_sources(document))
    for plan in plans(document):
        findings += _diseases(document, plan)
        findings += _conditions(document, plan)
        findings += _order(plan)
        findings += _twice(plan)
        for place in plan.places():
            try:
                findings += _table(plan, place)
            except TooMany:
                text = f"tells more than {MAX_COMBINATIONS} combinations apart: split it by `when`"
                findings.append(Finding("error", place.path, text))
        for path, stage in plan.stages:
            findings += _values(path, stage)
            try:
                if isinstance(stage, Fund):
                    findings += _shares(plan, path, stage)
                elif isinstance(stage, Deductible):
                    findings += _levels(plan, path, stage)
            except TooMany:
                continue
        findings += _remote(document, plan)
    findings += [Finding("warning", *each) for each in breaches(document, bounds)]
    return findings


def _sources(document: Document) -> Iterator[Finding]:
    for name, source in document.written.sources.items():
        if source.provenance == "secondary" and not source.url:
            text = "is a repost without a `url`: nobody can look it up, add it"
            yield Finding("warning", ("sources", name), text)


def _diseases(document: Document, plan: Plan) -> Iterator[Finding]:
    diseases = plan.benefit.diseases
    if diseases is None:
        return
    path: Path = (*plan.path, "diseases")
    if diseases.otherwise == "outpatient" and "outpatient" not in document.benefits:
        text = "the other diseases fall to outpatient, which no benefit pays: add it or `refused`"
        yield Finding("error", (*path, "otherwise"), text)


def _conditions(document: Document, plan: Plan) -> Iterator[Finding]:
    """`other` in `when`: no row stands beside it whose codes it could leave out."""
    for path, row in walk(document.written.benefits[plan.name], Conditions, plan.path):
        for key in ("diseases", "places"):
            if path[-1] == "when" and OTHER in (getattr(row, key) or ()):
                text = "`other` means everything in `when`: name the codes, or use rows"
                yield Finding("error", (*path, key), text)


def _order(plan: Plan) -> Iterator[Finding]:
    """Stages that find nothing to do because of what stands before them."""
    capped: set[str] = set()
    for path, stage in plan.stages:
        if not isinstance(stage, Fund):
            continue
        if stage.of == "over_cap" and not capped & set(stage.beyond):
            text = "pays what lies over the caps, but no fund before it has such a cap"
            yield Finding("error", path, f"{text}: add the cap or remove the stage")
        capped |= {cap.name for cap in stage.caps}


def _twice(plan: Plan) -> Iterator[Finding]:
    """Stages of which only one may apply to a visit, where two do."""
    groups: dict[str, list[tuple[Path, Table[Any] | None]]] = {}
    for path, stage in plan.stages:
        if isinstance(stage, Deductible):
            groups.setdefault("deductible", []).append((path, stage.when))
        elif isinstance(stage, Fund) and stage.by_year:
            # 大病 and 大额 count one base of the year, the others one each.
            base = "base" if stage.code in ("hifmi_pay", "hifob_pay") else stage.code
            groups.setdefault(base, []).append((path, stage.when))
    for group in groups.values():
        for (first, one), (second, other) in combinations(group, 2):
            found = Found()
            scopes = [each for each in (one, other) if each is not None]
            for combination, masks in plan.enumerate(scopes):
                found.see(combination)
                if all(masks):
                    found.add("", combination)
            for _, words in found.items():
                text = (
                    f"stages [{first[3]}] and [{second[3]}] both apply to {words}: bound by `when`"
                )
                yield Finding("error", second, text)


def _table(plan: Plan, place: Place) -> Iterator[Finding]:
    """Gaps, overlaps and rows that never hold."""
    gaps, overlaps, last = Found(), Found(), Found()
    told = (gaps, overlaps, last)
    brackets = any(isinstance(row, Bracket) for row in place.table.rows)
    bounded = any(getattr(row, "up_to_fen", None) is not None for row in place.table.rows)
    reached = 0
    asked = False
    for combination, masks in plan.enumerate((*place.scopes, place.table)):
        if not all(masks[:-1]):
            continue
        asked = True
        mask = masks[-1]
        reached |= mask
        for each in told:
            each.see(combination)
        if not mask:
            gaps.add("", combination)
        elif brackets:
            rows = rows_of(place.table, mask)
            if in_order(rows) is None:
                bounds = [row.up_to_fen for row in rows]
                if None not in bounds:
                    last.add("", combination)
                if same := _same(mask, bounds):
                    overlaps.add(same, combination)
        elif mask & (mask - 1):
            overlaps.add(tuple(_numbers(mask)), combination)
    if not asked:
        if place.scopes:
            yield Finding("error", place.when, "no visit can meet this condition: correct it")
        return
    for _, words in gaps.items():
        text = f"no row holds for {words}: add a row, `value: not_stated` where no text says it"
        yield Finding("error", place.path, text)
    for _, words in last.items():
        text = f"no last bracket for {words}: add a row without `up_to`"
        yield Finding("error", place.path, text)
    for numbers, words in overlaps.items():
        named = " and ".join(f"[{number}]" for number in numbers)
        what = "have the same bound" if bounded else "all hold"
        text = f"rows {named} {what} for {words}: narrow or remove all but one"
        yield Finding("error", (*place.path, numbers[-1]), text)
    for number in range(len(place.table.rows)):
        if not reached >> number & 1:
            text = "no visit that comes here meets this row: correct or remove it"
            yield Finding("error", (*place.path, number), text)


def _numbers(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def _same(mask: int, bounds: Sequence[int | None]) -> tuple[int, ...]:
    """The rows that share a bound with another one."""
    return tuple(
        number
        for number, bound in zip(_numbers(mask), bounds, strict=True)
        if bounds.count(bound) > 1
    )


def _values(path: Path, stage: FirstPay | Deductible | Fund) -> Iterator[Finding]:
    """Single values that are probably not what was meant."""
    if isinstance(stage, FirstPay):
        for number, value in enumerate(stage.rows.rows):
            yield from _share(value, (*path, "rows", number))
    elif isinstance(stage, Deductible):
        yield from _idle(stage.adjust, (*path, "adjust"))
    else:
        yield from _idle(stage.adjust_deductible, (*path, "adjust_deductible"))
        yield from _idle(stage.adjust, (*path, "adjust"))
        for number, bracket in enumerate(stage.ratio.rows):
            yield from _share(bracket.value, (*path, "ratio", number))
            if bracket.up_to_fen == 0:
                text = "a bracket up to 0元 holds nothing: remove it or correct the bound"
                yield Finding("error", (*path, "ratio", number), text)
        for cap in stage.caps:
            for number, money in enumerate(cap.rows.rows):
                if money.value.amount == 0:
                    text = "a cap of nothing pays nothing: is this meant?"
                    yield Finding("warning", (*path, "caps", cap.number, "rows", number), text)


def _share(value: Value, path: Path) -> Iterator[Finding]:
    if value.amount is not None and 0 < value.amount < BASIS_POINTS // 100:
        meant = percent(min(value.amount * 100, BASIS_POINTS))
        text = f"{percent(value.amount)} is less than 1 %: was {meant} meant?"
        yield Finding("warning", path, text)


def _idle(adjustments: Sequence[Adjustment], path: Path) -> Iterator[Finding]:
    for number, adjustment in enumerate(adjustments):
        for row, change in enumerate(adjustment.rows.rows):
            neutral = {
                Operation.MINUS: 0,
                Operation.PLUS: 0,
                Operation.TIMES: BASIS_POINTS,
                Operation.OWN_TIMES: BASIS_POINTS,
            }
            if neutral.get(change.operation, -1) == change.value.amount:
                text = "changes nothing: write `value: unchanged` if the source says so"
                yield Finding("warning", (*path, number, "rows", row), text)


def _shares(plan: Plan, path: Path, fund: Fund) -> Iterator[Finding]:
    """Shares that come out impossible, and adjustments that never matter."""
    if not fund.adjust:
        return
    tables = [] if fund.when is None else [fund.when]
    tables.append(fund.ratio)
    for each in fund.adjust:
        tables += [each.rows] if each.when is None else [each.when, each.rows]
    below, above, tiny = Found(), Found(), Found()
    matters: set[int] = set()
    for combination, masks in plan.enumerate(tables):
        left = iter(masks)
        if fund.when is not None and not next(left):
            continue
        brackets: list[Bracket] = rows_of(fund.ratio, next(left))
        changes = _numbered(fund.adjust, left)
        for told in (below, above, tiny):
            told.see(combination)
        for bracket in brackets:
            if bracket.value.amount is None:
                continue
            share = Fraction(bracket.value.amount, BASIS_POINTS)
            for number, change in changes:
                after = _after(share, change)
                if after != share or change.operation is Operation.UNCHANGED:
                    matters.add(number)
                operand = Fraction(change.value.amount or 0, BASIS_POINTS)
                if change.operation is Operation.MINUS and operand > share > 0:
                    below.add(number, combination)
                if change.operation is Operation.PLUS and operand + share > 1:
                    above.add(number, combination)
                share = after
            if 0 < share < Fraction(1, 100):
                tiny.add("", combination)
    for number, words in below.items():
        text = f"takes more points off than there are for {words}: the fund would pay 0 %"
        yield Finding("warning", (*path, "adjust", number), text)
    for number, words in above.items():
        if not _limited(fund.adjust[number + 1 :]):
            text = f"lifts the share over 100 % for {words}: it is cut there, add `at_most` if"
            yield Finding("warning", (*path, "adjust", number), f"{text} the source says so")
    for _, words in tiny.items():
        yield Finding("warning", path, f"the share comes to less than 1 % for {words}")
    for number, adjustment in enumerate(fund.adjust):
        if number not in matters and not _limited([adjustment], BASIS_POINTS):
            text = "changes the share of no visit: correct or remove it"
            yield Finding("warning", (*path, "adjust", number), text)


def _numbered(adjustments: Sequence[Adjustment], masks: Iterator[int]) -> list[tuple[int, Change]]:
    """The changes that apply and are stated, with the number of their adjustment."""
    changes = []
    for number, each in enumerate(adjustments):
        for change in applied([each], masks):
            if change is not None:
                changes.append((number, change))
    return changes


def _after(share: Fraction, change: Change) -> Fraction:
    # The engine's own rule, on a denominator that it can scale points to.
    denominator = share.denominator * BASIS_POINTS
    return Fraction(*changed_share(share.numerator * BASIS_POINTS, denominator, change))


def _limited(adjustments: Sequence[Adjustment], least: int = 0) -> bool:
    """Whether a limit is written, as texts do after bonuses (不超过100%)."""
    return any(
        change.operation is Operation.AT_MOST and (change.value.amount or 0) >= least
        for adjustment in adjustments
        for change in adjustment.rows.rows
    )


_RISING: tuple[str, ...] = ("one", "two", "three")


def _levels(plan: Plan, path: Path, stage: Deductible) -> Iterator[Finding]:
    """A deductible that falls where the level rises."""
    if all(fact.key != "levels" for fact in stage.rows.facts):
        return
    scopes = [] if stage.when is None else [stage.when]
    amounts: dict[Any, dict[str, int]] = {}
    for combination, masks in plan.enumerate((*scopes, stage.rows)):
        rows: list[Money] = rows_of(stage.rows, masks[-1])
        if not all(masks[:-1]) or len(rows) != 1:
            continue
        value = rows[0].value
        if value.unit is Unit.FEN and value.amount is not None:
            rest = tuple(each for each in combination if each[0] != "levels")
            for level in dict(combination)["levels"].split("|"):
                amounts.setdefault(rest, {})[level] = value.amount
    fallen: dict[tuple[str, int, str, int], None] = {}
    for each in amounts.values():
        known = [(level, each[level]) for level in _RISING if level in each]
        for (low, first), (high, second) in pairwise(known):
            if second < first:
                fallen[low, first, high, second] = None
    for low, first, high, second in fallen:
        text = f"level {high} has {yuan(second)}元, less than {yuan(first)}元 of level {low}"
        yield Finding("warning", (*path, "rows"), f"{text}: compare with the source")


def _remote(document: Document, plan: Plan) -> Iterator[Finding]:
    """A benefit that does not say what becomes of temporary care in another province."""
    if plan.benefit.no_funds is not None:
        return
    for _, row in walk(document.written.benefits[plan.name], Conditions):
        if "other_temporary" in (row.classes or ()) or "cross_province" in (row.routes or ()):
            return
    text = "no row says what other temporary care in another province (跨省其他临时外出) is paid"
    yield Finding("warning", plan.path, f"{text}: it is paid like local care; say so if it is not")
