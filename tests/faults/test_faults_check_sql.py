"""The check's SQL on a real schema: balances recomputed, postings and open rows read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from infra.runtime.clock import SystemClock, instant, new_id
from infra.runtime.config import Settings
from infra.runtime.migrate import migrate
from loadtests.faults.check import check, find_cancelled, find_open
from loadtests.faults.postings import Posting
from loadtests.faults.promises import Promises
from loadtests.faults.traffic import POST, POSTED, Answer
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
CLOCK = SystemClock()
POSTINGS = [
    Posting(
        posting_id=new_id(CLOCK),
        area="440800",
        insurance=1,
        person_id=PERSON,
        source=source,
        account_id=ACCOUNT,
        account_delta_fen=account,
        period="2026",
        pooled_used_fen=pooled,
    )
    for source, pooled, account in (("first", 800, 100), ("second", -300, -30))
]
Login = dict[str, Any]


@pytest.fixture
async def site(
    database_settings: Callable[..., Settings],
) -> AsyncIterator[tuple[Login, asyncpg.Connection]]:
    """A site's database, and a connection of its superuser."""
    settings = database_settings("440000")
    await migrate(settings, [SCHEMA], CLOCK)
    login = settings.database.admin_login()
    connection = await asyncpg.connect(**login)
    try:
        yield login, connection
    finally:
        await connection.close()


async def post(connection: asyncpg.Connection, posting: Posting, key: str = "") -> None:
    """The row of a posting, without what it does to balances; `key` instead of its own id."""
    delta = dict.fromkeys(NAMES, 0) | {"pooled_used_fen": posting.pooled_used_fen}
    balances = {
        "accumulators": [{"period": posting.period, "delta": delta}],
        "account": {"account_id": posting.account_id, "delta": posting.account_delta_fen},
    }
    await connection.execute(
        """INSERT INTO settlement.external (posting_id, insured_area, insurance, person_id,
           source, posted_at, body_digest, balances)
           VALUES ($1, $2, $3, $4, $5, $6, '\\x00', $7)""",
        key or posting.posting_id,
        posting.area,
        posting.insurance,
        posting.person_id,
        posting.source,
        instant(CLOCK),
        json.dumps(balances),
    )


async def balance(connection: asyncpg.Connection, pooled_fen: int, account_fen: int) -> None:
    amounts = ", ".join(str({"pooled_used_fen": pooled_fen}.get(name, 0)) for name in NAMES)
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


def promised(*postings: Posting) -> Promises:
    promises = Promises()
    promises.take(
        Answer(
            method=POST,
            care_site="440000",
            institution="",
            request_id=posting.posting_id,
            asked_id="",
            state=POSTED,
            content=posting.content,
        )
        for posting in postings
    )
    return promises


@pytest.mark.parametrize(
    ("pooled_fen", "account_fen", "wrong"),
    [
        (500, 70, []),
        (501, 70, ["disagree: accumulator"]),
        (500, 69, ["disagree: account"]),
        (200, 40, ["disagree: accumulator", "disagree: account"]),
    ],
    ids=["sums", "accumulator differs", "account differs", "second posting counted twice"],
)
async def test_balances_are_the_sum_of_their_deltas(
    site: tuple[Login, asyncpg.Connection], pooled_fen: int, account_fen: int, wrong: list[str]
) -> None:
    login, connection = site
    for posting in POSTINGS:
        await post(connection, posting)
    await balance(connection, pooled_fen, account_fen)
    findings = await check({"440000": login}, promised(*POSTINGS))
    assert [" ".join(text.split()[:2]) for text in findings.all] == wrong
    assert findings.postings == 2


async def test_a_posting_that_was_answered_and_is_gone_is_lost(
    site: tuple[Login, asyncpg.Connection],
) -> None:
    """Also when its deltas are gone with it, so that the sums agree."""
    login, connection = site
    await post(connection, POSTINGS[0])
    await balance(connection, 800, 100)
    [finding] = (await check({"440000": login}, promised(*POSTINGS))).all
    assert finding.startswith(f"lost: posting {POSTINGS[1].posting_id} was answered as posted")


async def test_a_posting_that_counts_twice_under_two_ids_is_double(
    site: tuple[Login, asyncpg.Connection],
) -> None:
    login, connection = site
    await post(connection, POSTINGS[0])
    await post(connection, POSTINGS[0], key=new_id(CLOCK))
    await balance(connection, 1600, 200)
    findings = await check({"440000": login}, promised(POSTINGS[0]))
    assert findings.double == ["the posting of first was posted 2 times"]
    assert "nobody asked for" in findings.disagree[0]
    assert len(findings.all) == 2


async def test_open_and_cancelled_rows_are_found(site: tuple[Login, asyncpg.Connection]) -> None:
    login, connection = site
    now, keys = instant(CLOCK), {name: new_id(CLOCK) for name in ("open", "cancelled", "undo")}

    async def add(name: str, state: str, **more: Any) -> None:
        facts = {
            "settlement_id": keys[name],
            "state": state,
            "body_digest": b"",
            "payload_digest": b"",
            "bill_claimed": True,
            "route": 1,
            "kind": 2,
            "request": b"",
            "opened_at": now,
            "deadline_at": now,
            "state_at": now,
            "outcome_digest": b"" if state == "COMPLETED" else None,
            **dict.fromkeys(("caller", "method", "institution", "visit_id", "bill_id"), name),
            **dict.fromkeys(("request_id", "care_area", "insured_area", "operator"), name),
            **dict.fromkeys(("traceparent", "care_site", "insured_site"), name),
            **more,
        }
        await connection.execute(
            f"INSERT INTO settlement.care_journal ({', '.join(facts)})"
            f" VALUES ({', '.join(f'${number}' for number in range(1, len(facts) + 1))})",
            *facts.values(),
        )

    databases = {"440000": login}
    await add("open", "PENDING")
    await add("cancelled", "COMPLETED", cancel_requested=True)
    assert await find_open(databases, before=now) == []
    [found] = await find_open(databases, before=now + timedelta(seconds=1))
    assert keys["open"] in found
    [found] = await find_cancelled(databases)
    assert keys["cancelled"] in found
    findings = await check(databases, Promises())
    assert len(findings.in_doubt_left) == 2
    await add("undo", "COMPLETED", undoes=keys["cancelled"], kind=3)
    assert await find_cancelled(databases) == []
