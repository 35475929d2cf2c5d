"""A decision table: which of its rows hold for a case.

Every fact that the table asks for maps a value to a bit mask of the rows that accept it; the rows
that hold are the bits left after AND. The same masks say, before anything is published, which
combinations of facts have no row or more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from operator import attrgetter
from typing import Any, Generic, TypeVar

from services.policy.domain.facts import (
    DIMENSIONS,
    OTHER,
    Dimension,
    Kind,
    class_code,
    reachable,
)

R = TypeVar("R")
Conditions = Mapping[str, Any]
"""Row key → the values it accepts: a tuple of names, a (first, last) span, or a flag."""
Combination = tuple[tuple[str, str], ...]
"""(row key, value) of each fact that matters: what a gap or an overlap is named by."""


class UnknownFact(LookupError):
    """A table asks for a fact that the case does not hold, or holds as no known value.

    Told by the table and the fact, e.g. `inpatient/deductible(levels=)`.
    """


class Table(Generic[R]):
    """Rows with their conditions; immutable once made."""

    __slots__ = ("_all", "_facts", "_masks", "_names", "_read", "name", "rows")

    def __init__(
        self, name: str, rows: Sequence[tuple[Conditions, R]], *, level: str = "settlement_level"
    ) -> None:
        self.name = name
        self.rows = tuple(row for _, row in rows)
        self._all = (1 << len(rows)) - 1
        keys = [key for key in DIMENSIONS if any(key in conditions for conditions, _ in rows)]
        self._facts = tuple(_Fact.of(DIMENSIONS[key], [c for c, _ in rows]) for key in keys)
        self._masks = tuple(fact.masks for fact in self._facts)
        names = tuple(level if key == "levels" else DIMENSIONS[key].fact for key in keys)
        self._names = names
        self._read: Callable[[Any], Any] | None = attrgetter(*names) if names else None

    def matching(self, case: Any) -> tuple[R, ...]:
        """The rows that hold for a case, in their order; raise `UnknownFact`."""
        if self._read is None:
            return self.rows
        return self._rows(self._mask(self._read(case)))

    def _mask(self, asked: Any) -> int:
        if len(self._masks) == 1:
            asked = (asked,)
        mask = self._all
        for fact, masks, value in zip(self._facts, self._masks, asked, strict=True):
            try:
                mask &= masks[value]
            except KeyError:
                raise UnknownFact(f"{self.name}({fact.key}={value})") from None
        return mask

    def _rows(self, mask: int) -> tuple[R, ...]:
        return tuple(row for number, row in enumerate(self.rows) if mask >> number & 1)

    def holds(self, case: Any) -> bool:
        """Whether any row holds: for tables that are a condition."""
        return bool(self.matching(case))

    def asks(self, case: Any) -> Combination:
        """What the table looks at in a case."""
        if self._read is None:
            return ()
        values = self._read(case)
        if len(self._facts) == 1:
            values = (values,)
        return tuple(
            (fact.key, str(value)) for fact, value in zip(self._facts, values, strict=True)
        )

    @property
    def facts(self) -> tuple[_Fact, ...]:
        """The facts that some row asks for."""
        return self._facts

    @property
    def asked(self) -> dict[str, Mapping[Any, int]]:
        """Name of each such fact in the case → value → the rows that accept it."""
        return dict(zip(self._names, self._masks, strict=True))


@dataclass(frozen=True, slots=True)
class _Fact:
    """One fact of one table."""

    key: str
    masks: Mapping[Any, int]
    """Value of a case → the rows that accept it; `KeyError` for what is no value."""
    groups: tuple[tuple[int, tuple[str, ...]], ...]
    """Values that the table cannot tell apart, with their mask: for the completeness check."""

    @classmethod
    def of(cls, dimension: Dimension, rows: Sequence[Conditions]) -> _Fact:
        key = dimension.key
        bits = [(1 << number, row.get(key)) for number, row in enumerate(rows)]
        any_value = sum(bit for bit, accepted in bits if accepted is None)
        if dimension.kind is Kind.FLAG:
            yes = any_value | sum(bit for bit, accepted in bits if accepted is True)
            no = any_value | sum(bit for bit, accepted in bits if accepted is False)
            return cls(key, {True: yes, False: no}, _grouped({"true": yes, "false": no}))
        if dimension.kind is Kind.SPAN:
            return cls._span(dimension, bits, any_value)
        if dimension.kind is Kind.CHOICE:
            assert dimension.values is not None
            masks = {
                value: any_value | sum(bit for bit, accepted in bits if value in (accepted or ()))
                for value in dimension.values
            }
            return cls(key, masks, _grouped(masks))
        named = {value for _, accepted in bits for value in accepted or ()} - {OTHER}
        masks = {
            value: any_value | sum(bit for bit, accepted in bits if value in (accepted or ()))
            for value in sorted(named)
        }
        rest = any_value | sum(bit for bit, accepted in bits if OTHER in (accepted or ()))
        # A class code stands for its diseases, unless the table names the disease itself.
        of_codes = _Diseases if dimension.kind is Kind.DISEASE else _Places
        return cls(key, of_codes(masks, rest), _grouped({**masks, OTHER: rest}))

    @classmethod
    def _span(cls, dimension: Dimension, bits: list[tuple[int, Any]], any_value: int) -> _Fact:
        top = dimension.last
        masks = dict.fromkeys(range(dimension.first, top + 1), any_value)
        for bit, accepted in bits:
            if accepted is not None:
                first, last = accepted
                end = top if last is None else min(top, last)
                for value in range(max(first, dimension.first), end + 1):
                    masks[value] |= bit
        grouped: list[tuple[int, list[int]]] = []
        for value in range(dimension.first, top + 1):
            if grouped and grouped[-1][0] == masks[value]:
                grouped[-1][1].append(value)
            else:
                grouped.append((masks[value], [value]))
        groups = tuple((each, (_range(values, top),)) for each, values in grouped)
        return cls(dimension.key, _Span(masks), groups)


class _Span(dict[int, int]):
    """By number; whatever lies above the last one counts like it."""

    def __missing__(self, value: int) -> int:
        last = max(self)
        if value < last:
            raise KeyError(value)
        return self[last]


class _Codes(dict[str, int]):
    """By code, with the rows that accept what no row names."""

    def __init__(self, masks: Mapping[str, int], rest: int) -> None:
        super().__init__(masks)
        self.rest = rest


class _Diseases(_Codes):
    """A class code stands for its diseases; no code is a visit for no listed disease."""

    def __missing__(self, value: str) -> int:
        return self.get(class_code(value), self.rest)


class _Places(_Codes):
    """A prefix stands for the areas that begin with it."""

    def __missing__(self, value: str) -> int:
        if not value:
            raise KeyError(value)
        return self.get(value[:4], self.get(value[:2], self.rest))


def _range(values: Sequence[int], top: int) -> str:
    if len(values) == 1:
        return str(values[0])
    return f"{values[0]}-{'' if values[-1] == top else values[-1]}"


def _grouped(masks: Mapping[str, int]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    groups: dict[int, list[str]] = {}
    for value, mask in masks.items():
        groups.setdefault(mask, []).append(value)
    return tuple((mask, tuple(values)) for mask, values in groups.items())


def combinations(
    tables: Iterable[Table[Any]], allowed: Mapping[str, Iterable[str]]
) -> Iterator[tuple[Combination, tuple[int, ...]]]:
    """Every combination of facts that the tables can tell apart and that a visit can have, with
    the mask of each table's rows.

    `allowed` bounds the values of facts, e.g. the person classes of the insurance; of a range it
    bounds the first value. A combination names one value, or all values that make no difference,
    joined by `|`.
    """
    listed = list(tables)
    axes = _axes(listed, allowed)
    everything = tuple(table._all for table in listed)
    for chosen in product(*axes):
        masks = list(everything)
        for _, _, parts in chosen:
            for number, mask in parts:
                masks[number] &= mask
        named = tuple((key, "|".join(values)) for key, values, _ in chosen)
        routes = dict(named)
        if "routes" in routes and "classes" in routes and not _reachable(routes):
            continue
        yield named, tuple(masks)


def size(tables: Iterable[Table[Any]], allowed: Mapping[str, Iterable[str]]) -> int:
    """How many combinations there are at most."""
    return prod(len(groups) for groups in _axes(list(tables), allowed))


_Group = tuple[str, tuple[str, ...], tuple[tuple[int, int], ...]]
"""Row key, values, (number of the table, mask)."""


def _axes(tables: Sequence[Table[Any]], allowed: Mapping[str, Iterable[str]]) -> list[list[_Group]]:
    axes: list[list[_Group]] = []
    for key in DIMENSIONS:
        facts = [
            (number, fact)
            for number, table in enumerate(tables)
            for fact in table.facts
            if fact.key == key
        ]
        if not facts:
            continue
        limit = set(allowed[key]) if key in allowed else None
        values: dict[tuple[tuple[int, int], ...], list[str]] = {}
        for value, representative in _values(key, [fact for _, fact in facts], limit or ()):
            if limit is None or value in limit or str(representative) in limit:
                parts = tuple((number, fact.masks[representative]) for number, fact in facts)
                values.setdefault(parts, []).append(value)
        # Route and class are taken one by one, since not every pair can be.
        apart = key in ("routes", "classes")
        groups: list[_Group] = []
        for parts, named in values.items():
            if apart:
                groups += [(key, (value,), parts) for value in named]
            else:
                groups.append((key, tuple(named), parts))
        axes.append(groups)
    return axes


def _values(key: str, facts: Sequence[_Fact], allowed: Iterable[str]) -> list[tuple[str, Any]]:
    """Values of a fact as they are named and as a case holds them; the codes of `allowed` too."""
    dimension = DIMENSIONS[key]
    if dimension.kind is Kind.FLAG:
        return [("true", True), ("false", False)]
    if dimension.kind is Kind.SPAN:
        starts = {int(values[0].split("-")[0]) for fact in facts for _, values in fact.groups} | {
            dimension.first
        }
        ordered = sorted(starts)
        ends = [start - 1 for start in ordered[1:]] + [dimension.last]
        return [
            (_range(range(first, last + 1), dimension.last), first)
            for first, last in zip(ordered, ends, strict=True)
        ]
    if dimension.values is not None:
        return [(value, value) for value in dimension.values]
    named = {value for fact in facts for _, values in fact.groups for value in values}
    named = named.union(allowed) - {OTHER}
    # No code is so short, and no place begins so: what no row names.
    return [(value, value) for value in sorted(named)] + [(OTHER, "-")]


def _reachable(named: Mapping[str, str]) -> bool:
    return reachable(named["routes"], named["classes"])
