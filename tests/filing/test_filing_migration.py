"""Filings of the first tables live on: accepted, taken over, with their request ids; and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from shutil import copy
from typing import Any

import asyncpg
import pytest
from desk_world import SITE, DeskWorld, person
from downgrading import downgrade

from infra.runtime.clock import ManualClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.directory import Directory
from infra.runtime.migrate import migrate
from infra.runtime.schema import Schema
from services.filing.store import SCHEMA
from services.filing.taking_over import taken_over_digest
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2

FILING = "0198f000-0000-7000-8000-000000000001"
REQUEST = "0198f000-0000-7000-8000-000000000002"
CALLER = f"spiffe://yidi/site/{SITE}/operator/示例"


@pytest.fixture
async def first_tables(
    settings: Settings, clock: ManualClock, tmp_path: Path
) -> AsyncIterator[tuple[Settings, asyncpg.Connection]]:
    """A database of its own at the first migration, with one filing."""
    named = settings.database.model_copy(update={"name": "yidi_migration"})
    made = settings.model_copy(update={"database": named})
    (migration,) = SCHEMA.migrations.glob("*_first_tables.py")
    copy(migration, tmp_path)
    await migrate(made, [Schema("filing", tmp_path)], clock)
    connection = await asyncpg.connect(
        host=named.host,
        port=named.port,
        user=named.admin_user,
        password=named.admin_password.get_secret_value(),
        database=named.name,
    )
    await connection.execute(
        """INSERT INTO filing.filing VALUES ($1, $2, $3, $4, $5, '440800', 1, 6, 5, '110000',
           '2026-11-01', '2027-05-01', '2026-11-02', '', 1, '2026-11-02T02:00Z')""",
        FILING,
        CALLER,
        REQUEST,
        b"d" * 32,
        person("migrated"),
    )
    yield made, connection
    await connection.close()


async def _first_row(connection: asyncpg.Connection) -> dict[str, Any]:
    (row,) = await connection.fetch("SELECT * FROM filing.filing")
    return dict(row)


async def test_filings_go_up_and_down(
    first_tables: tuple[Settings, asyncpg.Connection],
    clock: ManualClock,
    directory: Directory,
) -> None:
    made, connection = first_tables
    before = await _first_row(connection)
    await migrate(made, [SCHEMA], clock)
    async with Database.open(made, "filing") as database:
        world = DeskWorld(database, clock, directory)
        (record,) = await world.list("migrated")
        filing = record.filing
        assert (filing.filing_id, filing.state, filing.version) == (
            FILING,
            filing_pb2.FILING_STATE_ACCEPTED,
            1,
        )
        assert (filing.filed_on, filing.end_date) == ("2026-11-02", "2027-05-01")
        (event,) = record.history
        assert (event.action, event.actor, event.channel) == (
            desk_pb2.FILING_ACTION_TAKE_OVER,
            f"operator/{SITE}",
            types_pb2.FILING_CHANNEL_WINDOW,
        )
        ended = (await world.cancel("migrated", filing, last_day="2026-11-30")).filing
        assert (ended.version, ended.state) == (2, filing_pb2.FILING_STATE_ENDED)
        await world.cancel("migrated", (await world.apply("migrated", care_place="310000")).filing)
    await downgrade(made, SCHEMA, "filing_0001")
    # What was void would count again; what ended keeps its last day.
    assert await _first_row(connection) == before | {"end_date": date(2026, 11, 30)}
    await migrate(made, [SCHEMA], clock)
    assert await connection.fetchval("SELECT count(*) FROM filing.history") == 1


def test_what_was_taken_over_before_is_known_again() -> None:
    """The digest is the one that requests had before filings had a history."""
    item = filing_pb2.CreateFilingItem(
        id=REQUEST,
        insured_area="440800",
        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
        kind=types_pb2.FILING_KIND_OTHER_TEMPORARY,
        channel=types_pb2.FILING_CHANNEL_WINDOW,
        care_place="110000",
        start_date="2026-11-01",
        filed_on="2026-11-02",
        commitment=types_pb2.COMMITMENT_STATE_NOT_NEEDED,
    )
    then = "c449ebc2c1a20df464b2f5099fece0df215bd7f5c04ad91543e801ca7ef53b47"
    assert taken_over_digest(item, "0198f000-0000-7000-8000-000000000003").hex() == then
    item.disease_code = "M05300"
    assert taken_over_digest(item, "0198f000-0000-7000-8000-000000000003").hex() != then
