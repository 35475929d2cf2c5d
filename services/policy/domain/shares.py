"""The arithmetic of shares: exact fractions of the fund's side, rounded once per bracket."""

from __future__ import annotations

from collections.abc import Sequence

from infra.runtime.money import BASIS_POINTS, divide_fen, share_fen
from services.policy.domain.document import Change, Operation

Ratio = tuple[int, int]
"""Numerator and denominator, a power of 10,000."""


# Looked up once: reading a member from its class costs more than the arithmetic.
_UNCHANGED, _TIMES, _OWN_TIMES = Operation.UNCHANGED, Operation.TIMES, Operation.OWN_TIMES
_SET, _MINUS, _PLUS, _AT_LEAST = Operation.SET, Operation.MINUS, Operation.PLUS, Operation.AT_LEAST


def changed(
    basis_points: int, changes: Sequence[Change], barring: Sequence[bool]
) -> tuple[int, int, int]:
    """The ratio after `changes` in order: numerator, denominator, and what those that bar
    (`barring`, one for each) take off it, of the same denominator."""
    if not changes:
        return basis_points, BASIS_POINTS, 0
    numerator, denominator = basis_points, BASIS_POINTS
    unbarred: Ratio | None = None
    for change, barred in zip(changes, barring, strict=True):
        if barred:
            unbarred = unbarred or (numerator, denominator)
        elif unbarred is not None:
            unbarred = changed_share(*unbarred, change)
        numerator, denominator = changed_share(numerator, denominator, change)
    if unbarred is None:
        return numerator, denominator, 0
    without = unbarred[0] * (denominator // unbarred[1])
    return numerator, denominator, max(without - numerator, 0)


def changed_share(numerator: int, denominator: int, change: Change) -> Ratio:
    """The fraction after a change, within 0 and 1."""
    operation = change.operation
    if operation is _UNCHANGED:
        return numerator, denominator
    operand = change.operand
    if operation is _TIMES:
        return numerator * operand, denominator * BASIS_POINTS
    if operation is _OWN_TIMES:
        own = (denominator - numerator) * operand
        denominator *= BASIS_POINTS
        return denominator - own, denominator
    scaled = operand * (denominator // BASIS_POINTS)
    if operation is _SET:
        return scaled, denominator
    if operation is _MINUS:
        return max(numerator - scaled, 0), denominator
    if operation is _PLUS:
        return min(numerator + scaled, denominator), denominator
    if operation is _AT_LEAST:
        return max(numerator, scaled), denominator
    return min(numerator, scaled), denominator


def changed_money(fen: int, change: Change) -> int:
    """An amount after a change, not below 0."""
    operation = change.operation
    if operation is _UNCHANGED:
        return fen
    operand = change.operand
    if operation is _SET:
        return operand
    if operation is _MINUS:
        return max(fen - operand, 0)
    if operation is _PLUS:
        return fen + operand
    if operation is _TIMES:
        return share_fen(fen, operand)
    if operation is _AT_LEAST:
        return max(fen, operand)
    return min(fen, operand)


def share(size: int, numerator: int, denominator: int, before: int = 0) -> int:
    """The rounded share of `size`; after `before`, as the difference of two rounded sums, so that
    an annual sum does not depend on how it is cut into visits."""
    if before == 0:
        return divide_fen(size * numerator, denominator)
    after = divide_fen((before + size) * numerator, denominator)
    return after - divide_fen(before * numerator, denominator)


def covered(room: int, numerator: int, denominator: int, before: int = 0, *, by_year: bool) -> int:
    """The fee that `room` pays the share of, given that the whole fee would use it up.

    Of one visit it is `room` divided by the ratio. Over a year it is the least fee that uses up
    the room: then the cost beyond a limit is the same however the year is cut into visits.
    """
    if room == 0:
        return 0
    if not by_year:
        return divide_fen(room * denominator, numerator)
    paid = room + divide_fen(before * numerator, denominator)
    return -((1 - 2 * paid) * denominator // (2 * numerator)) - before
