"""目录对照 submitted, reviewed and withdrawn: what may be done to which mapping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise

from services.catalog.domain.item import ListType
from services.catalog.domain.mapping import MappingState


class MappingRefused(Exception):
    """The mapping cannot be changed like this; `cause` in plain Chinese."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(cause)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What an institution says one of its items is (3301), both days included."""

    item_code: str
    item_name: str
    list_type: ListType | None
    national_code: str
    first_day: date
    last_day: date


@dataclass(frozen=True, slots=True)
class Standing:
    """A recorded mapping, and its present state with its reason and time."""

    id: int
    institution: str
    submitted: Submitted
    state: MappingState
    withdrawn_from: date | None
    """Of a withdrawn one, the first day without it; its first day when it never counted."""
    reason: str
    at: datetime


def check_submitted(
    submitted: Sequence[Submitted], *, area: str, listed: Mapping[str, ListType]
) -> None:
    """Raise `MappingRefused` for the first fault.

    `listed` are those of the national codes that the lists of `area`, the institution's, have ever
    named: a mapping may begin before its list or outlast it, and then the line's reason says so.
    """
    for one in submitted:
        if one.last_day < one.first_day:
            raise MappingRefused(
                f"机构项目 {one.item_code} 的结束日期 {one.last_day} 早于开始日期 {one.first_day}"
            )
        list_type = listed.get(one.national_code)
        if list_type is None:
            raise MappingRefused(
                f"机构项目 {one.item_code} 的国家医保编码 {one.national_code} 不在 {area} 的目录内"
            )
        if one.list_type not in (None, list_type):
            raise MappingRefused(
                f"机构项目 {one.item_code} 的目录类别与国家医保编码 {one.national_code} 不符"
            )
    ordered = sorted(submitted, key=lambda one: (one.item_code, one.first_day))
    for earlier, later in pairwise(ordered):
        if earlier.item_code == later.item_code and later.first_day <= earlier.last_day:
            raise MappingRefused(
                f"机构项目 {later.item_code} 在 {later.first_day} 有两条重叠的对照"
            )


def check_review(
    asked: Sequence[int], found: Mapping[int, Standing], *, approve: bool, reason: str
) -> None:
    """Raise `MappingRefused` unless all those asked for wait for their review."""
    if not approve and not reason.strip():
        raise MappingRefused("审核不通过须说明原因")
    for number in asked:
        standing = found.get(number)
        if standing is None:
            raise MappingRefused(f"没有编号为 {number} 的对照")
        if standing.state is not MappingState.PENDING:
            raise MappingRefused(f"编号为 {number} 的对照不在待审核状态")


def withdrawals(
    item_codes: Iterable[str], standing: Sequence[Standing], day: date
) -> dict[int, date]:
    """The mappings that a withdrawal from `day` on takes back, each with its first day without it.

    `standing` are all mappings of the items. One that has not been approved never counts. Raises
    `MappingRefused` for an item of which none is left to take back.
    """
    taken: dict[int, date] = {}
    ending: set[str] = set()
    for one in standing:
        said, end = one.submitted, one.withdrawn_from
        since = said.first_day if one.state is MappingState.PENDING else max(day, said.first_day)
        over = since > said.last_day or (end is not None and end <= since)
        if one.state is not MappingState.REFUSED and not over:
            taken[one.id] = since
            ending.add(said.item_code)
    for item_code in item_codes:
        if item_code not in ending:
            raise MappingRefused(f"机构项目 {item_code} 自 {day} 起没有可撤销的对照")
    return taken
