"""Making settlement ids final, and what undo needs to read. One statement per batch:

| call      | trips | flush | what it does                                                    |
|-----------|-------|-------|-----------------------------------------------------------------|
| abort     | 1     | 1     | a tombstone where there is no row; the rows there are           |
| find      | 1     | 0     | the rows there are                                              |
| originals | 1     | 0     | what undos need of the settlements that they undo               |

An id that a racing commit or abort decides while `abort` runs is in neither answer: read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from infra.runtime.database import Database
from infra.runtime.failpoints import Failpoints, NullFailpoints, Place
from services.settlement.domain.balance import PersonKey
from services.settlement.domain.states import Decision
from services.settlement.domain.undo import Original
from services.settlement.store.care import SETTLE
from services.settlement.store.insured import STORED_COLUMNS, Stored, stored
from yidi.common.v1 import envelope_pb2

_FIND_STATEMENT = f"""
SELECT d.settlement_id::text AS key, {STORED_COLUMNS}
FROM unnest($1::uuid[]) AS i(id) JOIN settlement.decision d ON d.settlement_id = i.id
"""
_ABORT_STATEMENT = f"""
WITH item AS (
    SELECT * FROM unnest($2::uuid[], $3::smallint[], $4::bytea[], $5::text[], $6::text[],
                         $7::text[], $8::bytea[])
        AS t(settlement_id, kind, request_digest, institution, care_area, insured_area, rejection)
), made AS (
    INSERT INTO settlement.decision
        (settlement_id, state, kind, request_digest, institution, care_area, insured_area,
         insurance, decided_at, rejection, balances)
    SELECT settlement_id, 'ABORTED', kind, request_digest, institution, care_area, insured_area, 0,
           $1, rejection, '{{}}'
    FROM item ORDER BY settlement_id
    ON CONFLICT (settlement_id) DO NOTHING
    RETURNING settlement_id, institution
), audited AS (
    INSERT INTO settlement.audit (at, actor, action, subject)
    SELECT $1, institution, 'ABORTED', settlement_id FROM made
)
SELECT item.settlement_id::text AS key,
       EXISTS (SELECT FROM made WHERE made.settlement_id = item.settlement_id) AS made,
       {STORED_COLUMNS}
FROM item LEFT JOIN settlement.decision d ON d.settlement_id = item.settlement_id
"""
_ORIGINALS_STATEMENT = """
SELECT d.settlement_id::text AS settlement_id, d.state, d.kind, d.institution, d.business_day,
       d.insured_area, d.insurance, d.person_id::text AS person_id, d.balances::text AS balances,
       d.outcome_header, d.outcome_details, u.undo_id::text AS undo_id
FROM unnest($1::uuid[]) AS i(id)
JOIN settlement.decision d ON d.settlement_id = i.id
LEFT JOIN settlement.undo u ON u.original_id = i.id
"""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An id to make final."""

    settlement_id: str
    kind: int
    request_digest: bytes
    institution: str
    care_area: str
    insured_area: str
    rejection: bytes


@dataclass(frozen=True, slots=True)
class StoredOriginal:
    """A settlement that is to be undone, as it stands."""

    facts: Original
    person: PersonKey | None
    balances: Mapping[str, object]
    header: envelope_pb2.OutcomeHeader | None
    details: bytes


class ResolutionStore:
    """Statements that make ids final and that read originals."""

    def __init__(self, database: Database, failpoints: Failpoints | None = None) -> None:
        self._database = database
        self._failpoints = failpoints or NullFailpoints()

    async def find(self, ids: Sequence[str]) -> dict[str, Stored]:
        """The decisions that exist for `ids`."""
        rows = await self._database.run(_FIND_STATEMENT, ids)
        return {row["key"]: stored(row) for row in rows}

    async def abort(self, tombstones: Sequence[Tombstone], now: datetime) -> dict[str, Stored]:
        """The final row of every id: a tombstone where there was none."""
        ids = [tombstone.settlement_id for tombstone in tombstones]
        await self._failpoints.at(Place.INSURED_ABORT_BEFORE, ids)
        rows = await self._database.run(
            _ABORT_STATEMENT,
            now,
            [tombstone.settlement_id for tombstone in tombstones],
            [tombstone.kind for tombstone in tombstones],
            [tombstone.request_digest for tombstone in tombstones],
            [tombstone.institution for tombstone in tombstones],
            [tombstone.care_area for tombstone in tombstones],
            [tombstone.insured_area for tombstone in tombstones],
            [tombstone.rejection for tombstone in tombstones],
        )
        await self._failpoints.at(Place.INSURED_ABORT_AFTER, ids)
        final: dict[str, Stored] = {}
        raced: list[str] = []
        by_id = {tombstone.settlement_id: tombstone for tombstone in tombstones}
        for row in rows:
            key = row["key"]
            if row["made"]:
                mine = by_id[key]
                final[key] = Stored(Decision.ABORTED, mine.request_digest, None, mine.rejection)
            elif row["state"] is not None:
                final[key] = stored(row)
            else:
                raced.append(key)
        if raced:
            final |= await self.find(raced)
        return final

    async def originals(self, ids: Sequence[str]) -> dict[str, StoredOriginal]:
        """What is known of the settlements that are to be undone."""
        rows = await self._database.run(_ORIGINALS_STATEMENT, ids)
        found = {}
        for row in rows:
            committed = row["state"] == Decision.COMMITTED
            header = (
                envelope_pb2.OutcomeHeader.FromString(row["outcome_header"]) if committed else None
            )
            found[row["settlement_id"]] = StoredOriginal(
                facts=Original(
                    settlement_id=row["settlement_id"],
                    committed=committed,
                    is_undo=row["kind"] != SETTLE,
                    institution=row["institution"],
                    business_day=row["business_day"],
                    undone_by=row["undo_id"],
                ),
                person=PersonKey(row["insured_area"], row["insurance"], row["person_id"])
                if row["person_id"]
                else None,
                balances=msgspec.json.decode(row["balances"]),
                header=header,
                details=row["outcome_details"] or b"",
            )
        return found
