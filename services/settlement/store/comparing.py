"""What the insured place needs to find rows that only it has. Each is one statement:

| call            | what it does                                                              |
|-----------------|---------------------------------------------------------------------------|
| pairs           | days of care places that hold decisions and are not known to be equal     |
| older           | which of these decisions were made before an instant                      |
| missing_at_care | decisions for this very site that its own care journal does not have      |
| equal           | this day of this care place is equal: it need not be compared again       |

None reads the journal from end to end: `pairs` leaps from one day and care place to the next in
their index, and ids bound the partitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import asyncpg

from infra.runtime.clock import SHANGHAI, first_id_of
from infra.runtime.database import Database

_AROUND_MS = 3_600_000
"""An id is made minutes before its decision at most (the commit window), or seconds after it."""
_PAIRS_STATEMENT = """
WITH RECURSIVE pair AS (
    (SELECT business_day, care_site FROM settlement.decision
     WHERE business_day >= $1 AND business_day <= $2 AND settlement_id >= $3 AND settlement_id < $4
     ORDER BY business_day, care_site LIMIT 1)
    UNION ALL
    SELECT next.* FROM pair, LATERAL (
        SELECT d.business_day, d.care_site FROM settlement.decision d
        WHERE (d.business_day, d.care_site) > (pair.business_day, pair.care_site)
          AND d.business_day <= $2 AND d.settlement_id >= $3 AND d.settlement_id < $4
        ORDER BY d.business_day, d.care_site LIMIT 1
    ) AS next
)
SELECT business_day, care_site FROM pair
WHERE NOT EXISTS (
    SELECT FROM settlement.compared c
    WHERE (c.business_day, c.care_site) = (pair.business_day, pair.care_site))
ORDER BY business_day, care_site
"""
_OLDER_STATEMENT = """
SELECT settlement_id::text AS settlement_id, decided_at FROM settlement.decision
WHERE settlement_id = ANY($1::uuid[]) AND decided_at < $2
ORDER BY settlement_id LIMIT $3
"""
_MISSING_STATEMENT = """
SELECT settlement_id::text AS settlement_id, decided_at FROM settlement.decision d
WHERE business_day = $1 AND care_site = $2 AND insured_site = $2 AND decided_at < $3
  AND settlement_id >= $5 AND settlement_id < $6
  AND NOT EXISTS (
      SELECT FROM settlement.care_journal j WHERE j.settlement_id = d.settlement_id)
ORDER BY d.settlement_id LIMIT $4
"""
_EQUAL_STATEMENT = """
INSERT INTO settlement.compared (business_day, care_site, compared_at) VALUES ($1, $2, $3)
ON CONFLICT (business_day, care_site) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Decided:
    """A committed settlement and when it was decided."""

    settlement_id: str
    decided_at: datetime


class ComparingStore:
    """Statements of the comparing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pairs(self, first: date, last: date) -> list[tuple[date, str]]:
        """Days from `first` to `last` with each care site to compare, the oldest first."""
        rows = await self._database.run(_PAIRS_STATEMENT, first, last, *_ids(first, last))
        return [(row["business_day"], row["care_site"]) for row in rows]

    async def older(self, ids: Sequence[str], before: datetime, limit: int) -> list[Decided]:
        """Those of the settlements that were decided before an instant, by id."""
        return _decided(await self._database.run(_OLDER_STATEMENT, ids, before, limit))

    async def missing_at_care(
        self, day: date, site: str, before: datetime, limit: int
    ) -> list[Decided]:
        """Settlements of `site` in itself that were decided before an instant and of which its
        care journal knows nothing, by id."""
        return _decided(
            await self._database.run(_MISSING_STATEMENT, day, site, before, limit, *_ids(day, day))
        )

    async def equal(self, day: date, care_site: str, now: datetime) -> None:
        """Remember that the day is over and was found equal."""
        await self._database.run(_EQUAL_STATEMENT, day, care_site, now)


def _ids(first: date, last: date) -> tuple[str, str]:
    """Bounds of the ids of what was decided on these days."""
    begin, end = (
        int(datetime.combine(day, time(), SHANGHAI).timestamp() * 1000)
        for day in (first, last + timedelta(days=1))
    )
    return first_id_of(begin - _AROUND_MS), first_id_of(end + _AROUND_MS)


def _decided(rows: Sequence[asyncpg.Record]) -> list[Decided]:
    return [Decided(row["settlement_id"], row["decided_at"]) for row in rows]
