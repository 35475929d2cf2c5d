"""The lines of an import file and their cells, or why a line has none.

The file is UTF-8 text, one row a line; in a CSV a cell may stand in quotation marks.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from services.catalog.domain.import_cells import Fault
from services.catalog.domain.import_layouts import Layout, Table

LONGEST_LINE = 8_192
"""Bytes of a line; a longer one is a row not taken."""
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f]")
_CONTROL_BUT_TAB = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


def lines_of(content: bytes, table: Table) -> list[str | Fault]:
    """The text of each line, or why it has none."""
    raw = content.removesuffix(b"\n").split(b"\n")
    control = _CONTROL if table.layout is Layout.CSV else _CONTROL_BUT_TAB
    if max(map(len, raw)) <= LONGEST_LINE:
        try:
            text = content.removesuffix(b"\n").decode().replace("\r\n", "\n").removesuffix("\r")
        except UnicodeDecodeError:
            pass
        else:
            if not control.search(text):
                return list(text.split("\n"))
    return [_text(one.removesuffix(b"\r"), control) for one in raw]


def _text(raw: bytes, control: re.Pattern[str]) -> str | Fault:
    if len(raw) > LONGEST_LINE:
        return Fault("", "行过长")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return Fault("", "不是 UTF-8 编码")
    return Fault("", "含有控制字符") if control.search(text) else text


def cells_of(
    texts: list[str | Fault], first_line: int, table: Table
) -> Iterator[tuple[int, list[str] | Fault]]:
    """Each line that is not empty: its number and its cells, or why it has none."""
    separator, wanted = table.separator, len(table.names)
    quoted = table.layout is Layout.CSV
    for line, text in enumerate(texts, first_line):
        if isinstance(text, Fault):
            yield line, text
            continue
        if quoted and '"' in text:
            try:
                cells = next(csv.reader([text], strict=True))
            except csv.Error:
                yield line, Fault("", "引号不成对")
                continue
        else:
            cells = text.split(separator)
        if len(cells) == wanted:
            yield line, cells
        elif text and not text.isspace():
            yield line, Fault("", "列数多于表头" if len(cells) > wanted else "列数少于表头")
