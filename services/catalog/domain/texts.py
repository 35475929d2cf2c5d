"""Amounts and shares as people read them."""

from __future__ import annotations


def yuan(fen: int) -> str:
    """Fen as yuan with two decimals: -105 → `-1.05`."""
    sign = "-" if fen < 0 else ""
    return f"{sign}{abs(fen) // 100}.{abs(fen) % 100:02d}"


def yuan_of_micro(micro_yuan: int) -> str:
    """A price as yuan with two decimals, more where it has more: 1500000 → `1.50`."""
    whole, part = divmod(micro_yuan, 1_000_000)
    return f"{whole}.{f'{part:06d}'.rstrip('0').ljust(2, '0')}"


def percent(basis_points: int) -> str:
    """Basis points as a percentage: 1250 → `12.5%`."""
    whole, part = divmod(basis_points, 100)
    return f"{whole}.{f'{part:02d}'.rstrip('0')}%" if part else f"{whole}%"
