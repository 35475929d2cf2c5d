"""Where the tables of a document stand, for which visits they must answer, and how combinations of
facts are named to people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Any

from services.policy.domain.document import (
    Benefit,
    Deductible,
    Document,
    FirstPay,
    Fund,
)
from services.policy.domain.facts import (
    CARE_TYPES,
    DIMENSIONS,
    OTHER,
    PERSONS_OF_INSURANCE,
    Kind,
    class_code,
    titles,
)
from services.policy.domain.table import Combination, Table, combinations, size

Path = tuple[str | int, ...]
Box = dict[str, tuple[str, ...]]
"""Row key → values: the product of them is a set of combinations."""
MAX_COMBINATIONS = 200_000
"""What one table may tell apart; documents of real areas stay below some thousands."""
ORDERS, MANY = 24, 500
"""How many orders of merging are tried for the shortest text, unless there is much to merge."""
SHOWN = 3
"""How many combinations a message names."""


class TooMany(Exception):
    """More combinations than are worth enumerating."""


@dataclass(frozen=True, slots=True)
class Place:
    """One table with the conditions under which it is asked."""

    path: Path
    """Of its list of rows."""
    table: Table[Any]
    scopes: tuple[Table[Any], ...]
    """All of them hold when the table is asked."""
    when: Path
    """Of the innermost condition, or of the stage."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One benefit of a document: its path and what its visits can be."""

    name: str
    path: Path
    benefit: Benefit
    allowed: Mapping[str, tuple[str, ...]]

    @property
    def stages(self) -> Iterator[tuple[Path, FirstPay | Deductible | Fund]]:
        """Each stage with the path of its key."""
        for number, stage in enumerate(self.benefit.stages):
            yield (*self.path, "stages", number, _KEYS[type(stage)]), stage

    def places(self) -> Iterator[Place]:
        """Every table that must answer, in the order of the document."""
        for path, stage in self.stages:
            yield from _of_stage(path, stage)

    def enumerate(
        self, tables: Sequence[Table[Any]]
    ) -> Iterator[tuple[Combination, tuple[int, ...]]]:
        """The combinations that the tables can tell apart; raise `TooMany`."""
        if size(tables, self.allowed) > MAX_COMBINATIONS:
            raise TooMany
        return combinations(tables, self.allowed)


_KEYS: dict[type, str] = {FirstPay: "first_pay", Deductible: "deductible", Fund: "fund"}


def plans(document: Document) -> Iterator[Plan]:
    """The benefits of a document, in its order."""
    written = document.written
    counting = {each.counter for each in written.benefits.values() if each.counts_stays}
    for name, one in written.benefits.items():
        benefit = document.benefits[one.care_types[0]]
        cares = set(one.care_types)
        allowed: dict[str, tuple[str, ...]] = {
            "persons": PERSONS_OF_INSURANCE[written.insurance],
            "care_types": tuple(each for each in CARE_TYPES if each in cares),
        }
        if one.counter not in counting:
            allowed["stays"] = ("1",)
        if benefit.diseases is not None:
            allowed["diseases"] = _diseases(benefit)
        yield Plan(name, ("benefits", name), benefit, allowed)


def _diseases(benefit: Benefit) -> tuple[str, ...]:
    assert benefit.diseases is not None
    covered = benefit.diseases.covered
    plan = Plan(benefit.name, (), benefit, {})
    named = {
        value
        for place in plan.places()
        for table in (place.table, *place.scopes)
        for fact in table.facts
        if fact.key == "diseases"
        for _, values in fact.groups
        for value in values
        if value != OTHER and (value in covered or class_code(value) in covered)
    }
    return tuple(sorted(covered | named))


def _of_stage(path: Path, stage: FirstPay | Deductible | Fund) -> Iterator[Place]:
    outer = () if stage.when is None else (stage.when,)
    when = path if stage.when is None else (*path, "when")

    def place(table: Table[Any], *keys: str | int) -> Place:
        return Place((*path, *keys), table, outer, when)

    def adjustments(adjust: Iterable[Any], key: str) -> Iterator[Place]:
        for number, each in enumerate(adjust):
            here = (*path, key, number)
            inner = outer if each.when is None else (*outer, each.when)
            where = when if each.when is None else (*here, "when")
            yield Place((*here, "rows"), each.rows, inner, where)

    if isinstance(stage, FirstPay):
        yield place(stage.rows, "rows")
    elif isinstance(stage, Deductible):
        yield place(stage.rows, "rows")
        yield from adjustments(stage.adjust, "adjust")
        if stage.year_cap is not None:
            yield place(stage.year_cap, "year_cap")
    else:
        if stage.deductible is not None:
            yield place(stage.deductible, "deductible")
        yield from adjustments(stage.adjust_deductible, "adjust_deductible")
        yield place(stage.ratio, "ratio")
        yield from adjustments(stage.adjust, "adjust")
        if stage.floor is not None:
            floor = stage.floor
            inner = outer if floor.when is None else (*outer, floor.when)
            where = when if floor.when is None else (*path, "floor", "when")
            yield Place((*path, "floor", "rows"), floor.rows, inner, where)
        for cap in stage.caps:
            yield place(cap.rows, "caps", cap.number, "rows")


def rows_of(table: Table[Any], mask: int) -> list[Any]:
    """The rows whose bits are set."""
    return [row for number, row in enumerate(table.rows) if mask >> number & 1]


class Found:
    """Combinations with something in common, and what others there are in the same enumeration."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, None]] = {}
        self._found: dict[Any, list[Combination]] = {}

    def see(self, combination: Combination) -> None:
        """One that is enumerated: what all of them name goes without saying."""
        for key, value in combination:
            self._seen.setdefault(key, {})[value] = None

    def add(self, what: Any, combination: Combination) -> None:
        """One of which `what` is true."""
        self._found.setdefault(what, []).append(combination)

    def items(self) -> Iterator[tuple[Any, str]]:
        """Each `what` with its combinations in words."""
        for what, found in self._found.items():
            yield what, self._words(found)

    def _words(self, found: Sequence[Combination]) -> str:
        keys = [key for key, _ in found[0]]
        orders = islice(permutations(keys), ORDERS if len(found) < MANY else 1)
        merged = ([self._telling(box) for box in _merged(found, order)] for order in orders)
        boxes = min(merged, key=lambda boxes: (len(boxes), sum(map(len, boxes))))
        told = [words(box) or "every visit" for box in boxes[:SHOWN]]
        more = f"; and {len(boxes) - SHOWN} more combinations" if len(boxes) > SHOWN else ""
        return "; ".join(told) + more

    def _telling(self, box: Box) -> Box:
        return {key: values for key, values in box.items() if len(values) < len(self._seen[key])}


def words(box: Mapping[str, Iterable[str]]) -> str:
    """`levels other, unrated (机构级别 其他、未定级) with persons retired (人员类别 退休)`."""
    told = []
    for key, groups in box.items():
        values = [value for group in groups for value in group.split("|")]
        known = DIMENSIONS[key]
        names = f" {titles(key, values)}" if known.values else ""
        told.append(f"{key} {', '.join(values)} ({known.title}{names})")
    return " with ".join(told)


def _merged(found: Sequence[Combination], order: Sequence[str]) -> list[Box]:
    """The boxes that merging along one key after the other gives."""
    boxes: list[Box] = [{key: (value,) for key, value in each} for each in found]
    for key in order:
        grouped: dict[tuple[tuple[str, ...], ...], Box] = {}
        for box in boxes:
            rest = tuple(values for other, values in box.items() if other != key)
            if rest in grouped:
                grouped[rest][key] += box[key]
            else:
                grouped[rest] = box
        boxes = list(grouped.values())
    return boxes


def whom(conditions: Mapping[str, Any]) -> str:
    """The conditions of a row in Chinese: `在职、退休；三级；年龄 50-59`; empty: everybody."""
    return "；".join(_condition(key, accepted) for key, accepted in conditions.items())


_SPANS = {"ages": "{}", "stays": "年度内第{}住院", "temporaries": "年度内第{}临时外出"}


def _condition(key: str, accepted: Any) -> str:
    dimension = DIMENSIONS[key]
    if dimension.kind is Kind.FLAG:
        return dimension.title if accepted else f"非{dimension.title}"
    if dimension.kind is Kind.SPAN:
        first, last = accepted
        unit = "周岁" if key == "ages" else "次"
        span = f"{first}" if first == last or last is None else f"{first}-{last}"
        span += f"{unit}及以上" if last is None else unit
        return _SPANS[key].format(span)
    if dimension.values is None:
        named = "、".join("其他" if value == OTHER else value for value in accepted)
        return f"{dimension.title}{named}"
    return titles(key, accepted)
