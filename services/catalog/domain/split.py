"""Splits a bill by the care place's catalogue: four parts per line that sum to its amount.

Of a line, first the part over the price limit is the patient's (超限价), then the first self-pay
share of what is left (先行自付), the rest is in scope (符合政策范围). An item that the catalogue
does not list, that the institution has not mapped, that is 自费, or that is restricted and not
approved is full self-pay (全自费), never an error. A refund is the mirror of the charge: the split
is computed on absolute values and takes the sign of the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple, Protocol

from infra.runtime.money import divide_fen, share_fen
from services.catalog.domain.catalogue import RuleBook
from services.catalog.domain.item import FeeCategory
from services.catalog.domain.rule import UNMAPPED, Rule

FEN = 100_000_000
"""Micro-yuan times 1/10,000 in one fen."""
APPROVED = 2
"""`Answer` YES of the contract."""


class Line(Protocol):
    """A line of a bill as the institution charges it; the contract's FeeLine is one as it is."""

    @property
    def line_id(self) -> str: ...
    @property
    def item_code(self) -> str: ...
    @property
    def national_code(self) -> str: ...
    @property
    def unit_price_micro_yuan(self) -> int: ...
    @property
    def quantity_e4(self) -> int: ...
    @property
    def amount_fen(self) -> int: ...
    @property
    def hospital_approved(self) -> int: ...
    @property
    def charged_on(self) -> str: ...


class LineSplit(NamedTuple):
    """One line's parts, fen. A named tuple because it is made for every line of every bill."""

    line_id: str
    national_code: str
    rule: Rule
    amount_fen: int
    full_self_pay_fen: int
    over_limit_fen: int
    first_self_pay_fen: int
    in_scope_fen: int
    reason: str


@dataclass(frozen=True, slots=True)
class Parts:
    """A sum and its four parts, fen: amount = full + over + first + in scope."""

    amount_fen: int
    full_self_pay_fen: int
    over_limit_fen: int
    first_self_pay_fen: int
    in_scope_fen: int


@dataclass(frozen=True, slots=True)
class BillSplit:
    """A bill: the whole, each line in order, and the fee categories by code."""

    parts: Parts
    lines: tuple[LineSplit, ...]
    categories: tuple[tuple[FeeCategory, Parts], ...]


class LineAmountMismatch(Exception):
    """Price times quantity is more than one fen away from the amount."""

    def __init__(self, line_id: str) -> None:
        self.line_id = line_id
        super().__init__(f"line {line_id}")


class TotalMismatch(Exception):
    """The lines do not add up to the stated total."""

    def __init__(self, total_fen: int, sum_fen: int) -> None:
        self.total_fen = total_fen
        self.sum_fen = sum_fen
        super().__init__(f"total {total_fen}, sum {sum_fen}")


class DayInvalid(Exception):
    """A text of the form of a day that is no day, such as 2026-02-31."""

    def __init__(self, field: str, value: str) -> None:
        self.field = field
        self.value = value
        super().__init__(f"{field}: {value}")


def split_bill(
    lines: Iterable[Line],
    *,
    total_fen: int,
    day: date,
    rules: RuleBook,
    mapped: Mapping[str, str],
) -> BillSplit:
    """Split every line; `day` is the bill's, for lines without a day of their own.

    `mapped` is the institution's registered mapping of its item codes to national codes; it goes
    before the code that the line carries. Raises `LineAmountMismatch` for the first such line,
    then `TotalMismatch`, and `DayInvalid`.
    """
    days = {"": day}
    sums: list[list[int] | None] = [None] * (max(FeeCategory) + 1)
    done: list[LineSplit] = []
    for index, line in enumerate(lines):
        charged_on = line.charged_on
        charged = days.get(charged_on)
        if charged is None:
            charged = days[charged_on] = _day_of(charged_on, f"lines[{index}].charged_on")
        code = mapped.get(line.item_code)
        if code is None:
            code = line.national_code
        split = split_line(line, code, rules.rule(code, charged) if code else UNMAPPED)
        done.append(split)
        total = sums[split.rule.fee_category]
        if total is None:
            total = sums[split.rule.fee_category] = [0, 0, 0, 0, 0]
        total[0] += split.amount_fen
        total[1] += split.full_self_pay_fen
        total[2] += split.over_limit_fen
        total[3] += split.first_self_pay_fen
        total[4] += split.in_scope_fen
    categories = tuple(
        (category, Parts(*found)) for category in FeeCategory if (found := sums[category])
    )
    whole = Parts(*map(sum, zip(*filter(None, sums), strict=True))) if done else _NOTHING
    if whole.amount_fen != total_fen:
        raise TotalMismatch(total_fen, whole.amount_fen)
    return BillSplit(parts=whole, lines=tuple(done), categories=categories)


_NOTHING = Parts(0, 0, 0, 0, 0)


def split_line(line: Line, national_code: str, rule: Rule) -> LineSplit:
    """Split one line by its rule. Raises `LineAmountMismatch`."""
    amount = line.amount_fen
    price = line.unit_price_micro_yuan
    quantity = line.quantity_e4
    # 接口规范 2204/2301: |price × quantity − amount| ≤ 0.01 yuan, refunds in negative quantities.
    if not -FEN <= price * quantity - amount * FEN <= FEN:
        raise LineAmountMismatch(line.line_id)
    if not rule.covered:
        return LineSplit(line.line_id, national_code, rule, amount, amount, 0, 0, 0, rule.reason)
    if rule.restricted and line.hospital_approved != APPROVED:
        return LineSplit(
            line.line_id, national_code, rule, amount, amount, 0, 0, 0, rule.reason_not_approved
        )
    rest = abs(amount)
    over = 0
    reason = rule.reason
    if price > rule.limit_micro_yuan:
        # The amount may be a fen short of price × quantity, so the part over the limit is bounded.
        over = min(divide_fen((price - rule.limit_micro_yuan) * abs(quantity), FEN), rest)
        rest -= over
        reason = rule.reason_over_limit
    first = share_fen(rest, rule.first_self_pay_bp) if rule.first_self_pay_bp else 0
    rest -= first
    if amount < 0:
        over, first, rest = -over, -first, -rest
    return LineSplit(line.line_id, national_code, rule, amount, 0, over, first, rest, reason)


def _day_of(text: str, field: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DayInvalid(field, text) from None
