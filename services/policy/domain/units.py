"""Quantities as documents write them, each with its unit: `1300元`, `85%`, `10个百分点`.

A number without a unit is an error, and so is a unit in the wrong place: 80 % less 10 points is
70 %, 80 % times 90 % is 72 %, and nobody should have to guess which was meant.
"""

from __future__ import annotations

import re
from decimal import Decimal

NOT_STATED = "not_stated"
"""What a row holds where the source states no value: such a case is refused, never guessed."""
MAX_FEN = 10**12
"""The greatest amount the contract carries."""
UNLIMITED = "unlimited"
"""What a cap's row holds where the text says 不封顶 (read as `MAX_FEN`)."""
_MONEY = re.compile(r"(-?\d+(?:\.\d+)?)(万?)元")
_SHARE = re.compile(r"(-?\d+(?:\.\d+)?)%")
_POINTS = re.compile(r"(-?\d+(?:\.\d+)?)个百分点")
MONEY_PATTERN = r"^\d+(\.\d+)?万?元$"
SHARE_PATTERN = r"^\d+(\.\d+)?%$"
POINTS_PATTERN = r"^\d+(\.\d+)?个百分点$"


def fen(text: object) -> int:
    """`1300元` or `2.5万元` in fen; raise `ValueError` saying what to write."""
    match = _MONEY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no amount: write e.g. 1300元 or 2.5万元")
    value = Decimal(match[1]) * (1_000_000 if match[2] else 100)
    return _whole(value, text, "元 with at most two decimals", 0, MAX_FEN)


def amount(value: int) -> str:
    """Fen as documents write them: `1300元`, `2.5万元`."""
    in_ten_thousands = value >= 1_000_000 and value % 10_000 == 0
    unit, name = (1_000_000, "万元") if in_ten_thousands else (100, "元")
    return f"{format((Decimal(value) / unit).normalize(), 'f')}{name}"


def limit(text: object) -> int:
    """`30万元` or `unlimited` in fen."""
    return MAX_FEN if text == UNLIMITED else fen(text)


def basis_points(text: object) -> int:
    """`85%` or `12.5%` in basis points, 0 to 10,000."""
    match = _SHARE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no share: write e.g. 85%")
    return _whole(Decimal(match[1]) * 100, text, "a share from 0% to 100%", 0, 10_000)


def points(text: object) -> int:
    """`10个百分点` in basis points, 0 to 10,000."""
    match = _POINTS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f"{text!r} is no difference of shares: write e.g. 10个百分点 (a multiple is `times`)"
        )
    return _whole(Decimal(match[1]) * 100, text, "from 0 to 100 points", 0, 10_000)


def _whole(value: Decimal, text: object, wanted: str, least: int, most: int) -> int:
    if value != int(value) or not least <= value <= most:
        raise ValueError(f"{text!r} must be {wanted}")
    return int(value)


def span(text: object) -> tuple[int, int | None]:
    """`2`, `50-59` or `3-` as (first, last or None)."""
    match = re.fullmatch(r"(\d{1,3})(-(\d{1,3})?)?", str(text)) if _is_span(text) else None
    if match is None:
        raise ValueError(f'{text!r} is no range: write e.g. "2", "50-59" or "3-"')
    first = int(match[1])
    last = first if match[2] is None else int(match[3]) if match[3] else None
    if last is not None and last < first:
        raise ValueError(f"{text!r} ends before it begins")
    return first, last


def _is_span(text: object) -> bool:
    return isinstance(text, str | int) and not isinstance(text, bool)
