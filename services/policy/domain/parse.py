"""Builds a `Document` from its plain data, strictly: unknown keys, gaps in segments and rows that
overlap are errors that name the place. A row without `persons`, `levels` or `routes` holds for
all of them. What no row states stays absent and is refused when a case needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from enum import StrEnum
from itertools import product
from typing import TypeVar

from infra.runtime.money import BASIS_POINTS
from services.policy.domain import names
from services.policy.domain.canonical import DocumentError, canonical, content_hash
from services.policy.domain.document import (
    OPEN_END,
    DeductibleKind,
    Document,
    Layer,
    Plan,
    Provenance,
    Reduction,
    ReductionKind,
    Segment,
    SegmentBase,
    Unit,
    Value,
)

MAX_FEN = 10**12
"""The greatest amount the contract carries."""
MAX_AGE = 150
MAX_STAY = 100
COUNTER_LENGTH = 12

Key = TypeVar("Key")
Item = TypeVar("Item")
Name = TypeVar("Name", bound=StrEnum)


def parse(data: Mapping[str, object]) -> Document:
    """The document that `data` (loaded YAML or JSON) describes; raise `DocumentError`."""
    digest = content_hash(canonical(data))
    root = _Node("document", data)
    insurance = root.choice("insurance", names.PERSONS_OF_INSURANCE)
    root.choice("period", ("business_day_year",))
    reader = _Reader(_sources(root.node("sources")), names.PERSONS_OF_INSURANCE[insurance])
    plan_nodes = root.node("plans")
    reductions = reader.reductions(root.nodes("remote"), plan_nodes.keys())
    plans: dict[str, Plan] = {}
    for name in plan_nodes.keys():  # noqa: SIM118 - a node, not a mapping
        node = plan_nodes.node(name)
        care_types = node.choices("care_types", names.CARE_TYPES)
        plan = reader.plan(name, node, reductions[name])
        for care_type in care_types:
            _put(plans, care_type, plan, f"{node.path}.care_types")
    document = Document(
        area=root.text("area"),
        insurance=insurance,
        version=root.text("version"),
        title=root.text("title"),
        effective_from=root.day("effective_from"),
        effective_to=root.day("effective_to") if root.has("effective_to") else OPEN_END,
        plans=plans,
        period_caps=reader.caps(root.nodes("period_cap"), "period_cap"),
        above_period_cap=reader.layer(root, "above_period_cap"),
        account=reader.clause(root.node("account"), "account") if root.has("account") else None,
        hash=digest,
    )
    root.close()
    if not (len(document.area) == 6 and document.area.isdecimal()):
        raise DocumentError("document.area", f"{document.area!r} is not six digits")
    if document.effective_to < document.effective_from:
        raise DocumentError("document.effective_to", "lies before effective_from")
    for plan in plans.values():
        if plan.in_period_cap and set(document.period_caps) != set(reader.persons):
            raise DocumentError(
                "document.period_cap", "must be stated for every person class: add the rows"
            )
    return document


def parse_content(content: str) -> Document:
    """The document of a canonical form; raise `DocumentError`."""
    return parse(json.loads(content))


class _Node:
    """A mapping of the document with its path; `close` reports keys that nobody read."""

    def __init__(self, path: str, value: object) -> None:
        if not isinstance(value, Mapping):
            raise DocumentError(path, f"must be a mapping, not {value!r}")
        self.path = path
        self._data: Mapping[str, object] = value
        self._read: set[str] = set()

    def keys(self) -> Sequence[str]:
        return tuple(self._data)

    def has(self, key: str) -> bool:
        self._read.add(key)
        return self._data.get(key) is not None

    def _get(self, key: str) -> object:
        if not self.has(key):
            raise DocumentError(f"{self.path}.{key}", "is missing: state it")
        return self._data[key]

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value.strip():
            raise DocumentError(f"{self.path}.{key}", f"must be text, not {value!r}")
        return value

    def day(self, key: str) -> str:
        value = self.text(key)
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError as error:
            raise DocumentError(f"{self.path}.{key}", f"{value!r} is not an ISO date") from error

    def number(self, key: str, *, least: int, most: int, default: int | None = None) -> int:
        if default is not None and not self.has(key):
            return default
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise DocumentError(
                f"{self.path}.{key}", f"must be a whole number from {least} to {most}"
            )
        return value

    def flag(self, key: str) -> bool:
        value = self._data[key] if self.has(key) else False
        if not isinstance(value, bool):
            raise DocumentError(f"{self.path}.{key}", f"must be true or false, not {value!r}")
        return value

    def choice(self, key: str, known: Iterable[str]) -> str:
        value = self.text(key)
        if value not in known:
            raise DocumentError(f"{self.path}.{key}", f"{value!r} is not one of {list(known)}")
        return value

    def choices(
        self, key: str, known: Iterable[str], default: Iterable[str] | None = None
    ) -> tuple[str, ...]:
        if default is not None and not self.has(key):
            return tuple(default)
        value = self._get(key)
        if not isinstance(value, list) or not value:
            raise DocumentError(f"{self.path}.{key}", "must be a list that is not empty")
        for name in value:
            if name not in known:
                raise DocumentError(f"{self.path}.{key}", f"{name!r} is not one of {list(known)}")
        return tuple(value)

    def node(self, key: str) -> _Node:
        return _Node(f"{self.path}.{key}", self._get(key))

    def nodes(self, key: str) -> list[_Node]:
        """The mappings of a list; empty when the key is absent."""
        if not self.has(key):
            return []
        value = self._data[key]
        if not isinstance(value, list):
            raise DocumentError(f"{self.path}.{key}", "must be a list")
        return [_Node(f"{self.path}.{key}[{index}]", item) for index, item in enumerate(value)]

    def close(self) -> None:
        if unknown := sorted(set(self._data) - self._read):
            raise DocumentError(self.path, f"unknown keys {unknown}: remove or correct them")


class _Reader:
    """Reads rows; knows the document's sources and the person classes of its insurance."""

    def __init__(
        self, sources: Mapping[str, tuple[str, Provenance]], persons: tuple[str, ...]
    ) -> None:
        self._sources = sources
        self.persons = persons

    def plan(self, name: str, node: _Node, reductions: Mapping[tuple[str, str], Reduction]) -> Plan:
        no_funds = None
        if node.has("no_funds"):
            no_funds = self.clause(node.node("no_funds"), f"{name}/no_funds")
        counter = node.text("counter") if node.has("counter") else ""
        if len(counter) > COUNTER_LENGTH:
            raise DocumentError(
                f"{node.path}.counter", f"is longer than {COUNTER_LENGTH} characters: shorten it"
            )
        deductible_kind, segment_base = DeductibleKind.PER_STAY, SegmentBase.IN_SCOPE
        deductibles: dict[tuple[str, str], tuple[tuple[int, Value], ...]] = {}
        ratios: dict[tuple[str, str, str], tuple[tuple[int, tuple[Segment, ...]], ...]] = {}
        if no_funds is None:
            part = node.node("deductible")
            deductible_kind = _enum(part, "kind", DeductibleKind)
            deductibles = self._deductibles(part.nodes("rows"), name)
            part.close()
            part = node.node("ratio")
            segment_base = _enum(part, "segments_count", SegmentBase)
            ratios = self._ratios(part.nodes("rows"), name)
            part.close()
        plan = Plan(
            name=name,
            counter=counter,
            counts_stays=node.flag("counts_stays"),
            in_period_cap=no_funds is None and not node.flag("outside_period_cap"),
            no_funds=no_funds,
            reductions=reductions,
            deductible_kind=deductible_kind,
            deductibles=deductibles,
            segment_base=segment_base,
            ratios=ratios,
            caps=self.caps(node.nodes("cap"), f"{name}/cap"),
            above_cap=self.layer(node, "above_cap"),
        )
        node.close()
        if plan.caps and not counter:
            raise DocumentError(f"{node.path}.counter", "a cap of its own needs one: name it")
        return plan

    def reductions(
        self, rows: Sequence[_Node], plans: Sequence[str]
    ) -> dict[str, dict[tuple[str, str], Reduction]]:
        tables: dict[str, dict[tuple[str, str], Reduction]] = {name: {} for name in plans}
        for row in rows:
            kind = _enum(row, "lower", ReductionKind)
            routes = row.choices("routes", names.ROUTES, names.ROUTES)
            classes = row.choices("classes", names.BENEFIT_CLASSES)
            points = 0
            if kind is not ReductionKind.NOTHING:
                points = row.number("basis_points", least=1, most=BASIS_POINTS)
            cares = row.choices("care", plans)
            clause, provenance = self._founded(row)
            row.close()
            for care, route, benefit_class in product(cares, routes, classes):
                name = f"{care}/remote/{route}/{benefit_class}"
                value = Value(name, points, Unit.BASIS_POINTS, clause, provenance)
                _put(tables[care], (route, benefit_class), Reduction(kind, value), row.path)
        return tables

    def caps(self, rows: Sequence[_Node], name: str) -> dict[str, Value]:
        table: dict[str, Value] = {}
        for row in rows:
            persons = row.choices("persons", self.persons, self.persons)
            make = self._fen(row)
            for person in persons:
                _put(table, person, make(f"{name}/{person}"), row.path)
        return table

    def layer(self, parent: _Node, key: str) -> Layer | None:
        if not parent.has(key):
            return None
        node = parent.node(key)
        ratios: dict[str, Value] = {}
        for row in node.nodes("ratios"):
            persons = row.choices("persons", self.persons, self.persons)
            make = self._basis_points(row)
            for person in persons:
                _put(ratios, person, make(f"{key}/{person}"), row.path)
        cap = None
        if node.has("cap"):
            cap = self._fen(node.node("cap"))(f"{key}/cap")
        node.close()
        return Layer(ratios, cap)

    def clause(self, node: _Node, name: str) -> Value:
        """A statement that holds no number."""
        clause, provenance = self._founded(node)
        node.close()
        return Value(name, 0, Unit.NONE, clause, provenance)

    def _deductibles(
        self, rows: Sequence[_Node], name: str
    ) -> dict[tuple[str, str], tuple[tuple[int, Value], ...]]:
        stays: dict[tuple[str, str], dict[int, Value]] = {}
        for row in rows:
            levels = row.choices("levels", names.LEVELS, names.LEVELS)
            persons = row.choices("persons", self.persons, self.persons)
            first = row.number("from_stay", least=1, most=MAX_STAY, default=1)
            make = self._fen(row)
            for level, person in product(levels, persons):
                value = make(f"{name}/deductible/{level}/{person}/{first}")
                _put(stays.setdefault((level, person), {}), first, value, row.path)
        for (level, person), table in stays.items():
            if 1 not in table:
                raise DocumentError(
                    f"{name}.deductible", f"{level}/{person} states no first stay: add its row"
                )
        return {key: tuple(sorted(table.items(), reverse=True)) for key, table in stays.items()}

    def _ratios(
        self, rows: Sequence[_Node], name: str
    ) -> dict[tuple[str, str, str], tuple[tuple[int, tuple[Segment, ...]], ...]]:
        bands: dict[tuple[str, str, str], dict[int, dict[int, Segment]]] = {}
        for row in rows:
            levels = row.choices("levels", names.LEVELS, names.LEVELS)
            persons = row.choices("persons", self.persons, self.persons)
            routes = row.choices("routes", names.ROUTES, names.ROUTES)
            age = row.number("from_age", least=0, most=MAX_AGE, default=0)
            bound = None
            if row.has("up_to_fen"):
                bound = row.number("up_to_fen", least=1, most=MAX_FEN)
            make = self._basis_points(row)
            for level, person, route in product(levels, persons, routes):
                band = f"/age{age}" if age else ""
                text = f"{name}/ratio/{level}/{person}{band}/{bound or 'rest'}"
                segment = Segment(bound, make(text))
                ages = bands.setdefault((level, person, route), {})
                # MAX_FEN + 1 sorts the open segment last.
                _put(ages.setdefault(age, {}), bound or MAX_FEN + 1, segment, row.path)
        for (level, person, route), ages in bands.items():
            where = f"{level}/{person}/{route}"
            if 0 not in ages:
                raise DocumentError(f"{name}.ratio", f"{where} states no age below {min(ages)}")
            for segments in ages.values():
                if MAX_FEN + 1 not in segments:
                    raise DocumentError(
                        f"{name}.ratio", f"{where} has no last segment: add one without up_to_fen"
                    )
        return {
            key: tuple(
                (age, tuple(segments[bound] for bound in sorted(segments)))
                for age, segments in sorted(ages.items(), reverse=True)
            )
            for key, ages in bands.items()
        }

    def _fen(self, row: _Node) -> Callable[[str], Value]:
        return self._value(row, row.number("fen", least=0, most=MAX_FEN), Unit.FEN)

    def _basis_points(self, row: _Node) -> Callable[[str], Value]:
        amount = row.number("basis_points", least=0, most=BASIS_POINTS)
        return self._value(row, amount, Unit.BASIS_POINTS)

    def _value(self, row: _Node, amount: int, unit: Unit) -> Callable[[str], Value]:
        clause, provenance = self._founded(row)
        row.close()
        return lambda name: Value(name, amount, unit, clause, provenance)

    def _founded(self, row: _Node) -> tuple[str, Provenance]:
        title, provenance = self._sources[row.choice("source", self._sources)]
        return f"{title} {row.text('clause')}", provenance


def _sources(node: _Node) -> dict[str, tuple[str, Provenance]]:
    sources = {}
    for name in node.keys():  # noqa: SIM118 - a node, not a mapping
        source = node.node(name)
        provenance = source.choice("provenance", [known.name.lower() for known in Provenance])
        sources[name] = (source.text("title"), Provenance[provenance.upper()])
        source.has("url")
        source.close()
    return sources


def _enum(node: _Node, key: str, kind: type[Name]) -> Name:
    return kind(node.choice(key, [known.value for known in kind]))


def _put(table: dict[Key, Item], key: Key, value: Item, path: str) -> None:
    """Two rows that both hold are an error, never "the last one wins"."""
    if key in table:
        raise DocumentError(path, f"{key} is already stated by another row: keep one")
    table[key] = value
