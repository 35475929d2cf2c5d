"""The nation's store on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from relay_peers import CLOCK

from gateway.relay.store import SCHEMA, NationStore
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.migrate import migrate


@pytest.fixture(scope="session")
async def nation_database(database_settings: Callable[..., Settings]) -> AsyncIterator[Database]:
    settings = database_settings("100000", nation=None)
    await migrate(settings, [SCHEMA], CLOCK)
    async with Database.open(settings, "relay") as database:
        yield database


@pytest.fixture
def store(nation_database: Database) -> NationStore:
    return NationStore(nation_database)
