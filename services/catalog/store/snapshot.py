"""What was published, read into memory in one transaction: of lists only what is not held yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.runtime.database import Database, unavailable
from services.catalog.domain.catalogue import Catalogue, Timeline
from services.catalog.domain.institution import Registration
from services.catalog.store.institutions import read_institutions
from services.catalog.store.mappings import NEWEST_MAPPING, Spells, read_mappings
from services.catalog.store.timelines import TimelineReader


@dataclass(frozen=True, slots=True)
class Newest:
    """Highest numbers in the tables; equal to what a snapshot holds as long as nothing is new."""

    publication: int
    institution: int
    mapping: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that splitting needs, as one transaction saw it."""

    newest: Newest
    lists: Mapping[int, Catalogue]
    """By id of the whole list, in order of publication, each with its changes."""
    catalogues: Mapping[str, tuple[Catalogue, ...]]
    """Lists of each area in order of (effective_from, publication)."""
    institutions: Mapping[str, tuple[Registration, ...]]
    """Registrations of each institution in order of (effective_from, id)."""
    mapped: Spells


_NEWEST = f"""
    SELECT (SELECT coalesce(max(publication), 0) FROM catalog.version) AS publication,
           (SELECT coalesce(max(id), 0) FROM catalog.institution) AS institution,
           ({NEWEST_MAPPING}) AS mapping"""

_PUBLISHED_AFTER = text("""
    SELECT id, base_id, area, version, effective_from FROM catalog.version
    WHERE publication > :publication ORDER BY publication""")

_NOTHING = Snapshot(Newest(0, 0, 0), {}, {}, {}, {})


async def newest(database: Database) -> Newest:
    """The highest numbers. Raises `Refusal` (DATABASE_UNAVAILABLE)."""
    [row] = await database.run(_NEWEST)
    return Newest(*row)


async def read_snapshot(database: Database, known: Snapshot | None) -> Snapshot:
    """Read what was published since `known`, or everything.

    Raises `Refusal` (DATABASE_UNAVAILABLE).
    """
    known = known or _NOTHING
    try:
        async with database.engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            found = Newest(*(await connection.execute(text(_NEWEST))).one())
            lists = await _lists(connection, known)
            return Snapshot(
                newest=found,
                lists=lists,
                catalogues=_by_area(lists.values()),
                institutions=await read_institutions(
                    connection, known.institutions, known.newest.institution
                ),
                mapped=await read_mappings(connection, known.mapped, known.newest.mapping),
            )
    except (
        OSError,
        TimeoutError,
        SQLAlchemyError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
    ) as error:
        raise unavailable(error) from error


async def _lists(connection: AsyncConnection, known: Snapshot) -> dict[int, Catalogue]:
    published = await connection.execute(
        _PUBLISHED_AFTER, {"publication": known.newest.publication}
    )
    reader = TimelineReader()
    lists, changes = dict(known.lists), []
    for row in published:
        if row.base_id is not None:
            changes.append(row)
            continue
        [codes] = (await reader.read(connection, [row.id], _newest_list(lists))).values()
        lists[row.id] = Catalogue(row.id, row.area, row.version, row.effective_from, codes)
    # Laid over in order of publication, and each list is made anew once.
    changed = await reader.read(connection, [row.id for row in changes], {})
    for base_id in {row.base_id for row in changes}:
        its = [row for row in changes if row.base_id == base_id]
        over: dict[str, Timeline] = {}
        for row in its:
            over |= changed[row.id]
        lists[base_id] = lists[base_id].amended(its[-1].id, its[-1].version, over)
    return lists


def _newest_list(lists: dict[int, Catalogue]) -> Mapping[str, Timeline]:
    return lists[next(reversed(lists))].codes if lists else {}


def _by_area(lists: Iterable[Catalogue]) -> dict[str, tuple[Catalogue, ...]]:
    found: dict[str, tuple[Catalogue, ...]] = {}
    # Stable: lists that begin on the same day stay in order of publication.
    for catalogue in sorted(lists, key=lambda each: each.effective_from):
        found[catalogue.area] = (*found.get(catalogue.area, ()), catalogue)
    return found
