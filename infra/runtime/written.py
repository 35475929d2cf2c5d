"""YAML as a person wrote it: plain data, the line of each part, and what YAML itself has wrong.

YAML is read as text, whole numbers, true and false, lists and maps; everything else (0.85,
2024-01-01) stays text, so that the reader can say which unit it wants. Aliases are followed, within
limits; keys named twice are faults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

MAX_CHARACTERS = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 30
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Part = tuple[str | int, ...]
"""Keys and numbers from the root of a text to one of its parts."""


class NotYaml(Exception):
    """The text is no YAML, or no map; `line` counts from 1, 0 stands for the file as a whole."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"line {line}: {fault}" if line else fault)
        self.line = line
        self.fault = fault


class Fault(NamedTuple):
    """One thing that is wrong."""

    path: Part
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong or doubtful in a file of rules."""

    file: str
    line: int
    path: str
    """The part, e.g. `lock[1].value`; may be empty."""
    text: str
    """What is wrong and what to do."""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " + (f"{self.path}: " if self.path else "")
        return f"{where}{self.text}"

    def told(self, folder: Path) -> str:
        """The problem as compilers tell it: path of the file, line, severity."""
        place = f"{folder / self.file}:{self.line}" if self.line else f"{folder / self.file}"
        return f"{place}: {self.severity}: " + (f"{self.path}: " if self.path else "") + self.text


@dataclass(frozen=True, slots=True)
class Written:
    """The data of a text and where each of its parts stands."""

    data: dict[str, Any]
    lines: Mapping[Part, int]
    faults: tuple[Fault, ...]

    def line(self, part: Part) -> int:
        """The line of a part, or of the nearest part around it."""
        while part and part not in self.lines:
            part = part[:-1]
        return self.lines.get(part, 1)


def dotted(part: Part) -> str:
    """A part as people read it: `lock[1].value`."""
    text = ""
    for step in part:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_text(path: Path) -> str:
    """The text of a file; raise `NotYaml`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotYaml(0, "is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise NotYaml(0, f"cannot be read: {error.strerror}") from error


def read_yaml(text: str) -> Written:
    """The data of a YAML text; raise `NotYaml`."""
    if len(text) > MAX_CHARACTERS:
        raise NotYaml(0, f"has more than {MAX_CHARACTERS} characters")
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotYaml(0 if mark is None else mark.line + 1, _syntax(error)) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise NotYaml(0, f"is no YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        line = 0 if node is None else node.start_mark.line + 1
        raise NotYaml(line, "must be a map: lines of `key: value`")
    walk = _Walk()
    data = walk.value(node, ())
    return Written(data, walk.lines, tuple(walk.faults))


class _Walk:
    """Takes nodes to data, noting the line of every part."""

    def __init__(self) -> None:
        self.lines: dict[Part, int] = {}
        self.faults: list[Fault] = []
        self._nodes = 0

    def value(self, node: Any, part: Part) -> Any:
        self._nodes += 1
        line = node.start_mark.line + 1
        if self._nodes > MAX_NODES or len(part) > MAX_DEPTH:
            raise NotYaml(line, "the document is too large or nested too deep")
        self.lines.setdefault(part, line)
        if isinstance(node, yaml.MappingNode):
            return self._map(node, part)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*part, number)) for number, item in enumerate(node.value)]
        return self._scalar(node, part)

    def _map(self, node: Any, part: Part) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(Fault(part, f"line {line}: a key must be a word"))
                continue
            key = str(key_node.value)
            where = (*part, key)
            if where in self.lines:
                text = f"stands twice, in line {self.lines[where]} and line {line}: keep one"
                self.faults.append(Fault(where, text))
                continue
            self.lines[where] = line
            value = self.value(value_node, where)
            if value is not None:
                data[key] = value
        return data

    def _scalar(self, node: Any, part: Part) -> str | int | bool | None:
        text = str(node.value)
        if node.style:
            return text
        if not text or text in ("~", "null"):
            self.faults.append(Fault(part, "is empty: write a value or remove the key"))
            return None
        if text in ("true", "false"):
            return text == "true"
        return int(text) if _WHOLE.fullmatch(text) else text


def _syntax(error: yaml.MarkedYAMLError) -> str:
    told = ", ".join(each for each in (error.context, error.problem) if each)
    return f"is no YAML: {told}"
