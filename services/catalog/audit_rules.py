"""Reads and checks the rules of the fee audit at the door, `rules/*.yaml` (docs/catalog.md).

`national.yaml` holds for every area; every other file is named by the code of a pooling area or a
province, and its rules go before the national ones of the same code. Everything that is wrong is
said with its file and line, all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from infra.runtime.written import NotYaml, Part, Problem, Written, dotted, read_text, read_yaml
from services.catalog.audit_rule_keys import (
    KINDS,
    Wrong,
    read_code,
    read_day,
    read_member,
    read_message,
    read_plain,
    read_selector,
    spelt,
)
from services.catalog.domain.audit_rule import (
    PLACEHOLDERS,
    Action,
    AuditRule,
    Exclusive,
    Selector,
)

RULES = Path(__file__).parent / "rules"
NATIONAL = "national.yaml"
_SAMPLE = "示例"
_HEAD = ("area", "name", "sources", "rules")
_COMMON = (
    "code",
    "name",
    "kind",
    "action",
    "select",
    "message",
    "source",
    "clause",
    "from",
    "until",
)


class AuditRulesError(Exception):
    """Rules cannot be used; the text is every error with its file and line."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of reading a folder."""

    rules: Mapping[str, tuple[AuditRule, ...]]
    """By area, under "" the national ones; only of files without error."""
    names: Mapping[str, str]
    """Area → its name."""
    problems: tuple[Problem, ...]
    """By file and line."""


@dataclass(slots=True)
class _File:
    """One file as far as it could be read."""

    name: str
    written: Written
    rules: list[tuple[Part, AuditRule]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def fault(self, part: Part, text: str) -> None:
        self.problems.append(Problem(self.name, self.written.line(part), dotted(part), text))


def load_audit_rules(folder: Path = RULES) -> Mapping[str, tuple[AuditRule, ...]]:
    """Area → rules, under "" the national ones; raise `AuditRulesError` where a file has faults."""
    examined = examine_audit_rules(folder)
    if examined.problems:
        raise AuditRulesError("\n".join(map(str, examined.problems)))
    return examined.rules


def examine_audit_rules(folder: Path = RULES) -> Examined:
    """Read and check every file of a folder; never raises for what stands in them."""
    problems: list[Problem] = []
    files: list[_File] = []
    for path in sorted({folder / NATIONAL, *folder.glob("*.yaml")}):
        try:
            files.append(_read(path))
        except NotYaml as error:
            problems.append(Problem(path.name, error.line, "", error.fault))
    national = next((file for file in files if file.name == NATIONAL), None)
    for file in files:
        if national is not None and file is not national:
            _check_departs(file, national)
        problems += file.problems
    sound = [file for file in files if not file.problems]
    return Examined(
        {_area(file): tuple(rule for _, rule in file.rules) for file in sound},
        {_area(file): str(file.written.data["name"]) for file in sound},
        tuple(sorted(problems, key=lambda one: (one.file, one.line))),
    )


def _area(file: _File) -> str:
    return "" if file.name == NATIONAL else file.name.removesuffix(".yaml")


def _check_departs(file: _File, national: _File) -> None:
    """A rule that says what the national one says anyway is dead."""
    known = {replace(rule, source="") for _, rule in national.rules}
    for part, rule in file.rules:
        if replace(rule, source="") in known:
            file.fault(part, f"says what {NATIONAL} says: remove it")


def _read(path: Path) -> _File:
    file = _File(path.name, read_yaml(read_text(path)))
    for part, text in file.written.faults:
        file.fault(part, text)
    data = file.written.data
    if not isinstance(data.get("name"), str):
        file.fault(("name",), "must be given, as text in quotes")
    if path.name == NATIONAL:
        if "area" in data:
            file.fault(("area",), f"{NATIONAL} is of no area")
    elif data.get("area") != path.stem:
        file.fault(("area",), f"must be the name of the file in quotes, {path.stem}")
    for key in sorted(data.keys() - set(_HEAD)):
        file.fault((key,), f"is none of {', '.join(_HEAD)}")
    sources = _sources(file)
    rules = data.get("rules")
    if not isinstance(rules, list):
        file.fault(("rules",), "must be a list of rules")
        rules = []
    used = set()
    for number, written in enumerate(rules):
        at: Part = ("rules", number)
        if not isinstance(written, dict):
            file.fault(at, "a rule is a map")
            continue
        used.add(str(written.get("source")))
        rule = _rule(file, at, written, sources)
        if rule is not None:
            _check_days(file, at, rule)
            file.rules.append((at, rule))
    for name in sorted(sources.keys() - used):
        file.fault(("sources", name), "no rule rests on this source")
    return file


def _sources(file: _File) -> dict[str, str]:
    """Name of a source → the document."""
    written = file.written.data.get("sources")
    if not isinstance(written, dict):
        file.fault(("sources",), "must be given: a name for each document")
        return {}
    found: dict[str, str] = {}
    for name, source in written.items():
        part = ("sources", name)
        found[name] = ""  # known by name, so that the rules that rest on it are no faults too
        document = source.get("document") if isinstance(source, dict) else None
        if not isinstance(document, str) or not source.keys() <= {"document", "date"}:
            file.fault(part, "needs document and, unless it is a sample, date")
        elif document.startswith(_SAMPLE) is ("date" in source):
            file.fault(part, f"a document has a date; a sample has none and begins with {_SAMPLE}")
        else:
            found[name] = document
    return found


def _check_days(file: _File, part: Part, rule: AuditRule) -> None:
    """Of two rules with one code only one may be in force on a day."""
    for other, former in file.rules:
        if former.code != rule.code:
            continue
        if former.first_day <= rule.last_day and rule.first_day <= former.last_day:
            line = file.written.line(other)
            file.fault(
                (*part, "code"), f"{rule.code} is in force on the same days: see line {line}"
            )


def _rule(
    file: _File, part: Part, written: Mapping[str, Any], sources: Mapping[str, str]
) -> AuditRule | None:
    """The rule, or None with every fault noted."""
    before = len(file.problems)

    def read(key: str, reader: Callable[[], Any]) -> Any:
        try:
            return reader()
        except Wrong as wrong:
            file.fault((*part, *(wrong.part or (key,))), str(wrong))
            return None

    kind = written.get("kind")
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        file.fault((*part, "kind"), f"must be one of {', '.join(KINDS)}")
        return None
    keys, condition_of, type_of = known
    for key in written.keys() - {*_COMMON, *keys}:
        allowed = ", ".join((*_COMMON, *keys))
        file.fault((*part, key), f"a rule of kind {kind} has no such key, but {allowed}")
    code = read("code", lambda: read_code(written, "code"))
    name = read("name", lambda: read_plain(written, "name", 60))
    action = read("action", lambda: read_member(Action, written.get("action")))
    selector = read("select", lambda: read_selector(written, "select"))
    condition = read("kind", lambda: condition_of(written))
    first_day = read("from", lambda: read_day(written, "from", date.min))
    last_day = read("until", lambda: read_day(written, "until", date.max))
    message = read("message", lambda: read_message(written, PLACEHOLDERS[type_of]))
    if str(written.get("source")) not in sources:
        listed = ", ".join(sources) or "none"
        file.fault((*part, "source"), f"must be one of the sources of this file: {listed}")
    clause = written.get("clause", "")
    if not isinstance(clause, str):
        file.fault((*part, "clause"), "must be text: put it in quotes")
    if None not in (first_day, last_day) and last_day < first_day:
        file.fault((*part, "until"), "is before its first day: the rule is never in force")
    if isinstance(condition, Exclusive) and selector is not None:
        _check_apart(file, part, selector, condition.against)
    if len(file.problems) > before:
        return None
    source = f"{sources[str(written['source'])]} {clause}".strip()
    return AuditRule(code, name, action, selector, condition, message, source, first_day, last_day)


def _check_apart(file: _File, part: Part, one: Selector, other: Selector) -> None:
    both = [
        *(one.codes & other.codes),
        *(code for code in one.codes if code.startswith(tuple(other.prefixes))),
        *(code for code in other.codes if code.startswith(tuple(one.prefixes))),
        *(a for a in one.prefixes for b in other.prefixes if a.startswith(b) or b.startswith(a)),
        *(spelt(each) for each in one.fee_categories & other.fee_categories),
        *(spelt(each) for each in one.list_types & other.list_types),
    ]
    if both:
        told = ", ".join(sorted(set(both)))
        file.fault((*part, "against"), f"selects what `select` does: {told}")
