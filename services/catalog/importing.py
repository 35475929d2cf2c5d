"""Bulk import of lists: files in numbered parts, each taken whole or not at all, and one step that
publishes the list.

Which parts are there is kept with the rows, so whoever sends the file again goes on where it
stopped. Until the list is published nobody sees a row of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from infra.runtime.admission import Admission
from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant, new_id
from infra.runtime.database import Database
from infra.runtime.days import parse_day
from infra.runtime.errors import Reason, Refusal
from infra.runtime.paging import page_token
from services.catalog.domain.import_layouts import Layout, NotATable, Table, tables_of
from services.catalog.domain.import_parts import PartTaken, cannot_be_taken, missing
from services.catalog.domain.import_rows import RowReader
from services.catalog.store.importing import (
    Difference,
    ImportStore,
    NewImport,
    Raced,
    StoredImport,
    Taking,
)
from services.catalog.store.publications import VersionConflict
from yidi.catalog.v1 import listing_pb2

AT_ONCE = 3
"""Parts worked on at a time; each holds its rows in memory."""
WAITING = 16
PAGE = 100
_PLACE_AND_LINE = re.compile(r"[0-9]:[0-9]{1,18}")


class Importing:
    """What `ListingService` does with files."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._store = ImportStore(database)
        self._clock = clock
        self._reader = RowReader()
        self._parts = Admission(at_once=AT_ONCE, waiting=WAITING)

    async def start(
        self, request: listing_pb2.StartListImportRequest, call: Call
    ) -> listing_pb2.StartListImportResponse:
        """Announce a file, or find it again; raises `Refusal` (CATALOGUE_IMPORT_INVALID,
        CATALOGUE_IMPORT_STATE_WRONG, DAY_INVALID)."""
        given = [(Layout(table.layout), table.header) for table in request.tables]
        _tables(given)
        effective_from = parse_day(request.effective_from, "effective_from")
        try:
            import_id = await self._store.start(
                NewImport(
                    import_id=new_id(self._clock),
                    actor=call.caller.spiffe_id,
                    file_digest=request.file_digest,
                    area=request.area,
                    version=request.version,
                    effective_from=effective_from,
                    file_name=request.file_name,
                    tables=given,
                ),
                instant(self._clock),
            )
        except VersionConflict:
            raise _wrong(request.file_name, _taken(request.version)) from None
        stored = await self._stored(import_id)
        if (stored.effective_from, stored.tables) != (effective_from, tuple(given)):
            raise _wrong(import_id, "该文件已按另外的生效日期或表头导入")
        return listing_pb2.StartListImportResponse(**{"import": _shown(stored)})

    async def part(
        self, request: listing_pb2.ListImportPartRequest, call: Call
    ) -> listing_pb2.ListImportPartResponse:
        """Take one part; raises `Refusal` (CATALOGUE_IMPORT_STATE_WRONG, OVERLOADED)."""
        async with self._parts.turn():
            stored = await self._stored(request.import_id)
            tables = _tables(stored.tables)
            if request.table >= len(tables):
                raise _wrong(stored.import_id, f"文件没有第 {request.table + 1} 张表")
            taking = await asyncio.to_thread(self._read, request, stored, tables[request.table])
            while not await self._is_there(taking, stored):
                try:
                    await self._store.take(taking, instant(self._clock))
                    break
                except Raced:
                    stored = await self._stored(request.import_id)
            stored = await self._stored(request.import_id)
        return listing_pb2.ListImportPartResponse(**{"import": _shown(stored)})

    async def finish(
        self, request: listing_pb2.FinishListImportRequest, call: Call
    ) -> listing_pb2.FinishListImportResponse:
        """Publish a list whose rows can all be taken, or only say what it would change; one that
        is published is answered again. Raises `Refusal` (CATALOGUE_IMPORT_STATE_WRONG,
        CATALOGUE_IMPORT_REJECTED)."""
        stored = await self._stored(request.import_id)
        if not stored.published:
            stored = await self._checked(stored, request.parts)
            if request.dry_run:
                await self._store.compare(stored)
            else:
                try:
                    await self._store.publish(stored, call.caller.spiffe_id, instant(self._clock))
                except VersionConflict:
                    raise _wrong(stored.import_id, _taken(stored.version)) from None
            stored = await self._stored(request.import_id)
        return listing_pb2.FinishListImportResponse(**{"import": _shown(stored)})

    async def get(
        self, request: listing_pb2.GetListImportRequest, call: Call
    ) -> listing_pb2.GetListImportResponse:
        """How far an import is; raises `Refusal` (CATALOGUE_IMPORT_STATE_WRONG) for an unknown
        one."""
        stored = await self._stored(request.import_id)
        return listing_pb2.GetListImportResponse(**{"import": _shown(stored)})

    async def rejected(
        self, request: listing_pb2.ListRejectedItemRowsRequest, call: Call
    ) -> listing_pb2.ListRejectedItemRowsResponse:
        """One page of the rows that cannot be taken; raises `Refusal`
        (CATALOGUE_IMPORT_STATE_WRONG, MESSAGE_INVALID)."""
        place, _, line = page_token(request.page_token, _PLACE_AND_LINE).partition(":")
        await self._stored(request.import_id)
        size = request.page_size or PAGE
        after = int(place or 0), int(line or 0)
        found = await self._store.rejected(request.import_id, after, size + 1)
        page = found[:size]
        return listing_pb2.ListRejectedItemRowsResponse(
            rows=[
                listing_pb2.RejectedItemRow(
                    table=row.place, line=row.line, column=row.column, cause=row.cause
                )
                for row in page
            ],
            next_page_token=f"{page[-1].place}:{page[-1].line}" if len(found) > size else "",
        )

    async def _stored(self, import_id: str) -> StoredImport:
        stored = await self._store.state(import_id)
        if stored is None:
            raise _wrong(import_id, "没有这次导入")
        return stored

    async def _checked(self, stored: StoredImport, count: int) -> StoredImport:
        """The import, whole and without a row that cannot be taken; raises `Refusal`."""
        parts = await self._store.parts(stored.import_id)
        if cause := missing(parts, _tables(stored.tables), count):
            raise _wrong(stored.import_id, cause)
        try:
            await self._store.check(stored, count, instant(self._clock))
        except Raced:
            raise _wrong(stored.import_id, "还有部分正在送来") from None
        stored = await self._stored(stored.import_id)
        if stored.rejected:
            details: dict[str, Any] = {"import": stored.import_id, "count": stored.rejected}
            raise Refusal(Reason.ERROR_REASON_CATALOGUE_IMPORT_REJECTED, **details)
        if not stored.listed:
            raise _wrong(stored.import_id, "文件中没有项目")
        return stored

    def _read(
        self, request: listing_pb2.ListImportPartRequest, stored: StoredImport, table: Table
    ) -> Taking:
        part = self._reader.read(
            request.content, request.first_line, table, request.table, stored.area
        )
        return Taking(
            import_id=stored.import_id,
            version_id=stored.version_id,
            part=PartTaken(request.number, request.table, request.first_line, part.next_line),
            digest=hashlib.sha256(request.content).digest(),
            layout=table.layout,
            count=part.count,
            rows=part.rows,
            rejected=part.rejected,
        )

    async def _is_there(self, taking: Taking, stored: StoredImport) -> bool:
        """Whether the very same part was taken before; refuses one that cannot be taken."""
        near = await self._store.near(taking.import_id, taking.part.number)
        same = near.pop(taking.part.number, None)
        if same is not None:
            if same == (taking.part, taking.digest):
                return True
            raise _wrong(taking.import_id, f"第 {taking.part.number} 部分与先前送来的不同")
        if stored.checked:
            raise _wrong(taking.import_id, "各部分已经收齐并核对")
        cause = cannot_be_taken(taking.part, [part for part, _ in near.values()], stored.next_part)
        if cause is not None:
            raise _wrong(taking.import_id, cause)
        return False


def _tables(given: Sequence[tuple[Layout, str]]) -> tuple[Table, ...]:
    try:
        return tables_of(given)
    except NotATable as fault:
        raise Refusal(Reason.ERROR_REASON_CATALOGUE_IMPORT_INVALID, cause=str(fault)) from None


def _taken(version: str) -> str:
    return f"版本名 {version} 已经发布或是更改的版本名"


def _wrong(import_id: str, cause: str) -> Refusal:
    # The placeholder's name is none in Python.
    details: dict[str, Any] = {"import": import_id, "cause": cause}
    return Refusal(Reason.ERROR_REASON_CATALOGUE_IMPORT_STATE_WRONG, **details)


def _shown(stored: StoredImport) -> listing_pb2.ListImport:
    shown = listing_pb2.ListImport(
        import_id=stored.import_id,
        state=(
            listing_pb2.LIST_IMPORT_STATE_PUBLISHED
            if stored.published
            else listing_pb2.LIST_IMPORT_STATE_OPEN
        ),
        next_part=stored.next_part,
        rows=stored.rows,
        rejected=stored.rejected,
        file_name=stored.file_name,
        area=stored.area,
        version=stored.version,
        difference=_difference(stored.difference),
    )
    shown.start_time.FromDatetime(stored.started_at)
    return shown


def _difference(found: Difference | None) -> listing_pb2.ListDifference | None:
    if found is None:
        return None
    return listing_pb2.ListDifference(
        codes=found.codes, added=found.added, changed=found.changed, removed=found.removed
    )
