"""The doors to PostgreSQL of one service: its own login role, its own schema.

`Database.run` is the hot door: one statement, autocommit, prepared once per connection, straight
on asyncpg. Its arguments are arrays, one element per item of a batch, so a batch costs one trip
whatever its size. `Database.engine` is the other door, SQLAlchemy Core, for everything that is
not on the path of a settlement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import asyncpg
import structlog
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from infra.runtime.config import Settings
from infra.runtime.errors import Reason, Refusal

T = TypeVar("T")
R = TypeVar("R")
_log = structlog.get_logger("yidi.database")
CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 10.0


def app_role(site: str, service: str) -> str:
    """The login role of a service: role names are cluster-wide, so they carry the site."""
    return f"y{site}_{service}_app"


def owner_role(site: str, service: str) -> str:
    """The role that owns a service's schema; nobody logs in as it."""
    return f"y{site}_{service}_owner"


DATA_ERRORS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError)
"""Errors of the data of some row, not of the database; ValueError: it could not be encoded."""


async def halving(
    rows: Sequence[T], run: Callable[[Sequence[T]], Awaitable[list[R]]]
) -> tuple[list[R], list[T]]:
    """Run a batch; when the data of some row spoil it, find that row by halving.

    Returns the results and the rows that cannot be written, so one bad row fails alone.
    """
    try:
        return await run(rows), []
    except DATA_ERRORS as error:
        _log.error("rows that cannot be written", count=len(rows), error=type(error).__name__)
        if len(rows) == 1:
            return [], list(rows)
        middle = len(rows) // 2
        first, spoiled = await halving(rows[:middle], run)
        second, spoiled_too = await halving(rows[middle:], run)
        return first + second, spoiled + spoiled_too


class Database:
    """Connections of one service of one site; open it with `Database.open`."""

    def __init__(self, pool: asyncpg.Pool, engine: AsyncEngine) -> None:
        self._pool = pool
        self.engine = engine

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, service: str) -> AsyncIterator[Database]:
        """Connect as the service's app role; raise `Refusal` (DATABASE_UNAVAILABLE) otherwise."""
        at = settings.database
        role = app_role(settings.site.code, service)
        # Tables that were empty when a statement was prepared must not keep a plan of full scans:
        # every hot statement finds its rows by key. search_path is empty, names are qualified.
        server_settings = {
            "search_path": "",
            "application_name": role,
            "enable_seqscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
            "jit": "off",
        }
        try:
            pool = await asyncpg.create_pool(
                host=at.host,
                port=at.port,
                database=at.name,
                user=role,
                password=at.password.get_secret_value(),
                min_size=1,
                max_size=at.connections,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
                server_settings=server_settings,
                max_inactive_connection_lifetime=0,
                # The default reset costs a round trip; our statements leave nothing to reset.
                reset=_leave,
            )
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            raise unavailable(error) from error
        engine = create_async_engine(
            URL.create(
                "postgresql+asyncpg",
                role,
                at.password.get_secret_value(),
                at.host,
                at.port,
                at.name,
            ),
            pool_size=1,
            max_overflow=max(at.connections - 1, 0),
            pool_timeout=CONNECT_SECONDS,
            connect_args={
                "timeout": CONNECT_SECONDS,
                "command_timeout": 6 * STATEMENT_SECONDS,
                "server_settings": {"search_path": "", "application_name": role},
            },
        )
        try:
            yield cls(pool, engine)
        finally:
            await engine.dispose()
            try:
                await asyncio.wait_for(pool.close(), CONNECT_SECONDS)
            except TimeoutError:
                pool.terminate()

    async def run(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one statement in autocommit and return its rows.

        A lost connection raises `Refusal` (DATABASE_UNAVAILABLE): whether a write took place is
        then unknown. Errors of the data itself are asyncpg's, for the store to act on.
        """
        try:
            async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
                try:
                    rows: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
                except asyncpg.InternalClientError:
                    # The server said that it ends while nobody asked: nothing comes here any more.
                    connection.terminate()
                    raise
                return rows
        except (
            OSError,
            TimeoutError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            asyncpg.PostgresConnectionError,
            asyncpg.OperatorInterventionError,
            asyncpg.TooManyConnectionsError,
        ) as error:
            if isinstance(error, ValueError):  # asyncpg's InterfaceError for an argument
                raise
            raise unavailable(error) from error


def unavailable(error: Exception) -> Refusal:
    """What a caller hears when the database does not answer."""
    return Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE, cause=type(error).__name__)


@asynccontextmanager
async def transaction(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction of the engine. Raises `Refusal` (DATABASE_UNAVAILABLE); errors of the data are
    SQLAlchemy's and asyncpg's."""
    with _told_of_loss():
        async with database.engine.begin() as connection:
            yield connection


@asynccontextmanager
async def reading(database: Database) -> AsyncIterator[AsyncConnection]:
    """A connection of the engine to read with; raises as `transaction` does."""
    with _told_of_loss():
        async with database.engine.connect() as connection:
            yield connection


@contextmanager
def _told_of_loss() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise unavailable(error) from error
    except (
        OSError,
        TimeoutError,
        asyncpg.InterfaceError,
        asyncpg.PostgresConnectionError,
    ) as error:
        if isinstance(error, ValueError):  # asyncpg's InterfaceError for an argument
            raise
        raise unavailable(error) from error


async def _leave(_: asyncpg.Connection) -> None:
    return None
