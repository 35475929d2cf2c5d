"""What operators see of lists: a publisher's lists, items of one, publications.

A list is the whole list overlaid by its changes: of each code the latest publication that names it
says everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.runtime.database import Database
from services.catalog.domain.changing import PublishedList
from services.catalog.domain.item import Item
from services.catalog.store.items import SELECTED, driver, items_of
from services.catalog.store.publications import PUBLICATION, StoredPublication

NEWEST = (1 << 63) - 1
"""Above every publication."""


class ListStore:
    """Every reading statement of `ListingService`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lists(self, areas: Sequence[str]) -> list[PublishedList]:
        """The lists that these areas published."""
        return _lists(await self._database.run(_LISTS, areas))

    async def publication(self, number: int) -> StoredPublication | None:
        """A publication by its number."""
        rows = await self._database.run(_PUBLICATION, number)
        return StoredPublication(*rows[0]) if rows else None

    async def publications(self, area: str, before: int, limit: int) -> list[StoredPublication]:
        """Publications of an area's lists with numbers below `before`, newest first."""
        rows = await self._database.run(_PUBLICATIONS, area, before, limit)
        return [StoredPublication(*row) for row in rows]

    async def said_of(
        self, area: str, national_code: str, until: int, limit: int
    ) -> list[StoredPublication]:
        """Those that say something of a code, up to the publication `until`, newest first."""
        rows = await self._database.run(_SAID_OF, area, national_code, until, limit)
        return [StoredPublication(*row) for row in rows]

    async def revisions(self, list_id: int, until: int, national_code: str) -> list[Item]:
        """A code in a list as of the publication `until`, oldest first."""
        return list(items_of(await self._database.run(_REVISIONS, list_id, until, [national_code])))

    async def search(
        self, list_id: int, words: str, list_type: int, day: date, after: str, limit: int
    ) -> list[Item]:
        """Items in force on `day` whose code begins with `words` or whose name has them, beyond
        the code `after`, in order of the code; of any type when `list_type` is 0."""
        rows = await self._database.run(_SEARCH, list_id, words, list_type, day, after, limit)
        return list(items_of(rows))


async def lists_of(connection: AsyncConnection, area: str) -> list[PublishedList]:
    """The lists that an area published, inside a transaction."""
    return _lists(await (await driver(connection)).fetch(_LISTS, [area]))


async def revisions_of(
    connection: AsyncConnection, list_id: int, national_codes: Sequence[str]
) -> list[Item]:
    """Codes of a list as they stand, inside a transaction."""
    rows = await (await driver(connection)).fetch(_REVISIONS, list_id, NEWEST, national_codes)
    return list(items_of(rows))


def _lists(rows: Sequence[asyncpg.Record]) -> list[PublishedList]:
    return [PublishedList(*row) for row in rows]


_LISTS = """
    SELECT id, area, version, effective_from, publication,
           (SELECT count(*) FROM catalog.version AS change
            WHERE change.base_id = version.id AND change.publication IS NOT NULL) AS changes
    FROM catalog.version
    WHERE area = ANY ($1) AND base_id IS NULL AND publication IS NOT NULL
    ORDER BY effective_from, publication"""

_PUBLICATION = f"SELECT {PUBLICATION} FROM catalog.version WHERE publication = $1"

_PUBLICATIONS = f"""
    SELECT {PUBLICATION} FROM catalog.version
    WHERE area = $1 AND publication < $2 ORDER BY publication DESC LIMIT $3"""

_SAID_OF = f"""
    SELECT {PUBLICATION} FROM catalog.version
    WHERE area = $1 AND publication <= $3 AND EXISTS (
        SELECT FROM catalog.item WHERE item.version_id = version.id AND national_code = $2)
    ORDER BY publication DESC LIMIT $4"""

_REVISIONS = f"""
    SELECT {SELECTED}
    FROM unnest($3::text[]) AS asked (national_code)
    CROSS JOIN LATERAL (
        SELECT version.id FROM catalog.version
        WHERE (version.id = $1 OR version.base_id = $1) AND version.publication <= $2
          AND EXISTS (SELECT FROM catalog.item WHERE item.version_id = version.id
                      AND item.national_code = asked.national_code)
        ORDER BY version.publication DESC LIMIT 1
    ) AS said
    JOIN catalog.item ON item.version_id = said.id AND item.national_code = asked.national_code
    ORDER BY item.national_code, item.effective_from"""

_SEARCH = f"""
    WITH said AS MATERIALIZED (
        SELECT id, publication FROM catalog.version
        WHERE (id = $1 OR base_id = $1) AND publication IS NOT NULL
    )
    SELECT {SELECTED} FROM said JOIN catalog.item ON item.version_id = said.id
    WHERE (starts_with(item.national_code, $2) OR strpos(item.name, $2) > 0)
      AND $3::smallint IN (0, item.list_type)
      AND $4 BETWEEN item.effective_from AND coalesce(item.effective_to, DATE 'infinity')
      AND item.national_code > $5
      AND NOT EXISTS (SELECT FROM said AS later
                      JOIN catalog.item AS newer ON newer.version_id = later.id
                       AND newer.national_code = item.national_code
                      WHERE later.publication > said.publication)
    ORDER BY item.national_code LIMIT $6"""
