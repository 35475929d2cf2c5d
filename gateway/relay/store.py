"""What the nation keeps: its journal and the detail of stays (insert or compare, one statement per
batch whatever its size), and the announced downtimes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import asyncpg

from infra.runtime import journal
from infra.runtime.database import Database
from infra.runtime.failpoints import Failpoints, NullFailpoints, Place
from infra.runtime.schema import Schema
from yidi.common.v1 import envelope_pb2
from yidi.relay.v1 import relay_pb2

SCHEMA = Schema(
    "relay", Path(__file__).parent / "migrations", partitioned=("outcome", "stay_detail")
)
MAX_DOWNTIMES = 1_000
"""Downtimes that the directory carries at most."""

_RECORD_STATEMENT = f"""
WITH item AS (
    SELECT * FROM unnest($2::uuid[], $3::smallint[], $4::bytea[], $5::bytea[],
        {journal.parameters(6)}
    ) AS t(settlement_id, kind, outcome_header, outcome_digest, {journal.COLUMN_LIST})
), made AS (
    INSERT INTO relay.outcome
        (settlement_id, kind, recorded_at, outcome_header, outcome_digest, {journal.COLUMN_LIST})
    SELECT settlement_id, kind, $1, outcome_header, outcome_digest, {journal.selected("item")}
    FROM item ORDER BY settlement_id
    ON CONFLICT (settlement_id) DO NOTHING
    RETURNING settlement_id, outcome_digest
)
SELECT settlement_id::text AS settlement_id, outcome_digest FROM made
"""
_COMPARE_STATEMENT = """
SELECT o.settlement_id::text AS settlement_id, o.outcome_digest
FROM unnest($1::uuid[]) AS i(id) JOIN relay.outcome o ON o.settlement_id = i.id
"""
_HEADERS_STATEMENT = """
SELECT o.settlement_id::text AS settlement_id, o.outcome_header
FROM unnest($1::uuid[]) AS i(id) JOIN relay.outcome o ON o.settlement_id = i.id
WHERE o.care_site = $2
"""
_KEEP_STATEMENT = """
WITH item AS (
    SELECT * FROM unnest($2::uuid[], $3::bytea[], $4::bytea[]) AS t(settlement_id, detail, digest)
), made AS (
    INSERT INTO relay.stay_detail (settlement_id, recorded_at, detail, detail_digest)
    SELECT settlement_id, $1, detail, digest FROM item ORDER BY settlement_id
    ON CONFLICT (settlement_id) DO NOTHING
    RETURNING settlement_id
)
SELECT settlement_id::text AS settlement_id FROM made
"""
_KEPT_STATEMENT = """
SELECT d.settlement_id::text AS settlement_id, d.detail_digest
FROM unnest($1::uuid[]) AS i(id) JOIN relay.stay_detail d ON d.settlement_id = i.id
"""
_DOWNTIME = "site, area, start_at, end_at, notice"
_ANNOUNCE_STATEMENT = f"""
WITH made AS (
    INSERT INTO relay.downtime (announcer, request_id, announced_at, {_DOWNTIME})
    VALUES ($2, $3, $1, $4, $5, $6, $7, $8)
    ON CONFLICT (announcer, request_id) DO NOTHING
    RETURNING {_DOWNTIME}
), audited AS (
    INSERT INTO relay.audit (at, actor, action, subject, digest)
    SELECT $1, $2, 'announce', $3, $9 FROM made
)
SELECT {_DOWNTIME} FROM made
"""
_ANNOUNCED_STATEMENT = f"""
SELECT {_DOWNTIME} FROM relay.downtime WHERE announcer = $1 AND request_id = $2
"""
_DOWNTIMES_STATEMENT = f"""
SELECT {_DOWNTIME} FROM relay.downtime WHERE end_at > $1
ORDER BY start_at, announcer, request_id LIMIT {MAX_DOWNTIMES}
"""


class NationStore:
    """Statements of the nation's journal and its announcements."""

    def __init__(self, database: Database, failpoints: Failpoints | None = None) -> None:
        self._database = database
        self._failpoints = failpoints or NullFailpoints()

    async def record(
        self, outcomes: Mapping[str, envelope_pb2.Outcome], now: datetime
    ) -> dict[str, bytes]:
        """Write what is not there yet; return the digest that stands for each id."""
        headers = [envelope_pb2.OutcomeHeader.FromString(o.header) for o in outcomes.values()]
        await self._failpoints.at(Place.NATION_RECORD_BEFORE, outcomes)
        rows = await self._database.run(
            _RECORD_STATEMENT,
            now,
            list(outcomes),
            [header.kind for header in headers],
            [outcome.header for outcome in outcomes.values()],
            [outcome.digest for outcome in outcomes.values()],
            *journal.arrays(headers),
        )
        await self._failpoints.at(Place.NATION_RECORD_AFTER, outcomes)
        standing = {row["settlement_id"]: row["outcome_digest"] for row in rows}
        known = [settlement_id for settlement_id in outcomes if settlement_id not in standing]
        if known:
            rows = await self._database.run(_COMPARE_STATEMENT, known)
            standing |= {row["settlement_id"]: row["outcome_digest"] for row in rows}
        return standing

    async def digest(
        self,
        day: date,
        care_site: str,
        insured_site: str,
        detail: envelope_pb2.JournalDetail.ValueType,
        hour: int,
    ) -> envelope_pb2.JournalDigest:
        """One day of one pair of sites, as deep as `detail` says."""
        return await journal.digest(
            self._database, "relay.outcome", day, care_site, insured_site, detail, hour
        )

    async def headers(
        self, settlement_ids: Sequence[str], care_site: str
    ) -> dict[str, envelope_pb2.OutcomeHeader]:
        """The journaled headers of a care place's settlements, as far as they are here."""
        rows = await self._database.run(_HEADERS_STATEMENT, settlement_ids, care_site)
        return {
            row["settlement_id"]: envelope_pb2.OutcomeHeader.FromString(row["outcome_header"])
            for row in rows
        }

    async def keep_details(self, details: Mapping[str, bytes], now: datetime) -> list[str]:
        """Write what is not there yet; return the ids under which other bytes are kept."""
        digests = {one: hashlib.sha256(detail).digest() for one, detail in details.items()}
        made = await self._database.run(
            _KEEP_STATEMENT, now, list(details), list(details.values()), list(digests.values())
        )
        fresh = {row["settlement_id"] for row in made}
        known = [one for one in details if one not in fresh]
        # A rival that the insert met is seen by a statement of its own only.
        rows = await self._database.run(_KEPT_STATEMENT, known) if known else []
        return [
            row["settlement_id"]
            for row in rows
            if row["detail_digest"] != digests[row["settlement_id"]]
        ]

    async def announce(
        self, announcer: str, request_id: str, downtime: relay_pb2.Downtime, now: datetime
    ) -> relay_pb2.Downtime:
        """Write an announcement unless its request id has one; return the one that stands."""
        rows = await self._database.run(
            _ANNOUNCE_STATEMENT,
            now,
            announcer,
            request_id,
            downtime.site,
            downtime.area,
            downtime.start_time.ToDatetime(UTC),
            downtime.end_time.ToDatetime(UTC),
            downtime.notice,
            hashlib.sha256(downtime.SerializeToString(deterministic=True)).digest(),
        )
        # A rival that the insert met is seen by a statement of its own only.
        rows = rows or await self._database.run(_ANNOUNCED_STATEMENT, announcer, request_id)
        return _downtime(rows[0])

    async def announced(self, announcer: str, request_id: str) -> relay_pb2.Downtime | None:
        """The announcement of a request id, or None."""
        rows = await self._database.run(_ANNOUNCED_STATEMENT, announcer, request_id)
        return _downtime(rows[0]) if rows else None

    async def downtimes(self, now: datetime) -> list[relay_pb2.Downtime]:
        """Every announced downtime that has not ended, the earliest first."""
        return [_downtime(row) for row in await self._database.run(_DOWNTIMES_STATEMENT, now)]


def _downtime(row: asyncpg.Record) -> relay_pb2.Downtime:
    downtime = relay_pb2.Downtime(site=row["site"], area=row["area"], notice=row["notice"])
    downtime.start_time.FromDatetime(row["start_at"])
    downtime.end_time.FromDatetime(row["end_at"])
    return downtime
