"""Which rows hold for a kind of visit, and what they come to: what `stages` computes with.

A row that is missing or states nothing refuses a visit only when the computation comes to it. So a
plan holds a refusal in its place: asked again with the visit, it raises and names its facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from infra.runtime.money import share_fen
from services.policy.domain.case import CannotCompute, Case, Counters, Told
from services.policy.domain.choosing import amount, brackets, change, one
from services.policy.domain.document import (
    Adjustment,
    Bracket,
    Cap,
    Change,
    Deductible,
    FirstPay,
    Floor,
    Fund,
    Money,
    Provenance,
    Value,
)
from services.policy.domain.kinds import Kinds
from services.policy.domain.shares import changed, changed_money
from services.policy.domain.table import Table, UnknownFact

R = TypeVar("R")
Stage = FirstPay | Deductible | Fund
Refusal = Callable[[Case], object]
"""Raises `CannotCompute` or `UnknownFact` for any case of the kind."""

ACCUMULATED = {
    "hifp_pay": "pooled_used_fen",
    "hifob_pay": "large_amount_used_fen",
    "hifmi_pay": "major_illness_used_fen",
    "maf_pay": "assistance_used_fen",
}
"""Fund → what its yearly caps count."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The computation comes to an end here."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class PlannedFirstPay:
    """先行自付."""

    value: Value
    basis_points: int
    barred: bool


@dataclass(frozen=True, slots=True)
class Due:
    """A deductible with its changes."""

    money: Money
    stage: str
    """What its steps are called."""
    changes: tuple[Change, ...]
    fen: int | None
    """After the changes; None: it depends on the bill."""
    told: tuple[Told, ...]
    """The steps of the changes, where it does not."""


@dataclass(frozen=True, slots=True)
class PlannedDeductible:
    """起付线; nothing is due and capped where it refuses."""

    topped_up: bool
    due: Due | None
    year_cap: Money | None
    refusal: Refusal | None


class PlannedBracket(NamedTuple):
    """A share up to a bound, after all changes."""

    value: Value
    up_to_fen: int | None
    numerator: int
    denominator: int
    barred: int
    """What the changes that bar take off it."""
    told: tuple[object, ...]
    """Facts of its step."""
    refusal: Refusal | None


class PlannedCap(NamedTuple):
    """A limit of one fund."""

    cap: Cap
    money: Money
    fen: int | None
    """None: it depends on the bill."""
    counter: int | None
    """Which of `Counters` it limits; None: this visit alone."""


@dataclass(frozen=True, slots=True)
class PlannedFund:
    """One fund's stage; it has no brackets where it refuses."""

    stage: Fund
    due: Due | None
    """Its own deductible."""
    caps: tuple[PlannedCap, ...]
    brackets: tuple[PlannedBracket, ...]
    refusal: Refusal | None
    floor: Value | None
    floor_refusal: Refusal | None


Planned = Stop | PlannedFirstPay | PlannedDeductible | PlannedFund


class Plan(NamedTuple):
    """The stages that a kind of visit goes through."""

    stages: tuple[Planned, ...]
    provenance: Provenance | None
    """Of every value in it; None: they differ."""


def plans(stages: Sequence[Stage]) -> Kinds[Plan]:
    """The plans of a benefit. Plans share stages, whose kinds are far fewer."""
    each = [(tuple(_tables(stage)), stage) for stage in stages]
    parts = [Kinds(tables, partial(_planned, stage)) for tables, stage in each]
    return Kinds([table for tables, _ in each for table in tables], partial(_plan, parts))


def of_bill(money: Money, bill: Any) -> int:
    """What the row states, or its share of `bill`: whatever has the two amounts."""
    stated = amount(money.value)
    if money.share_of is None:
        return stated
    base = bill.total_fen if money.share_of == "total" else bill.in_scope_fen
    return max(share_fen(base, stated), money.at_least_fen)


def changed_due(stage: str, fen: int, changes: Sequence[Change]) -> tuple[int, tuple[Told, ...]]:
    """A deductible after its changes, with their steps."""
    told: list[Told] = []
    for each in changes:
        before, fen = fen, changed_money(fen, each)
        told.append((stage, "changed_deductible", each.value, before, fen, ()))
    return fen, tuple(told)


def _tables(stage: Stage) -> Iterator[Table[Any]]:
    """Every table that a stage may ask."""
    found: list[Table[Any] | None] = [stage.when]
    if isinstance(stage, Fund):
        adjustments = stage.adjust_deductible + stage.adjust
        found += [stage.deductible, stage.ratio, *(cap.rows for cap in stage.caps)]
        if stage.floor is not None:
            found += [stage.floor.when, stage.floor.rows]
    else:
        adjustments = stage.adjust if isinstance(stage, Deductible) else ()
        found.append(stage.rows)
        if isinstance(stage, Deductible):
            found.append(stage.year_cap)
    for each in adjustments:
        found += [each.when, each.rows]
    return (table for table in found if table is not None)


def _plan(parts: Sequence[Kinds[tuple[Planned, ...]]], case: Case) -> Plan:
    stages = tuple(stage for part in parts for stage in part.of(case))
    provenances = {value.provenance for stage in stages for value in _values(stage)}
    return Plan(stages, provenances.pop() if len(provenances) == 1 else None)


def _planned(stage: Stage, case: Case) -> tuple[Planned, ...]:
    """The stage for this kind of visit; none outside of its `when`."""
    scope = partial(_holds, stage.when)
    holds, refusal = _try(scope, case)
    if refusal is not None:
        return (Stop(refusal),)
    if not holds:
        return ()
    if isinstance(stage, Fund):
        return (_fund(stage, case),)
    if isinstance(stage, Deductible):
        found, refusal = _try(partial(_due_and_cap, stage), case)
        due, year_cap = found or (None, None)
        return (PlannedDeductible(stage.topped_up, due, year_cap, refusal),)
    value, refusal = _try(partial(_stated, stage.rows), case)
    if value is None:
        assert refusal is not None
        return (Stop(refusal),)
    return (PlannedFirstPay(value, amount(value), stage.barred),)


def _fund(stage: Fund, case: Case) -> PlannedFund:
    found, refusal = _try(partial(_fund_rows, stage), case)
    due, caps, rows = found or (None, (), ())
    changes, unchangeable = _try(partial(_changes, stage.adjust), case)
    floor, no_floor = None, None
    if stage.floor is not None:
        floor, no_floor = _try(partial(_floor, stage.floor), case)
    brackets = tuple(_bracket(stage, row, changes or (), unchangeable) for row in rows)
    return PlannedFund(stage, due, caps, brackets, refusal, floor, no_floor)


def _bracket(
    stage: Fund, row: Bracket, changes: tuple[tuple[Change, bool], ...], refusal: Refusal | None
) -> PlannedBracket:
    value = row.value
    if refusal is None and value.amount is None:
        refusal = partial(_amount, value)
    if refusal is not None:
        return PlannedBracket(value, row.up_to_fen, 0, 1, 0, (), refusal)
    only = tuple(each for each, _ in changes)
    share = changed(amount(value), only, [barred for _, barred in changes])
    return PlannedBracket(value, row.up_to_fen, *share, (stage.name, *share[:2], only), None)


def _due_and_cap(stage: Deductible, case: Case) -> tuple[Due, Money | None]:
    due = _due("deductible", stage.rows, stage.adjust, case)
    if stage.year_cap is None:
        return due, None
    money = one(stage.year_cap, case)
    amount(money.value)
    return due, money


def _fund_rows(
    stage: Fund, case: Case
) -> tuple[Due | None, tuple[PlannedCap, ...], tuple[Bracket, ...]]:
    due = None
    if stage.deductible is not None:
        due = _due(stage.code, stage.deductible, stage.adjust_deductible, case)
    caps = tuple(_cap(stage.code, cap, case) for cap in stage.caps)
    return due, caps, brackets(stage.ratio, case)


def _due(name: str, table: Table[Money], adjustments: Sequence[Adjustment], case: Case) -> Due:
    money = one(table, case)
    stated = amount(money.value)
    changes = tuple(change for change, _ in _changes(adjustments, case))
    if money.share_of is not None:
        return Due(money, name, changes, None, ())
    return Due(money, name, changes, *changed_due(name, stated, changes))


def _cap(code: str, cap: Cap, case: Case) -> PlannedCap:
    money = one(cap.rows, case)
    stated = amount(money.value)
    counter = None
    if cap.name != "stay":
        counter = Counters._fields.index("fee_used_fen" if cap.is_fee else ACCUMULATED[code])
    return PlannedCap(cap, money, stated if money.share_of is None else None, counter)


def _changes(adjustments: Sequence[Adjustment], case: Case) -> tuple[tuple[Change, bool], ...]:
    """The changes that hold, each with whether it bars what it takes off."""
    found = ((change(each, case), each.barred) for each in adjustments)
    return tuple((chosen, barred) for chosen, barred in found if chosen is not None)


def _floor(floor: Floor, case: Case) -> Value | None:
    return _stated(floor.rows, case) if _holds(floor.when, case) else None


def _stated(table: Table[Value], case: Case) -> Value:
    value = one(table, case)
    amount(value)
    return value


def _amount(value: Value, _: Case) -> int:
    return amount(value)


def _holds(when: Table[Any] | None, case: Case) -> bool:
    return when is None or when.holds(case)


def _try(choose: Callable[[Case], R], case: Case) -> tuple[R | None, Refusal | None]:
    """What it chooses, or itself as the refusal."""
    try:
        return choose(case), None
    except (CannotCompute, UnknownFact):
        return None, choose


def _values(stage: Planned) -> Iterator[Value]:
    """The values that a planned stage may use."""
    if isinstance(stage, PlannedFirstPay):
        yield stage.value
    elif isinstance(stage, PlannedDeductible):
        yield from _due_values(stage.due)
        if stage.year_cap is not None:
            yield stage.year_cap.value
    elif isinstance(stage, PlannedFund):
        yield from _due_values(stage.due)
        for cap in stage.caps:
            yield cap.money.value
        for bracket in stage.brackets:
            yield bracket.value
            if bracket.refusal is None:
                changes: Any = bracket.told[3]
                yield from (each.value for each in changes)
        if stage.floor is not None:
            yield stage.floor


def _due_values(due: Due | None) -> Iterator[Value]:
    if due is not None:
        yield due.money.value
        yield from (each.value for each in due.changes)
