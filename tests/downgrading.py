"""The way back of a service's migrations, which no command offers: tests only."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

import infra.runtime.migrate
from infra.runtime.config import Settings
from infra.runtime.database import app_role, owner_role
from infra.runtime.schema import Schema


async def downgrade(settings: Settings, schema: Schema, revision: str) -> None:
    """Take the site's schema back to `revision`."""
    at, site = settings.database, settings.site.code

    def run(connection: Connection) -> None:
        connection.execute(text(f'SET ROLE "{owner_role(site, schema.service)}"'))
        config = Config()
        runtime = Path(infra.runtime.migrate.__file__).parent
        config.set_main_option("script_location", str(runtime / "alembic"))
        config.set_main_option("version_locations", str(schema.migrations))
        config.set_main_option("path_separator", "newline")
        config.attributes["configure"] = {
            "connection": connection,
            "version_table_schema": schema.service,
            "schema": schema.service,
            "app_role": app_role(site, schema.service),
        }
        command.downgrade(config, revision)

    password = at.admin_password.get_secret_value()
    engine = create_async_engine(
        URL.create("postgresql+asyncpg", at.admin_user, password, at.host, at.port, at.name)
    )
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()
