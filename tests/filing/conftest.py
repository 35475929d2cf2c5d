"""A database of this folder's own, with the service's schema as `yidi migrate` makes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from desk_world import make_directory

from infra.local.postgres import HOST, SUPERUSER
from infra.runtime.clock import ManualClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.directory import Directory
from infra.runtime.migrate import migrate
from services.filing.store import SCHEMA


class CountingDatabase:
    """Counts the statements of the hot door."""

    def __init__(self, inner: Database) -> None:
        self.statements = 0
        self._inner = inner
        self.engine = inner.engine

    async def run(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        self.statements += 1
        return await self._inner.run(statement, *arguments)


@pytest.fixture(scope="session")
def settings(database_settings: Callable[..., Settings]) -> Settings:
    return database_settings("440000")


@pytest.fixture(scope="session")
async def migrated(settings: Settings) -> Settings:
    await migrate(settings, [SCHEMA], ManualClock(NOW_MS))
    return settings


@pytest.fixture(scope="session")
async def database(migrated: Settings) -> AsyncIterator[Database]:
    async with Database.open(migrated, "filing") as database:
        yield database


@pytest.fixture
def counting(database: Database) -> CountingDatabase:
    return CountingDatabase(database)


@pytest.fixture(scope="session")
async def admin(migrated: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        host=HOST,
        port=migrated.database.port,
        user=SUPERUSER,
        password=migrated.database.admin_password.get_secret_value(),
        database=migrated.database.name,
    )
    yield connection
    await connection.close()


NOW_MS = int(datetime(2026, 11, 21, 2, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def directory(settings: Settings, clock: ManualClock) -> Directory:
    return make_directory(settings, clock)
