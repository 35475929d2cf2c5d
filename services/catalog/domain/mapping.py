"""目录对照: which national code an institution's own item stands for on a day.

A mapping counts only once it is approved, from its first to its last day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from enum import IntEnum
from typing import NamedTuple

_ONE_DAY = timedelta(days=1)


class MappingState(IntEnum):
    """Where a mapping stands, numbered as in the contract."""

    PENDING = 1
    APPROVED = 2
    REFUSED = 3
    WITHDRAWN = 4


class MappingSpell(NamedTuple):
    """One mapping of one item, both days included."""

    national_code: str
    first_day: date
    last_day: date
    state: MappingState


class RecordedMapping(NamedTuple):
    """A mapping as it was recorded and where it stands."""

    id: int
    national_code: str
    first_day: date
    last_day: date
    state: MappingState
    withdrawn_from: date | None
    """Of a withdrawn one, the first day without it; its first day when it never counted."""

    @property
    def end(self) -> date:
        """The last day on which it may count; before `first_day` when there is none."""
        if self.withdrawn_from is None or self.withdrawn_from > self.last_day:
            return self.last_day
        return day_before(self.withdrawn_from)


def day_before(day: date) -> date:
    """The day before; of the first of all days that day itself, which no bill names."""
    return day if day == date.min else day - _ONE_DAY


def timeline(mappings: Iterable[RecordedMapping]) -> tuple[MappingSpell, ...]:
    """What the mappings of one item, in order of their numbers, come to.

    One that counts ends those before it from its first day on, for ever: what the institution said
    last about a day is what it says about every later one.
    """
    spells: list[MappingSpell] = []
    for one in mappings:
        if one.state in (MappingState.PENDING, MappingState.REFUSED):
            spells.append(MappingSpell(one.national_code, one.first_day, one.last_day, one.state))
            continue
        if one.first_day <= one.end:
            before = day_before(one.first_day)
            spells = [
                spell._replace(last_day=min(spell.last_day, before))
                if spell.state is MappingState.APPROVED
                else spell
                for spell in spells
                if spell.state is not MappingState.APPROVED or spell.first_day < one.first_day
            ]
            counted = MappingSpell(one.national_code, one.first_day, one.end, MappingState.APPROVED)
            spells.append(counted)
        if one.state is MappingState.WITHDRAWN:
            since = max(one.withdrawn_from or one.first_day, one.first_day)
            if since <= one.last_day:
                spells.append(
                    MappingSpell(one.national_code, since, one.last_day, MappingState.WITHDRAWN)
                )
    return tuple(spells)


def mapped_code(spells: Sequence[MappingSpell], day: date) -> str | MappingState | None:
    """The approved code of `day`; else the state of the mapping recorded last for that day.

    `spells` in the order in which they were recorded. None when no mapping names the day.
    """
    state: MappingState | None = None
    for spell in reversed(spells):
        if spell.first_day <= day <= spell.last_day:
            if spell.state is MappingState.APPROVED:
                return spell.national_code
            state = state or spell.state
    return state
