"""The care place's journal and its claims. One statement per batch whatever its size:

| call  | trips | flush | what it does                                               |
|-------|-------|-------|------------------------------------------------------------|
| open  | 1     | 1     | request id + bill + journal row + audit, all or none       |
| close | 1     | 1     | compare-and-set of the state + request id + bill + audit   |
| get   | 1     | 0     | rows by settlement id, request id or bill                  |

An item whose request id or bill is taken is left out by what the statement sees; one that loses a
race makes the whole statement fail (unique or not-null violation), it is run again and then sees
the winner. So a claim that loses its key or its bill leaves neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import asyncpg

from infra.runtime import journal
from infra.runtime.database import Database, halving
from infra.runtime.errors import Reason, Refusal
from infra.runtime.failpoints import Failpoints, NullFailpoints, Place
from services.settlement.domain.states import BILL_FREE, OPEN, TRANSITIONS, State
from yidi.common.v1 import envelope_pb2

ATTEMPTS = 5
_RACE = (
    asyncpg.UniqueViolationError,
    asyncpg.NotNullViolationError,
    asyncpg.CardinalityViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
SETTLE = 2
"""EXCHANGE_KIND_SETTLE: the kind that claims a bill."""
UNDONE = "UNDONE"
"""State of a bill whose settlement has been undone."""
_FREE = ", ".join(f"'{state}'" for state in [*sorted(BILL_FREE), UNDONE])
_OPEN = ", ".join(f"'{state}'" for state in sorted(OPEN))
_ALLOWED = ", ".join(f"('{old}', '{new}')" for old, new in sorted(TRANSITIONS))
_SAME_KEY = """(k.caller, k.method, k.request_id) = (item.caller, item.method, item.request_id)"""
_SAME_BILL = """(b.institution, b.visit_id, b.bill_id)
                = (item.institution, item.visit_id, item.bill_id)"""

_OPEN_STATEMENT = f"""
WITH item AS (
    SELECT * FROM unnest(
        $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], $8::text[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
        $15::smallint[], $16::smallint[], $17::uuid[], $18::bytea[], $19::timestamptz[],
        $20::text[], $21::text[], $22::smallint[]
    ) AS t(settlement_id, caller, method, request_id, body_digest, payload_digest, institution,
           visit_id, bill_id, care_area, care_site, insured_area, insured_site, route, kind, undoes,
           request, deadline_at, operator, traceparent, duties)
), fresh AS (
    SELECT item.* FROM item
    WHERE NOT EXISTS (SELECT FROM settlement.request_key k WHERE {_SAME_KEY})
      AND (kind <> {SETTLE} OR NOT EXISTS (
          SELECT FROM settlement.bill b WHERE {_SAME_BILL} AND b.state NOT IN ({_FREE})))
), key AS (
    INSERT INTO settlement.request_key
        (caller, method, request_id, settlement_id, body_digest, state, opened_at)
    SELECT caller, method, request_id, settlement_id, body_digest, 'PENDING', $1
    FROM fresh ORDER BY caller, method, request_id
    RETURNING settlement_id
), claimed AS (
    INSERT INTO settlement.bill AS b
        (institution, visit_id, bill_id, settlement_id, request_id, state)
    SELECT institution, visit_id, bill_id, settlement_id, request_id, 'PENDING'
    FROM fresh WHERE kind = {SETTLE} ORDER BY institution, visit_id, bill_id
    ON CONFLICT (institution, visit_id, bill_id) DO UPDATE
        SET settlement_id = excluded.settlement_id, request_id = excluded.request_id,
            state = excluded.state
        WHERE b.state IN ({_FREE})
    RETURNING b.settlement_id
), opened AS (
    INSERT INTO settlement.care_journal
        (settlement_id, state, caller, method, request_id, body_digest, payload_digest, institution,
         visit_id, bill_id, bill_claimed, care_area, insured_area, route, kind, undoes, request,
         operator, traceparent, opened_at, deadline_at, state_at, care_site, insured_site,
         duties)
    SELECT fresh.settlement_id, 'PENDING', caller, method, request_id, body_digest, payload_digest,
           institution, visit_id, bill_id,
           CASE WHEN kind = {SETTLE}
               THEN (SELECT true FROM claimed WHERE claimed.settlement_id = fresh.settlement_id)
               ELSE true END,
           care_area, insured_area, route, kind, undoes, request, operator, traceparent, $1,
           deadline_at, $1, care_site, insured_site, duties
    FROM fresh
    RETURNING settlement_id, caller, payload_digest
), audited AS (
    INSERT INTO settlement.audit (at, actor, action, subject, digest)
    SELECT $1, caller, 'open', settlement_id, payload_digest FROM opened
)
SELECT item.settlement_id::text AS settlement_id,
       EXISTS (SELECT FROM opened WHERE opened.settlement_id = item.settlement_id) AS opened,
       k.settlement_id::text AS key_settlement_id, k.body_digest AS key_digest,
       b.settlement_id::text AS bill_settlement_id, b.state AS bill_state,
       b.request_id AS bill_request_id
FROM item
LEFT JOIN settlement.request_key k ON {_SAME_KEY}
LEFT JOIN settlement.bill b ON {_SAME_BILL} AND b.state NOT IN ({_FREE})
"""

_CLOSE_STATEMENT = f"""
WITH item AS (
    SELECT * FROM unnest(
        $2::uuid[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[],
        {journal.parameters(9)}
    ) AS t(settlement_id, state, outcome_header, outcome_details, outcome_digest, reason, hops,
           {journal.COLUMN_LIST})
), done AS (
    UPDATE settlement.care_journal j
    SET state = item.state, state_at = $1, outcome_header = item.outcome_header,
        outcome_details = item.outcome_details, outcome_digest = item.outcome_digest,
        reason = item.reason, hops = item.hops,
        doubt = CASE WHEN item.state = 'IN_DOUBT' THEN item.reason ELSE j.doubt END,
        next_attempt_at = CASE WHEN item.state = 'IN_DOUBT' OR j.cancel_requested
            THEN $1::timestamptz END,
        business_day = item.business_day,
        {", ".join(f"{name} = item.{name}" for name in journal.AMOUNTS)},
        fund_codes = string_to_array(item.fund_codes, ','),
        fund_fen = string_to_array(item.fund_fen, ',')::bigint[]
    FROM item
    WHERE j.settlement_id = item.settlement_id AND (j.state, item.state) IN ({_ALLOWED})
    RETURNING j.settlement_id, j.state, j.caller, j.method, j.request_id, j.institution, j.visit_id,
              j.bill_id, j.outcome_digest, j.undoes
), keyed AS (
    UPDATE settlement.request_key k SET state = done.state FROM done
    WHERE (k.caller, k.method, k.request_id) = (done.caller, done.method, done.request_id)
), billed AS (
    UPDATE settlement.bill b SET state = done.state FROM done
    WHERE (b.institution, b.visit_id, b.bill_id) = (done.institution, done.visit_id, done.bill_id)
      AND b.settlement_id = done.settlement_id
), freed AS (
    UPDATE settlement.bill b SET state = '{UNDONE}' FROM done
    WHERE (b.institution, b.visit_id, b.bill_id) = (done.institution, done.visit_id, done.bill_id)
      AND b.settlement_id = done.undoes AND done.state = 'COMPLETED'
), audited AS (
    INSERT INTO settlement.audit (at, actor, action, subject, digest)
    SELECT $1, caller, state, settlement_id, outcome_digest FROM done
)
SELECT settlement_id::text AS settlement_id FROM done
"""

ROW_COLUMNS = """j.settlement_id::text AS settlement_id, j.state, j.body_digest, j.request_id,
    j.institution, j.visit_id, j.bill_id, j.route, j.outcome_header, j.outcome_details,
    j.outcome_digest, j.reason, j.doubt, j.hops, j.opened_at, j.state_at, j.request, j.kind,
    j.undoes::text AS undoes, j.undone_by::text AS undone_by, j.cancel_requested, j.insured_area,
    j.insured_site, j.attempts, j.next_attempt_at"""

_GET_STATEMENT = f"""
SELECT item.id, {ROW_COLUMNS}
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[])
     AS item(id, institution, settlement_id, caller, method, request_id, visit_id, bill_id)
LEFT JOIN settlement.request_key k ON {_SAME_KEY}
LEFT JOIN settlement.bill b ON {_SAME_BILL}
JOIN settlement.care_journal j
  ON j.settlement_id = coalesce(item.settlement_id, k.settlement_id, b.settlement_id)
 AND j.institution = coalesce(item.institution, j.institution)
"""

_OPEN_COUNT = f"""
SELECT count(*) FROM settlement.care_journal
WHERE state IN ({_OPEN}) AND care_site = $1 AND insured_site = $2
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """A settlement to open."""

    settlement_id: str
    caller: str
    method: str
    request_id: str
    body_digest: bytes
    payload_digest: bytes
    institution: str
    visit_id: str
    bill_id: str
    care_area: str
    care_site: str
    insured_area: str
    insured_site: str
    route: int
    kind: int
    undoes: str | None
    request: bytes
    deadline_at: datetime
    operator: str
    traceparent: str
    duties: int = 0
    """What it leaves to be done once it is completed: `Duty`."""

    @property
    def request_key(self) -> tuple[str, str, str]:
        """What is unique per request."""
        return (self.caller, self.method, self.request_id)

    @property
    def bill_key(self) -> tuple[str, str, str]:
        """What is unique per bill."""
        return (self.institution, self.visit_id, self.bill_id)


@dataclass(frozen=True, slots=True)
class Closing:
    """What came of a settlement."""

    settlement_id: str
    state: State
    header: envelope_pb2.OutcomeHeader | None
    outcome: envelope_pb2.Outcome | None
    reason: bytes | None
    hops: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """By what a row is looked for; unset parts are None."""

    id: str
    institution: str | None
    """Whose rows may be seen; None: all."""
    settlement_id: str | None = None
    caller: str | None = None
    method: str | None = None
    request_id: str | None = None
    visit_id: str | None = None
    bill_id: str | None = None


class CareStore:
    """Statements of the care place."""

    def __init__(self, database: Database, failpoints: Failpoints | None = None) -> None:
        self._database = database
        self._failpoints = failpoints or NullFailpoints()

    async def open(self, openings: Sequence[Opening], now: datetime) -> list[asyncpg.Record]:
        """Open what can be opened; one row per opening says so or shows what is in the way.

        An opening whose data cannot be stored has no row and leaves nothing.
        Two openings of one batch that want the same request id or bill go one after the other.
        """
        rows: list[asyncpg.Record] = []
        waiting = list(openings)
        while waiting:
            now_turn, waiting = _without_rivals(waiting)

            async def run(part: Sequence[Opening]) -> list[asyncpg.Record]:
                ids = [opening.settlement_id for opening in part]
                await self._failpoints.at(Place.CARE_OPEN_BEFORE, ids)
                opened = await self._race(_OPEN_STATEMENT, now, *_columns(part))
                await self._failpoints.at(Place.CARE_OPEN_AFTER, ids)
                return opened

            rows += (await halving(now_turn, run))[0]
        return rows

    async def close(self, closings: Sequence[Closing], now: datetime) -> set[str]:
        """Change the states that may change; return the ids that this call has changed."""

        async def run(part: Sequence[Closing]) -> list[asyncpg.Record]:
            ids = [closing.settlement_id for closing in part]
            await self._failpoints.at(Place.CARE_CLOSE_BEFORE, ids)
            closed = await self._race(
                _CLOSE_STATEMENT,
                now,
                [closing.settlement_id for closing in part],
                [closing.state.value for closing in part],
                [closing.outcome.header if closing.outcome else None for closing in part],
                [closing.outcome.details if closing.outcome else None for closing in part],
                [closing.outcome.digest if closing.outcome else None for closing in part],
                [closing.reason for closing in part],
                [closing.hops for closing in part],
                *journal.arrays([closing.header for closing in part]),
            )
            await self._failpoints.at(Place.CARE_CLOSE_AFTER, ids)
            return closed

        rows, _ = await halving(closings, run)
        return {row["settlement_id"] for row in rows}

    async def get(self, keys: Sequence[Key]) -> list[asyncpg.Record]:
        """The rows of the keys that have one, each with the key's `id`."""
        return await self._database.run(_GET_STATEMENT, *_columns(keys))

    async def digest(
        self,
        day: date,
        care_site: str,
        insured_site: str,
        detail: envelope_pb2.JournalDetail.ValueType,
        hour: int,
    ) -> envelope_pb2.JournalDigest:
        """One day of one pair of sites, as deep as `detail` says."""
        message = await journal.digest(
            self._database, "settlement.care_journal", day, care_site, insured_site, detail, hour
        )
        counted = await self._database.run(_OPEN_COUNT, care_site, insured_site)
        message.open_count = counted[0]["count"]
        return message

    async def _race(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        for _ in range(ATTEMPTS):
            try:
                return await self._database.run(statement, *arguments)
            except _RACE:
                continue
        raise Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE, cause="contention")


def _without_rivals(openings: list[Opening]) -> tuple[list[Opening], list[Opening]]:
    keys: set[tuple[str, str, str]] = set()
    bills: set[tuple[str, str, str]] = set()
    first: list[Opening] = []
    later: list[Opening] = []
    for opening in openings:
        if opening.request_key in keys or opening.bill_key in bills:
            later.append(opening)
        else:
            keys.add(opening.request_key)
            bills.add(opening.bill_key)
            first.append(opening)
    return first, later


def _columns(rows: Sequence[Opening] | Sequence[Key]) -> list[list[Any]]:
    names = type(rows[0]).__slots__  # in the order of the fields
    return [[getattr(row, name) for row in rows] for name in names]
