"""Where a filing may point to."""

from __future__ import annotations

from dataclasses import dataclass

from services.filing.domain.facts import Route


@dataclass(frozen=True, slots=True)
class Place:
    """What the directory says of a place filed to, seen from the insured area."""

    code: str
    """Of the pooling area (a county's is its area's) or of a whole province."""
    known: bool
    """Whether the directory lists it."""
    whole_province: bool
    """Whether it stands for a province rather than for one pooling area."""
    route: Route
    site: str
    """Its province."""


def inside(place: str, area: str) -> bool:
    """Whether `place` is the pooling area itself or a county of it.

    County codes extend their area's (GB/T 2260).
    """
    prefix = area[:2] if area.endswith("0000") else area[:4] if area.endswith("00") else area
    return place.startswith(prefix)
