"""The check's SQL on a real schema: accumulators and accounts are recomputed from their deltas."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest

from infra.runtime.clock import SystemClock, instant, new_id
from infra.runtime.config import Settings
from infra.runtime.migrate import migrate
from loadtests.faults.check import check, count_open
from loadtests.faults.promises import Promises
from services.settlement.store import SCHEMA

PERSON, ACCOUNT = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"
NAMES = [
    "stay_count",
    "deductible_paid_fen",
    "pooled_used_fen",
    "large_amount_used_fen",
    "major_illness_base_fen",
    "major_illness_used_fen",
    "assistance_used_fen",
]
BALANCES = """{"accumulators": [{"period": "2026", "version": -1, "before": {},
    "delta": {"stay_count": 1, "pooled_used_fen": %d}}],
    "account": {"account_id": "%s", "version": 0, "before": 0, "delta": %d}}"""


@pytest.mark.parametrize(("pooled_fen", "account_fen", "wrong"), [
    (500, 70, []), (501, 70, ["accumulator"]), (500, 69, ["account"]),
])  # fmt: skip
async def test_balances_are_the_sum_of_their_deltas(
    database_settings: Callable[..., Settings], pooled_fen: int, account_fen: int, wrong: list[str]
) -> None:
    clock = SystemClock()
    settings = database_settings("440000")
    await migrate(settings, [SCHEMA], clock)
    at = settings.database
    login = {
        "host": at.host,
        "port": at.port,
        "database": at.name,
        "user": at.admin_user,
        "password": at.admin_password.get_secret_value(),
    }
    connection = await asyncpg.connect(**login)
    try:
        for pooled, account in ((800, 100), (-300, -30)):
            await connection.execute(
                """INSERT INTO settlement.external (posting_id, insured_area, insurance, person_id,
                   source, posted_at, body_digest, balances)
                   VALUES ($1, '440800', 1, $2, 'test', $3, '\\x00', $4)""",
                new_id(clock),
                PERSON,
                instant(clock),
                BALANCES % (pooled, ACCOUNT, account),
            )
        values = {"stay_count": 2, "pooled_used_fen": pooled_fen}
        amounts = ", ".join(str(values.get(name, 0)) for name in NAMES)
        await connection.execute(
            f"""INSERT INTO settlement.accumulator (insured_area, insurance, person_id, period,
                version, {", ".join(NAMES)})
                VALUES ('440800', 1, $1, '2026', 1, {amounts})
            """,
            PERSON,
        )
        await connection.execute(
            "INSERT INTO settlement.account (account_id, version, balance_fen) VALUES ($1, 1, $2)",
            ACCOUNT,
            account_fen,
        )
    finally:
        await connection.close()
    findings = await check({"440000": login}, Promises())
    assert [text.split()[0] for text in findings.disagree] == wrong
    assert await count_open({"440000": login}) == 0
