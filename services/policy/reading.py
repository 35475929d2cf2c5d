"""Reads a policy document as a person wrote it and says everything that is wrong, with its line.

YAML is read as text, whole numbers, true and false, lists and maps; everything else (0.85,
2024-01-01) stays text, so that the model can say which unit it wants. Aliases are followed, within
limits; keys named twice are faults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from services.policy.domain.bounds import Bound, read_bounds
from services.policy.domain.canonical import DocumentError
from services.policy.domain.checking import Finding, Severity, check
from services.policy.domain.compiling import DocumentFaults, Fault, compile_document, dotted
from services.policy.domain.document import Document
from services.policy.domain.opened import Opened, read_opened

MAX_CHARACTERS = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 30
_NATIONAL = Path(__file__).parent / "national"
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_Path = tuple[str | int, ...]
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NotReadable(DocumentError):
    """The text is no YAML, or no map; `line` counts from 1, 0 stands for the file as a whole."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"line {line}" if line else "file", fault)
        self.line = line
        self.fault = fault


class Problem(NamedTuple):
    """One thing that is wrong or doubtful."""

    severity: Severity
    line: int
    """From 1; 0 when the file as a whole is meant."""
    path: str
    """E.g. `benefits.inpatient.stages[0].deductible`; may be empty."""
    text: str
    """What is wrong and what to do."""
    clause: str = ""
    """The national clause that the document leaves, or empty."""


@dataclass(frozen=True, slots=True)
class Read:
    """The data of a text, where each of its parts stands, and what YAML itself has wrong."""

    data: dict[str, Any]
    lines: Mapping[_Path, int]
    faults: tuple[Fault, ...]

    def line(self, path: _Path) -> int:
        """The line of a part, or of the nearest part around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of reading, compiling and checking a text."""

    document: Document | None
    """None when the text has faults of the model; it may still have errors of the check."""
    data: Mapping[str, Any]
    """As it goes into the canonical form."""
    problems: tuple[Problem, ...]
    """By line; errors and warnings."""

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What keeps the document from being published."""
        return tuple(each for each in self.problems if each.severity == "error")


def read_text(path: Path) -> str:
    """The text of a file; raise `NotReadable`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotReadable(0, "is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise NotReadable(0, f"cannot be read: {error.strerror}") from error


def read(text: str) -> Read:
    """The data of a YAML text; raise `NotReadable`."""
    if len(text) > MAX_CHARACTERS:
        raise NotReadable(0, f"has more than {MAX_CHARACTERS} characters")
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotReadable(0 if mark is None else mark.line + 1, _syntax(error)) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise NotReadable(0, f"is no YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        line = 0 if node is None else node.start_mark.line + 1
        raise NotReadable(line, "must be a map: lines of `key: value`")
    walk = _Walk()
    data = walk.value(node, ())
    return Read(data, walk.lines, tuple(walk.faults))


def examine(text: str) -> Examined:
    """Read, compile and check a text: every fault of the model, or else every finding of the
    check. Never raises for what stands in the text."""
    try:
        found = read(text)
    except NotReadable as error:
        return Examined(None, {}, (Problem("error", error.line, "", error.fault),))
    document = None
    faults: tuple[Fault, ...] = ()
    findings: list[Finding] = []
    try:
        document = compile_document(found.data)
    except DocumentFaults as error:
        faults = error.faults
    else:
        findings = check(document, national_bounds())
    # What YAML has wrong explains what the model misses there.
    spoilt = {fault.path for fault in found.faults}
    every = [*found.faults, *(each for each in faults if each.path not in spoilt)]
    problems = [
        Problem("error", found.line(fault.path), dotted(fault.path), fault.text) for fault in every
    ]
    problems += [
        Problem(each.severity, found.line(each.path), dotted(each.path), each.text, each.clause)
        for each in findings
    ]
    problems.sort(key=lambda each: each.line)
    return Examined(None if found.faults else document, found.data, tuple(problems))


def read_document(path: Path) -> Document:
    """The document in a file, to compute with; raise `DocumentError` naming file, line and the
    first of its faults.

    Gaps do not matter here: the computation refuses what no row states.
    """
    try:
        found = read(read_text(path))
    except NotReadable as error:
        where = f"{path}:{error.line}" if error.line else f"{path}"
        raise DocumentError(where, error.fault) from error
    try:
        if found.faults:
            raise DocumentFaults(found.faults)
        return compile_document(found.data)
    except DocumentFaults as error:
        where = f"{path}:{found.line(error.faults[0].path)}"
        raise DocumentError(where, str(error)) from error


class _Walk:
    """Takes nodes to data, noting the line of every path."""

    def __init__(self) -> None:
        self.lines: dict[_Path, int] = {}
        self.faults: list[Fault] = []
        self._nodes = 0

    def value(self, node: Any, path: _Path) -> Any:
        self._nodes += 1
        line = node.start_mark.line + 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise NotReadable(line, "the document is too large or nested too deep")
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._map(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _map(self, node: Any, path: _Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(Fault(path, f"line {line}: a key must be a word"))
                continue
            key = str(key_node.value)
            where = (*path, key)
            if where in self.lines:
                text = f"stands twice, in line {self.lines[where]} and line {line}: keep one"
                self.faults.append(Fault(where, text))
                continue
            self.lines[where] = line
            value = self.value(value_node, where)
            if value is not None:
                data[key] = value
        return data

    def _scalar(self, node: Any, path: _Path) -> str | int | bool | None:
        text = str(node.value)
        if node.style:
            return text
        if not text or text in ("~", "null"):
            self.faults.append(Fault(path, "is empty: write a value or remove the key"))
            return None
        if text in ("true", "false"):
            return text == "true"
        return int(text) if _WHOLE.fullmatch(text) else text


def _syntax(error: yaml.MarkedYAMLError) -> str:
    told = ", ".join(each for each in (error.context, error.problem) if each)
    return f"is no YAML: {told}"


@cache
def national_bounds() -> tuple[Bound, ...]:
    """The dated national bounds that come with the suite."""
    return read_bounds(read(read_text(_NATIONAL / "bounds.yaml")).data)


@cache
def opened_diseases() -> Opened:
    """The chronic diseases opened for cross-province settlement, nationwide."""
    return read_opened(read(read_text(_NATIONAL / "chronic.yaml")).data)
