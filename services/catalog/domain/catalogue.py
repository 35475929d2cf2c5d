"""A published version of a catalogue, and which version a bill sees.

A version is immutable; it is chosen by the bill's last day. Inside it an item's revision is chosen
by the day of the charge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

from services.catalog.domain.item import InsuranceType, Item, Level
from services.catalog.domain.rule import UNLISTED, Rule, rule_of, rule_out_of_force


class CatalogueNotFound(Exception):
    """Neither the area nor its province has a version in force on the day."""

    def __init__(self, area: str, day: date) -> None:
        self.area = area
        self.day = day
        super().__init__(f"no catalogue of {area} on {day}")


class RuleBook:
    """The rules of one version for one insurance type and one price-limit level.

    Rules are made when first asked for and kept: at most one entry per item of the catalogue,
    never one for a code that somebody made up.
    """

    __slots__ = ("_insurance", "_items", "_level", "_rules")

    def __init__(
        self, items: Mapping[str, tuple[Item, ...]], insurance: InsuranceType, level: Level
    ) -> None:
        self._items = items
        self._insurance = insurance
        self._level = level
        self._rules: dict[str, tuple[Rule, ...]] = {}

    def rule(self, national_code: str, day: date) -> Rule:
        """The rule of a code on the day of the charge."""
        rules = self._rules.get(national_code) or self._make(national_code)
        for rule in rules:
            if rule.first_day <= day <= rule.last_day:
                return rule
        raise AssertionError("the last rule of a code holds on every day")

    def _make(self, national_code: str) -> tuple[Rule, ...]:
        items = self._items.get(national_code)
        if not items:
            return (UNLISTED,)
        rules = (
            *(rule_of(item, self._insurance, self._level) for item in items),
            rule_out_of_force(items[-1]),
        )
        self._rules[national_code] = rules
        return rules


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One version: `items` holds the revisions of each national code, oldest first."""

    id: int
    area: str
    version: str
    effective_from: date
    items: Mapping[str, tuple[Item, ...]]
    _books: dict[tuple[InsuranceType, Level], RuleBook] = field(
        default_factory=dict, compare=False, repr=False
    )

    def rules(self, insurance: InsuranceType, level: Level) -> RuleBook:
        """The rules for one insurance type in institutions of one price-limit level."""
        book = self._books.get((insurance, level))
        if book is None:
            book = self._books[insurance, level] = RuleBook(self.items, insurance, level)
        return book


def by_code(items: Iterable[Item]) -> dict[str, tuple[Item, ...]]:
    """The revisions of each code, oldest first. Raises `ValueError` when two overlap."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.national_code, []).append(item)
    for code, revisions in found.items():
        revisions.sort(key=lambda item: item.effective_from)
        for earlier, later in pairwise(revisions):
            if later.effective_from <= earlier.effective_to:
                raise ValueError(f"{code}: two revisions are in force on {later.effective_from}")
    return {code: tuple(revisions) for code, revisions in found.items()}


def catalogue_on(
    catalogues: Mapping[str, Sequence[Catalogue]], area: str, province: str, day: date
) -> Catalogue:
    """The version that holds in `area` on `day`; the province's where the area has none.

    `catalogues` lists the versions of each area in order of (effective_from, id): of two that
    begin on the same day the later publication corrects the earlier.
    """
    for publisher in (area, province):
        for catalogue in reversed(catalogues.get(publisher, ())):
            if catalogue.effective_from <= day:
                return catalogue
    raise CatalogueNotFound(area, day)


def content_hash(effective_from: date, items: Iterable[Item]) -> bytes:
    """SHA-256 over what a version says, whatever the order of its items; 32 bytes."""
    rows = sorted(
        json.dumps(
            [
                item.national_code,
                item.effective_from.isoformat(),
                item.effective_to.isoformat(),
                item.name,
                item.catalog_class,
                item.fee_category,
                [item.first_self_pay_bp[insurance] for insurance in InsuranceType],
                [item.limits_micro_yuan.get(level) for level in Level],
                item.limited_use,
            ],
            ensure_ascii=False,
        )
        for item in items
    )
    return hashlib.sha256("\n".join([effective_from.isoformat(), *rows]).encode()).digest()
