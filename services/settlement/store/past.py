"""Past settlements with what policy was asked, page by page in the order of their ids.

| call | trips | what |
|------|-------|------|
| past | 1     | a page; not on the path of a settlement |

Ids begin with their time, so the days bound the ids and only their partitions are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import msgspec

from infra.runtime.clock import SHANGHAI, first_id_of
from infra.runtime.database import Database
from services.settlement.domain.states import Decision
from yidi.common.v1 import types_pb2

_MARGIN = timedelta(minutes=10)
"""More than an id's time may lie off the instant of its decision."""
_PAST = f"""
SELECT settlement_id::text AS settlement_id, policy_case, balances::text AS balances,
       outcome_header, outcome_details
FROM settlement.decision d
WHERE settlement_id > $1::uuid AND settlement_id < $2::uuid AND business_day BETWEEN $3 AND $4
  AND insured_area = $5 AND insurance = $6 AND state = '{Decision.COMMITTED}'
  AND kind = {types_pb2.EXCHANGE_KIND_SETTLE} AND policy_case IS NOT NULL
  AND NOT EXISTS (SELECT FROM settlement.undo u WHERE u.original_id = d.settlement_id)
ORDER BY settlement_id LIMIT $7
"""


@dataclass(frozen=True, slots=True)
class PastDecision:
    """One settlement as it was decided and stands."""

    settlement_id: str
    policy_case: bytes
    header: bytes
    details: bytes
    openings: dict[str, dict[str, int]]
    """Benefit period → the accumulator's values just before; zeros may be absent."""


async def past_decisions(
    database: Database,
    *,
    insured_area: str,
    insurance: int,
    first: date,
    last: date,
    after: str,
    limit: int,
) -> list[PastDecision]:
    """Settlements of an area's insurance decided on these days, undone ones left out."""
    lower = first_id_of(_milliseconds(first, -_MARGIN))
    upper = first_id_of(_milliseconds(last, timedelta(days=1) + _MARGIN))
    rows = await database.run(
        _PAST, max(after, lower), upper, first, last, insured_area, insurance, limit
    )
    return [
        PastDecision(
            row["settlement_id"],
            row["policy_case"],
            row["outcome_header"],
            row["outcome_details"],
            openings(msgspec.json.decode(row["balances"])),
        )
        for row in rows
    ]


def openings(balances: dict[str, object]) -> dict[str, dict[str, int]]:
    """The accumulators that a decision was computed from: those it added to, and the others."""
    kept = balances.get("accumulators") or []
    others = balances.get("openings") or {}
    assert isinstance(kept, list)
    assert isinstance(others, dict)
    return {**others, **{row["period"]: row["before"] for row in kept}}


def _milliseconds(day: date, shift: timedelta) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=SHANGHAI)
    return int((midnight + shift).timestamp() * 1000)
