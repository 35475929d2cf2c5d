"""What the login role of each service may do in its site's database: its own rows, nothing else
(PROTOCOL §9, S15)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from world import BEIJING, GUANGDONG, World

from infra.local.postgres import HOST
from infra.runtime.config import NATION
from infra.runtime.database import app_role, owner_role

SERVICES = ["enrollment", "filing", "policy", "catalog", "settlement"]
IMMUTABLE = [
    (GUANGDONG, "settlement", "decision"),
    (GUANGDONG, "settlement", "audit"),
    (GUANGDONG, "settlement", "audit_request"),
    (NATION, "relay", "outcome"),
    (NATION, "relay", "stay_detail"),
    (GUANGDONG, "enrollment", "audit"),
    (GUANGDONG, "filing", "audit"),
    (GUANGDONG, "filing", "history"),
    (GUANGDONG, "filing", "request"),
]
DENIED = asyncpg.InsufficientPrivilegeError


@asynccontextmanager
async def _login(
    sites: World, site: str, role: str, database_of: str = ""
) -> AsyncIterator[asyncpg.Connection]:
    at = sites.settings[site].database
    connection = await asyncpg.connect(
        host=HOST,
        port=at.port,
        user=role,
        password=at.password.get_secret_value(),
        database=sites.settings[database_of or site].database.name,
    )
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module", autouse=True)
async def _rows(sites: World) -> None:
    """There is something to spoil."""
    [patient] = await sites.patients(1)
    await sites.settle(sites.request(patient))


@pytest.mark.parametrize("service", SERVICES)
async def test_a_role_cannot_look_into_another_schema(sites: World, service: str) -> None:
    tables = await (await sites.admin(GUANGDONG)).fetch(
        """SELECT schemaname, tablename FROM pg_tables
           WHERE schemaname = ANY($1) AND schemaname <> $2 AND tablename <> 'alembic_version'""",
        SERVICES,
        service,
    )
    assert len({row["schemaname"] for row in tables}) == 4
    async with _login(sites, GUANGDONG, app_role(GUANGDONG, service)) as connection:
        for row in tables:
            name = f"{row['schemaname']}.{row['tablename']}"
            for statement in (
                f"SELECT count(*) FROM {name}",
                f"INSERT INTO {name} DEFAULT VALUES",
                f"DELETE FROM {name}",
            ):
                with pytest.raises(DENIED):
                    await connection.execute(statement)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_role_makes_and_changes_no_tables(sites: World, service: str) -> None:
    own = await (await sites.admin(GUANGDONG)).fetchval(
        "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename", service
    )
    async with _login(sites, GUANGDONG, app_role(GUANGDONG, service)) as connection:
        for statement in (
            f"CREATE TABLE {service}.mine (x int)",
            "CREATE TABLE public.mine (x int)",
            "CREATE SCHEMA mine",
            f"ALTER TABLE {service}.{own} ADD COLUMN mine int",
            f"DROP TABLE {service}.{own}",
            f"TRUNCATE {service}.{own}",
            f"GRANT SELECT ON {service}.alembic_version TO PUBLIC",
            f'SET ROLE "{owner_role(GUANGDONG, service)}"',
            "COPY (SELECT 1) TO PROGRAM 'true'",
        ):
            with pytest.raises(DENIED):
                await connection.execute(statement)


@pytest.mark.parametrize(("site", "service", "table"), IMMUTABLE)
async def test_what_is_written_once_stays(
    sites: World, site: str, service: str, table: str
) -> None:
    """Neither the table nor any partition of it, by any statement."""
    admin = await sites.admin(site)
    column = await admin.fetchval(
        """SELECT column_name FROM information_schema.columns
           WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position DESC LIMIT 1""",
        service,
        table,
    )
    partitions = await admin.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND tablename ~ $2",
        service,
        f"^{table}(_[0-9]{{4}}_[0-9]{{2}})?$",
    )
    assert partitions
    async with _login(sites, site, app_role(site, service)) as connection:
        assert await connection.fetchval(f"SELECT count(*) FROM {service}.{table}") >= 0
        for row in partitions:
            name = f"{service}.{row['tablename']}"
            for statement in (
                f"UPDATE {name} SET {column} = {column}",
                f"DELETE FROM {name}",
                f"TRUNCATE {name}",
            ):
                with pytest.raises(DENIED):
                    await connection.execute(statement)


async def test_balances_and_claims_are_never_deleted(sites: World) -> None:
    async with _login(sites, GUANGDONG, app_role(GUANGDONG, "settlement")) as connection:
        for table in (
            *("accumulator", "account", "bill", "request_key", "care_journal"),
            *("detail_upload", "audit_case"),
        ):
            with pytest.raises(DENIED):
                await connection.execute(f"DELETE FROM settlement.{table}")


async def test_a_role_of_one_site_cannot_enter_another_database(sites: World) -> None:
    for service in SERVICES:
        with pytest.raises(DENIED):
            async with _login(sites, BEIJING, app_role(BEIJING, service), GUANGDONG):
                pass


async def test_nobody_logs_in_as_an_owner(sites: World) -> None:
    for service in SERVICES:
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            async with _login(sites, GUANGDONG, owner_role(GUANGDONG, service)):
                pass


async def test_a_role_is_no_superuser_and_waits_on_no_other(sites: World) -> None:
    rows = await (await sites.admin(GUANGDONG)).fetch(
        r"""SELECT rolname FROM pg_roles WHERE rolname LIKE 'y%\_app'
            AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)"""
    )
    assert rows == []
