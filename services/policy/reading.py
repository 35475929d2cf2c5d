"""Reads a policy document as a person wrote it and says everything that is wrong, with its line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from infra.runtime import written
from infra.runtime.written import NotYaml, Written, read_yaml
from services.policy.domain.bounds import Bound, read_bounds
from services.policy.domain.canonical import DocumentError
from services.policy.domain.checking import Finding, Severity, check
from services.policy.domain.compiling import DocumentFaults, Fault, compile_document, dotted
from services.policy.domain.document import Document
from services.policy.domain.opened import Opened, read_opened

_NATIONAL = Path(__file__).parent / "national"


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
        return written.read_text(path)
    except NotYaml as error:
        raise NotReadable(error.line, error.fault) from error


def read(text: str) -> Written:
    """The data of a YAML text; raise `NotReadable`."""
    try:
        return read_yaml(text)
    except NotYaml as error:
        raise NotReadable(error.line, error.fault) from error


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
    own = [Fault(*each) for each in found.faults]
    spoilt = {fault.path for fault in own}
    every = [*own, *(each for each in faults if each.path not in spoilt)]
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
            raise DocumentFaults(tuple(Fault(*each) for each in found.faults))
        return compile_document(found.data)
    except DocumentFaults as error:
        where = f"{path}:{found.line(error.faults[0].path)}"
        raise DocumentError(where, str(error)) from error


@cache
def national_bounds() -> tuple[Bound, ...]:
    """The dated national bounds that come with the suite."""
    return read_bounds(read(read_text(_NATIONAL / "bounds.yaml")).data)


@cache
def opened_diseases() -> Opened:
    """The chronic diseases opened for cross-province settlement, nationwide."""
    return read_opened(read(read_text(_NATIONAL / "chronic.yaml")).data)
