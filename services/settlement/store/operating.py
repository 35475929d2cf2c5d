"""What the operator asks of the care journal: one settlement's trail, what is open, what is odd."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from infra.runtime.database import Database
from infra.runtime.money import yuan
from services.settlement.store.care import ROW_COLUMNS

_SHOW_STATEMENT = f"""
SELECT {ROW_COLUMNS} FROM settlement.care_journal j WHERE j.settlement_id = $1::uuid
"""
_UNDO_STATEMENT = """
SELECT settlement_id::text AS settlement_id FROM settlement.care_journal
WHERE undoes = $1::uuid AND state = 'COMPLETED'
"""
_TRAIL_STATEMENT = """
SELECT at, actor, action FROM settlement.audit WHERE subject = $1::uuid ORDER BY audit_id LIMIT 200
"""
_OPEN_STATEMENT = f"""
SELECT {ROW_COLUMNS}, count(*) OVER () AS total FROM settlement.care_journal j
WHERE j.state IN ('PENDING', 'IN_DOUBT') ORDER BY j.opened_at LIMIT $1
"""
_OLD_STATEMENT = """
SELECT settlement_id::text AS subject, state, opened_at FROM settlement.care_journal
WHERE state IN ('PENDING', 'IN_DOUBT') AND opened_at < $1 ORDER BY opened_at LIMIT 100
"""
_KEY_STATEMENT = """
SELECT k.settlement_id::text AS subject, k.state AS claimed, j.state
FROM settlement.request_key k JOIN settlement.care_journal j ON j.settlement_id = k.settlement_id
WHERE k.state <> j.state LIMIT 100
"""
_BILL_STATEMENT = """
SELECT b.settlement_id::text AS subject, b.state AS claimed, j.state
FROM settlement.bill b JOIN settlement.care_journal j ON j.settlement_id = b.settlement_id
WHERE b.state <> j.state AND NOT (
    b.state = 'UNDONE' AND j.state = 'COMPLETED' AND EXISTS (
        SELECT FROM settlement.care_journal u
        WHERE u.undoes = j.settlement_id AND u.state = 'COMPLETED'))
LIMIT 100
"""
_DEDUCTED_STATEMENT = """
SELECT c.settlement_id::text AS subject, c.deducted_fen,
       coalesce(j.fund_total_fen, 0) AS fund_total_fen
FROM (
    SELECT settlement_id, sum(deducted_fen)::bigint AS deducted_fen FROM settlement.audit_case
    WHERE state = 'DEDUCTED' GROUP BY settlement_id
) c LEFT JOIN settlement.care_journal j ON j.settlement_id = c.settlement_id
WHERE c.deducted_fen > coalesce(j.fund_total_fen, 0) LIMIT 100
"""


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that should be impossible."""

    invariant: str
    subject: str
    text: str


class OperatingStore:
    """Statements for the operator; none is on the path of a settlement."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def undo_of(self, settlement_id: str) -> str:
        """The completed undo of a settlement, or empty."""
        rows = await self._database.run(_UNDO_STATEMENT, settlement_id)
        return str(rows[0]["settlement_id"]) if rows else ""

    async def show(self, settlement_id: str) -> tuple[asyncpg.Record | None, list[asyncpg.Record]]:
        """A settlement's row and its audit rows, oldest first."""
        rows = await self._database.run(_SHOW_STATEMENT, settlement_id)
        trail = await self._database.run(_TRAIL_STATEMENT, settlement_id)
        return (rows[0] if rows else None), trail

    async def open(self, limit: int) -> list[asyncpg.Record]:
        """Open settlements, oldest first, each with the `total` there are."""
        return await self._database.run(_OPEN_STATEMENT, limit)

    async def oddities(self, opened_before: datetime) -> list[Oddity]:
        """Rows open since before `opened_before`, claims that contradict their row, and deductions
        above what the funds paid."""
        found = [
            Oddity("open_too_long", r["subject"], f"自 {r['opened_at']:%Y-%m-%d %H:%M:%S} 起未定")
            for r in await self._database.run(_OLD_STATEMENT, opened_before)
        ]
        for name, statement in (("request_key", _KEY_STATEMENT), ("bill", _BILL_STATEMENT)):
            found += [
                Oddity(name, row["subject"], f"登记为 {row['claimed']}，结算为 {row['state']}")
                for row in await self._database.run(statement)
            ]
        found += [
            Oddity(
                "audit_case",
                row["subject"],
                f"扣款 {yuan(row['deducted_fen'])} 元，基金支付 {yuan(row['fund_total_fen'])} 元",
            )
            for row in await self._database.run(_DEDUCTED_STATEMENT)
        ]
        return found
