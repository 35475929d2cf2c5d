"""Loads a catalogue from a folder of CSV files, in one transaction.

| file | columns |
|---|---|
| `catalogue.csv`, one row | area, version, effective_from |
| `items.csv` | `CSV_COLUMNS` of `domain.import_layouts`, read as an import is |
| `institutions.csv` | code, name, area, grade (hosp_lv), deductible_level, price_limit_level, settlement_level, local, in_province, cross_province (services joined by a bar), suspended (0/1), effective_from, kind (fixmedins_type), diseases (`code:first day:last day` joined by a bar, empty for every one), agreement_start, agreement_end, place |
| `institution_items.csv` | institution, item_code, national_code |

Codes are those of the national interface. Days are ISO and both ends included. The last two files
may be missing. What is published already is left alone, so loading twice changes nothing.
"""  # noqa: E501

from __future__ import annotations

import asyncio
import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from infra.runtime.clock import Clock, instant
from infra.runtime.database import Database
from services.catalog.domain.catalogue import by_code
from services.catalog.domain.import_cells import LEVELS
from services.catalog.domain.import_layouts import Layout, NotATable, table_of
from services.catalog.domain.import_rows import ITEM_COLUMNS, RowReader
from services.catalog.domain.institution import (
    InstitutionGrade,
    InstitutionKind,
    OpenedDisease,
    Registration,
    Route,
    Service,
)
from services.catalog.domain.item import Item, Level
from services.catalog.store import Publication, Published, publish
from services.catalog.store.items import COLUMNS, items_of
from services.catalog.store.lists import ListStore

_ROUTES = {
    "local": Route.LOCAL,
    "in_province": Route.IN_PROVINCE,
    "cross_province": Route.CROSS_PROVINCE,
}
_MOST_FAULTS = 50
_Parsed = TypeVar("_Parsed")
_Row = dict[str, str]


class CatalogueFileError(ValueError):
    """The folder cannot be loaded and nothing was written; names each file, line and fault."""


@dataclass(frozen=True, slots=True)
class CatalogueFolder:
    """What the files of a folder say."""

    publication: Publication
    registrations: tuple[Registration, ...]
    institution_items: tuple[tuple[str, str, str], ...]


async def load_catalogue(
    database: Database, folder: Path, clock: Clock, *, actor: str = "load"
) -> Published:
    """Publish the catalogue of `folder`, with its institutions and mappings, all or nothing.

    Raises `CatalogueFileError`, `store.VersionConflict`, and `Refusal` (DATABASE_UNAVAILABLE).
    """
    return await publish_folder(
        database, await asyncio.to_thread(read_folder, folder), clock, actor=actor
    )


async def publish_folder(
    database: Database, read: CatalogueFolder, clock: Clock, *, actor: str = "load"
) -> Published:
    """Publish what was read, all or nothing; raises as `load_catalogue`."""
    return await publish(
        database,
        publication=read.publication,
        registrations=read.registrations,
        institution_items=read.institution_items,
        actor=actor,
        at=instant(clock),
    )


async def is_published(database: Database, area: str, version: str) -> bool:
    """Whether an area has a list of this name; raises `Refusal` (DATABASE_UNAVAILABLE)."""
    return any(known.version == version for known in await ListStore(database).lists([area]))


async def register_institutions(
    database: Database,
    registrations: Sequence[Registration],
    clock: Clock,
    *,
    institution_items: Sequence[tuple[str, str, str]] = (),
    actor: str = "load",
) -> Published:
    """Record registrations and mappings that are not there yet, without a new version."""
    return await publish(
        database,
        publication=None,
        registrations=registrations,
        institution_items=institution_items,
        actor=actor,
        at=instant(clock),
    )


def read_folder(folder: Path) -> CatalogueFolder:
    """Parse the files of `folder`. Raises `CatalogueFileError` with every fault."""
    faults: list[str] = []
    heads = _read(folder / "catalogue.csv", _head, faults)
    items = _items(folder / "items.csv", heads[0][0] if heads else "", faults)
    registrations = _read(folder / "institutions.csv", _registration, faults, optional=True)
    mapped = _read(folder / "institution_items.csv", _mapping, faults, optional=True)
    if len(heads) != 1 and not faults:
        faults.append("catalogue.csv: expected exactly one row")
    if not items and not faults:
        faults.append("items.csv: a catalogue has at least one item")
    try:
        by_code(items)
    except ValueError as error:
        faults.append(f"items.csv: {error}")
    for name, keys in (
        ("institutions.csv", [(row.code, row.effective_from) for row in registrations]),
        ("institution_items.csv", [row[:2] for row in mapped]),
    ):
        faults += [
            f"{name}: {count} rows for {' '.join(map(str, key))}"
            for key, count in Counter(keys).items()
            if count > 1
        ]
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise CatalogueFileError("\n".join([f"{folder}:", *faults[:_MOST_FAULTS], *more]))
    area, version, effective_from = heads[0]
    return CatalogueFolder(
        publication=Publication(area, version, effective_from, items),
        registrations=tuple(registrations),
        institution_items=tuple(mapped),
    )


def _read(
    path: Path,
    parse: Callable[[_Row], _Parsed],
    faults: list[str],
    *,
    optional: bool = False,
) -> list[_Parsed]:
    if optional and not path.exists():
        return []
    parsed = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, restkey="", restval="", strict=True)
            for row in rows:
                try:
                    parsed.append(parse(row))
                except KeyError as error:
                    faults.append(f"{path.name}: no column {error}")
                    break
                except ValueError as error:
                    faults.append(f"{path.name}:{rows.line_num}: {error}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        faults.append(f"{path.name}: {error}")
    return parsed


def _head(row: _Row) -> tuple[str, str, date]:
    return _area(row), _text(row, "version"), _day(row, "effective_from")


def _items(path: Path, area: str, faults: list[str]) -> tuple[Item, ...]:
    try:
        header, _, content = path.read_bytes().partition(b"\n")
        table = table_of(Layout.CSV, header.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, NotATable) as error:
        faults.append(f"{path.name}: {error}")
        return ()
    part = RowReader().read(content, table.first_line, table, 0, area)
    faults += [f"{path.name}:{row.line}: {row.column}: {row.cause}" for row in part.rejected]
    in_order = itemgetter(*map(ITEM_COLUMNS.index, COLUMNS))
    return tuple(items_of(map(in_order, part.rows)))


def _registration(row: _Row) -> Registration:
    return Registration(
        code=_text(row, "code"),
        name=_text(row, "name"),
        area=_area(row),
        grade=_numbered(row, "grade", InstitutionGrade),
        deductible_level=_level(row, "deductible_level"),
        price_limit_level=_level(row, "price_limit_level"),
        settlement_level=_level(row, "settlement_level"),
        networked={
            route: frozenset(map(Service, filter(None, row[name].split("|"))))
            for name, route in _ROUTES.items()
        },
        suspended=_flag(row, "suspended"),
        effective_from=_day(row, "effective_from"),
        kind=_numbered(row, "kind", InstitutionKind),
        diseases=tuple(map(_disease, filter(None, row["diseases"].split("|")))),
        agreement_start=_day(row, "agreement_start", date.min),
        agreement_end=_day(row, "agreement_end", date.max),
        place=row["place"],
    )


def _disease(text: str) -> OpenedDisease:
    code, *days = text.split(":")
    if len(days) != 2:
        raise ValueError(f"diseases: {text!r} is not such as M03900:2023-01-01:")
    row = dict(zip(("first", "last"), days, strict=True))
    return OpenedDisease(code, _day(row, "first"), _day(row, "last", date.max))


def _mapping(row: _Row) -> tuple[str, str, str]:
    return _text(row, "institution"), _text(row, "item_code"), row["national_code"].strip()


def _text(row: _Row, column: str) -> str:
    value = row[column].strip()
    if not value:
        raise ValueError(f"{column} is empty")
    return value


def _area(row: _Row) -> str:
    value = row["area"]
    if len(value) != 6 or not (value.isascii() and value.isdigit()):
        raise ValueError(f"area: {value!r} is not a code of six digits")
    return value


def _day(row: _Row, column: str, otherwise: date | None = None) -> date:
    if otherwise is not None and not row[column]:
        return otherwise
    try:
        return date.fromisoformat(row[column])
    except ValueError:
        raise ValueError(f"{column}: {row[column]!r} is not a day such as 2026-01-31") from None


_Numbered = TypeVar("_Numbered", InstitutionGrade, InstitutionKind)


def _numbered(row: _Row, column: str, kind: type[_Numbered]) -> _Numbered:
    try:
        return kind(int(row[column]))
    except ValueError:
        raise ValueError(f"{column}: {row[column]!r} is not a code of the national table") from None


def _level(row: _Row, column: str) -> Level:
    try:
        return LEVELS[row[column]]
    except KeyError:
        raise ValueError(f"{column}: {row[column]!r} is not one of {', '.join(LEVELS)}") from None


def _flag(row: _Row, column: str) -> bool:
    if row[column] not in ("0", "1"):
        raise ValueError(f"{column}: {row[column]!r} is neither 0 nor 1")
    return row[column] == "1"
