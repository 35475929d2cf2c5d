"""A policy document: what one pooling area pays for one insurance type, as look-up tables.

Ratios are basis points of the fund's share, money is fen. Every value names the row that holds
it, the clause that states it and how well it is founded. The tables are keyed by what a case
brings, so that computing is look-ups only; what no row states is absent, never a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum

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


@dataclass(frozen=True, slots=True)
class Value:
    """One stated value."""

    row: str
    """The row of the document that holds it, e.g. `inpatient/deductible/three/employed/1`."""
    amount: int
    unit: Unit
    clause: str
    """Title of the source and the clause in it."""
    provenance: Provenance


class ReductionKind(StrEnum):
    """How care elsewhere is paid less, and where in the computation (DOMAIN: points and first
    pay differ, and so does first pay before and after the deductible)."""

    NOTHING = "nothing"
    POINTS = "points"
    FIRST_PAY_BEFORE_DEDUCTIBLE = "first_pay_before_deductible"
    FIRST_PAY_AFTER_DEDUCTIBLE = "first_pay_after_deductible"


@dataclass(frozen=True, slots=True)
class Reduction:
    """What one benefit class loses; points lower the pooled fund's ratio only."""

    kind: ReductionKind
    value: Value


class DeductibleKind(StrEnum):
    """Whether the deductible is due at each stay or once, topped up, in a benefit period."""

    PER_STAY = "per_stay"
    PER_PERIOD = "per_period"


class SegmentBase(StrEnum):
    """What the bounds of the ratio's segments count: the in-scope cost with the deductible in
    it, or only what is above the deductible."""

    IN_SCOPE = "in_scope"
    ABOVE_DEDUCTIBLE = "above_deductible"


@dataclass(frozen=True, slots=True)
class Segment:
    """The fund's ratio up to a bound (None: no bound)."""

    up_to_fen: int | None
    ratio: Value


@dataclass(frozen=True, slots=True)
class Layer:
    """A fund that pays above a cap, e.g. 职工大额: its ratio by person class, its own cap."""

    ratios: Mapping[str, Value]
    cap: Value | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How one group of care types is paid."""

    name: str
    counter: str
    """Suffix of the accumulator for deductible and own cap; empty: the period's main one."""
    counts_stays: bool
    in_period_cap: bool
    """Whether pooled payments count towards, and stop at, the document's period cap."""
    no_funds: Value | None
    """Set when no fund pays for this care; everything below is then empty."""
    reductions: Mapping[tuple[str, str], Reduction]
    """By (route, benefit class); the class `local` is never reduced and needs no row."""
    deductible_kind: DeductibleKind
    deductibles: Mapping[tuple[str, str], tuple[tuple[int, Value], ...]]
    """By (deductible level, person class): (from the nth stay, fen), the highest n first."""
    segment_base: SegmentBase
    ratios: Mapping[tuple[str, str, str], tuple[tuple[int, tuple[Segment, ...]], ...]]
    """By (settlement level, person class, route): (from age, segments), the highest age first."""
    caps: Mapping[str, Value]
    """By person class: cap on what the pooled fund pays for this care alone in a period."""
    above_cap: Layer | None


@dataclass(frozen=True, slots=True)
class Document:
    """One version of one area's policy for one insurance type; immutable."""

    area: str
    insurance: str
    """National code of the insurance type, `310` or `390`."""
    version: str
    title: str
    effective_from: str
    effective_to: str
    """ISO dates of the visit's last day, both inclusive."""
    plans: Mapping[str, Plan]
    """By care type."""
    period_caps: Mapping[str, Value]
    """By person class: cap on what the pooled fund pays in one benefit period."""
    above_period_cap: Layer | None
    account: Value | None
    """Set when the insurance has a personal account."""
    hash: bytes
    """SHA-256 of the canonical form."""
