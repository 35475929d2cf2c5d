"""Prices and quantities as people read them."""

from __future__ import annotations


def yuan_of_micro(micro_yuan: int) -> str:
    """A price as yuan with two decimals, more where it has more: 1500000 → `1.50`."""
    fen, beyond = divmod(micro_yuan, 10_000)
    if not beyond:
        return f"{fen // 100}.{fen % 100:02d}"
    return f"{fen // 100}.{micro_yuan % 1_000_000:06d}".rstrip("0")


def quantity_text(quantity_e4: int) -> str:
    """A quantity without needless decimals: 15000 → `1.5`."""
    whole, part = divmod(quantity_e4, 10_000)
    return f"{whole}.{f'{part:04d}'.rstrip('0')}" if part else str(whole)
