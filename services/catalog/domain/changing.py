"""How a published list is changed: a code's timeline as it was becomes the timeline to publish.

A change amends the list that is in force on its first day; bills of a later list never see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from services.catalog.domain.item import Item

_DAY = timedelta(days=1)


class ChangeRefused(Exception):
    """The list cannot be changed so; `cause` says why, in plain Chinese."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(cause)


@dataclass(frozen=True, slots=True)
class PublishedList:
    """A whole list of `area`, in force from `effective_from`, with the changes of it so far."""

    id: int
    area: str
    version: str
    effective_from: date
    publication: int
    changes: int

    @property
    def catalogue_version(self) -> str:
        """The name of the list as it stands, as bills have it."""
        return _name(self.version, self.changes)

    @property
    def next_version(self) -> str:
        """Its name after the next change."""
        return _name(self.version, self.changes + 1)


def _name(version: str, changes: int) -> str:
    return f"{version}+{changes}" if changes else version


def list_on(lists: Iterable[PublishedList], day: date) -> PublishedList | None:
    """The list of one area that is in force on `day`: of two that begin on one day the later
    publication."""
    return max(
        (each for each in lists if each.effective_from <= day),
        key=lambda each: (each.effective_from, each.publication),
        default=None,
    )


def list_to_change(lists: Sequence[PublishedList], items: Sequence[Item]) -> PublishedList:
    """The list of one area that `items` amend: in force on the first day of each.

    Raises `ChangeRefused`.
    """
    if not lists:
        raise ChangeRefused("该地区没有自己发布的目录")
    first = min(item.effective_from for item in items)
    found = list_on(lists, first)
    if found is None:
        raise ChangeRefused(f"{first} 时该地区的目录尚未生效")
    for item in items:
        other = list_on(lists, item.effective_from)
        if other is not found:
            assert other is not None, "a list of an earlier day holds until the next"
            raise ChangeRefused(
                f"项目 {item.national_code} 的开始日期已属于另一版目录 {other.catalogue_version}"
                f"（{other.effective_from} 起），请分别更改"
            )
    return found


def new_timelines(former: Iterable[Item], changed: Iterable[Item]) -> Mapping[str, Sequence[Item]]:
    """The whole timeline of each code that `changed` names, oldest first.

    `former` are the revisions of these codes as they stand; a code without any is new in the list.
    Raises `ChangeRefused` when two changes of a code are in force on one day.
    """
    timelines: dict[str, list[Item]] = {}
    for item in former:
        timelines.setdefault(item.national_code, []).append(item)
    done: dict[str, list[Item]] = {}
    for item in changed:
        its = done.setdefault(item.national_code, [])
        if any(
            each.effective_from <= item.effective_to and item.effective_from <= each.effective_to
            for each in its
        ):
            raise ChangeRefused(f"项目 {item.national_code} 的两处更改日期重叠")
        its.append(item)
        timelines[item.national_code] = _with(timelines.get(item.national_code, ()), item)
    return timelines


def _with(revisions: Iterable[Item], changed: Item) -> list[Item]:
    """`changed` holds on its days; what held before and what held after them stays."""
    kept = [changed]
    for each in revisions:
        if each.effective_from < changed.effective_from:
            last = min(each.effective_to, changed.effective_from - _DAY)
            kept.append(replace(each, effective_to=last))
        if each.effective_to > changed.effective_to:
            first = max(each.effective_from, changed.effective_to + _DAY)
            kept.append(replace(each, effective_from=first))
    return sorted(kept, key=lambda each: each.effective_from)
