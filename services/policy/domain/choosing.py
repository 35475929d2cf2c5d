"""Which row of a table holds for a case. None is `NotStated`, more than one is `Ambiguous`; both
name the table and the facts that it asked for."""

from __future__ import annotations

from typing import Any, TypeVar

from services.policy.domain.case import Ambiguous, Case, NotStated
from services.policy.domain.document import Adjustment, Bracket, Change, Value
from services.policy.domain.table import Table

R = TypeVar("R")


def one(table: Table[R], case: Case) -> R:
    """The row that holds."""
    rows = table.matching(case)
    if len(rows) == 1:
        return rows[0]
    raise _undecided(table, rows, case)


def amount(value: Value) -> int:
    """The amount that a row states; `not_stated` refuses the case."""
    if value.amount is None:
        raise NotStated(value.row)
    return value.amount


def change(adjustment: Adjustment, case: Case) -> Change | None:
    """The change that holds, or None outside of `when`."""
    if adjustment.when is not None and not adjustment.when.matching(case):
        return None
    chosen: Change = one(adjustment.rows, case)
    if chosen.value.amount is None:
        raise NotStated(chosen.value.row)
    return chosen


def brackets(table: Table[Bracket], case: Case) -> tuple[Bracket, ...]:
    """The brackets that hold, from the lowest; the last one has no bound."""
    rows = table.matching(case)
    if len(rows) == 1 and rows[0].up_to_fen is None:
        return rows
    bounds = [row.up_to_fen for row in rows]
    if len(set(bounds)) < len(bounds):
        raise _undecided(table, rows, case)
    if None not in bounds:
        raise _undecided(table, (), case)
    return tuple(sorted(rows, key=_bound))


def _bound(row: Bracket) -> tuple[bool, int]:
    return row.up_to_fen is None, row.up_to_fen or 0


def _undecided(table: Table[Any], rows: tuple[Any, ...], case: Case) -> NotStated | Ambiguous:
    asked = ",".join(f"{key}={value}" for key, value in table.asks(case))
    name = f"{table.name}({asked})" if asked else table.name
    return Ambiguous(name) if rows else NotStated(name)
