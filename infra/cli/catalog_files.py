"""Opens a file of a list and sends it in numbered parts of whole lines (`parts`).

A file is a CSV, one table of the national download as text, or a zip of such tables; a table's name
begins with its transaction (1312, 1318, 1319) or ends in `.csv`. A zip is trusted for nothing:
neither its names nor its sizes.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from infra.cli.parts import cut, read_lines, send_parts
from infra.local.processes import LocalNetworkError
from infra.runtime.errors import Reason, Refusal
from services.catalog.domain.import_layouts import Layout, NotATable, tables_of
from services.catalog.domain.import_lines import LONGEST_LINE
from yidi.catalog.v1 import listing_pb2

PART_BYTES = 512 << 10
"""A part's size: some 4,000 rows, written in a fraction of a second."""
CALL_S = 60.0
FINISH_S = 300.0
"""Joining, comparing and publishing hundreds of thousands of items at once."""
MOST_TABLES = 4
MOST_BYTES = 1 << 30
"""Of a zip, unpacked."""
MOST_RATIO = 200
"""Unpacked bytes for one of a zip; tables make some 10 to 50."""
_BUFFER = 1 << 16
_BOM = b"\xef\xbb\xbf"
_LAYOUTS = {"1312": Layout.ITEMS, "1318": Layout.LIMITS, "1319": Layout.SHARES}
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises for a member that is not what it says, is encrypted or packed strangely."""
Listing: TypeAlias = Any
"""A stub of `ListingService` over asyncio."""


@dataclass(frozen=True, slots=True)
class Part:
    """Whole lines of one table: its place in the file, from 0, and the number of its first line."""

    number: int
    place: int
    first_line: int
    content: bytes


@dataclass(frozen=True, slots=True)
class _Table:
    member: str | None
    """Its name in the zip; None when it is the file."""
    layout: Layout
    header: str


@dataclass(frozen=True, slots=True)
class ListFile:
    """A file of a list and the tables in it."""

    path: Path
    digest: bytes
    tables: tuple[_Table, ...]

    @classmethod
    def open(cls, path: Path) -> ListFile:
        """Look at it; raises `LocalNetworkError` when it cannot be read, and `Refusal`
        (CATALOGUE_IMPORT_INVALID) when it is none."""
        digest = _digest(path)
        tables = []
        for member, layout in _members(path):
            with _opened(path, member) as file:
                first = next(read_lines(file, LONGEST_LINE), b"")
            tables.append(_Table(member, layout, _header(first, layout)))
        try:
            tables_of([(table.layout, table.header) for table in tables])
        except NotATable as fault:
            raise _invalid(str(fault)) from None
        # Every table of limits and shares comes behind the items, whatever the zip's order.
        return cls(path, digest, tuple(sorted(tables, key=lambda table: table.layout)))

    def parts(self) -> Iterator[Part]:
        """The file in parts; of a line that is too long as much as shows that it is."""
        number = 1
        for place, table in enumerate(self.tables):
            with _opened(self.path, table.member) as file:
                for first_line, content in _parts(file, bool(table.header)):
                    yield Part(number, place, first_line, content)
                    number += 1

    def check_unchanged(self) -> None:
        """Raises `Refusal` (CATALOGUE_IMPORT_INVALID) when the file is another than was opened."""
        if _digest(self.path) != self.digest:
            raise _invalid("文件在导入时被改动")


async def send(
    listing: Listing,
    file: ListFile,
    area: str,
    version: str,
    effective_from: str,
    *,
    dry_run: bool = False,
    told: Callable[[listing_pb2.ListImport], None] = lambda _: None,
) -> listing_pb2.ListImport:
    """Import a file or go on with it; `told` hears of the start and of every part taken.

    Raises `Refusal`; what was taken until then stays, and the same call goes on behind it.
    """
    announced = listing_pb2.StartListImportRequest(
        file_digest=file.digest,
        file_name=file.path.name[-200:],
        area=area,
        version=version,
        effective_from=effective_from,
        tables=[
            listing_pb2.ImportTable(
                layout=listing_pb2.ImportLayout.ValueType(table.layout), header=table.header
            )
            for table in file.tables
        ],
    )
    started = getattr(await listing.StartListImport(announced, timeout=CALL_S), "import")
    told(started)
    if started.state == listing_pb2.LIST_IMPORT_STATE_PUBLISHED:
        return cast(listing_pb2.ListImport, started)

    async def take(part: Part) -> None:
        request = listing_pb2.ListImportPartRequest(
            import_id=started.import_id,
            number=part.number,
            table=part.place,
            first_line=part.first_line,
            content=part.content,
        )
        told(getattr(await listing.ListImportPart(request, timeout=CALL_S), "import"))

    count = await send_parts(file.parts(), started.next_part, take)
    if not count:
        raise _invalid("文件中没有数据行")
    await asyncio.to_thread(file.check_unchanged)
    request = listing_pb2.FinishListImportRequest(
        import_id=started.import_id, dry_run=dry_run, parts=count
    )
    answer = await listing.FinishListImport(request, timeout=FINISH_S)
    return cast(listing_pb2.ListImport, getattr(answer, "import"))


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise LocalNetworkError(f"cannot read {path}: {error.strerror}") from error


def _members(path: Path) -> list[tuple[str | None, Layout]]:
    """The tables of a file; raises `Refusal` (CATALOGUE_IMPORT_INVALID)."""
    if path.suffix.lower() != ".zip":
        return [(None, _layout(path.name))]
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (*_BROKEN, OSError):
        raise _invalid("压缩包已损坏") from None
    if not 0 < len(found) <= MOST_TABLES:
        raise _invalid(f"压缩包应有 1 至 {MOST_TABLES} 个文件")
    if sum(one.file_size for one in found) > MOST_BYTES or any(
        one.file_size > MOST_RATIO * max(one.compress_size, 1) for one in found
    ):
        raise _invalid("压缩包解开后过大")
    if any("/" in one.orig_filename or "\\" in one.orig_filename for one in found):
        raise _invalid("压缩包内不应有文件夹")
    names = [one.filename for one in found]
    if len(set(names)) < len(names):
        raise _invalid("压缩包内有同名文件")
    return [(name, _layout(name)) for name in names]


def _layout(name: str) -> Layout:
    if name.lower().endswith(".csv"):
        return Layout.CSV
    layout = _LAYOUTS.get(name[:4])
    if layout is None or not name.lower().endswith(".txt"):
        raise _invalid("文件名应以 1312、1318 或 1319 开头且为 .txt，或为 .csv")
    return layout


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[BinaryIO]:
    """A table's bytes; raises `Refusal` (CATALOGUE_IMPORT_INVALID) where a zip is broken."""
    if member is None:
        with path.open("rb") as file:
            yield file
        return
    try:
        # A member gives at most the size that it states, and the sizes are checked.
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(member) as packed,
            io.BufferedReader(cast(io.RawIOBase, packed), _BUFFER) as file,
        ):
            yield file
    except _BROKEN:
        raise _invalid("压缩包已损坏、已加密或压缩方式不支持") from None


def _header(first: bytes, layout: Layout) -> str:
    """The header line of a table, empty for a download without one."""
    if not first:
        raise _invalid("文件是空的")
    try:
        header = first.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        if layout is not Layout.CSV:
            return ""
        raise _invalid("第一行不是 UTF-8 编码") from None
    is_header = layout is Layout.CSV or "hilist_code" in header.lower().split("\t")
    return header if is_header else ""


def _parts(file: BinaryIO, headed: bool) -> Iterator[tuple[int, bytes]]:
    """A table in parts: the number of each one's first line and its lines."""
    lines = read_lines(file, LONGEST_LINE)
    first = next(lines, b"").removeprefix(_BOM)
    if headed:
        return cut(lines, 2, PART_BYTES)
    return cut(chain([first] if first else [], lines), 1, PART_BYTES)


def _invalid(cause: str) -> Refusal:
    return Refusal(Reason.ERROR_REASON_CATALOGUE_IMPORT_INVALID, cause=cause)
