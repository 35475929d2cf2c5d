"""Lists read into the form that splitting uses, a portion of rows at a time.

Hundreds of thousands of rows: an `Item` is made only of the first row of its terms, and what is
equal in two lists is one object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from sys import intern
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from services.catalog.domain.catalogue import Revision, Timeline, timeline
from services.catalog.domain.item import (
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    ListType,
)
from services.catalog.domain.rule import NO_LIMIT, Terms, terms_of
from services.catalog.store.items import driver

_AT_A_STRETCH = 1_000
"""Rows decoded before other work of this process gets a turn (some 5 ms)."""
_SELECT = """
    SELECT version_id, national_code, effective_from, effective_to, name,
           limit_one, limit_two, limit_three, limit_other, limit_unrated,
           list_type, catalog_class, fee_category, first_self_pay_310, first_self_pay_390,
           limited_use, day_limit_e4, visit_limit_e4, preparing_institution,
           band_up_to, band_310, band_390
    FROM catalog.item WHERE version_id = ANY ($1)"""
_EMPLOYEE, _RESIDENT = InsuranceType.EMPLOYEE, InsuranceType.RESIDENT


class TimelineReader:
    """Reads versions; those that one reader reads share equal terms, limits and days."""

    def __init__(self) -> None:
        self._terms: dict[tuple[Any, ...], Terms] = {}
        self._limits: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._days: dict[date, date] = {}

    async def read(
        self,
        connection: AsyncConnection,
        version_ids: Sequence[int],
        held: Mapping[str, Timeline],
    ) -> dict[int, dict[str, Timeline]]:
        """What each version says; inside a transaction of `connection`.

        A timeline that `held` has as well is taken from there.
        """
        found: dict[int, dict[str, Timeline]] = {version_id: {} for version_id in version_ids}
        if not version_ids:
            return found
        cursor = await (await driver(connection)).cursor(_SELECT, version_ids)
        while rows := await cursor.fetch(_AT_A_STRETCH):
            for row in rows:
                codes = found[row[0]]
                code = intern(row[1])
                revisions: Timeline = (self._revision(row),)
                if code in codes:
                    revisions = timeline(code, (*codes[code], *revisions))
                before = held.get(code)
                codes[code] = before if before == revisions else revisions
        return found

    def _revision(self, row: Any) -> Revision:
        first, last, name = row[2:5]
        limits = tuple(NO_LIMIT if limit is None else limit for limit in row[5:10])
        key = row[10:19] if not row[19] else (*row[10:19], *map(tuple, row[19:22]))
        terms = self._terms.get(key)
        if terms is None:
            terms = self._terms[key] = _terms(row)
        return Revision(
            self._days.setdefault(first, first),
            date.max if last is None else self._days.setdefault(last, last),
            name,
            terms,
            self._limits.setdefault(limits, limits),
        )


def _terms(row: Any) -> Terms:
    list_type, catalog_class, fee_category, employee, resident = row[10:15]
    limited_use, day_limit, visit_limit, preparing, up_to, employees, residents = row[15:]
    item = Item(
        national_code=row[1],
        name=row[4],
        list_type=ListType(list_type),
        catalog_class=CatalogClass(catalog_class),
        fee_category=FeeCategory(fee_category),
        first_self_pay_bp={_EMPLOYEE: employee, _RESIDENT: resident},
        limits_micro_yuan={},
        limited_use=limited_use,
        effective_from=row[2],
        bands=tuple(
            Band(end, {_EMPLOYEE: employee, _RESIDENT: resident})
            for end, employee, resident in zip(up_to, employees, residents, strict=True)
        ),
        day_limit_e4=day_limit,
        visit_limit_e4=visit_limit,
        preparing_institution=preparing,
    )
    return terms_of(item)
