"""Accumulators as sums of signed deltas, and the chain of one person's settlements over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FIELDS = (
    "stay_count",
    "deductible_paid_fen",
    "pooled_used_fen",
    "large_amount_used_fen",
    "major_illness_base_fen",
    "major_illness_used_fen",
    "assistance_used_fen",
    "fee_used_fen",
)
"""The values of an accumulator in their stored order; all but the first are fen."""

Values = tuple[int, ...]
ZERO: Values = (0,) * len(FIELDS)
ABSENT = -1
"""Version of a row that did not exist when it was read."""


def add(values: Values, delta: Values) -> Values:
    """Element-wise sum."""
    return tuple(value + change for value, change in zip(values, delta, strict=True))


def named(values: Values) -> dict[str, int]:
    """The values by their names, zeros left out."""
    return {name: value for name, value in zip(FIELDS, values, strict=True) if value}


@dataclass(frozen=True, slots=True)
class PersonKey:
    """Whose accumulators: one row per benefit period that the policy names."""

    insured_area: str
    insurance: int
    person_id: str


@dataclass(frozen=True, slots=True)
class Row:
    """An accumulator or account row as read: its version and values."""

    version: int
    values: Values


@dataclass(slots=True)
class Chain:
    """The rows that one unit has touched, and the values that its cases have led to."""

    read: Mapping[str, Row]
    """Benefit period → row as read."""
    values: dict[str, Values] = field(default_factory=dict)

    def apply(self, deltas: Mapping[str, Values]) -> list[dict[str, object]]:
        """Add one settlement's deltas; return what its decision row keeps of each period:
        the version read, the values before and the delta, so that rebuild = sum, undo = negate.
        """
        kept: list[dict[str, object]] = []
        for period, delta in deltas.items():
            row = self.read.get(period)
            before = self.values.get(period, row.values if row else ZERO)
            self.values[period] = add(before, delta)
            kept.append(
                {
                    "period": period,
                    "version": row.version if row else ABSENT,
                    "before": dict(zip(FIELDS, before, strict=True)),
                    "delta": dict(zip(FIELDS, delta, strict=True)),
                }
            )
        return kept
