"""Items of lists as rows, in and out, and the hash of what a version says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import starmap
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.catalog.domain.item import (
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    Level,
    ListType,
)

COLUMNS = {
    "national_code": "text",
    "effective_from": "date",
    "effective_to": "date",
    "name": "text",
    "list_type": "smallint",
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
    "band_up_to": "bigint[]",
    "band_310": "integer[]",
    "band_390": "integer[]",
    "day_limit_e4": "bigint",
    "visit_limit_e4": "bigint",
    "dosage_form": "text",
    "specification": "text",
    "unit": "text",
    "negotiated": "boolean",
    "centrally_purchased": "boolean",
    "preparing_institution": "text",
}
"""Columns of `catalog.item` after `version_id` and `line`, with their types."""
SELECTED = ", ".join(f"item.{name}" for name in COLUMNS)

_SINCE = date(2000, 1, 1)
_SEPARATOR = "\x1f"
_CLASSES = {int(each): each for each in CatalogClass}
_CATEGORIES = {int(each): each for each in FeeCategory}
_LISTS = {int(each): each for each in ListType}
_EMPLOYEE, _RESIDENT = InsuranceType.EMPLOYEE, InsuranceType.RESIDENT


def item_row(item: Item) -> tuple[Any, ...]:
    """The columns `COLUMNS` of an item."""
    return (
        item.national_code,
        item.effective_from,
        None if item.effective_to == date.max else item.effective_to,
        item.name,
        int(item.list_type),
        int(item.catalog_class),
        int(item.fee_category),
        item.first_self_pay_bp[_EMPLOYEE],
        item.first_self_pay_bp[_RESIDENT],
        *map(item.limits_micro_yuan.get, Level),
        item.limited_use,
        [band.up_to_micro_yuan for band in item.bands],
        [band.first_self_pay_bp[_EMPLOYEE] for band in item.bands],
        [band.first_self_pay_bp[_RESIDENT] for band in item.bands],
        item.day_limit_e4,
        item.visit_limit_e4,
        item.dosage_form,
        item.specification,
        item.unit,
        item.negotiated,
        item.centrally_purchased,
        item.preparing_institution,
    )


def _item(
    national_code: str,
    effective_from: date,
    effective_to: date | None,
    name: str,
    list_type: int,
    catalog_class: int,
    fee_category: int,
    employee: int,
    resident: int,
    one: int | None,
    two: int | None,
    three: int | None,
    other: int | None,
    unrated: int | None,
    limited_use: str,
    band_up_to: Sequence[int | None],
    band_employee: Sequence[int],
    band_resident: Sequence[int],
    *rest: Any,
) -> Item:
    limits = zip(Level, (one, two, three, other, unrated), strict=True)
    return Item(
        national_code,
        name,
        _LISTS[list_type],
        _CLASSES[catalog_class],
        _CATEGORIES[fee_category],
        {_EMPLOYEE: employee, _RESIDENT: resident},
        {level: limit for level, limit in limits if limit is not None},
        limited_use,
        effective_from,
        effective_to or date.max,
        tuple(
            Band(up_to, {_EMPLOYEE: employee, _RESIDENT: resident})
            for up_to, employee, resident in zip(
                band_up_to, band_employee, band_resident, strict=True
            )
        ),
        *rest,
    )


def items_of(rows: Iterable[Iterable[Any]]) -> Iterator[Item]:
    """Items of rows of `SELECTED`."""
    return starmap(_item, rows)


async def copy_items(connection: AsyncConnection, version_id: int, items: Iterable[Item]) -> None:
    """Write the items of an open version by COPY; inside a transaction of `connection`."""
    await (await driver(connection)).copy_records_to_table(
        "item",
        schema_name="catalog",
        columns=("version_id", "line", *COLUMNS),
        records=((version_id, line, *item_row(item)) for line, item in enumerate(items, start=1)),
    )


async def driver(connection: AsyncConnection) -> asyncpg.Connection:
    """asyncpg's own connection, in the transaction that `connection` has begun by a statement:
    it streams and copies, and its rows cost a fraction."""
    return (await connection.get_raw_connection()).driver_connection


def content_hash(effective_from: date, items: Iterable[Item]) -> bytes:
    """SHA-256 over what a publication says, whatever the order of its items; 32 bytes.

    The same as `hashed` makes in the database.
    """
    rows = sorted(
        hashlib.sha256(_SEPARATOR.join(map(_text, item_row(item))).encode()).digest()
        for item in items
    )
    return hashlib.sha256(_text(effective_from).encode() + b"".join(rows)).digest()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, date):
        return str((value - _SINCE).days)
    if isinstance(value, list):
        return "|".join(map(_text, value))
    return str(int(value))


def _sql_text(name: str, kind: str) -> str:
    if kind == "text":
        return name
    if kind == "date":
        return f"coalesce(({name} - DATE '2000-01-01')::text, '')"
    if kind.endswith("[]"):
        return f"array_to_string({name}, '|', '')"
    return f"coalesce({f'{name}::integer' if kind == 'boolean' else name}::text, '')"


_ROW_TEXT = ", ".join(_sql_text(f"item.{name}", kind) for name, kind in COLUMNS.items())
_HASHED = text(f"""
    SELECT count(DISTINCT item.national_code) AS codes,
           sha256(convert_to((version.effective_from - DATE '2000-01-01')::text, 'UTF8')
                  || coalesce(string_agg(digest, ''::bytea ORDER BY digest), '')) AS content_hash
    FROM catalog.version
    LEFT JOIN catalog.item ON item.version_id = version.id
    LEFT JOIN LATERAL (
        SELECT sha256(convert_to(concat_ws(E'\\x1f', {_ROW_TEXT}), 'UTF8')) AS digest
        WHERE item.version_id IS NOT NULL
    ) AS hashed ON true
    WHERE version.id = :version_id
    GROUP BY version.id""")


async def hashed(connection: AsyncConnection, version_id: int) -> tuple[int, bytes]:
    """How many codes a version speaks of, and the hash of its content."""
    codes, digest = (await connection.execute(_HASHED, {"version_id": version_id})).one()
    return codes, digest
