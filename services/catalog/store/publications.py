"""Publications of lists: numbered over the whole site, all or nothing, never changed.

A version is written while it is open, when nobody sees it, and becomes a publication by getting
the next number. Whoever publishes holds one lock to the end of the transaction, so numbers become
visible in their order: a reader that asks for those above the greatest it knows misses none.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.runtime.database import Database, transaction
from services.catalog.domain.institution import Registration
from services.catalog.domain.item import Item
from services.catalog.store.institutions import add_registrations
from services.catalog.store.items import content_hash, copy_items, hashed
from services.catalog.store.mappings import add_mappings

_PUBLISHING = 0x79690001
"""Key of the advisory lock that publications of this database take."""
_NAME_OF_A_CHANGE = re.compile(r"\+\d+$")


@dataclass(frozen=True, slots=True)
class Publication:
    """A whole list to publish."""

    area: str
    version: str
    effective_from: date
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """What was written; nothing when all of it was there already."""

    version: bool
    institutions: int
    institution_items: int


@dataclass(frozen=True, slots=True)
class StoredPublication:
    """A row of `catalog.version` with its number."""

    id: int
    publication: int
    area: str
    version: str
    effective_from: date
    base_id: int | None
    """Of a change: the whole list that it amends."""
    codes: int
    reason: str
    actor: str
    published_at: datetime
    content_hash: bytes


PUBLICATION = ", ".join(f"version.{name}" for name in StoredPublication.__dataclass_fields__)
"""The columns of a `StoredPublication`, of a row `version`."""


class VersionConflict(Exception):
    """A version of this name is published with other content, or the name is that of a change;
    published versions never change."""


@asynccontextmanager
async def publishing(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction that alone publishes, until it ends.

    Raises `Refusal` (DATABASE_UNAVAILABLE); errors of the data are SQLAlchemy's and asyncpg's.
    """
    async with transaction(database) as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PUBLISHING})
        yield connection


async def open_version(
    connection: AsyncConnection,
    area: str,
    version: str,
    effective_from: date,
    *,
    base_id: int | None = None,
    reason: str = "",
    operator: str = "",
) -> int:
    """A version that nobody sees yet: its id. With `base_id` it is a change of that list.
    `operator` is the person who acts (经办人): it is stored and nowhere told.

    Raises `VersionConflict` for the name of a whole list that a change could have.
    """
    if base_id is None and _NAME_OF_A_CHANGE.search(version):
        raise VersionConflict(f"{version} is the name of a change: give the list another name")
    version_id: int = (
        await connection.execute(
            _OPEN,
            {
                "area": area,
                "version": version,
                "version_from": effective_from,
                "kind": "FULL" if base_id is None else "CHANGE",
                "base_id": base_id,
                "reason": reason,
                "operator": operator,
            },
        )
    ).scalar_one()
    return version_id


async def publish_open(
    connection: AsyncConnection, version_id: int, *, actor: str, at: datetime
) -> StoredPublication:
    """Give an open version the next number, in a transaction of `publishing`: with its commit
    every replica reads it. Leaves an audit row. Raises `VersionConflict`."""
    codes, digest = await hashed(connection, version_id)
    named = (await connection.execute(_NAMED_LIKE, {"version_id": version_id})).one_or_none()
    if named is not None:
        raise _conflict(named.area, named.version)
    row = (
        await connection.execute(
            _PUBLISH_OPEN,
            {
                "version_id": version_id,
                "codes": codes,
                "content_hash": digest,
                "actor": actor,
                "at": at,
            },
        )
    ).one()
    return StoredPublication(*row)


async def publish(
    database: Database,
    *,
    publication: Publication | None,
    registrations: Sequence[Registration] = (),
    institution_items: Sequence[tuple[str, str, str]] = (),
    actor: str,
    at: datetime,
) -> Published:
    """Write a list, registrations and mappings, all or nothing; what is there is left alone.

    `institution_items` are (institution, its item code, national code). Raises `VersionConflict`,
    and `Refusal` (DATABASE_UNAVAILABLE).
    """
    who: dict[str, object] = {"actor": actor, "at": at}
    async with publishing(database) as connection:
        version = publication is not None and await _publish_list(
            connection, publication, actor, at
        )
        institutions = await add_registrations(connection, registrations, who)
        mapped = await add_mappings(connection, institution_items, who)
    return Published(version=version, institutions=institutions, institution_items=mapped)


async def _publish_list(
    connection: AsyncConnection, publication: Publication, actor: str, at: datetime
) -> bool:
    known = (
        await connection.execute(
            _HASH_OF, {"area": publication.area, "version": publication.version}
        )
    ).scalar_one_or_none()
    if known is not None:
        if known != content_hash(publication.effective_from, publication.items):
            raise _conflict(publication.area, publication.version)
        return False
    version_id = await open_version(
        connection, publication.area, publication.version, publication.effective_from
    )
    await copy_items(connection, version_id, publication.items)
    await publish_open(connection, version_id, actor=actor, at=at)
    return True


def _conflict(area: str, version: str) -> VersionConflict:
    return VersionConflict(
        f"version {version} of {area} is published with other content: give the new content a new"
        " version name"
    )


_OPEN = text("""
    INSERT INTO catalog.version
        (area, version, effective_from, kind, base_id, reason, operator)
    VALUES (:area, :version, :version_from, :kind, :base_id, :reason, :operator)
    RETURNING id""")

_HASH_OF = text("""
    SELECT content_hash FROM catalog.version
    WHERE area = :area AND version = :version AND publication IS NOT NULL""")

_NAMED_LIKE = text("""
    SELECT known.area, known.version FROM catalog.version
    JOIN catalog.version AS known ON (known.area, known.version) = (version.area, version.version)
    WHERE version.id = :version_id AND known.publication IS NOT NULL""")

_PUBLISH_OPEN = text(f"""
    WITH published AS (
        UPDATE catalog.version
        SET publication = (SELECT coalesce(max(publication), 0) + 1 FROM catalog.version),
            codes = :codes, content_hash = :content_hash, actor = :actor, published_at = :at
        WHERE id = :version_id
        RETURNING {PUBLICATION}
    ), audited AS (
        INSERT INTO catalog.audit (at, actor, action, subject, digest)
        SELECT published_at, actor,
               CASE WHEN base_id IS NULL THEN 'publish_version' ELSE 'change_items' END,
               area || '/' || version, content_hash
        FROM published
    )
    SELECT * FROM published""")
