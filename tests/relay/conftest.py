"""The nation's store on a real PostgreSQL, and the way over three relays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from relay_chain import Chain
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


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    settings = Settings.model_validate(
        {
            "site": {"code": "440000", "name": "广东省"},
            "nation": {"edge": "127.0.0.1:1"},
            "database": {"host": "127.0.0.1", "name": "none", "password": "none"},
            "tls": {"directory": str(tmp_path)},
        }
    )
    return Chain(settings)
