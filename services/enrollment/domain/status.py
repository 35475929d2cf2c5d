"""Which status of a relation holds on a day, and which status may follow which.

A relation keeps the first day of each status; it lasts until the next one begins. So there is no
day with two statuses, and none without after the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum


class InsuredStatus(IntEnum):
    """参保状态 (psn_insu_stas); numbers as in the contract."""

    NORMAL = 1
    SUSPENDED = 2
    TRANSFERRED = 3
    ENDED = 4

    @property
    def chinese(self) -> str:
        """The name for people."""
        return _CHINESE[self]


_CHINESE = {
    InsuredStatus.NORMAL: "正常参保",
    InsuredStatus.SUSPENDED: "暂停参保",
    InsuredStatus.TRANSFERRED: "已转出",
    InsuredStatus.ENDED: "终止参保",
}
BELONGING = frozenset({InsuredStatus.NORMAL, InsuredStatus.SUSPENDED})
"""Statuses of people who belong to the area."""
_MAY_FOLLOW = {
    InsuredStatus.NORMAL: {
        InsuredStatus.SUSPENDED,
        InsuredStatus.TRANSFERRED,
        InsuredStatus.ENDED,
    },
    InsuredStatus.SUSPENDED: {
        InsuredStatus.NORMAL,
        InsuredStatus.TRANSFERRED,
        InsuredStatus.ENDED,
    },
    InsuredStatus.TRANSFERRED: {InsuredStatus.NORMAL},
    InsuredStatus.ENDED: {InsuredStatus.NORMAL},
}


class ChangeRefused(Exception):
    """A change that cannot be: `cause` is the Chinese sentence of PARTICIPANT_CHANGE_REFUSED."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__()


@dataclass(frozen=True, slots=True)
class Spell:
    """A status from its first day on; `to_area` of TRANSFERRED says where to, or is empty."""

    start: date
    status: InsuredStatus
    to_area: str = ""


def registered(active_from: date, active_until: date | None) -> tuple[Spell, ...]:
    """The statuses of a new relation; both days are insured, None means no end, and so does
    9999-12-31, as other systems write it."""
    first = Spell(active_from, InsuredStatus.NORMAL)
    if active_until in (None, date.max):
        return (first,)
    return (first, Spell(active_until + timedelta(days=1), InsuredStatus.ENDED))


def runs(spells: Sequence[Spell]) -> list[tuple[Spell, date | None]]:
    """Spells in their order with their last day (None: open), equal neighbours as one."""
    kept: list[Spell] = []
    for spell in spells:
        if not kept or (kept[-1].status, kept[-1].to_area) != (spell.status, spell.to_area):
            kept.append(spell)
    ends: list[date | None] = [spell.start - timedelta(days=1) for spell in kept[1:]]
    return list(zip(kept, [*ends, None], strict=True)) if kept else []


def on(spells: Sequence[Spell], day: date) -> Spell | None:
    """The status that holds on `day` with the day since when; None before the first."""
    held: Spell | None = None
    for spell in spells:
        if spell.start > day:
            break
        if held is None or (held.status, held.to_area) != (spell.status, spell.to_area):
            held = spell
    return held


def insured_since(spells: Sequence[Spell], day: date) -> date | None:
    """First day of the relation that goes on on `day`; None when the person does not belong.

    A suspension does not begin a new relation, coming back after a transfer or an end does.
    """
    since: date | None = None
    for spell in spells:
        if spell.start > day:
            break
        if spell.status not in BELONGING:
            since = None
        elif since is None:
            since = spell.start
    return since


def changed(
    spells: Sequence[Spell], status: InsuredStatus, day: date, *, today: date, to_area: str = ""
) -> tuple[Spell, ...]:
    """The statuses with `status` from `day` on; raises `ChangeRefused`.

    What has begun is not rewritten: `day` is not before the first day of the status that holds
    `today`. An end that is planned for later gives way to a transfer or another end and stays
    behind a suspension; behind other changes nothing is put.
    """
    before = on(spells, day)
    if before is None:
        raise ChangeRefused(f"参保关系从{spells[0].start}才开始")
    later = [spell for spell in spells if spell.start > day]
    if any(spell.status is not InsuredStatus.ENDED or spell.start <= today for spell in later):
        raise ChangeRefused(f"{later[0].start}起已是{later[0].status.chinese}，不能在此之前变更")
    if status not in _MAY_FOLLOW[before.status]:
        raise ChangeRefused(f"{day}的状态是{before.status.chinese}，不能改为{status.chinese}")
    if status in BELONGING:
        following = later
    else:
        following = [Spell(spell.start, status, to_area) for spell in later]
    earlier = (spell for spell in spells if spell.start < day)
    return (*earlier, Spell(day, status, to_area), *following)
