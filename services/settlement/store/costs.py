"""What was paid under filings, as filing asks before it lets one be changed or cancelled."""

from __future__ import annotations

from collections.abc import Sequence

from infra.runtime.database import Database
from services.settlement.domain.states import Decision
from yidi.common.v1 import types_pb2

_STATEMENT = f"""
SELECT DISTINCT d.filing_id::text AS filing_id
FROM unnest($1::uuid[]) AS i(id) JOIN settlement.decision d ON d.filing_id = i.id
WHERE d.state = '{Decision.COMMITTED}' AND d.kind = {types_pb2.EXCHANGE_KIND_SETTLE}
  AND NOT EXISTS (SELECT FROM settlement.undo u WHERE u.original_id = d.settlement_id)
"""


class CostsStore:
    """The statement on costs of filings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def with_costs(self, filings: Sequence[str]) -> set[str]:
        """Those of `filings` under which a committed settlement stands that nobody has undone."""
        rows = await self._database.run(_STATEMENT, filings)
        return {row["filing_id"] for row in rows}
