"""Imports of lists: what is there of a file, its rows, and the list that they become.

| statement | when | trips |
|---|---|---|
| `take` | a part | 1 transaction: the part, a COPY of its rows, the rejected ones |
| `check` | once all parts are there | 1 transaction; the national tables are joined in a stream |
| `publish` | finishing | 1 transaction under the lock of publications |
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from infra.runtime.database import Database, transaction
from services.catalog.domain.import_layouts import Layout
from services.catalog.domain.import_parts import PartTaken
from services.catalog.domain.import_rows import STAGED_COLUMNS, RejectedRow, Row
from services.catalog.store.import_checking import (
    copy_items,
    join,
    keep_difference,
    reject,
    reject_overlaps,
    room,
)
from services.catalog.store.items import driver
from services.catalog.store.publications import (
    VersionConflict,
    open_version,
    publish_open,
    publishing,
)

_STARTING = 0x79690002
"""Key of the advisory lock under which imports are announced, so that a file is announced once."""
_KEPT = timedelta(days=7)
"""How long an import that is not finished stays."""


class Raced(Exception):
    """Another call has changed the import meanwhile: nothing is written."""


@dataclass(frozen=True, slots=True)
class NewImport:
    """A file that is announced."""

    import_id: str
    actor: str
    file_digest: bytes
    area: str
    version: str
    effective_from: date
    file_name: str
    tables: Sequence[tuple[Layout, str]]


@dataclass(frozen=True, slots=True)
class Difference:
    """A list beside the one in force on its first day, in codes."""

    codes: int
    added: int
    changed: int
    removed: int


@dataclass(frozen=True, slots=True)
class StoredImport:
    """An import as it stands: `checked` when its parts were found whole and no more are taken,
    `listed` when there are items."""

    import_id: str
    area: str
    version: str
    effective_from: date
    file_name: str
    tables: tuple[tuple[Layout, str], ...]
    version_id: int
    started_at: datetime
    checked: bool
    published: bool
    difference: Difference | None
    next_part: int
    rows: int
    rejected: int
    listed: bool


@dataclass(frozen=True, slots=True)
class Taking:
    """Everything that a part writes; `rows` are items when it belongs to a CSV, else staged."""

    import_id: str
    version_id: int
    part: PartTaken
    digest: bytes
    layout: Layout
    count: int
    rows: Sequence[Row]
    rejected: Sequence[RejectedRow]


class ImportStore:
    """The imports of one site."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # The engine keeps one connection: opening another for a part costs more than waiting.
        self._writing = asyncio.Lock()

    async def start(self, new: NewImport, at: datetime) -> str:
        """The id of the import of this file, announced now or before; imports given up are
        forgotten. Raises `VersionConflict` when the version is published already."""
        identity = {"file_digest": new.file_digest, "area": new.area, "version": new.version}
        async with transaction(self._database) as connection:
            await connection.execute(_LOCK, {"key": _STARTING})
            await connection.execute(_FORGET_OLD, {"before": at - _KEPT})
            known = (await connection.execute(_KNOWN, identity)).scalar_one_or_none()
            if known is not None:
                return str(known)
            if (await connection.execute(_IS_PUBLISHED, identity)).scalar_one():
                raise VersionConflict(new.version)
            version_id = await open_version(connection, new.area, new.version, new.effective_from)
            await connection.execute(
                _ANNOUNCE,
                identity
                | {
                    "import_id": new.import_id,
                    "actor": new.actor,
                    "effective_from": new.effective_from,
                    "file_name": new.file_name,
                    "layouts": [int(layout) for layout, _ in new.tables],
                    "headers": [header for _, header in new.tables],
                    "version_id": version_id,
                    "at": at,
                    "subject": f"{new.area}/{new.version}",
                },
            )
        return new.import_id

    async def state(self, import_id: str) -> StoredImport | None:
        """An import as it stands, or None."""
        rows = await self._database.run(_STATE, import_id)
        return _stored(rows[0]) if rows else None

    async def near(self, import_id: str, number: int) -> dict[int, tuple[PartTaken, bytes]]:
        """The part of a number and those beside it that are there, with their digests."""
        rows = await self._database.run(_NEAR, import_id, [number - 1, number, number + 1])
        return {row["number"]: (_part(row), row["digest"]) for row in rows}

    async def parts(self, import_id: str) -> list[PartTaken]:
        """All parts that are there, in order."""
        return [_part(row) for row in await self._database.run(_PARTS, import_id)]

    async def take(self, taking: Taking, at: datetime) -> None:
        """Write a part with all its rows or nothing; raises `Raced` when it is there or the import
        is checked."""
        part = taking.part
        async with self._writing, transaction(self._database) as connection:
            named = {"import_id": taking.import_id}
            if (await connection.execute(_HOLD_OPEN, named)).one_or_none() is None:
                raise Raced
            try:
                await connection.execute(
                    _TAKE,
                    named
                    | {
                        "number": part.number,
                        "place": part.place,
                        "first_line": part.first_line,
                        "next_line": part.next_line,
                        "digest": taking.digest,
                        "rows": taking.count,
                        "rejected": len(taking.rejected),
                        "at": at,
                    },
                )
            except IntegrityError:
                raise Raced from None
            if taking.layout is Layout.CSV:
                await copy_items(connection, taking.version_id, taking.rows)
            else:
                await (await driver(connection)).copy_records_to_table(
                    "import_row",
                    schema_name="catalog",
                    columns=("import_id", *STAGED_COLUMNS),
                    records=((taking.import_id, *row) for row in taking.rows),
                )
            await reject(connection, taking.import_id, taking.rejected)

    async def check(self, stored: StoredImport, parts: int, at: datetime) -> None:
        """Join the national tables, reject what overlaps, and take no more parts; raises `Raced`
        when there are not so many parts. Checked already, it does nothing."""
        named = {"import_id": stored.import_id}
        async with transaction(self._database) as connection:
            if (await connection.execute(_HOLD, named)).one_or_none() is None:
                return
            if (await connection.execute(_COUNT, named)).scalar_one() != parts:
                raise Raced
            await room(connection)
            finishing = reject_overlaps if stored.tables[0][0] is Layout.CSV else join
            await finishing(connection, stored.import_id, stored.version_id)
            await connection.execute(_CHECKED, named | {"at": at})

    async def compare(self, stored: StoredImport) -> None:
        """Keep the difference of a checked import to the list in force."""
        async with transaction(self._database) as connection:
            await room(connection)
            await keep_difference(
                connection, stored.import_id, stored.version_id, stored.area, stored.effective_from
            )

    async def publish(self, stored: StoredImport, actor: str, at: datetime) -> None:
        """Publish a checked import with its difference, in one step; one that is published is left
        alone. Raises `VersionConflict`."""
        async with publishing(self._database) as connection:
            named = {"import_id": stored.import_id}
            if (await connection.execute(_HOLD_CHECKED, named)).one_or_none() is None:
                return
            await room(connection)
            await keep_difference(
                connection, stored.import_id, stored.version_id, stored.area, stored.effective_from
            )
            await publish_open(connection, stored.version_id, actor=actor, at=at)
            await connection.execute(_PUBLISHED, named | {"at": at})

    async def rejected(
        self, import_id: str, after: tuple[int, int], most: int
    ) -> list[RejectedRow]:
        """Rows not taken behind a (place, line), in the order of the file."""
        rows = await self._database.run(_REJECTED, import_id, *after, most)
        return [RejectedRow(*row) for row in rows]


def _stored(row: Any) -> StoredImport:
    compared = row["codes"] is not None
    return StoredImport(
        import_id=str(row["import_id"]),
        area=row["area"],
        version=row["version"],
        effective_from=row["effective_from"],
        file_name=row["file_name"],
        tables=tuple(zip(map(Layout, row["layouts"]), row["headers"], strict=True)),
        version_id=row["version_id"],
        started_at=row["started_at"],
        checked=row["checked_at"] is not None,
        published=row["published_at"] is not None,
        difference=(
            Difference(row["codes"], row["added"], row["changed"], row["removed"])
            if compared
            else None
        ),
        next_part=row["next_part"],
        rows=row["read"],
        rejected=row["rejected"],
        listed=row["listed"],
    )


def _part(row: Any) -> PartTaken:
    return PartTaken(row["number"], row["place"], row["first_line"], row["next_line"])


_LOCK = text("SELECT pg_advisory_xact_lock(:key)")

_FORGET_OLD = text("""
    SELECT catalog.forget_import(import_id)
    FROM (SELECT import_id FROM catalog.import
          WHERE published_at IS NULL AND started_at < :before FOR UPDATE SKIP LOCKED) AS old""")

_KNOWN = text("""
    SELECT import_id FROM catalog.import
    WHERE (file_digest, area, version) = (:file_digest, :area, :version)""")

_IS_PUBLISHED = text("""
    SELECT EXISTS (SELECT FROM catalog.version WHERE (area, version) = (:area, :version)
                   AND publication IS NOT NULL)""")

_ANNOUNCE = text("""
    WITH announced AS (
        INSERT INTO catalog.import (import_id, actor, file_digest, area, version, effective_from,
                                    file_name, layouts, headers, version_id, started_at)
        VALUES (:import_id, :actor, :file_digest, :area, :version, :effective_from, :file_name,
                CAST(:layouts AS smallint[]), CAST(:headers AS text[]), :version_id, :at)
    )
    INSERT INTO catalog.audit (at, actor, action, subject, digest)
    VALUES (:at, :actor, 'start_import', :subject, :file_digest)""")

_STATE = """
    SELECT known.*, part.*,
           (SELECT count(*) FROM catalog.import_rejected AS row
            WHERE row.import_id = known.import_id) AS rejected,
           EXISTS (SELECT FROM catalog.item WHERE version_id = known.version_id) AS listed
    FROM catalog.import AS known
    CROSS JOIN LATERAL (
        SELECT coalesce(max(number) FILTER (WHERE number = position), 0) + 1 AS next_part,
               coalesce(sum(each.rows), 0)::bigint AS read
        FROM (SELECT number, rows, row_number() OVER (ORDER BY number) AS position
              FROM catalog.import_part AS taken WHERE taken.import_id = known.import_id) AS each
    ) AS part
    WHERE known.import_id = $1"""

_NEAR = """
    SELECT * FROM catalog.import_part WHERE import_id = $1 AND number = ANY ($2::bigint[])"""

_PARTS = "SELECT * FROM catalog.import_part WHERE import_id = $1 ORDER BY number"

# Parts under way hold the import's row, so none arrives between counting and checking.
_HOLD_OPEN = text("""
    SELECT 1 FROM catalog.import
    WHERE import_id = :import_id AND checked_at IS NULL FOR SHARE""")
_HOLD = text("""
    SELECT 1 FROM catalog.import
    WHERE import_id = :import_id AND checked_at IS NULL FOR UPDATE""")
_COUNT = text("SELECT count(*) FROM catalog.import_part WHERE import_id = :import_id")
_HOLD_CHECKED = text("""
    SELECT 1 FROM catalog.import
    WHERE import_id = :import_id AND checked_at IS NOT NULL AND published_at IS NULL FOR UPDATE""")

_TAKE = text("""
    INSERT INTO catalog.import_part
        (import_id, number, place, first_line, next_line, digest, rows, rejected, taken_at)
    VALUES (:import_id, :number, :place, :first_line, :next_line, :digest, :rows, :rejected, :at)
    """)

_CHECKED = text("UPDATE catalog.import SET checked_at = :at WHERE import_id = :import_id")
_PUBLISHED = text("UPDATE catalog.import SET published_at = :at WHERE import_id = :import_id")

_REJECTED = """
    SELECT place, line, field, cause FROM catalog.import_rejected
    WHERE import_id = $1 AND (place, line) > ($2::smallint, $3::bigint)
    ORDER BY place, line LIMIT $4"""
