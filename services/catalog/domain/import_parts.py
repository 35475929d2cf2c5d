"""Which part of an import file may be taken, and whether all of a file is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.catalog.domain.import_layouts import Table

AHEAD = 16
"""How far a part may come before the one that is wanted next."""


@dataclass(frozen=True, slots=True)
class PartTaken:
    """Where a part lies: its table's place in the file and its lines there."""

    number: int
    place: int
    first_line: int
    next_line: int


def cannot_be_taken(part: PartTaken, near: Sequence[PartTaken], next_part: int) -> str | None:
    """Why a part cannot be taken, in plain Chinese; None when it can.

    `near` are those of the parts around it that are there, `next_part` is the one wanted next.
    """
    if part.number > next_part + AHEAD:
        return f"第 {part.number} 部分来得过早，现应送第 {next_part} 部分"
    for one in near:
        earlier, later = sorted((one, part), key=lambda each: each.number)
        if not _follows(earlier, later):
            return f"第 {later.number} 部分与第 {earlier.number} 部分不相接"
    return None


def missing(parts: Sequence[PartTaken], tables: Sequence[Table], count: int) -> str | None:
    """Why `parts`, in order, are not the `count` parts that a file of these tables has; None when
    they are."""
    for wanted, part in enumerate(parts, start=1):
        if part.number != wanted:
            return f"缺少第 {wanted} 部分"
        if part.place >= len(tables):
            return f"第 {wanted} 部分属于没有申报的表"
    if len(parts) != count:
        return f"应有 {count} 部分，已收 {len(parts)} 部分"
    for earlier, later in pairwise(parts):
        if not _follows(earlier, later):
            return f"第 {later.number} 部分与第 {earlier.number} 部分不相接"
    places = [part.place for part in parts]
    for part, former in zip(parts, (None, *places), strict=False):
        if part.place != former and part.first_line != tables[part.place].first_line:
            return f"第 {part.number} 部分应从第 {tables[part.place].first_line} 行开始"
    return None


def _follows(earlier: PartTaken, later: PartTaken) -> bool:
    return earlier.place < later.place or (
        earlier.place == later.place and earlier.next_line == later.first_line
    )
