"""What an insured area lays down about filing, as data: every value knows where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from services.filing.domain.facts import CareType, FilingKind, PersonClass, Route

Value = TypeVar("Value")


class Provenance(Enum):
    """How well a value is founded."""

    OFFICIAL = "official"
    SECONDARY = "secondary"
    ILLUSTRATIVE = "illustrative"


@dataclass(frozen=True, slots=True)
class Stated(Generic[Value]):
    """A value with the text it stands in."""

    value: Value
    citation: str
    """Document and, where it has one, clause."""
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class AreaRules:
    """The filing rules of one pooling area."""

    area: str
    name: str
    validity_months: Mapping[FilingKind, Stated[int | None]]
    """Months from the first day; None is without end."""
    back_dating_days: Mapping[FilingKind, Stated[int | None]]
    """How many days before the day of filing a filing may begin; None is any number."""
    person_classes: Mapping[FilingKind, Stated[frozenset[PersonClass]]]
    """Who may file a kind; a kind that is absent is open to all."""
    province_places: Stated[frozenset[str]]
    """Provinces that are filed to as a whole."""
    exempt_routes: Stated[frozenset[Route]]
    """Routes on which temporary care needs no filing."""
    account_without_filing: Stated[frozenset[CareType]]
    """Care for which employees' personal accounts pay without a filing."""
    named_institutions: Stated[frozenset[str]]
    """Institutions whose referral keeps the local level."""
    promised_back_home_months: Stated[int | None]
    """Months for which a long-term filing on a mere promise gives the temporary level at home."""
