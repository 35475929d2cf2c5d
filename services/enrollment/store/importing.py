"""Bulk imports: what is there of a file, and a part with all its rows in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import text

from infra.runtime.database import Database, transaction
from services.enrollment.domain.import_parts import Neighbours, PartTaken
from services.enrollment.domain.import_rows import RejectedRow, Totals
from services.enrollment.domain.registration import Key
from services.enrollment.store.audit import AUDIT, AuditRow, columns
from services.enrollment.store.participants import (
    ADDING,
    NewMembership,
    NewPerson,
    Raced,
    adding_columns,
)

RowKey = tuple[bytes, int]
"""A row of a file: the first half of the person's blind index, and the insurance."""
KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class NewImport:
    """A file that is announced."""

    import_id: str
    actor: str
    file_digest: bytes
    area: str
    file_name: str
    header: str
    totals: Totals


@dataclass(frozen=True, slots=True)
class StoredImport:
    """An import as it stands; `whole` says that its lines have no hole and no overlap."""

    import_id: str
    area: str
    header: str
    file_name: str
    totals: Totals
    started_at: datetime
    finished: bool
    parts: int
    next_part: int
    whole: bool
    read: Totals
    accepted: int
    unchanged: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Taking:
    """Everything that a part writes."""

    import_id: str
    part: PartTaken
    people: Sequence[NewPerson]
    credentials: Sequence[tuple[Key, str]]
    memberships: Sequence[NewMembership]
    rejected: Sequence[RejectedRow]
    keys: Sequence[RowKey]
    audit: AuditRow


class ImportStore:
    """The imports of one site."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self, new: NewImport, audit: AuditRow, at: datetime) -> str:
        """The id of the actor's import of this file for this area, announced now or before; while
        it is open the control totals given last hold."""
        totals = new.totals
        rows = await self._database.run(
            _START,
            at,
            *columns([audit]),
            new.import_id,
            new.actor,
            new.file_digest,
            new.area,
            new.file_name,
            new.header,
            totals.rows,
            totals.employees,
            totals.residents,
        )
        return str(rows[0]["import_id"])

    async def state(self, import_id: str) -> StoredImport | None:
        """An import as it stands, or None."""
        rows = await self._database.run(_STATE, import_id)
        return _state(rows[0]) if rows else None

    async def near(self, import_id: str, number: int) -> Neighbours:
        """The parts around a number that are there."""
        rows = await self._database.run(_NEAR, import_id, [number - 1, number, number + 1])
        parts = {row["number"]: _part(row) for row in rows}
        return Neighbours(parts.get(number - 1), parts.get(number), parts.get(number + 1))

    async def named_before(self, import_id: str, keys: Sequence[RowKey]) -> set[RowKey]:
        """Those of `keys` that other parts of the file have named."""
        rows = await self._database.run(_NAMED, import_id, *_key_columns(keys))
        return {(row["person_key"], row["insurance"]) for row in rows}

    async def take(self, taking: Taking, at: datetime) -> None:
        """Write a part with all its rows or nothing; raises `Raced`, also when the same part has
        been taken or the import has been finished meanwhile."""
        part = taking.part
        rejected = taking.rejected
        try:
            await self._database.run(
                _TAKE,
                at,
                *columns([taking.audit]),
                *adding_columns(taking.people, taking.credentials, taking.memberships),
                taking.import_id,
                part.number,
                part.first_line,
                part.next_line,
                part.digest,
                part.totals.rows,
                part.totals.employees,
                part.totals.residents,
                part.accepted,
                part.unchanged,
                part.rejected,
                [row.line for row in rejected],
                [row.column for row in rejected],
                [row.cause for row in rejected],
                *_key_columns(sorted(taking.keys)),
            )
        except (
            asyncpg.UniqueViolationError,
            asyncpg.NotNullViolationError,
            asyncpg.DeadlockDetectedError,
        ) as error:
            # Not chained: PostgreSQL's text quotes the row.
            raise Raced(type(error).__name__) from None

    async def finish(self, import_id: str, parts: int, audit: AuditRow, at: datetime) -> bool:
        """End an open import that has so many parts; False when it has not or is not open.

        Parts under way hold the import's row, so none arrives between counting and ending.
        """
        async with transaction(self._database) as connection:
            named = {"import_id": import_id}
            await connection.execute(_LOCK, named)
            ended = await connection.execute(_FINISH, {**named, "parts": parts, "at": at})
            if ended.rowcount != 1:
                return False
            await connection.execute(_FORGET, named)
            await connection.execute(
                _AUDIT,
                {
                    "at": at,
                    "actor": audit.actor,
                    "action": audit.action,
                    "subject": audit.subject,
                    "digest": audit.digest,
                },
            )
            return True

    async def rejected(self, import_id: str, after: int, most: int) -> list[RejectedRow]:
        """Rows not taken behind the line `after`, in the order of the file."""
        rows = await self._database.run(_REJECTED, import_id, after, most)
        return [RejectedRow(row["line"], row["field"], row["cause"]) for row in rows]


def _key_columns(keys: Sequence[RowKey]) -> tuple[list[bytes], list[int]]:
    return [person_key for person_key, _ in keys], [insurance for _, insurance in keys]


def _totals(row: Any, prefix: str = "") -> Totals:
    return Totals(row[f"{prefix}rows"], row[f"{prefix}employees"], row[f"{prefix}residents"])


def _state(row: Any) -> StoredImport:
    return StoredImport(
        import_id=str(row["import_id"]),
        area=row["area"],
        header=row["header"],
        file_name=row["file_name"],
        totals=_totals(row),
        started_at=row["started_at"],
        finished=row["finished_at"] is not None,
        parts=row["parts"],
        next_part=row["next_part"],
        whole=row["whole"],
        read=_totals(row, "read_"),
        accepted=row["accepted"],
        unchanged=row["unchanged"],
        rejected=row["rejected"],
    )


def _part(row: Any) -> PartTaken:
    return PartTaken(
        number=row["number"],
        first_line=row["first_line"],
        next_line=row["next_line"],
        digest=row["digest"],
        totals=_totals(row),
        accepted=row["accepted"],
        unchanged=row["unchanged"],
        rejected=row["rejected"],
    )


_START = f"""
WITH announced AS (
    INSERT INTO enrollment.import AS known
        (import_id, actor, file_digest, area, file_name, header, rows, employees, residents,
         started_at)
    VALUES ($6, $7, $8, $9, $10, $11, $12, $13, $14, $1)
    ON CONFLICT (actor, file_digest, area) DO UPDATE
    SET rows = EXCLUDED.rows, employees = EXCLUDED.employees, residents = EXCLUDED.residents
    WHERE known.finished_at IS NULL
    RETURNING import_id
), audited AS ({AUDIT})
SELECT import_id FROM announced
UNION ALL
SELECT import_id FROM enrollment.import
WHERE (actor, file_digest, area) = ($7, $8, $9) AND NOT EXISTS (SELECT FROM announced)
"""

_STATE = """
SELECT known.*, part.*
FROM enrollment.import AS known
CROSS JOIN LATERAL (
    SELECT count(*) AS parts,
           COALESCE(max(number) FILTER (WHERE number = position), 0) + 1 AS next_part,
           COALESCE(bool_and(number = position AND first_line = wanted_line), true) AS whole,
           COALESCE(sum(each.rows), 0)::bigint AS read_rows,
           COALESCE(sum(each.employees), 0)::bigint AS read_employees,
           COALESCE(sum(each.residents), 0)::bigint AS read_residents,
           COALESCE(sum(accepted), 0)::bigint AS accepted,
           COALESCE(sum(unchanged), 0)::bigint AS unchanged,
           COALESCE(sum(rejected), 0)::bigint AS rejected
    FROM (SELECT taken.*, row_number() OVER (ORDER BY number) AS position,
                 lag(next_line, 1, 2::bigint) OVER (ORDER BY number) AS wanted_line
          FROM enrollment.import_part AS taken WHERE taken.import_id = known.import_id) AS each
) AS part
WHERE known.import_id = $1
"""

_NEAR = """
SELECT * FROM enrollment.import_part WHERE import_id = $1 AND number = ANY ($2::bigint[])
"""

_NAMED = """
SELECT known.person_key, known.insurance
FROM unnest($2::bytea[], $3::smallint[]) AS asked (person_key, insurance)
CROSS JOIN LATERAL (
    SELECT * FROM enrollment.import_row AS row
    WHERE row.import_id = $1 AND row.person_key = asked.person_key
      AND row.insurance = asked.insurance LIMIT 1
) AS known
"""

# The import's row is held until the part is written, and its id is null when it is not open.
_TAKE = f"""{ADDING}, part AS (
    INSERT INTO enrollment.import_part
        (import_id, number, first_line, next_line, digest, rows, employees, residents, accepted,
         unchanged, rejected, taken_at)
    SELECT (SELECT import_id FROM enrollment.import
            WHERE import_id = $40 AND finished_at IS NULL FOR SHARE),
           $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $1
), refused AS (
    INSERT INTO enrollment.import_rejected (import_id, line, field, cause)
    SELECT $40, line.*
    FROM unnest($51::bigint[], $52::text[], $53::text[]) AS line (line, field, cause)
), named AS (
    INSERT INTO enrollment.import_row (import_id, person_key, insurance)
    SELECT $40, line.*
    FROM unnest($54::bytea[], $55::smallint[]) AS line (person_key, insurance)
)
{AUDIT}
"""

_REJECTED = """
SELECT line, field, cause FROM enrollment.import_rejected
WHERE import_id = $1 AND line > $2 ORDER BY line LIMIT $3
"""

_LOCK = text("SELECT FROM enrollment.import WHERE import_id = :import_id FOR UPDATE")
_FINISH = text("""
UPDATE enrollment.import SET finished_at = :at
WHERE import_id = :import_id AND finished_at IS NULL
  AND (SELECT count(*) FROM enrollment.import_part AS part
       WHERE part.import_id = :import_id) = :parts
""")
_FORGET = text("DELETE FROM enrollment.import_row WHERE import_id = :import_id")
_AUDIT = text("""
INSERT INTO enrollment.audit (at, actor, action, subject, digest)
VALUES (:at, :actor, :action, :subject, :digest)
""")
