"""What becomes of an import whose parts are all there: the national tables joined into items, what
overlaps rejected, the list compared with the one in force."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from itertools import groupby
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.catalog.domain.import_revisions import Staged, revisions
from services.catalog.domain.import_rows import ITEM_COLUMNS, STAGED_COLUMNS, RejectedRow, Row
from services.catalog.store.items import COLUMNS, driver

_PORTION = 5_000
"""Rows of the national tables joined at a time."""


async def copy_items(connection: AsyncConnection, version_id: int, rows: Sequence[Row]) -> None:
    """Write rows of `ITEM_COLUMNS` under an open version by COPY."""
    await (await driver(connection)).copy_records_to_table(
        "item",
        schema_name="catalog",
        columns=("version_id", *ITEM_COLUMNS),
        records=((version_id, *row) for row in rows),
    )


async def reject(
    connection: AsyncConnection, import_id: str, rejected: Sequence[RejectedRow]
) -> None:
    """Keep the rows that cannot be taken."""
    if rejected:
        await connection.execute(
            _REJECT,
            {
                "import_id": import_id,
                "places": [row.place for row in rejected],
                "lines": [row.line for row in rejected],
                "fields": [row.column for row in rejected],
                "causes": [row.cause for row in rejected],
            },
        )


async def reject_overlaps(connection: AsyncConnection, import_id: str, version_id: int) -> None:
    """Reject the items of a CSV whose days overlap those of an earlier one of their code."""
    await connection.execute(_REJECT_OVERLAPS, {"import_id": import_id, "version_id": version_id})


async def join(connection: AsyncConnection, import_id: str, version_id: int) -> None:
    """Make the items of the national tables, a portion of codes at a time, and reject the rows
    that do not go together."""
    rows = (await driver(connection)).cursor(_STAGED, import_id)
    cursor = await rows
    line, waiting = 1, list[Staged]()
    while True:
        portion = await cursor.fetch(_PORTION)
        items, rejected, waiting = await asyncio.to_thread(_joined, waiting, portion)
        await copy_items(
            connection,
            version_id,
            [(number, *item) for number, item in enumerate(items, start=line)],
        )
        line += len(items)
        await reject(connection, import_id, rejected)
        if not portion:
            break
    await connection.execute(_UNSTAGE, {"import_id": import_id})


def _joined(
    waiting: list[Staged], portion: Sequence[Any]
) -> tuple[list[Row], list[RejectedRow], list[Staged]]:
    """What the rows make whose code is complete; the last code waits for the next portion, unless
    there is none."""
    codes = [
        list(rows)
        for _, rows in groupby(
            [*waiting, *(Staged(*row) for row in portion)], key=lambda row: row.national_code
        )
    ]
    later = codes.pop() if portion and codes else []
    items: list[Row] = []
    rejected: list[RejectedRow] = []
    for rows in codes:
        made, refused = revisions(rows)
        items += made
        rejected += refused
    return items, rejected, later


async def room(connection: AsyncConnection) -> None:
    """Let the transaction sort and hash a whole list in memory, and never walk it row by row: the
    statistics know nothing of a version that has just been written, so every plan takes it for a
    few rows."""
    for statement in _ROOM:
        await connection.execute(statement)


async def keep_difference(
    connection: AsyncConnection, import_id: str, version_id: int, area: str, day: date
) -> None:
    """Keep beside an import how its list differs from the one in force on its first day."""
    named = {"import_id": import_id, "version_id": version_id}
    whole = (await connection.execute(_WHOLE, {"area": area, "day": day})).scalar_one_or_none()
    if whole is None:
        await connection.execute(_ALL_NEW, named)
    else:
        await connection.execute(_COMPARE, named | {"whole": whole, "day": day})


_ROOM = (text("SET LOCAL work_mem = '64MB'"), text("SET LOCAL enable_nestloop = off"))
_REJECT = text("""
    INSERT INTO catalog.import_rejected (import_id, place, line, field, cause)
    SELECT :import_id, row.* FROM unnest(
        CAST(:places AS smallint[]), CAST(:lines AS bigint[]), CAST(:fields AS text[]),
        CAST(:causes AS text[])) AS row""")

# A revision overlaps when it begins inside the latest end before it.
_REJECT_OVERLAPS = text("""
    INSERT INTO catalog.import_rejected (import_id, place, line, field, cause)
    SELECT :import_id, 0, line, 'effective_from', '与第 ' || former || ' 行日期重叠（同一编码）'
    FROM (SELECT line, effective_from, lag(line) OVER ordered AS former,
                 max(coalesce(effective_to, 'infinity')) OVER (
                     ordered ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS held_to
          FROM catalog.item
          WHERE version_id = :version_id AND national_code IN (
              SELECT national_code FROM catalog.item WHERE version_id = :version_id
              GROUP BY national_code HAVING count(*) > 1)
          WINDOW ordered AS (PARTITION BY national_code ORDER BY effective_from, line)) AS each
    WHERE effective_from <= held_to""")

_STAGED = f"""
    SELECT {", ".join(STAGED_COLUMNS)} FROM catalog.import_row
    WHERE import_id = $1 ORDER BY national_code"""
_UNSTAGE = text("DELETE FROM catalog.import_row WHERE import_id = :import_id")
_SAID = [
    name for name in COLUMNS if name not in ("national_code", "effective_from", "effective_to")
]
_ON_THE_DAY = """
    max(version_id) AS version_id,
    max(line) FILTER (WHERE effective_from <= :day
                      AND coalesce(effective_to, 'infinity') >= :day) AS line"""
_WHOLE = text("""
    SELECT id FROM catalog.version
    WHERE area = :area AND kind = 'FULL' AND publication IS NOT NULL AND effective_from <= :day
    ORDER BY effective_from DESC, publication DESC LIMIT 1""")
_ALL_NEW = text("""
    UPDATE catalog.import
    SET codes = counted.codes, added = counted.codes, changed = 0, removed = 0
    FROM (SELECT count(*) AS codes
          FROM (SELECT FROM catalog.item WHERE version_id = :version_id GROUP BY national_code)
              AS each) AS counted
    WHERE import_id = :import_id""")
# The list in force is a whole list and, of each code, the last change of it that names the code.
# Two lists differ in a code when the rows that hold on the day do, or only one has such a row.
_COMPARE = text(f"""
    WITH amended AS (
        SELECT DISTINCT ON (national_code) national_code, version_id
        FROM catalog.version JOIN catalog.item ON version_id = version.id
        WHERE base_id = :whole AND publication IS NOT NULL
        ORDER BY national_code, publication DESC
    ), former AS (
        SELECT national_code, {_ON_THE_DAY}
        FROM (SELECT * FROM catalog.item WHERE version_id = :whole
                AND national_code NOT IN (SELECT national_code FROM amended)
              UNION ALL
              SELECT item.* FROM amended JOIN catalog.item USING (version_id, national_code)
             ) AS held
        GROUP BY national_code
    ), said AS (
        SELECT national_code, {_ON_THE_DAY} FROM catalog.item
        WHERE version_id = :version_id GROUP BY national_code
    ), counted AS (
        SELECT count(said.national_code) AS codes,
               count(*) FILTER (WHERE former.national_code IS NULL) AS added,
               count(*) FILTER (WHERE said.national_code IS NULL) AS removed,
               count(*) FILTER (
                   WHERE said.national_code IS NOT NULL AND former.national_code IS NOT NULL
                     AND ({", ".join(f"new.{name}" for name in _SAID)})
                         IS DISTINCT FROM ({", ".join(f"old.{name}" for name in _SAID)})
               ) AS changed
        FROM said FULL JOIN former USING (national_code)
        LEFT JOIN catalog.item AS new ON (new.version_id, new.line) = (said.version_id, said.line)
            AND former.national_code IS NOT NULL
        LEFT JOIN catalog.item AS old
            ON (old.version_id, old.line) = (former.version_id, former.line)
            AND said.national_code IS NOT NULL
    )
    UPDATE catalog.import SET codes = counted.codes, added = counted.added,
                              changed = counted.changed, removed = counted.removed
    FROM counted WHERE import_id = :import_id""")
