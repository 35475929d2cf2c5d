"""Whether a qualification for an outpatient chronic disease counts (门诊慢特病资格)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Qualification:
    """A qualification; both days are included, `end` None means no end.

    One that ends before it starts was taken back and never in force.
    """

    disease: str
    """病种编码, national code."""
    start: date
    end: date | None
    granted_area: str
    """Pooling area that granted it (认定地)."""
    chosen_institutions: tuple[str, ...] = ()

    def covers(self, day: date) -> bool:
        """Whether it is in force on `day`."""
        return self.start <= day and (self.end is None or day <= self.end)

    @property
    def void(self) -> bool:
        """Whether it was never in force."""
        return self.end is not None and self.end < self.start


def overlap(qualifications: Iterable[Qualification]) -> bool:
    """Whether two qualifications for one disease are in force on the same day."""
    ordered = sorted(qualifications, key=lambda one: (one.disease, one.start))
    return any(
        before.disease == after.disease and (before.end is None or after.start <= before.end)
        for before, after in pairwise(ordered)
    )


def nearest(qualifications: Sequence[Qualification], day: date) -> Qualification | None:
    """What to tell of somebody without one in force on `day`: the last before it, else the next."""
    real = sorted((one for one in qualifications if not one.void), key=lambda one: one.start)
    begun = [one for one in real if one.start <= day]
    return begun[-1] if begun else next(iter(real), None)
