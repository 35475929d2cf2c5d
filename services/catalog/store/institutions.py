"""Institutions as they were registered: one row from a day on, never changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.runtime.database import Database, reading
from services.catalog.domain.institution import (
    InstitutionGrade,
    InstitutionKind,
    OpenedDisease,
    Registration,
    Route,
    Service,
    opening_codes,
)
from services.catalog.domain.item import Level
from services.catalog.store.batches import ROWS

_TYPES = {
    "code": "text",
    "effective_from": "date",
    "name": "text",
    "kind": "smallint",
    "area": "text",
    "grade": "smallint",
    "deductible_level": "smallint",
    "price_limit_level": "smallint",
    "settlement_level": "smallint",
    "local": "text[]",
    "in_province": "text[]",
    "cross_province": "text[]",
    "disease_codes": "text[]",
    "disease_starts": "date[]",
    "disease_ends": "date[]",
    "agreement_start": "date",
    "agreement_end": "date",
    "suspended": "boolean",
    "place": "text",
}
_ROUTES = {
    Route.LOCAL: "local",
    Route.IN_PROVINCE: "in_province",
    Route.CROSS_PROVINCE: "cross_province",
}
_NAMES = ", ".join(_TYPES)

# A registration is new unless the latest one of that code and first day says the same. What a
# loader brings again is held against what it brought before: others may have corrected it since.
_ADD = text(f"""
    WITH added AS (
        INSERT INTO catalog.institution ({_NAMES}, actor, operator, recorded_at)
        SELECT {", ".join(f"t.{name}" for name in _TYPES)}, :actor, :operator, :at
        FROM jsonb_to_recordset(CAST(:rows AS jsonb))
            AS t({", ".join(f"{name} {kind}" for name, kind in _TYPES.items())})
        LEFT JOIN LATERAL (
            SELECT * FROM catalog.institution AS former
            WHERE former.code = t.code AND former.effective_from = t.effective_from
              AND (NOT :loaded OR former.actor = :actor)
            ORDER BY former.id DESC LIMIT 1
        ) AS former ON true
        WHERE ({", ".join(f"former.{name}" for name in _TYPES)})
            IS DISTINCT FROM ({", ".join(f"t.{name}" for name in _TYPES)})
        RETURNING {_NAMES}
    ), audited AS (
        INSERT INTO catalog.audit (at, actor, action, subject, digest)
        SELECT :at, :actor, 'register_institution', code || '/' || effective_from,
               sha256(convert_to(CAST(ROW({_NAMES}) AS text), 'UTF8'))
        FROM added
    )
    SELECT count(*) FROM added""")

_READ = text("""
    SELECT * FROM catalog.institution
    WHERE :after = 0 OR code IN (SELECT code FROM catalog.institution WHERE id > :after)
    ORDER BY code, effective_from, id""")

_ONE = text("SELECT * FROM catalog.institution WHERE code = :code ORDER BY effective_from, id")

_KINDS = text("""
    SELECT DISTINCT ON (code) code, kind FROM catalog.institution
    WHERE code = ANY(CAST(:codes AS text[])) ORDER BY code, id DESC""")

_SEARCH = """
    SELECT * FROM (
        SELECT DISTINCT ON (code) * FROM catalog.institution
        WHERE effective_from <= :day AND code > :after
        ORDER BY code, effective_from DESC, id DESC
    ) AS registered
    WHERE (:area = '' OR area = :area)
      AND (starts_with(code, :text) OR strpos(name, :text) > 0)
      AND (:all OR NOT suspended AND :day BETWEEN coalesce(agreement_start, :day)
                                              AND coalesce(agreement_end, :day))
      AND ({networked})
      AND (NOT :diseased OR disease_codes = '{{}}' OR EXISTS (
          SELECT FROM unnest(disease_codes, disease_starts, disease_ends)
              AS opened(code, first, last)
          WHERE opened.code = ANY(CAST(:diseases AS text[]))
            AND :day BETWEEN opened.first AND coalesce(opened.last, :day)))
    ORDER BY code LIMIT :size"""


async def read_institutions(
    connection: AsyncConnection,
    known: Mapping[str, tuple[Registration, ...]] | None = None,
    after: int = 0,
) -> dict[str, tuple[Registration, ...]]:
    """Registrations of each institution in order of (first day, id): those `known`, which were all
    up to the id `after`, and what was recorded since."""
    found: dict[str, list[Registration]] = {}
    async with connection.stream(_READ, {"after": after}) as rows:
        async for part in rows.partitions(ROWS):
            for row in part:
                found.setdefault(row.code, []).append(_registration(row))
    return {**(known or {}), **{code: tuple(each) for code, each in found.items()}}


async def read_institution(connection: AsyncConnection, code: str) -> tuple[Registration, ...]:
    """The registrations of one institution in order of (first day, id)."""
    return tuple(map(_registration, await connection.execute(_ONE, {"code": code})))


async def read_kinds(
    connection: AsyncConnection, codes: Iterable[str]
) -> dict[str, InstitutionKind]:
    """The kind under which each of `codes` was registered last; those of nobody are left out."""
    rows = await connection.execute(_KINDS, {"codes": sorted(set(codes))})
    return {row.code: InstitutionKind(row.kind) for row in rows}


async def search_institutions(
    database: Database,
    *,
    words: str,
    area: str,
    route: Route | None,
    service: Service | None,
    disease: str,
    day: date,
    every: bool,
    after: str,
    size: int,
) -> list[Registration]:
    """The registrations of `day` in order of the code, at most `size` behind the code `after`.

    Empty texts and None ask for nothing; `every` includes those that may not settle on the day.
    """
    services = {service.value} if service else set()
    if disease:
        services.add(Service.CHRONIC.value)
    columns = _ROUTES.values() if route is None else (_ROUTES[route],)
    open_for = "{0} @> CAST(:services AS text[])" if services else "{0} <> '{{}}'"
    if route is None and not services:
        networked = "true"
    else:
        networked = " OR ".join(open_for.format(column) for column in columns)
    asked: dict[str, object] = {
        "text": words,
        "area": area,
        "diseased": bool(disease),
        "diseases": list(opening_codes(disease)),
        "day": day,
        "all": every,
        "after": after,
        "size": size,
    }
    if services:
        asked["services"] = sorted(services)
    async with reading(database) as connection:
        rows = await connection.execute(text(_SEARCH.format(networked=networked)), asked)
        return list(map(_registration, rows))


async def add_registrations(
    connection: AsyncConnection,
    registrations: Sequence[Registration],
    who: Mapping[str, object],
    *,
    loaded: bool = True,
) -> int:
    """Record those that say something new; say how many. `who` is `actor`, `at` and, unless they
    are `loaded`, `operator`."""
    rows = json.dumps([_row(one) for one in registrations], ensure_ascii=False)
    asked = {"operator": "", **who, "rows": rows, "loaded": loaded}
    added: int = (await connection.execute(_ADD, asked)).scalar_one()
    return added


def _registration(row: Row[Any]) -> Registration:
    return Registration(
        code=row.code,
        name=row.name,
        kind=InstitutionKind(row.kind),
        area=row.area,
        grade=InstitutionGrade(row.grade),
        deductible_level=Level(row.deductible_level),
        price_limit_level=Level(row.price_limit_level),
        settlement_level=Level(row.settlement_level),
        networked={
            route: frozenset(map(Service, getattr(row, column)))
            for route, column in _ROUTES.items()
        },
        diseases=tuple(
            OpenedDisease(code, first_day, last_day or date.max)
            for code, first_day, last_day in zip(
                row.disease_codes, row.disease_starts, row.disease_ends, strict=True
            )
        ),
        agreement_start=row.agreement_start or date.min,
        agreement_end=row.agreement_end or date.max,
        suspended=row.suspended,
        place=row.place,
        effective_from=row.effective_from,
    )


def _row(one: Registration) -> dict[str, object]:
    return {
        "code": one.code,
        "effective_from": one.effective_from.isoformat(),
        "name": one.name,
        "kind": one.kind,
        "area": one.area,
        "grade": one.grade,
        "deductible_level": one.deductible_level,
        "price_limit_level": one.price_limit_level,
        "settlement_level": one.settlement_level,
        **{
            column: sorted(service.value for service in one.networked.get(route, ()))
            for route, column in _ROUTES.items()
        },
        "disease_codes": [each.code for each in one.diseases],
        "disease_starts": [each.first_day.isoformat() for each in one.diseases],
        "disease_ends": [_end(each.last_day) for each in one.diseases],
        "agreement_start": _start(one.agreement_start),
        "agreement_end": _end(one.agreement_end),
        "suspended": one.suspended,
        "place": one.place,
    }


def _start(day: date) -> str | None:
    return None if day == date.min else day.isoformat()


def _end(day: date) -> str | None:
    return None if day == date.max else day.isoformat()
