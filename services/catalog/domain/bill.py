"""A bill as the institution charges it and as it is split, and what may be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.catalog.domain.item import CatalogClass, FeeCategory
from services.catalog.domain.rule import SplitRule


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
    @property
    def original_line_id(self) -> str: ...


class LineSplit(NamedTuple):
    """One line's parts, fen. A named tuple because it is made for every line of every bill."""

    line_id: str
    national_code: str
    name: str
    catalog_class: CatalogClass
    fee_category: FeeCategory
    amount_fen: int
    full_self_pay_fen: int
    over_limit_fen: int
    first_self_pay_fen: int
    in_scope_fen: int
    reason: str
    rules: tuple[SplitRule, ...]
    """In the order they were applied."""


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


class LineRepeated(Exception):
    """Two lines of the bill have one id."""

    def __init__(self, line_id: str) -> None:
        self.line_id = line_id
        super().__init__(f"line {line_id}")


class RefundInvalid(Exception):
    """A line cites another that it cannot return a part of; `cause` is plain Chinese."""

    def __init__(self, line_id: str, cause: str) -> None:
        self.line_id = line_id
        self.cause = cause
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
