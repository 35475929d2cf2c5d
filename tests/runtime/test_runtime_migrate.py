"""Schemas, roles and partitions of a site, on a real PostgreSQL (PROTOCOL §9)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from infra.runtime.clock import ManualClock, new_id
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from infra.runtime.migrate import migrate
from infra.runtime.schema import Schema

MIGRATION = """
from alembic import op
from infra.runtime.migrate import grant

revision = "{service}_1"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TABLE {service}.decision (id uuid PRIMARY KEY, note text NOT NULL)"
        " PARTITION BY RANGE (id)"
    )
    grant("decision", "SELECT, INSERT")
"""
FORBIDDEN = [
    "SELECT * FROM two.decision",
    "INSERT INTO two.decision VALUES (gen_random_uuid(), 'x')",
    "UPDATE one.decision SET note = 'x'",
    "DELETE FROM one.decision",
    "TRUNCATE one.decision",
    "CREATE TABLE one.other (id int)",
    "CREATE TABLE public.other (id int)",
    "CREATE SCHEMA other",
    "CREATE ROLE other",
    "ALTER TABLE one.decision ADD COLUMN other int",
    "DROP TABLE one.decision",
    'SET ROLE "y440000_one_owner"',
    'SET ROLE "y440000_two_app"',
    "SELECT * FROM pg_authid",
]
YEAR_END = int(datetime(2026, 12, 31, 15, 59, 59, 999_000, UTC).timestamp() * 1000)
INSERT = """
    INSERT INTO one.decision (id, note)
    SELECT * FROM unnest($1::uuid[], $2::text[]) RETURNING id::text, tableoid::regclass::text AS at
"""


@dataclass
class Site:
    """A migrated site with two services."""

    settings: Settings
    schemas: list[Schema]
    clock: ManualClock


@pytest.fixture
async def site(database_settings: Callable[..., Settings], tmp_path: Path) -> Site:
    schemas = []
    for service in ("one", "two"):
        folder = tmp_path / service
        folder.mkdir()
        (folder / "2026_11_21_first.py").write_text(MIGRATION.format(service=service))
        schemas.append(Schema(service, folder, partitioned=("decision",)))
    made = Site(database_settings("440000"), schemas, ManualClock(YEAR_END))
    await migrate(made.settings, made.schemas, made.clock)
    return made


@pytest.fixture
async def database(site: Site) -> AsyncIterator[Database]:
    async with Database.open(site.settings, "one") as opened:
        yield opened


async def test_migrating_again_changes_nothing(site: Site, database: Database) -> None:
    made = new_id(site.clock)
    await database.run(INSERT, [made], ["kept"])
    await migrate(site.settings, site.schemas, site.clock)
    rows = await database.run("SELECT id::text FROM one.decision")
    assert [row["id"] for row in rows] == [made]


async def test_ids_over_the_end_of_the_year_find_their_months(
    site: Site, database: Database
) -> None:
    """Cut at midnight in Shanghai; last month and three months ahead are there."""
    before = new_id(site.clock)
    site.clock.ms += 1
    after = new_id(site.clock)
    rows = await database.run(INSERT, [before, after], ["31 December", "1 January"])
    assert {row["id"]: row["at"] for row in rows} == {
        before: "one.decision_2026_12",
        after: "one.decision_2027_01",
    }
    for month in (datetime(2026, 11, 15, tzinfo=UTC), datetime(2027, 3, 31, tzinfo=UTC)):
        made = new_id(ManualClock(int(month.timestamp() * 1000)))
        await database.run(INSERT, [made], ["in reach"])
    far = new_id(ManualClock(int(datetime(2027, 5, 1, tzinfo=UTC).timestamp() * 1000)))
    with pytest.raises(asyncpg.CheckViolationError):
        await database.run(INSERT, [far], ["beyond"])
    site.clock.ms = int(datetime(2027, 2, 1, tzinfo=UTC).timestamp() * 1000)
    await migrate(site.settings, site.schemas, site.clock)
    assert await database.run(INSERT, [far], ["reached"])


async def test_a_service_may_do_what_it_needs_and_nothing_else(database: Database) -> None:
    allowed = []
    for statement in FORBIDDEN:
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            await database.run(statement)
            allowed.append(statement)
    assert allowed == []


async def test_a_service_of_one_site_cannot_enter_the_database_of_another(
    site: Site, database_settings: Callable[..., Settings]
) -> None:
    other = database_settings("370000")
    await migrate(other, site.schemas, site.clock)
    at = site.settings.database.model_copy(update={"name": other.database.name})
    with pytest.raises(Refusal) as refused:
        async with Database.open(site.settings.model_copy(update={"database": at}), "one"):
            pytest.fail("it must not connect")
    assert refused.value.reason == Reason.ERROR_REASON_DATABASE_UNAVAILABLE
    assert refused.value.details["cause"] == "InsufficientPrivilegeError"


async def test_a_changed_password_is_taken_over(site: Site) -> None:
    at = site.settings.database.model_copy(update={"password": "it's new"})
    changed = Settings.model_validate(
        site.settings.model_dump() | {"database": at.model_dump() | {"password": "it's new"}}
    )
    await migrate(changed, site.schemas, site.clock)
    async with Database.open(changed, "one") as opened:
        assert await opened.run("SELECT 1 AS one")
