"""What has been decided for one kind of visit serves every other visit of that kind: those that no
table tells apart, e.g. all ages from 50 to 59."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter, getitem
from typing import Any, Generic, TypeVar

from services.policy.domain.table import Table

P = TypeVar("P")

MOST_KINDS = 256
"""How many kinds are remembered before all are forgotten."""
_MOST_VALUES = 256
"""Likewise values of one fact: codes are without end."""


class Kinds(Generic[P]):
    """What `make` says of a case, asked once per kind of visit; it may look at nothing but the
    facts that `tables` ask for."""

    __slots__ = ("_found", "_groups", "_make", "_read", "_seen", "facts")

    def __init__(self, tables: Iterable[Table[Any]], make: Callable[[Any], P]) -> None:
        asked: dict[str, list[Mapping[Any, int]]] = {}
        for table in tables:
            for name, masks in table.asked.items():
                asked.setdefault(name, []).append(masks)
        self.facts = tuple(asked)
        """Names in the case."""
        # A fact asked twice is answered twice: so there is always a tuple to read.
        names = self.facts * 2 if len(asked) == 1 else self.facts
        self._read: Callable[[Any], Any] | None = attrgetter(*names) if names else None
        self._groups = tuple(_Groups(masks) for masks in asked.values())
        self._make = make
        self._found: dict[tuple[int, ...], P] = {}
        self._seen: dict[tuple[Any, ...], P] = {}
        """The first values met, found without asking for their groups."""

    def of(self, case: Any) -> P:
        """What holds for the case."""
        values = () if self._read is None else self._read(case)
        found = self._seen.get(values)
        if found is not None:
            return found
        try:
            kind = tuple(map(getitem, self._groups, values))
        except KeyError:
            # Its refusal names the value that is none.
            return self._make(case)
        found = self._found.get(kind)
        if found is None:
            found = self._make(case)
            if len(self._found) >= MOST_KINDS:
                self._found.clear()
                self._seen.clear()
            self._found[kind] = found
        if len(self._seen) < MOST_KINDS:
            self._seen[values] = found
        return found

    def __len__(self) -> int:
        return len(self._found)


class _Groups(dict[Any, int]):
    """Value of a fact → number of its group; `KeyError` for what is no value."""

    __slots__ = ("_masks", "_numbers")

    def __init__(self, masks: Sequence[Mapping[Any, int]]) -> None:
        super().__init__()
        self._masks = masks
        self._numbers: dict[tuple[int, ...], int] = {}

    def __missing__(self, value: Any) -> int:
        masks = tuple(each[value] for each in self._masks)
        number = self._numbers.setdefault(masks, len(self._numbers))
        if len(self) < _MOST_VALUES:
            self[value] = number
        return number
