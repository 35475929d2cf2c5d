"""A list as it is held in memory, and which list a bill sees.

A catalogue is immutable; it is chosen by the bill's last day. Inside it the revision of an item is
chosen by the day of the charge. Hundreds of thousands of items share a few hundred `Terms`, so an
item costs its code, its name and its days, and rules are made once per terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from services.catalog.domain.item import InsuranceType, Item, Level
from services.catalog.domain.rule import NO_LIMIT, Rule, Terms, rule_of, terms_of


class Revision(NamedTuple):
    """What a list says of one code from `first_day` to `last_day`, both included."""

    first_day: date
    last_day: date
    name: str
    terms: Terms
    limits: tuple[int, ...]
    """Price limits, micro-yuan, in the order of `Level`; `NO_LIMIT` for none."""


Timeline: TypeAlias = tuple[Revision, ...]
"""The revisions of one code, oldest first, no two on one day."""


class CatalogueNotFound(Exception):
    """Neither the area nor its province has a list in force on the day."""

    def __init__(self, area: str, day: date) -> None:
        self.area = area
        self.day = day
        super().__init__(f"no catalogue of {area} on {day}")


class RevisionsOverlap(ValueError):
    """Two revisions of one code are in force on one day."""

    def __init__(self, national_code: str, day: date) -> None:
        self.national_code = national_code
        self.day = day
        super().__init__(f"{national_code}: two revisions are in force on {day}")


def by_code(items: Iterable[Item]) -> dict[str, Timeline]:
    """The timeline of each code; equal terms, limits and days are one object.

    Raises `RevisionsOverlap`.
    """
    terms: dict[Terms, Terms] = {}
    limits: dict[tuple[int, ...], tuple[int, ...]] = {}
    days: dict[date, date] = {}
    found: dict[str, Timeline] = {}
    for item in items:
        its_terms = terms_of(item)
        its_limits = tuple(item.limits_micro_yuan.get(level, NO_LIMIT) for level in Level)
        revision = Revision(
            days.setdefault(item.effective_from, item.effective_from),
            days.setdefault(item.effective_to, item.effective_to),
            item.name,
            terms.setdefault(its_terms, its_terms),
            limits.setdefault(its_limits, its_limits),
        )
        former = found.get(item.national_code)
        found[item.national_code] = (
            (revision,) if former is None else timeline(item.national_code, (*former, revision))
        )
    return found


def timeline(national_code: str, revisions: Iterable[Revision]) -> Timeline:
    """The revisions of one code, oldest first. Raises `RevisionsOverlap`."""
    ordered = tuple(sorted(revisions, key=lambda revision: revision.first_day))
    for earlier, later in pairwise(ordered):
        if later.first_day <= earlier.last_day:
            raise RevisionsOverlap(national_code, later.first_day)
    return ordered


class RuleBook:
    """The rules of one list for one insurance type and one price-limit level.

    A rule is made when first asked for and kept: one per terms of the list, so neither a long list
    nor a code that somebody made up fills the memory.
    """

    __slots__ = ("_insurance", "_made", "codes", "level")

    def __init__(
        self, codes: Mapping[str, Timeline], insurance: InsuranceType, level: Level
    ) -> None:
        self.codes = codes
        self.level = level
        self._insurance = insurance
        self._made: dict[int, Rule] = {}

    def rule(self, terms: Terms) -> Rule:
        """The rule of terms of this list."""
        # By identity, cheaper than equality; the rule keeps the terms alive, so the id is theirs.
        rule = self._made.get(id(terms))
        if rule is None:
            rule = self._made[id(terms)] = rule_of(terms, self._insurance)
        return rule


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One list: the timeline of each national code."""

    id: int
    area: str
    version: str
    effective_from: date
    codes: Mapping[str, Timeline]
    _books: dict[tuple[InsuranceType, Level], RuleBook] = field(
        default_factory=dict, compare=False, repr=False
    )

    def amended(self, id: int, version: str, changed: Mapping[str, Timeline]) -> Catalogue:
        """This list with the codes that `changed` names as it gives them."""
        return Catalogue(id, self.area, version, self.effective_from, {**self.codes, **changed})

    def rules(self, insurance: InsuranceType, level: Level) -> RuleBook:
        """The rules for one insurance type in institutions of one price-limit level."""
        book = self._books.get((insurance, level))
        if book is None:
            book = self._books[insurance, level] = RuleBook(self.codes, insurance, level)
        return book


def catalogue_on(
    catalogues: Mapping[str, Sequence[Catalogue]], area: str, province: str, day: date
) -> Catalogue:
    """The list that holds in `area` on `day`; the province's where the area has none.

    `catalogues` has the lists of each area in order of (effective_from, publication): of two that
    begin on the same day the later publication corrects the earlier. Raises `CatalogueNotFound`.
    """
    for publisher in (area, province):
        for catalogue in reversed(catalogues.get(publisher, ())):
            if catalogue.effective_from <= day:
                return catalogue
    raise CatalogueNotFound(area, day)
