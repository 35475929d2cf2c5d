"""Reads and checks the filing rules of the areas, `rules/*.yaml` (docs/filing.md).

`national.yaml` holds what is the same everywhere; every other file is one pooling area and is named
by its code. Rows of an area stand before the national ones. Together they give exactly one value
for every combination that can occur; anything else is said with its file and line, all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from infra.runtime.written import (
    NotYaml,
    Part,
    Problem,
    Written,
    dotted,
    read_text,
    read_yaml,
)
from services.filing.domain.area_rules import AreaRules, Provenance, Stated
from services.filing.domain.national_bounds import departures
from services.filing.rule_keys import KEYS, Combination, Key, spelt

RULES = Path(__file__).parent / "rules"
NATIONAL = "national.yaml"
_SAMPLE = "示例"
_ROW = {"when", "value", "source", "clause"}
_SOURCE = {"document", "provenance"}


class RulesError(Exception):
    """Rules cannot be used; the text is every error with its file and line."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of reading a folder."""

    rules: Mapping[str, AreaRules]
    """By area; only of files without error."""
    problems: tuple[Problem, ...]
    """By file and line."""


Table = dict[Combination, Stated[Any]]


@dataclass(slots=True)
class _File:
    """One file as far as it could be read."""

    name: str
    written: Written
    tables: dict[str, Table] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    """Keys with a row of which it is not known what it is for: their gaps say nothing."""
    problems: list[Problem] = field(default_factory=list)

    def fault(self, part: Part, text: str) -> None:
        self.problems.append(Problem(self.name, self.written.line(part), dotted(part), text))


def load_area_rules(folder: Path = RULES) -> Mapping[str, AreaRules]:
    """Area code → rules, for every file in `folder`; raise `RulesError` when one has an error."""
    examined = examine_area_rules(folder)
    errors = [str(one) for one in examined.problems if one.severity == "error"]
    if errors:
        raise RulesError("\n".join(errors))
    return examined.rules


def examine_area_rules(folder: Path = RULES) -> Examined:
    """Read and check every file of a folder; never raises for what stands in them."""
    problems: list[Problem] = []
    files: dict[str, _File] = {}
    for path in sorted({folder / NATIONAL, *folder.glob("*.yaml")}):
        try:
            files[path.name] = _read(path)
        except NotYaml as error:
            problems.append(Problem(path.name, error.line, "", error.fault))
    national = files.pop(NATIONAL, None)
    rules: dict[str, AreaRules] = {}
    if national is not None:
        for file in files.values():
            area = _area_rules(file, national)
            problems += file.problems
            if area is None:
                continue
            rules[area.area] = area
            problems += [
                Problem(file.name, file.written.line((key,)), key, text, "warning")
                for key, text in departures(area)
            ]
        problems += national.problems
    return Examined(rules, tuple(sorted(problems, key=lambda one: (one.file, one.line))))


def _read(path: Path) -> _File:
    """A file with its rows taken apart."""
    file = _File(path.name, read_yaml(read_text(path)))
    for part, text in file.written.faults:
        file.fault(part, text)
    data = file.written.data
    head = set() if path.name == NATIONAL else {"area", "name"}
    for name in sorted(head):
        if not isinstance(data.get(name), str):
            file.fault((name,), "must be given, as text in quotes")
    if head and isinstance(data.get("area"), str) and data["area"] != path.stem:
        file.fault(("area",), f"must be the name of the file, {path.stem}")
    sources = _sources(file)
    for name, rows in data.items():
        if name in head or name == "sources":
            continue
        key = KEYS.get(name)
        if key is None:
            file.fault((name,), f"is none of {', '.join(KEYS)}")
        elif key.national and path.name != NATIONAL:
            file.fault((name,), f"is the same everywhere: it stands in {NATIONAL} only")
        else:
            file.tables[name] = _table(file, key, rows, sources)
    used = {str(row.get("source")) for row in _rows(data)}
    for name in sorted(sources.keys() - used):
        file.fault(("sources", name), "no row rests on this source")
    return file


def _sources(file: _File) -> dict[str, tuple[str, Provenance]]:
    """Name of a source → document and provenance."""
    written = file.written.data.get("sources")
    if not isinstance(written, dict):
        file.fault(("sources",), "must be given: a name for each document")
        return {}
    found: dict[str, tuple[str, Provenance]] = {}
    for name, source in written.items():
        part = ("sources", name)
        # A faulty one is known by name, so that the rows that rest on it are no faults too.
        found[name] = "", Provenance.ILLUSTRATIVE
        if not isinstance(source, dict) or not source.keys() >= _SOURCE:
            file.fault(part, "needs document, provenance and, unless it is a sample, date")
            continue
        for extra in sorted(source.keys() - _SOURCE - {"date"}):
            file.fault((*part, extra), "is none of document, date, provenance")
        document, provenance = source["document"], str(source["provenance"])
        known = {one.value: one for one in Provenance}
        if provenance not in known:
            file.fault((*part, "provenance"), f"{provenance} is none of {', '.join(known)}")
            continue
        sample = known[provenance] is Provenance.ILLUSTRATIVE
        if not isinstance(document, str) or document.startswith(_SAMPLE) is not sample:
            file.fault((*part, "document"), f"begins with {_SAMPLE} in a sample, and only there")
            continue
        if sample is ("date" in source):
            file.fault(part, "a document has a date, a sample has none")
        found[name] = document, known[provenance]
    return found


def _rows(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, rows in data.items():
        for row in rows if name in KEYS and isinstance(rows, list) else ():
            if isinstance(row, dict):
                yield row


def _table(
    file: _File, key: Key, rows: Any, sources: Mapping[str, tuple[str, Provenance]]
) -> Table:
    """The rows of one key, by combination; every fault is noted."""
    table: Table = {}
    first: dict[Combination, Part] = {}
    if not isinstance(rows, list) or not rows:
        file.fault((key.name,), "must be a list of rows")
    for number, row in enumerate(rows if isinstance(rows, list) else ()):
        part = (key.name, number)
        if not isinstance(row, dict):
            file.fault(part, "a row is a map of when, value, source, clause")
            continue
        for extra in sorted(row.keys() - _ROW):
            file.fault((*part, extra), "is none of when, value, source, clause")
        combinations = _combinations(file, key, row.get("when", {}), (*part, "when"))
        taken = [one for one in combinations if one in first]
        if taken:
            lines = sorted({file.written.line(first[one]) for one in taken})
            told = "; ".join(_told(key, one) for one in taken)
            also = ", ".join(f"line {line}" for line in lines)
            file.fault(part, f"two rows for {told}: see {also}")
        found = _value(file, key, row, part, combinations, sources)
        for one in combinations:
            first.setdefault(one, part)
            if one in found:
                table.setdefault(one, found[one])
            else:
                file.doubtful.add(key.name)
    return table


def _combinations(file: _File, key: Key, when: Any, part: Part) -> list[Combination]:
    """The combinations that a row is for; none where that cannot be read."""
    axes = {one.name: one.members for one in key.dimensions}
    good = isinstance(when, dict)
    if not good:
        file.fault(part, "must be a map of dimension: [values]")
    for name, words in when.items() if isinstance(when, dict) else ():
        dimension = next((one for one in key.dimensions if one.name == name), None)
        if dimension is None:
            known = ", ".join(axes) or "nothing"
            file.fault((*part, name), f"this key depends on {known}")
            good = False
            continue
        try:
            if not isinstance(words, list) or not words:
                raise ValueError("must be a list of values; leave the dimension away for all")
            axes[name] = tuple(dict.fromkeys(one for word in words for one in dimension.read(word)))
        except ValueError as error:
            file.fault((*part, name), str(error))
            good = False
    if not good:
        file.doubtful.add(key.name)
        return []
    return list(product(*axes.values()))


def _value(
    file: _File,
    key: Key,
    row: Mapping[str, Any],
    part: Part,
    combinations: list[Combination],
    sources: Mapping[str, tuple[str, Provenance]],
) -> Table:
    """The value of a row for each combination, with its citation; nothing where it has a fault."""
    clause = row.get("clause", "")
    source = sources.get(str(row.get("source")))
    if source is None:
        known = ", ".join(sources) or "none"
        file.fault((*part, "source"), f"must be one of the sources of this file: {known}")
    if not isinstance(clause, str):
        file.fault((*part, "clause"), "must be text: put it in quotes")
        return {}
    if "value" not in row:
        file.fault(part, "has no value")
        return {}
    table: Table = {}
    faults: dict[str, None] = {}
    document, provenance = source or ("", Provenance.ILLUSTRATIVE)
    for one in combinations:
        try:
            value = key.read(row["value"], one)
        except ValueError as error:
            faults[str(error)] = None
        else:
            table[one] = Stated(value, f"{document} {clause}".strip(), provenance)
    for text in faults:
        file.fault((*part, "value"), text)
    return table if source else {}


def _area_rules(file: _File, national: _File) -> AreaRules | None:
    """The rules of one area, its own rows before the national ones; None when it has an error."""
    tables: dict[str, Any] = {}
    for key in KEYS.values():
        own = file.tables.get(key.name, {})
        table = national.tables.get(key.name, {}) | own
        tables[key.name] = table
        if key.name in file.doubtful | national.doubtful:
            continue
        for one in product(*(dimension.members for dimension in key.dimensions)):
            if one not in table:
                file.fault((key.name,), f"no row for {_told(key, one)}")
    if file.problems or national.problems:
        return None
    data = file.written.data
    return AreaRules(area=data["area"], name=data["name"], **tables)


def _told(key: Key, combination: Combination) -> str:
    """A combination as people read it: kind=referral, route=in_province."""
    named = zip(key.dimensions, combination, strict=True)
    return ", ".join(f"{dimension.name}={spelt(one)}" for dimension, one in named) or "it"
