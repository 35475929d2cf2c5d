"""What recovery needs of the care journal. Each is one statement over many rows:

| call    | what it does                                                                      |
|---------|-----------------------------------------------------------------------------------|
| sweep   | rows PENDING too long become IN_DOUBT, whoever opened them                        |
| due     | which insured sites have rows to ask about                                        |
| lease   | rows to ask about now; nobody else gets them until the lease is over              |
| cancel  | asks that open rows be cancelled                                                  |
| cancelled | completed rows whose cancellation still needs an undo                           |
| link    | puts the id of an undo on its original, compare-and-set, before the undo leaves   |

Rows are locked with SKIP LOCKED, so replicas share the work and never wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from infra.runtime.database import Database
from infra.runtime.failpoints import Failpoints, NullFailpoints, Place

_SWEEP_STATEMENT = """
WITH late AS (
    SELECT settlement_id FROM settlement.care_journal
    WHERE state = 'PENDING' AND deadline_at < $2
    ORDER BY state_at LIMIT $3 FOR UPDATE SKIP LOCKED
), done AS (
    UPDATE settlement.care_journal j
    SET state = 'IN_DOUBT', state_at = $1, next_attempt_at = $1
    FROM late WHERE j.settlement_id = late.settlement_id AND j.state = 'PENDING'
    RETURNING j.settlement_id, j.caller, j.method, j.request_id, j.institution, j.visit_id,
              j.bill_id
), keyed AS (
    UPDATE settlement.request_key k SET state = 'IN_DOUBT' FROM done
    WHERE (k.caller, k.method, k.request_id) = (done.caller, done.method, done.request_id)
), billed AS (
    UPDATE settlement.bill b SET state = 'IN_DOUBT' FROM done
    WHERE (b.institution, b.visit_id, b.bill_id) = (done.institution, done.visit_id, done.bill_id)
      AND b.settlement_id = done.settlement_id
), audited AS (
    INSERT INTO settlement.audit (at, actor, action, subject)
    SELECT $1, 'recovery', 'IN_DOUBT', settlement_id FROM done
)
SELECT count(*) AS swept FROM done
"""
_DUE_STATEMENT = """
SELECT DISTINCT insured_site, route FROM settlement.care_journal
WHERE state = 'IN_DOUBT' AND next_attempt_at <= $1
"""
_LEASE_STATEMENT = """
WITH due AS (
    SELECT settlement_id FROM settlement.care_journal
    WHERE state = 'IN_DOUBT' AND insured_site = $2 AND route = $3 AND next_attempt_at <= $1
    ORDER BY next_attempt_at LIMIT $4 FOR UPDATE SKIP LOCKED
)
UPDATE settlement.care_journal j SET attempts = j.attempts + 1, next_attempt_at = $5
FROM due WHERE j.settlement_id = due.settlement_id
RETURNING j.settlement_id::text AS settlement_id, j.kind, j.institution, j.care_area,
          j.insured_area, j.payload_digest, j.traceparent, j.attempts
"""
_POSTPONE_STATEMENT = """
UPDATE settlement.care_journal j SET next_attempt_at = i.at
FROM unnest($1::uuid[], $2::timestamptz[]) AS i(id, at)
WHERE j.settlement_id = i.id
  AND (j.state = 'IN_DOUBT' OR j.state = 'COMPLETED' AND j.cancel_requested)
"""
_CANCEL_STATEMENT = """
WITH item AS (
    SELECT * FROM unnest($2::uuid[], $3::text[]) AS t(settlement_id, institution)
), done AS (
    UPDATE settlement.care_journal j SET cancel_requested = true, next_attempt_at = $1
    FROM item
    WHERE j.settlement_id = item.settlement_id AND j.institution = item.institution
      AND j.kind = 2 AND j.state IN ('PENDING', 'IN_DOUBT') AND NOT j.cancel_requested
    RETURNING j.settlement_id, j.caller
), audited AS (
    INSERT INTO settlement.audit (at, actor, action, subject)
    SELECT $1, caller, 'cancel requested', settlement_id FROM done
)
SELECT settlement_id::text AS settlement_id FROM done
"""
_CANCELLED_STATEMENT = """
WITH due AS (
    SELECT settlement_id FROM settlement.care_journal
    WHERE cancel_requested AND state = 'COMPLETED' AND next_attempt_at <= $1
      AND insured_site <> ALL($4::text[])
    ORDER BY next_attempt_at LIMIT $2 FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE settlement.care_journal j SET next_attempt_at = $3
    FROM due WHERE j.settlement_id = due.settlement_id
    RETURNING j.*
)
SELECT l.settlement_id::text AS settlement_id, l.institution, l.visit_id, l.bill_id, l.care_area,
       l.care_site, l.insured_area, l.insured_site, l.route, l.business_day, l.operator,
       l.undone_by::text AS undone_by, u.state AS undo_state,
       b.settlement_id <> l.settlement_id OR b.state = 'UNDONE' AS undone
FROM leased l
LEFT JOIN settlement.care_journal u ON u.settlement_id = l.undone_by
JOIN settlement.bill b
  ON (b.institution, b.visit_id, b.bill_id) = (l.institution, l.visit_id, l.bill_id)
"""
_LINK_STATEMENT = """
UPDATE settlement.care_journal SET undone_by = $2
WHERE settlement_id = $1 AND undone_by IS NOT DISTINCT FROM $3
RETURNING 1
"""
_SETTLED_STATEMENT = """
UPDATE settlement.care_journal SET next_attempt_at = NULL
WHERE settlement_id = ANY($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A completed settlement that its institution has cancelled and that must be undone."""

    settlement_id: str
    institution: str
    visit_id: str
    bill_id: str
    care_area: str
    care_site: str
    insured_area: str
    insured_site: str
    route: int
    business_day: str
    operator: str
    undone_by: str | None
    undo_state: str | None
    undone: bool
    """Whether its bill is free again, whoever undid it."""


class RecoveryStore:
    """Statements of recovery."""

    def __init__(self, database: Database, failpoints: Failpoints | None = None) -> None:
        self._database = database
        self._failpoints = failpoints or NullFailpoints()

    async def sweep(self, now: datetime, after: timedelta, limit: int) -> int:
        """Put rows in doubt that are PENDING `after` past their deadline; return how many."""
        rows = await self._database.run(_SWEEP_STATEMENT, now, now - after, limit)
        return int(rows[0]["swept"])

    async def due(self, now: datetime) -> list[tuple[str, int]]:
        """Insured sites, with the route to them, that have rows to ask about."""
        rows = await self._database.run(_DUE_STATEMENT, now)
        return [(row["insured_site"], row["route"]) for row in rows]

    async def lease(
        self, site: str, route: int, now: datetime, until: datetime, limit: int
    ) -> list[asyncpg.Record]:
        """Rows to ask a site about; nobody else gets them before `until`."""
        rows = await self._database.run(_LEASE_STATEMENT, now, site, route, limit, until)
        if rows:
            leased = [row["settlement_id"] for row in rows]
            await self._failpoints.at(Place.CARE_LEASE_AFTER, leased)
        return rows

    async def postpone(self, until: Mapping[str, datetime]) -> None:
        """Ask about rows again at their own times."""
        await self._database.run(_POSTPONE_STATEMENT, list(until), list(until.values()))

    async def cancel(self, asked: Sequence[tuple[str, str]], now: datetime) -> set[str]:
        """Ask that open settlements (id, institution) be cancelled; return those newly asked."""
        rows = await self._database.run(
            _CANCEL_STATEMENT, now, [item for item, _ in asked], [who for _, who in asked]
        )
        return {row["settlement_id"] for row in rows}

    async def cancelled(
        self, now: datetime, until: datetime, limit: int, without: Sequence[str]
    ) -> list[Cancelled]:
        """Completed settlements whose cancellation needs work, leased `until`; none of the
        insured sites `without`."""
        rows = await self._database.run(_CANCELLED_STATEMENT, now, limit, until, without)
        return [
            Cancelled(**{**dict(row), "business_day": row["business_day"].isoformat()})
            for row in rows
        ]

    async def link(self, original: str, undo: str, former: str | None) -> bool:
        """Name `undo` as what undoes `original`, if `former` is still named; False otherwise."""
        linked = bool(await self._database.run(_LINK_STATEMENT, original, undo, former))
        await self._failpoints.at(Place.CARE_LINK_AFTER, [original])
        return linked

    async def finished(self, originals: Sequence[str]) -> None:
        """The cancellations of these settlements need no more work."""
        await self._database.run(_SETTLED_STATEMENT, list(originals))
