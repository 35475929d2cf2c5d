"""Audit cases of completed settlements, what is decided of them, and what was deducted by route.

A decision is one transaction that holds the settlement: so the deductions of all its cases together
stay within what the funds paid, whoever decides at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.runtime.clock import SHANGHAI, first_id_of
from infra.runtime.database import Database, transaction
from infra.runtime.errors import Reason, Refusal
from services.settlement.domain.audit_case import (
    CaseKind,
    CaseState,
    Decision,
    Standing,
    why_not,
)
from services.settlement.store.care import SETTLE

_AROUND = timedelta(hours=1)
"""More than an id's time may lie off the instant of its decision."""
_UNDONE = """EXISTS (SELECT FROM settlement.care_journal u
    WHERE u.undoes = j.settlement_id AND u.state = 'COMPLETED')"""
_CASE = f"""
SELECT c.case_id::text AS case_id, c.kind, c.state, c.settlement_id::text AS settlement_id,
       c.deducted_fen, c.reason, c.decided_by, c.decided_at, j.institution, j.visit_id, j.bill_id,
       j.route, j.insured_area, j.total_fen, j.fund_total_fen, j.state_at, {_UNDONE} AS undone,
       {{extra}}
FROM settlement.audit_case c
JOIN settlement.care_journal j ON j.settlement_id = c.settlement_id
"""
_LIST_STATEMENT = f"""{_CASE.format(extra="NULL AS request")}
WHERE c.state = $1 AND ($2::text IS NULL OR c.kind = $2)
  AND ($3::uuid IS NULL OR (c.settlement_id, c.kind)
      > (SELECT a.settlement_id, a.kind FROM settlement.audit_case a WHERE a.case_id = $3::uuid))
ORDER BY c.settlement_id, c.kind LIMIT $4
"""
_SHOW_STATEMENT = f"{_CASE.format(extra='j.request')} WHERE c.case_id = $1::uuid"
_CLAIM = text("""
INSERT INTO settlement.audit_request
    (caller, method, request_id, body_digest, operator, at, case_id)
VALUES (:caller, :method, :request_id, :body_digest, :operator, :at, CAST(:case_id AS uuid))
ON CONFLICT (caller, method, request_id) DO NOTHING
""")
_CLAIMED = text("""
SELECT body_digest FROM settlement.audit_request
WHERE caller = :caller AND method = :method AND request_id = :request_id
""")
_PICK = text(f"""
INSERT INTO settlement.audit_case (case_id, settlement_id, kind, state)
SELECT CAST(:case_id AS uuid), settlement_id, '{CaseKind.PICKED}', '{CaseState.OPEN}'
FROM settlement.care_journal
WHERE settlement_id = CAST(:settlement_id AS uuid) AND state = 'COMPLETED' AND kind = {SETTLE}
ON CONFLICT (settlement_id, kind) DO NOTHING
""")
_PICKED = text(f"""
SELECT case_id::text AS case_id FROM settlement.audit_case
WHERE settlement_id = CAST(:settlement_id AS uuid) AND kind = '{CaseKind.PICKED}'
""")
_HOLD = text(f"""
SELECT j.settlement_id::text AS settlement_id, j.fund_total_fen, {_UNDONE} AS undone
FROM settlement.care_journal j
WHERE j.settlement_id
    = (SELECT c.settlement_id FROM settlement.audit_case c WHERE c.case_id = CAST(:case_id AS uuid))
FOR NO KEY UPDATE OF j
""")
_CASES_OF = text("""
SELECT case_id::text AS case_id, state, deducted_fen, reason FROM settlement.audit_case
WHERE settlement_id = CAST(:settlement_id AS uuid)
""")
_DECIDE = text(f"""
UPDATE settlement.audit_case
SET state = :state, deducted_fen = :deducted_fen, reason = :reason, decided_by = :decided_by,
    decided_at = :at
WHERE case_id = CAST(:case_id AS uuid) AND state = '{CaseState.OPEN}'
""")
_AUDIT = text("""
INSERT INTO settlement.audit (at, actor, action, subject, digest)
VALUES (:at, :caller, :action, CAST(:settlement_id AS uuid), :body_digest)
""")
_RATES = text(f"""
SELECT j.route, count(*) AS settlements, sum(j.fund_total_fen)::bigint AS fund_total_fen,
       count(d.deducted_fen) AS deducted_settlements,
       coalesce(sum(d.deducted_fen), 0)::bigint AS deducted_fen
FROM settlement.care_journal j
LEFT JOIN (
    SELECT settlement_id, sum(deducted_fen) AS deducted_fen FROM settlement.audit_case
    WHERE state = '{CaseState.DEDUCTED}'
      AND settlement_id >= CAST(:lower AS uuid) AND settlement_id < CAST(:upper AS uuid)
    GROUP BY settlement_id
) d ON d.settlement_id = j.settlement_id
WHERE j.business_day BETWEEN :first AND :last AND j.kind = {SETTLE} AND j.state = 'COMPLETED'
  AND j.settlement_id >= CAST(:lower AS uuid) AND j.settlement_id < CAST(:upper AS uuid)
  AND NOT {_UNDONE}
GROUP BY j.route ORDER BY j.route
""")


@dataclass(frozen=True, slots=True)
class Asked:
    """A change that an operator asks for, once for its request id."""

    caller: str
    method: str
    request_id: str
    body_digest: bytes
    operator: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Rate:
    """What was deducted of one route's settlements that stand, fen."""

    route: int
    settlements: int
    fund_total_fen: int
    deducted_settlements: int
    deducted_fen: int


class AuditStore:
    """Statements of audit cases; none is on the path of a settlement."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cases(
        self, state: CaseState, kind: CaseKind | None, after: str | None, limit: int
    ) -> list[asyncpg.Record]:
        """Cases by settlement id and kind, from behind the case `after`."""
        return await self._database.run(_LIST_STATEMENT, state, kind, after, limit)

    async def show(self, case_id: str) -> asyncpg.Record:
        """A case with its settlement's kept request; raises `Refusal` (AUDIT_CASE_NOT_FOUND)."""
        rows = await self._database.run(_SHOW_STATEMENT, case_id)
        if not rows:
            raise _not_found(case_id)
        return rows[0]

    async def pick(self, asked: Asked, settlement_id: str, new_case_id: str) -> str:
        """Open a case for a completed settlement, or find the one there is; return its id.

        Raises `Refusal` (SETTLEMENT_NOT_FOUND, REQUEST_ID_REUSED); then nothing is claimed.
        """
        named = {"settlement_id": settlement_id}
        async with transaction(self._database) as connection:
            made = await connection.execute(_PICK, {"case_id": new_case_id, **named})
            case_id = (await connection.execute(_PICKED, named)).scalar_one_or_none()
            if case_id is None:
                raise Refusal(Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND)
            if await _claim(connection, asked, case_id) and made.rowcount:
                await _audit(connection, asked, "audit pick", settlement_id)
        return str(case_id)

    async def decide(self, asked: Asked, case_id: str, decision: Decision, decided_by: str) -> None:
        """Decide an open case, once for ever.

        Raises `Refusal` (AUDIT_CASE_NOT_FOUND, AUDIT_DECISION_REFUSED, REQUEST_ID_REUSED); then
        nothing is claimed.
        """
        async with transaction(self._database) as connection:
            if not await _claim(connection, asked, case_id):
                return
            named = {"case_id": case_id}
            held = (await connection.execute(_HOLD, named)).mappings().one_or_none()
            if held is None:
                raise _not_found(case_id)
            settlement_id = held["settlement_id"]
            # Read once the settlement is held: nobody decides another of its cases any more.
            found = await connection.execute(_CASES_OF, {"settlement_id": settlement_id})
            cases = {row["case_id"]: row for row in found.mappings()}
            own = cases.pop(case_id)
            decided = own["state"] != CaseState.OPEN
            standing = Standing(
                decided=Decision(own["deducted_fen"], own["reason"]) if decided else None,
                others_fen=sum(row["deducted_fen"] for row in cases.values()),
                fund_total_fen=held["fund_total_fen"],
                undone=held["undone"],
            )
            if cause := why_not(decision, standing):
                raise Refusal(Reason.ERROR_REASON_AUDIT_DECISION_REFUSED, cause=cause)
            if decided:
                return
            facts = {
                "state": decision.state,
                "deducted_fen": decision.deducted_fen,
                "reason": decision.reason,
                "decided_by": decided_by,
                "at": asked.at,
            }
            await connection.execute(_DECIDE, {**facts, **named})
            await _audit(connection, asked, f"audit {decision.state.lower()}", settlement_id)

    async def rates(self, first: date, last: date) -> list[Rate]:
        """Deductions by route of the settlements that stand of these business days."""
        start = datetime.combine(first, datetime.min.time(), SHANGHAI) - _AROUND
        end = datetime.combine(last, datetime.min.time(), SHANGHAI) + timedelta(days=1) + _AROUND
        facts = {
            "first": first,
            "last": last,
            "lower": first_id_of(int(start.timestamp() * 1000)),
            "upper": first_id_of(int(end.timestamp() * 1000)),
        }
        async with transaction(self._database) as connection:
            rows = (await connection.execute(_RATES, facts)).mappings().all()
        return [Rate(**row) for row in rows]


async def _claim(connection: AsyncConnection, asked: Asked, case_id: str) -> bool:
    """Claim the request id for a case; False when this request has been answered before.

    Raises `Refusal` (REQUEST_ID_REUSED).
    """
    facts = {name: getattr(asked, name) for name in Asked.__slots__}
    claimed = await connection.execute(_CLAIM, {**facts, "case_id": case_id})
    if claimed.rowcount:
        return True
    key = {name: facts[name] for name in ("caller", "method", "request_id")}
    if (await connection.execute(_CLAIMED, key)).scalar_one() != asked.body_digest:
        raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=asked.request_id)
    return False


async def _audit(
    connection: AsyncConnection, asked: Asked, action: str, settlement_id: str
) -> None:
    facts = {
        "at": asked.at,
        "caller": asked.caller,
        "action": action,
        "settlement_id": settlement_id,
        "body_digest": asked.body_digest,
    }
    await connection.execute(_AUDIT, facts)


def _not_found(case_id: str) -> Refusal:
    return Refusal(Reason.ERROR_REASON_AUDIT_CASE_NOT_FOUND, value=case_id)
