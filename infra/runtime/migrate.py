"""Databases, roles, schemas, migrations and partitions of one site: what `yidi migrate` does.

Runs as the administrator and, inside a service's schema, as that schema's owner role. Every step
can be repeated. Services keep their migrations in `services/<name>/migrations`, named by date and
words; a migration grants its tables to the app role with `grant`, so immutable tables get no
UPDATE or DELETE.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command, op
from alembic.config import Config
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from infra.runtime.clock import SHANGHAI, Clock, first_id_of
from infra.runtime.config import Settings
from infra.runtime.database import CONNECT_SECONDS, app_role, owner_role
from infra.runtime.schema import Schema

MONTHS_AHEAD = 3
"""Partitions made ahead of the clock's month."""


async def migrate(settings: Settings, schemas: Sequence[Schema], clock: Clock) -> None:
    """Make the site's database, and every schema in it, what the code needs."""
    await _provision(settings, schemas)
    engine = create_async_engine(
        URL.create(
            "postgresql+asyncpg",
            settings.database.admin_user,
            settings.database.admin_password.get_secret_value(),
            settings.database.host,
            settings.database.port,
            settings.database.name,
        ),
        connect_args={"timeout": CONNECT_SECONDS},
    )
    try:
        for schema in schemas:
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade, settings.site.code, schema)
                for table in schema.partitioned:
                    for statement in partition_statements(schema.service, table, clock):
                        await connection.execute(text(statement))
    finally:
        await engine.dispose()


def grant(table: str, privileges: str) -> None:
    """Inside a migration: give the service's app role `privileges` on one of its tables."""
    options = op.get_context().opts
    op.execute(f"GRANT {privileges} ON {options['schema']}.{table} TO {options['app_role']}")


def partition_statements(schema: str, table: str, clock: Clock) -> list[str]:
    """The statements that make last month's partition, this month's and those ahead.

    A UUIDv7 starts with its milliseconds, so the bounds of a month, cut at midnight in Shanghai,
    are two ids, and a look-up by id prunes to one partition. Last month's is there because a
    settlement opened just before midnight may be decided just after.
    """
    today = datetime.fromtimestamp(clock.now_ms() / 1000, SHANGHAI)
    first = today.year * 12 + today.month - 1
    return [
        f"CREATE TABLE IF NOT EXISTS {schema}.{table}_{year:04d}_{month:02d} "
        f"PARTITION OF {schema}.{table} "
        f"FOR VALUES FROM ('{_month_start(index)}') TO ('{_month_start(index + 1)}')"
        for index in range(first - 1, first + MONTHS_AHEAD + 1)
        for year, month in [(index // 12, index % 12 + 1)]
    ]


def _month_start(index: int) -> str:
    start = datetime(index // 12, index % 12 + 1, 1, tzinfo=SHANGHAI)
    return first_id_of(int(start.timestamp() * 1000))


async def _provision(settings: Settings, schemas: Sequence[Schema]) -> None:
    site, at = settings.site.code, settings.database
    options: dict[str, Any] = {
        "host": at.host,
        "port": at.port,
        "user": at.admin_user,
        "password": at.admin_password.get_secret_value(),
        "timeout": CONNECT_SECONDS,
    }
    cluster = await asyncpg.connect(database="postgres", **options)
    try:
        if not await cluster.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", at.name):
            await cluster.execute(f'CREATE DATABASE "{at.name}"')
        await cluster.execute(f'REVOKE CONNECT ON DATABASE "{at.name}" FROM PUBLIC')
        for schema in schemas:
            owner, app = owner_role(site, schema.service), app_role(site, schema.service)
            for role in (owner, app):
                if not await cluster.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                    await cluster.execute(f'CREATE ROLE "{role}" NOLOGIN')
            password = await cluster.fetchval(
                "SELECT quote_literal($1)", at.password.get_secret_value()
            )
            await cluster.execute(f'ALTER ROLE "{app}" LOGIN PASSWORD {password}')
            await cluster.execute(f'GRANT CONNECT ON DATABASE "{at.name}" TO "{app}"')
    finally:
        await cluster.close()
    database = await asyncpg.connect(database=at.name, **options)
    try:
        await database.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        await database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        for schema in schemas:
            owner, app = owner_role(site, schema.service), app_role(site, schema.service)
            await database.execute(
                f'CREATE SCHEMA IF NOT EXISTS {schema.service} AUTHORIZATION "{owner}"'
            )
            await database.execute(f'GRANT USAGE ON SCHEMA {schema.service} TO "{app}"')
    finally:
        await database.close()


def _upgrade(connection: Connection, site: str, schema: Schema) -> None:
    connection.execute(text(f'SET ROLE "{owner_role(site, schema.service)}"'))
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic"))
    config.set_main_option("version_locations", str(schema.migrations))
    config.set_main_option("path_separator", "newline")  # a checkout's path may hold spaces
    config.attributes["configure"] = {
        "connection": connection,
        "version_table_schema": schema.service,
        "schema": schema.service,
        "app_role": app_role(site, schema.service),
    }
    command.upgrade(config, "head")
