"""Loads a catalogue from a folder of CSV files, in one transaction.

| file | columns |
|---|---|
| `catalogue.csv`, one row | area, version, effective_from |
| `items.csv` | national_code, name, catalog_class (chrgitm_lv), fee_category (med_chrgitm_type), first_self_pay_310, first_self_pay_390 (percent), limit_1, limit_2, limit_3, limit_4, limit_9 (yuan by lmtpric_hosp_lv, empty for none), limited_use, effective_from, effective_to |
| `institutions.csv` | code, name, area, grade (hosp_lv), deductible_level, price_limit_level, settlement_level, local, in_province, cross_province (services joined by a bar), suspended (0/1), effective_from |
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
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TypeVar

from infra.runtime.clock import Clock, instant
from infra.runtime.database import Database
from services.catalog.domain.catalogue import by_code
from services.catalog.domain.institution import InstitutionGrade, Registration, Route, Service
from services.catalog.domain.item import CatalogClass, FeeCategory, InsuranceType, Item, Level
from services.catalog.store import Publication, Published, publish

_LEVELS = {
    "1": Level.ONE,
    "2": Level.TWO,
    "3": Level.THREE,
    "4": Level.OTHER,
    "9": Level.UNRATED,
}
_INSURANCES = {"310": InsuranceType.EMPLOYEE, "390": InsuranceType.RESIDENT}
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
    read = await asyncio.to_thread(read_folder, folder)
    return await publish(
        database,
        publication=read.publication,
        registrations=read.registrations,
        institution_items=read.institution_items,
        actor=actor,
        at=instant(clock),
    )


async def register_institutions(
    database: Database, registrations: Sequence[Registration], clock: Clock, *, actor: str = "load"
) -> Published:
    """Record registrations that are not there yet, without a new catalogue version."""
    return await publish(
        database,
        publication=None,
        registrations=registrations,
        actor=actor,
        at=instant(clock),
    )


def read_folder(folder: Path) -> CatalogueFolder:
    """Parse the files of `folder`. Raises `CatalogueFileError` with every fault."""
    faults: list[str] = []
    heads = _read(folder / "catalogue.csv", _head, faults)
    items = tuple(_read(folder / "items.csv", _item, faults))
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


def _item(row: _Row) -> Item:
    limits = {
        level: _scaled(row, f"limit_{code}", 1_000_000)
        for code, level in _LEVELS.items()
        if row[f"limit_{code}"]
    }
    return Item(
        national_code=_text(row, "national_code"),
        name=_text(row, "name"),
        catalog_class=_numbered(row, "catalog_class", CatalogClass),
        fee_category=_numbered(row, "fee_category", FeeCategory),
        first_self_pay_bp={
            insurance: _scaled(row, f"first_self_pay_{code}", 100)
            for code, insurance in _INSURANCES.items()
        },
        limits_micro_yuan=limits,
        limited_use=row["limited_use"].strip(),
        effective_from=_day(row, "effective_from"),
        effective_to=_day(row, "effective_to") if row["effective_to"] else date.max,
    )


def _registration(row: _Row) -> Registration:
    suspended = row["suspended"]
    if suspended not in ("0", "1"):
        raise ValueError(f"suspended: {suspended!r} is neither 0 nor 1")
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
        suspended=suspended == "1",
        effective_from=_day(row, "effective_from"),
    )


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


def _day(row: _Row, column: str) -> date:
    try:
        return date.fromisoformat(row[column])
    except ValueError:
        raise ValueError(f"{column}: {row[column]!r} is not a day such as 2026-01-31") from None


def _scaled(row: _Row, column: str, scale: int) -> int:
    try:
        value = Decimal(row[column]) * scale
        whole = int(value)
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"{column}: {row[column]!r} is not a number") from None
    if whole != value:
        raise ValueError(f"{column}: {row[column]} has too many decimals")
    return whole


_Numbered = TypeVar("_Numbered", CatalogClass, FeeCategory, InstitutionGrade)


def _numbered(row: _Row, column: str, kind: type[_Numbered]) -> _Numbered:
    try:
        return kind(int(row[column]))
    except ValueError:
        raise ValueError(f"{column}: {row[column]!r} is not a code of the national table") from None


def _level(row: _Row, column: str) -> Level:
    try:
        return _LEVELS[row[column]]
    except KeyError:
        raise ValueError(f"{column}: {row[column]!r} is not one of 1, 2, 3, 4, 9") from None
