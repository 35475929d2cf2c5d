"""Commits that do not wait for the disk, on servers that no test crashes.

A disk that is busy for two seconds costs the deadline of whoever tests something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg

from infra.local.postgres import SUPERUSER
from infra.runtime.config import Settings

Prepare = Callable[[Settings], None]


async def never_wait(host: str, port: int, password: str) -> None:
    """Tell a running server, once for all its databases."""
    connection = await asyncpg.connect(
        host=host, port=port, user=SUPERUSER, password=password, database=SUPERUSER
    )
    await connection.execute("ALTER SYSTEM SET synchronous_commit = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


def without_waiting(prepare: Prepare) -> Prepare:
    """The same for a temporary network: what prepares its sites tells their server first."""

    def told(settings: Settings) -> None:
        at = settings.database
        asyncio.run(never_wait(at.host, at.port, at.admin_password.get_secret_value()))
        prepare(settings)

    return told
