"""What the care place does after a settlement, beside its path. Each is one statement:

| call      | what it does                                                                   |
|-----------|--------------------------------------------------------------------------------|
| take      | duties of completed rows become uploads and audit cases, each once             |
| lease     | details to upload now, the longest due first, bounded by number and bytes      |
| uploaded  | the nation has these                                                           |
| postpone  | these are tried again at their own times, and why                              |
| late      | those past their time that nobody was told of yet                              |
| waiting   | those not uploaded, in the order of their ids; `count` how many, and how late  |

Rows are locked with SKIP LOCKED, so replicas share the work and never wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from infra.runtime.database import Database
from services.settlement.domain.audit_case import CASES, CaseState, Duty
from services.settlement.domain.detail import WITHIN

_CASES = ", ".join(f"({duty.value}, '{kind}')" for duty, kind in CASES.items())
_CASE_ID = "substr(encode(sha256((settlement_id || '/' || c.kind)::bytea), 'hex'), 1, 32)::uuid"
"""Made here, as the statement makes any number of cases."""
_TAKE_STATEMENT = f"""
WITH due AS (
    SELECT settlement_id, duties, state_at FROM settlement.care_journal
    WHERE duties <> 0 AND state = 'COMPLETED'
    ORDER BY settlement_id LIMIT $1 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE settlement.care_journal j SET duties = 0
    FROM due WHERE j.settlement_id = due.settlement_id
), uploads AS (
    INSERT INTO settlement.detail_upload (settlement_id, due_at, next_attempt_at)
    SELECT settlement_id, state_at + $2::interval, state_at FROM due
    WHERE duties & {Duty.UPLOAD_DETAIL.value} <> 0
    ON CONFLICT (settlement_id) DO NOTHING
), opened AS (
    INSERT INTO settlement.audit_case (case_id, settlement_id, kind, state)
    SELECT {_CASE_ID}, settlement_id, c.kind,
           '{CaseState.OPEN}'
    FROM due JOIN (VALUES {_CASES}) AS c(duty, kind) ON due.duties & c.duty <> 0
    ON CONFLICT (settlement_id, kind) DO NOTHING
)
SELECT count(*) AS taken FROM due
"""
_LEASE_STATEMENT = """
WITH due AS (
    SELECT settlement_id, next_attempt_at FROM settlement.detail_upload
    WHERE uploaded_at IS NULL AND next_attempt_at <= $1
    ORDER BY next_attempt_at, settlement_id LIMIT $3 FOR UPDATE SKIP LOCKED
), sized AS (
    SELECT due.settlement_id, j.care_area, j.request,
           row_number() OVER longest AS place,
           sum(octet_length(j.request)) OVER longest AS bytes
    FROM due JOIN settlement.care_journal j ON j.settlement_id = due.settlement_id
    WINDOW longest AS (ORDER BY due.next_attempt_at, due.settlement_id)
)
UPDATE settlement.detail_upload d SET attempts = d.attempts + 1, next_attempt_at = $2
FROM sized WHERE d.settlement_id = sized.settlement_id AND (sized.place = 1 OR sized.bytes <= $4)
RETURNING d.settlement_id::text AS settlement_id, d.attempts, d.cause, sized.care_area,
          sized.request
"""
_UPLOADED_STATEMENT = """
WITH done AS (
    UPDATE settlement.detail_upload d SET uploaded_at = $1, cause = ''
    FROM unnest($2::uuid[]) AS i(id) WHERE d.settlement_id = i.id AND d.uploaded_at IS NULL
    RETURNING d.settlement_id
)
INSERT INTO settlement.audit (at, actor, action, subject)
SELECT $1, 'detail upload', 'detail uploaded', settlement_id FROM done
"""
_POSTPONE_STATEMENT = """
UPDATE settlement.detail_upload d SET next_attempt_at = i.at, cause = i.cause
FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS i(id, at, cause)
WHERE d.settlement_id = i.id AND d.uploaded_at IS NULL
"""
_LATE_STATEMENT = """
WITH late AS (
    SELECT settlement_id FROM settlement.detail_upload
    WHERE uploaded_at IS NULL AND alarmed_at IS NULL AND due_at < $1
    ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE settlement.detail_upload d SET alarmed_at = $1 FROM late
WHERE d.settlement_id = late.settlement_id
RETURNING d.settlement_id::text AS settlement_id, d.due_at, d.cause
"""
_WAITING_STATEMENT = """
SELECT d.settlement_id::text AS settlement_id, j.institution, j.visit_id, j.bill_id, j.state_at,
       d.due_at, d.attempts, d.cause
FROM settlement.detail_upload d
JOIN settlement.care_journal j ON j.settlement_id = d.settlement_id
WHERE d.uploaded_at IS NULL AND (NOT $2 OR d.due_at < $1)
  AND ($3::uuid IS NULL OR d.settlement_id > $3::uuid)
ORDER BY d.settlement_id LIMIT $4
"""
_COUNT_STATEMENT = """
SELECT count(*) AS total, count(*) FILTER (WHERE due_at < $1) AS late
FROM settlement.detail_upload WHERE uploaded_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Leased:
    """A stay whose detail is to be uploaded now."""

    settlement_id: str
    attempts: int
    """This one counted."""
    cause: str
    """Why the last attempt failed, or empty."""
    care_area: str
    request: bytes
    """Serialized ExchangePayload without the credential."""


class DetailStore:
    """Statements of duties and uploads; none is on the path of a settlement."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, limit: int) -> int:
        """Take the duties of completed settlements, the oldest first; return of how many."""
        rows = await self._database.run(_TAKE_STATEMENT, limit, WITHIN)
        return int(rows[0]["taken"])

    async def lease(
        self, now: datetime, until: datetime, limit: int, request_bytes: int
    ) -> list[Leased]:
        """Details to upload; nobody else gets them before `until`. One may be over the bytes."""
        rows = await self._database.run(_LEASE_STATEMENT, now, until, limit, request_bytes)
        return [Leased(**row) for row in rows]

    async def uploaded(self, settlement_ids: Sequence[str], now: datetime) -> None:
        """The nation has the detail of these."""
        await self._database.run(_UPLOADED_STATEMENT, now, settlement_ids)

    async def postpone(self, waiting: Mapping[str, tuple[datetime, str]]) -> None:
        """Try again at these times, for these causes in plain Chinese."""
        await self._database.run(
            _POSTPONE_STATEMENT,
            list(waiting),
            [at for at, _ in waiting.values()],
            [cause for _, cause in waiting.values()],
        )

    async def late(self, now: datetime, limit: int) -> list[asyncpg.Record]:
        """Details that have become late; each is returned once for ever."""
        return await self._database.run(_LATE_STATEMENT, now, limit)

    async def waiting(
        self, now: datetime, *, late: bool, after: str | None, limit: int
    ) -> list[asyncpg.Record]:
        """Details that are not at the nation yet, by settlement id from behind `after`."""
        return await self._database.run(_WAITING_STATEMENT, now, late, after, limit)

    async def count(self, now: datetime) -> tuple[int, int]:
        """How many details are not at the nation yet, and how many of them are late."""
        [row] = await self._database.run(_COUNT_STATEMENT, now)
        return row["total"], row["late"]
