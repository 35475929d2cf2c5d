"""Which part of an import file may be taken, and whether a whole file is there."""

from __future__ import annotations

from dataclasses import dataclass

from services.enrollment.domain.import_rows import HEADER_LINE, Totals

AHEAD = 16
"""How far a part may come before the one that is wanted next."""


@dataclass(frozen=True, slots=True)
class PartTaken:
    """A part that is there: its lines, the digest of its bytes and what came of its rows."""

    number: int
    first_line: int
    next_line: int
    digest: bytes
    totals: Totals
    accepted: int
    unchanged: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The parts of these numbers that are there already."""

    before: PartTaken | None
    same: PartTaken | None
    after: PartTaken | None


def cannot_be_taken(
    number: int, first_line: int, next_line: int, near: Neighbours, next_part: int
) -> str | None:
    """Why the lines from `first_line` to before `next_line` cannot be part `number`, in plain
    Chinese; None when they can. `next_part` is the one that is wanted next."""
    if number > next_part + AHEAD:
        return f"第 {number} 部分来得过早，现应送第 {next_part} 部分"
    if number == 1 and first_line != HEADER_LINE + 1:
        return f"第 1 部分应从第 {HEADER_LINE + 1} 行开始"
    if near.before is not None and near.before.next_line != first_line:
        return f"第 {number} 部分应从第 {near.before.next_line} 行开始"
    if near.after is not None and near.after.first_line != next_line:
        return f"第 {number} 部分应到第 {near.after.first_line - 1} 行为止"
    return None


def differences(control: Totals, read: Totals) -> str:
    """What of the control totals does not tie, in plain Chinese; empty when all do."""
    pairs = (
        ("行数", control.rows, read.rows),
        ("职工", control.employees, read.employees),
        ("居民", control.residents, read.residents),
    )
    return "；".join(
        f"{name}应为 {wanted}，实为 {found}" for name, wanted, found in pairs if wanted != found
    )
