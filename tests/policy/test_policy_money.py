"""The one rounding rule: half away from zero, exact, symmetric, monotone."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.runtime.money import divide_fen, round_fen, share_fen

AMOUNTS = st.integers(-(10**12), 10**12)
RATIOS = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [("1/2", 1), ("-1/2", -1), ("3/2", 2), ("5/2", 3), ("49/100", 0), ("-5/2", -3), ("7", 7)],
)
def test_halves_go_away_from_zero(value: str, rounded: int) -> None:
    assert round_fen(Fraction(value)) == rounded


@given(AMOUNTS, RATIOS)
def test_share_is_decimal_half_up(amount: int, ratio: int) -> None:
    exact = Decimal(amount) * ratio / 10_000
    # Decimal's ROUND_HALF_UP is half away from zero too.
    assert share_fen(amount, ratio) == int(exact.quantize(Decimal(1), ROUND_HALF_UP))
    assert share_fen(amount, ratio) == round_fen(Fraction(amount * ratio, 10_000))
    assert share_fen(-amount, ratio) == -share_fen(amount, ratio)


@given(AMOUNTS, RATIOS)
def test_one_fen_more_raises_the_share_by_none_or_one(amount: int, ratio: int) -> None:
    assert share_fen(amount + 1, ratio) - share_fen(amount, ratio) in (0, 1)


def test_divide_keeps_whole_numbers() -> None:
    assert [divide_fen(n * 7, 7) for n in (-3, 0, 3)] == [-3, 0, 3]
