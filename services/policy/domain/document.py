"""A policy document ready to compute with: ordered stages whose parameters are decision tables.

Ratios are basis points of the fund's share, money is fen. Every value names the row that holds
it, the clause that states it and how well it is founded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from services.policy.domain.kinds import Kinds
from services.policy.domain.table import Table
from services.policy.domain.written import WrittenDocument

OPEN_END = "9999-12-31"
"""`effective_to` of a document that has not ended."""


class Provenance(IntEnum):
    """How well a value is founded; the greater, the weaker."""

    OFFICIAL = 1
    SECONDARY = 2
    ILLUSTRATIVE = 3


class Unit(Enum):
    """What a value counts."""

    NONE = "none"
    FEN = "fen"
    BASIS_POINTS = "basis_points"


class Value(NamedTuple):
    """One stated value."""

    row: str
    """The row that holds it, e.g. `inpatient/deductible[levels=three,stays=2-]`."""
    amount: int | None
    """None: the source states none, and a case that comes here is refused."""
    unit: Unit
    clause: str
    """Title of the source and the clause in it."""
    provenance: Provenance


class Money(NamedTuple):
    """An amount, or a share of the bill with a least amount."""

    value: Value
    share_of: str | None = None
    """`total` or `in_scope`: then the value is basis points of it."""
    at_least_fen: int = 0


class Bracket(NamedTuple):
    """A share up to a bound (None: no bound)."""

    value: Value
    up_to_fen: int | None


class Operation(Enum):
    """What a change does to a value."""

    UNCHANGED = "value"
    SET = "set"
    MINUS = "minus"
    PLUS = "plus"
    TIMES = "times"
    OWN_TIMES = "own_times"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"


class Change(NamedTuple):
    """One row of an adjustment; the amount of `value` is the operand."""

    value: Value
    operation: Operation

    @property
    def operand(self) -> int:
        """The amount; who asks for it has seen that it is stated."""
        assert self.value.amount is not None
        return self.value.amount


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A change for the visits that `when` names."""

    when: Table[Any] | None
    rows: Table[Change]
    barred: bool = False


@dataclass(frozen=True, slots=True)
class FirstPay:
    """先行自付 of what is left, before or after the deductible by its place in the order."""

    when: Table[Any] | None
    rows: Table[Value]
    barred: bool


@dataclass(frozen=True, slots=True)
class Deductible:
    """起付线."""

    when: Table[Any] | None
    topped_up: bool
    rows: Table[Money]
    adjust: tuple[Adjustment, ...]
    year_cap: Table[Money] | None


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit of one fund."""

    name: str
    """`shared`, `own` or `stay`: where the excess is found again."""
    is_fee: bool
    rows: Table[Money]
    number: int = 0
    """Its place among the caps as they are written."""


@dataclass(frozen=True, slots=True)
class Floor:
    """保底: the least share of the bill less the deductible."""

    when: Table[Any] | None
    of_total: bool
    rows: Table[Value]


@dataclass(frozen=True, slots=True)
class Fund:
    """One fund's stage; see `written.Fund`."""

    code: str
    name: str
    of: str
    when: Table[Any] | None
    beyond: tuple[str, ...]
    parts: tuple[str, ...]
    by_year: bool
    """Whether the own costs of the year are accumulated (大病)."""
    deductible: Table[Money] | None
    adjust_deductible: tuple[Adjustment, ...]
    counts_deductible: bool
    """Whether the bounds of brackets count the deductible too (absolute brackets)."""
    brackets_by_year: bool
    ratio: Table[Bracket]
    adjust: tuple[Adjustment, ...]
    floor: Floor | None
    caps: tuple[Cap, ...]
    counts_fee: bool
    """Whether the fee of the year matters to brackets or caps."""
    shares_fee: bool
    """Whether it counts towards a cap of the whole period."""


@dataclass(frozen=True, slots=True)
class Diseases:
    """Which chronic diseases a benefit pays."""

    covered: frozenset[str]
    otherwise: str
    value: Value


@dataclass(frozen=True, slots=True)
class Benefit:
    """How one group of care types is paid."""

    name: str
    care_types: tuple[str, ...]
    counter: str
    """Suffix of the accumulator of its own; empty: the period's main one."""
    counts_stays: bool
    counts_temporaries: bool
    """Whether some rule asks which temporary visit elsewhere this is."""
    shares_cap: bool
    """Whether what the pooled fund pays here counts towards the caps of the whole period."""
    diseases: Diseases | None
    no_funds: Value | None
    stages: tuple[FirstPay | Deductible | Fund, ...]
    plans: Kinds[Any]
    """By kind of visit; made by `planning.plans` of the stages."""
    asks_stays: bool
    """Whether some rule asks which stay or temporary visit of the period this is."""


@dataclass(frozen=True, slots=True)
class Account:
    """What the personal account may pay; empty `pays`: all of the personal side."""

    pays: tuple[str, ...]
    value: Value


@dataclass(frozen=True, slots=True)
class Document:
    """One version of one area's policy for one insurance type; immutable."""

    area: str
    insurance: str
    """National code of the insurance type, `310` or `390`."""
    version: str
    title: str
    published_on: str | None
    effective_from: str
    effective_to: str
    """ISO dates, both inclusive."""
    effective_by: str
    """Whose date picks the version: `discharge`, `admission`, `settlement`."""
    period_by: str
    """Whose calendar year is the benefit period: `settlement`, `discharge`."""
    splits_year_end: bool
    benefits: Mapping[str, Benefit]
    """By care type."""
    account: Account | None
    written: WrittenDocument
    hash: bytes
    """SHA-256 of the canonical form."""
