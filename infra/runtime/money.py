"""The one rounding rule of the suite: half away from zero to the fen, once per published step.

Money is `int` fen; ratios are basis points (1/10,000) or exact `Fraction`. No float comes near.
"""

from __future__ import annotations

from fractions import Fraction

BASIS_POINTS = 10_000
"""Basis points of the whole."""


def round_fen(value: Fraction) -> int:
    """`value` fen rounded to the whole fen, halves away from zero (as the counter rounds)."""
    return divide_fen(value.numerator, value.denominator)


def share_fen(amount_fen: int, basis_points: int) -> int:
    """`basis_points` of `amount_fen`, rounded to the fen, halves away from zero."""
    return divide_fen(amount_fen * basis_points, BASIS_POINTS)


def divide_fen(numerator: int, denominator: int) -> int:
    """`numerator / denominator` (denominator > 0) rounded to the fen, halves away from zero."""
    if numerator < 0:
        return -((2 * -numerator + denominator) // (2 * denominator))
    return (2 * numerator + denominator) // (2 * denominator)


def yuan(fen: int) -> str:
    """Fen as yuan with two decimals: -105 → `-1.05`."""
    sign = "-" if fen < 0 else ""
    return f"{sign}{abs(fen) // 100}.{abs(fen) % 100:02d}"


def percent(basis_points: int) -> str:
    """Basis points as a percentage: 1250 → `12.5%`."""
    whole, part = divmod(basis_points, 100)
    return f"{whole}.{f'{part:02d}'.rstrip('0')}%" if part else f"{whole}%"
