"""The nation's journal: insert or compare, one statement per batch whatever its size."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

from infra.runtime import journal
from infra.runtime.database import Database
from infra.runtime.schema import Schema
from yidi.common.v1 import envelope_pb2

SCHEMA = Schema("relay", Path(__file__).parent / "migrations", partitioned=("outcome",))

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


class NationStore:
    """Statements of the nation's journal."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self, outcomes: Mapping[str, envelope_pb2.Outcome], now: datetime
    ) -> dict[str, bytes]:
        """Write what is not there yet; return the digest that stands for each id."""
        headers = [envelope_pb2.OutcomeHeader.FromString(o.header) for o in outcomes.values()]
        rows = await self._database.run(
            _RECORD_STATEMENT,
            now,
            list(outcomes),
            [header.kind for header in headers],
            [outcome.header for outcome in outcomes.values()],
            [outcome.digest for outcome in outcomes.values()],
            *journal.arrays(headers),
        )
        standing = {row["settlement_id"]: row["outcome_digest"] for row in rows}
        known = [settlement_id for settlement_id in outcomes if settlement_id not in standing]
        if known:
            rows = await self._database.run(_COMPARE_STATEMENT, known)
            standing |= {row["settlement_id"]: row["outcome_digest"] for row in rows}
        return standing

    async def digest(
        self, day: date, care_site: str, insured_site: str
    ) -> envelope_pb2.JournalDigest:
        """One day of one pair of sites."""
        statement = journal.digest_statement("relay.outcome")
        rows = await self._database.run(statement, day, care_site, insured_site)
        return journal.digest_message(rows[0])
