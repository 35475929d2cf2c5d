"""`yidi verify` sees what was altered in one journal, and says where."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from infra.local.supervisor import Network
from infra.runtime.config import load_settings

SAMPLE = "infra/local/samples/outpatient_beijing.json"


def at_the_nation(network: Network, statement: str, *values: Any) -> Any:
    """Run a statement as the nation's superuser, who may do what no role of the suite may."""
    database = load_settings(network.plan.site_file("100000"), {}).database

    async def run() -> Any:
        connection = await asyncpg.connect(**database.admin_login())
        try:
            return await connection.fetchval(statement, *values)
        finally:
            await connection.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("column", "altered", "seen"),
    [
        ("cash_fen", "cash_fen + 1", "cash_fen"),
        ("fund_fen", "ARRAY[fund_fen[1] + 1]", "fund hifp_pay"),
        ("outcome_digest", "sha256(outcome_digest)", "digest"),
        ("business_day", "business_day - 400", "count"),
    ],
)
def test_verify_finds_an_altered_row(
    network: Network, yidi: Any, column: str, altered: str, seen: str
) -> None:
    settled = json.loads(yidi("settle", "--file", SAMPLE, "--json").stdout)
    assert yidi("verify").returncode == 0
    row = f"WHERE settlement_id = '{settled['settlementId']}'"
    was = at_the_nation(network, f"SELECT {column} FROM relay.outcome {row}")
    at_the_nation(network, f"UPDATE relay.outcome SET {column} = {altered} {row}")
    try:
        ran = yidi("verify", "--json")
        shown = yidi("verify")
    finally:
        at_the_nation(network, f"UPDATE relay.outcome SET {column} = $1 {row}", was)
    assert ran.returncode == 1
    found = json.loads(ran.stdout)
    assert found["ok"] is False
    (pair,) = [pair for pair in found["pairs"] if pair["differences"]]
    assert (pair["care_site"], pair["insured_site"]) == ("110000", "440000")
    assert seen in pair["differences"]
    assert shown.returncode == 1
    assert "对账不一致" in shown.stdout
    assert yidi("verify").returncode == 0


def test_verify_asks_as_many_days_as_told(yidi: Any) -> None:
    found = json.loads(yidi("verify", "--days", "3", "--json").stdout)
    assert len({pair["day"] for pair in found["pairs"]}) == 3
    assert len(found["pairs"]) == 3 * 3 * 3
    assert yidi("verify", "--days", "0").returncode == 2
