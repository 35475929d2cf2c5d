"""Rows of the first tables are there after the migration, and after the way back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from shutil import copy

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

import infra.runtime.migrate
from infra.local.postgres import HOST, SUPERUSER
from infra.runtime.clock import ManualClock
from infra.runtime.config import Settings
from infra.runtime.database import app_role, owner_role
from infra.runtime.migrate import migrate
from infra.runtime.schema import Schema
from services.enrollment.store import SCHEMA

CLOCK = ManualClock(1_795_000_000_000)
PERSON = "0198f000-0000-7000-8000-000000000001"
ACCOUNT = "0198f000-0000-7000-8000-00000000000a"


@pytest.fixture
async def first_tables(database_settings, tmp_path: Path) -> Settings:  # type: ignore[no-untyped-def]
    """A site at the first migration."""
    made: Settings = database_settings("440000")
    await _upgrade(made, tmp_path, "first_tables")
    return made


async def _upgrade(settings: Settings, folder: Path, words: str) -> None:
    (migration,) = SCHEMA.migrations.glob(f"*_{words}.py")
    copy(migration, folder)
    await migrate(settings, [Schema("enrollment", folder)], CLOCK)


@pytest.fixture
async def rows(first_tables: Settings) -> AsyncIterator[asyncpg.Connection]:
    at = first_tables.database
    connection = await asyncpg.connect(
        host=HOST,
        port=at.port,
        user=SUPERUSER,
        password=at.admin_password.get_secret_value(),
        database=at.name,
    )
    await connection.execute(
        """INSERT INTO enrollment.participant VALUES
           ($1, $2, $2, 'name', 'number', '1960-05-01', '2026-01-01')""",
        PERSON,
        b"i" * 32,
    )
    await connection.execute(
        """INSERT INTO enrollment.insurance VALUES
           ($1, '440100', 2, 3, '2018-01-01', '2019-12-31', false),
           ($1, '440800', 1, 2, '2020-01-01', NULL, true)""",
        PERSON,
    )
    await connection.execute(
        "INSERT INTO enrollment.chronic_qualification VALUES ($1, '440800', 1, 'M03900')", PERSON
    )
    await connection.execute(
        "INSERT INTO enrollment.account_link VALUES ($1, '440800', 1, $2)", PERSON, ACCOUNT
    )
    yield connection
    await connection.close()


async def _downgrade(settings: Settings, folder: Path) -> None:
    at, site = settings.database, settings.site.code

    def run(connection: Connection) -> None:
        connection.execute(text(f'SET ROLE "{owner_role(site, "enrollment")}"'))
        config = Config()
        runtime = Path(infra.runtime.migrate.__file__).parent
        config.set_main_option("script_location", str(runtime / "alembic"))
        config.set_main_option("version_locations", str(folder))
        config.set_main_option("path_separator", "newline")
        config.attributes["configure"] = {
            "connection": connection,
            "version_table_schema": "enrollment",
            "schema": "enrollment",
            "app_role": app_role(site, "enrollment"),
        }
        command.downgrade(config, "enrollment_0001")

    engine = create_async_engine(
        URL.create(
            "postgresql+asyncpg",
            SUPERUSER,
            at.admin_password.get_secret_value(),
            at.host,
            at.port,
            at.name,
        )
    )
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


async def _tuples(connection: asyncpg.Connection, query: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await connection.fetch(query)]


async def test_rows_go_up_and_down(
    first_tables: Settings, rows: asyncpg.Connection, tmp_path: Path
) -> None:
    """Each insurance is a relation with its statuses, each disease a qualification without end."""
    insurances = """SELECT area, insurance, person_class, civil_servant, active_from, active_until
                    FROM enrollment.insurance ORDER BY area"""
    before = await _tuples(rows, insurances)
    await _upgrade(first_tables, tmp_path, "statuses_and_changes")
    statuses = "SELECT area, start_date, status, to_area FROM enrollment.status ORDER BY 1, 2"
    assert await _tuples(rows, statuses) == [
        ("440100", date(2018, 1, 1), 1, ""),
        ("440100", date(2020, 1, 1), 4, ""),
        ("440800", date(2020, 1, 1), 1, ""),
    ]
    relations = "SELECT area, insurance, person_class, civil_servant, contracted_institution"
    assert await _tuples(rows, f"{relations} FROM enrollment.relation ORDER BY 1") == [
        ("440100", 2, 3, False, ""),
        ("440800", 1, 2, True, ""),
    ]
    chronic = """SELECT area, disease_code, start_date, end_date, granted_area, chosen_institutions
                 FROM enrollment.chronic_qualification ORDER BY start_date"""
    assert await _tuples(rows, chronic) == [
        ("440800", "M03900", date(2020, 1, 1), None, "440800", [])
    ]
    assert await rows.fetchval("SELECT version FROM enrollment.participant") == 1
    # A suspension and a renewed qualification are of the new tables only.
    await rows.execute(
        "INSERT INTO enrollment.status VALUES ($1, '440800', 1, '2026-03-01', 2, '')", PERSON
    )
    await rows.execute(
        """INSERT INTO enrollment.chronic_qualification
           VALUES ($1, '440800', 1, 'M03900', '2026-01-01', NULL, '440800')""",
        PERSON,
    )
    await _downgrade(first_tables, tmp_path)
    employee = (*before[1][:5], date(2026, 2, 28))
    assert await _tuples(rows, insurances) == [before[0], employee]
    assert await rows.fetchval("SELECT count(*) FROM enrollment.chronic_qualification") == 1
    granted = await rows.fetchval(
        "SELECT count(*) FROM information_schema.column_privileges "
        "WHERE table_schema = 'enrollment' AND privilege_type = 'UPDATE' AND grantee LIKE '%app'"
    )
    assert granted == 0
    await _upgrade(first_tables, tmp_path, "statuses_and_changes")
    assert (await _tuples(rows, statuses))[-1] == ("440800", date(2026, 3, 1), 4, "")
