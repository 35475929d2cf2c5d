"""The catalogue's tables and every statement on them.

| statement | when | trips |
|---|---|---|
| `newest` | every 2 s | 1 |
| `read_snapshot` | after a publication | 1 transaction, one stream per table |
| `publish` | loading a catalogue | 1 transaction, ≤ 3 statements |

Splitting fees makes none. Publications of a site exclude each other by an advisory lock, so ids
become visible in order and the three highest ids tell whether anything is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from infra.runtime.schema import Schema
from services.catalog.domain.catalogue import Catalogue, by_code, content_hash
from services.catalog.domain.institution import (
    InstitutionGrade,
    Registration,
    Route,
    Service,
)
from services.catalog.domain.item import CatalogClass, FeeCategory, InsuranceType, Item, Level

SCHEMA = Schema("catalog", Path(__file__).parent / "migrations")

_PUBLISHING = 0x79690001
"""Key of the advisory lock that publications of this database take."""
_ROWS = 2_000
"""Rows decoded between two turns of the event loop."""


@dataclass(frozen=True, slots=True)
class Newest:
    """Highest ids in the tables; equal to what a snapshot holds as long as nothing is new."""

    version: int
    institution: int
    institution_item: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that splitting needs, as one transaction saw it."""

    newest: Newest
    catalogues: Mapping[str, tuple[Catalogue, ...]]
    """Versions of each area in order of (effective_from, id)."""
    institutions: Mapping[str, tuple[Registration, ...]]
    """Registrations of each institution in order of (effective_from, id)."""
    mapped: Mapping[str, Mapping[str, str]]
    """Institution → its item code → national code."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A catalogue version to publish."""

    area: str
    version: str
    effective_from: date
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication wrote; nothing when all of it was there already."""

    version: bool
    institutions: int
    institution_items: int


class VersionConflict(Exception):
    """A version of this name is published with other content; published versions never change."""


_NEWEST = """
    SELECT coalesce((SELECT max(id) FROM catalog.version), 0) AS version,
           coalesce((SELECT max(id) FROM catalog.institution), 0) AS institution,
           coalesce((SELECT max(id) FROM catalog.institution_item), 0) AS institution_item"""


async def newest(database: Database) -> Newest:
    """The highest ids. Raises `Refusal` (DATABASE_UNAVAILABLE)."""
    [row] = await database.run(_NEWEST)
    return Newest(*row)


async def read_snapshot(database: Database, known: Snapshot | None) -> Snapshot:
    """Read all that was published; versions that `known` holds are taken from it.

    Raises `Refusal` (DATABASE_UNAVAILABLE).
    """
    held = {
        catalogue.id: catalogue
        for catalogues in (known.catalogues.values() if known else ())
        for catalogue in catalogues
    }
    try:
        async with database.engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            found = Newest(*(await connection.execute(text(_NEWEST))).one())
            return Snapshot(
                newest=found,
                catalogues=await _catalogues(connection, held),
                institutions=await _institutions(connection),
                mapped=await _mapped(connection),
            )
    except (OSError, TimeoutError, SQLAlchemyError) as error:
        raise _unavailable(error) from error


async def _catalogues(
    connection: AsyncConnection, held: Mapping[int, Catalogue]
) -> dict[str, tuple[Catalogue, ...]]:
    versions = await connection.execute(
        text("SELECT id, area, version, effective_from FROM catalog.version ORDER BY 4, 1")
    )
    found: dict[str, tuple[Catalogue, ...]] = {}
    for row in versions:
        catalogue = held.get(row.id) or Catalogue(
            id=row.id,
            area=row.area,
            version=row.version,
            effective_from=row.effective_from,
            items=by_code(await _items(connection, row.id)),
        )
        found[row.area] = (*found.get(row.area, ()), catalogue)
    return found


async def _items(connection: AsyncConnection, version_id: int) -> list[Item]:
    statement = text("SELECT * FROM catalog.item WHERE version_id = :version_id")
    items: list[Item] = []
    async with connection.stream(statement, {"version_id": version_id}) as rows:
        async for part in rows.partitions(_ROWS):
            items.extend(map(_item, part))
    return items


def _item(row: Row[Any]) -> Item:
    limits = (
        (Level.ONE, row.limit_one),
        (Level.TWO, row.limit_two),
        (Level.THREE, row.limit_three),
        (Level.OTHER, row.limit_other),
        (Level.UNRATED, row.limit_unrated),
    )
    return Item(
        national_code=row.national_code,
        name=row.name,
        catalog_class=CatalogClass(row.catalog_class),
        fee_category=FeeCategory(row.fee_category),
        first_self_pay_bp={
            InsuranceType.EMPLOYEE: row.first_self_pay_310,
            InsuranceType.RESIDENT: row.first_self_pay_390,
        },
        limits_micro_yuan={level: limit for level, limit in limits if limit is not None},
        limited_use=row.limited_use,
        effective_from=row.effective_from,
        effective_to=row.effective_to or date.max,
    )


async def _institutions(connection: AsyncConnection) -> dict[str, tuple[Registration, ...]]:
    statement = text("SELECT * FROM catalog.institution ORDER BY code, effective_from, id")
    found: dict[str, list[Registration]] = {}
    async with connection.stream(statement) as rows:
        async for part in rows.partitions(_ROWS):
            for row in part:
                found.setdefault(row.code, []).append(_registration(row))
    return {code: tuple(registrations) for code, registrations in found.items()}


def _registration(row: Row[Any]) -> Registration:
    return Registration(
        code=row.code,
        name=row.name,
        area=row.area,
        grade=InstitutionGrade(row.grade),
        deductible_level=Level(row.deductible_level),
        price_limit_level=Level(row.price_limit_level),
        settlement_level=Level(row.settlement_level),
        networked={
            Route.LOCAL: frozenset(map(Service, row.local)),
            Route.IN_PROVINCE: frozenset(map(Service, row.in_province)),
            Route.CROSS_PROVINCE: frozenset(map(Service, row.cross_province)),
        },
        suspended=row.suspended,
        effective_from=row.effective_from,
    )


async def _mapped(connection: AsyncConnection) -> dict[str, dict[str, str]]:
    # In order of id: the mapping recorded last holds.
    statement = text(
        "SELECT institution, item_code, national_code FROM catalog.institution_item ORDER BY id"
    )
    found: dict[str, dict[str, str]] = {}
    async with connection.stream(statement) as rows:
        async for part in rows.partitions(_ROWS):
            for institution, item_code, national_code in part:
                found.setdefault(institution, {})[item_code] = national_code
    return found


_ITEM_TYPES = {
    "national_code": "text",
    "effective_from": "date",
    "effective_to": "date",
    "name": "text",
    "catalog_class": "smallint",
    "fee_category": "smallint",
    "first_self_pay_310": "integer",
    "first_self_pay_390": "integer",
    "limit_one": "bigint",
    "limit_two": "bigint",
    "limit_three": "bigint",
    "limit_other": "bigint",
    "limit_unrated": "bigint",
    "limited_use": "text",
}
_INSTITUTION_TYPES = {
    "code": "text",
    "effective_from": "date",
    "name": "text",
    "area": "text",
    "grade": "smallint",
    "deductible_level": "smallint",
    "price_limit_level": "smallint",
    "settlement_level": "smallint",
    "local": "text",
    "in_province": "text",
    "cross_province": "text",
    "suspended": "boolean",
}
_INSTITUTION_ITEM_TYPES = {"institution": "text", "item_code": "text", "national_code": "text"}
_LISTS = ("local", "in_province", "cross_province")
"""Columns that are lists: they travel joined, because unnest flattens an array of arrays."""


def _rows_of(types: Mapping[str, str]) -> str:
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in types.items())
    return f"unnest({arrays}) AS t({', '.join(types)})"


def _selected(types: Mapping[str, str]) -> str:
    return ", ".join(
        f"string_to_array(t.{name}, '|')" if name in _LISTS else f"t.{name}" for name in types
    )


_PUBLISH_VERSION = text(f"""
    WITH version AS (
        INSERT INTO catalog.version (area, version, effective_from, content_hash, published_at)
        VALUES (:area, :version, :version_from, :content_hash, :at)
        RETURNING id
    ), items AS (
        INSERT INTO catalog.item (version_id, {", ".join(_ITEM_TYPES)})
        SELECT version.id, t.* FROM version, {_rows_of(_ITEM_TYPES)}
    )
    INSERT INTO catalog.audit (at, actor, action, subject, digest)
    VALUES (:at, :actor, 'publish_version', :subject, :content_hash)""")

# A registration is new unless the latest one of that code and first day says the same.
_PUBLISH_INSTITUTIONS = text(f"""
    WITH added AS (
        INSERT INTO catalog.institution ({", ".join(_INSTITUTION_TYPES)}, recorded_at)
        SELECT {_selected(_INSTITUTION_TYPES)}, :at
        FROM {_rows_of(_INSTITUTION_TYPES)}
        LEFT JOIN LATERAL (
            SELECT * FROM catalog.institution AS former
            WHERE former.code = t.code AND former.effective_from = t.effective_from
            ORDER BY former.id DESC LIMIT 1
        ) AS former ON true
        WHERE ({", ".join(f"former.{name}" for name in _INSTITUTION_TYPES)})
            IS DISTINCT FROM ({_selected(_INSTITUTION_TYPES)})
        RETURNING institution
    ), audited AS (
        INSERT INTO catalog.audit (at, actor, action, subject, digest)
        SELECT :at, :actor, 'register_institution',
               (institution).code || '/' || (institution).effective_from,
               sha256(convert_to(CAST(institution AS text), 'UTF8'))
        FROM added
    )
    SELECT count(*) FROM added""")

_PUBLISH_INSTITUTION_ITEMS = text(f"""
    WITH added AS (
        INSERT INTO catalog.institution_item (institution, item_code, national_code, recorded_at)
        SELECT t.institution, t.item_code, t.national_code, :at
        FROM {_rows_of(_INSTITUTION_ITEM_TYPES)}
        LEFT JOIN LATERAL (
            SELECT national_code FROM catalog.institution_item AS former
            WHERE former.institution = t.institution AND former.item_code = t.item_code
            ORDER BY former.id DESC LIMIT 1
        ) AS former ON true
        WHERE former.national_code IS DISTINCT FROM t.national_code
        RETURNING institution, item_code, national_code
    ), audited AS (
        INSERT INTO catalog.audit (at, actor, action, subject, digest)
        SELECT :at, :actor, 'map_items', institution, sha256(convert_to(string_agg(
                   item_code || '=' || national_code, ';' ORDER BY item_code), 'UTF8'))
        FROM added GROUP BY institution
    )
    SELECT count(*) FROM added""")


async def publish(
    database: Database,
    *,
    publication: Publication | None,
    registrations: Sequence[Registration] = (),
    institution_items: Sequence[tuple[str, str, str]] = (),
    actor: str,
    at: datetime,
) -> Published:
    """Write a version, registrations and mappings, all or nothing; what is there is left alone.

    `institution_items` are (institution, its item code, national code). Raises `VersionConflict`,
    and `Refusal` (DATABASE_UNAVAILABLE).
    """
    who: dict[str, object] = {"actor": actor, "at": at}
    try:
        async with database.engine.begin() as connection:
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PUBLISHING}
            )
            version = publication is not None and await _publish_version(
                connection, publication, who
            )
            institutions = (
                await connection.execute(
                    _PUBLISH_INSTITUTIONS,
                    _columns(_INSTITUTION_TYPES, map(_registration_row, registrations)) | who,
                )
            ).scalar_one()
            mapped = (
                await connection.execute(
                    _PUBLISH_INSTITUTION_ITEMS,
                    _columns(_INSTITUTION_ITEM_TYPES, institution_items) | who,
                )
            ).scalar_one()
    except (OSError, TimeoutError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and not error.connection_invalidated:
            raise
        raise _unavailable(error) from error
    return Published(version=version, institutions=institutions, institution_items=mapped)


async def _publish_version(
    connection: AsyncConnection, publication: Publication, who: dict[str, object]
) -> bool:
    digest = content_hash(publication.effective_from, publication.items)
    known = (
        await connection.execute(
            text(
                "SELECT content_hash FROM catalog.version WHERE area = :area AND version = :version"
            ),
            {"area": publication.area, "version": publication.version},
        )
    ).scalar_one_or_none()
    if known is not None:
        if known != digest:
            raise VersionConflict(
                f"version {publication.version} of {publication.area} is published with other"
                " content: give the new content a new version name"
            )
        return False
    await connection.execute(
        _PUBLISH_VERSION,
        _columns(_ITEM_TYPES, map(_item_row, publication.items))
        | {
            "area": publication.area,
            "version": publication.version,
            "version_from": publication.effective_from,
            "content_hash": digest,
            "subject": f"{publication.area}/{publication.version}",
        }
        | who,
    )
    return True


def _columns(types: Mapping[str, str], rows: Iterable[tuple[object, ...]]) -> dict[str, Any]:
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    return dict(zip(types, map(list, columns), strict=True))


def _item_row(item: Item) -> tuple[object, ...]:
    limits = item.limits_micro_yuan
    return (
        item.national_code,
        item.effective_from,
        None if item.effective_to == date.max else item.effective_to,
        item.name,
        int(item.catalog_class),
        int(item.fee_category),
        item.first_self_pay_bp[InsuranceType.EMPLOYEE],
        item.first_self_pay_bp[InsuranceType.RESIDENT],
        *(limits.get(level) for level in Level),
        item.limited_use,
    )


def _registration_row(registration: Registration) -> tuple[object, ...]:
    return (
        registration.code,
        registration.effective_from,
        registration.name,
        registration.area,
        int(registration.grade),
        int(registration.deductible_level),
        int(registration.price_limit_level),
        int(registration.settlement_level),
        *(
            "|".join(sorted(service.value for service in registration.networked.get(route, ())))
            for route in Route
        ),
        registration.suspended,
    )


def _unavailable(error: Exception) -> Refusal:
    return Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE, cause=type(error).__name__)
