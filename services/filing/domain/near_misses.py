"""Why no filing covers a visit, as the one that came nearest tells it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import assert_never

from services.filing.domain.covering import Lack
from services.filing.domain.facts import Filing, FilingState, InsuranceType, Visit


@dataclass(frozen=True, slots=True)
class FilingRequired:
    """Nothing filed comes near."""


@dataclass(frozen=True, slots=True)
class FilingNotStarted:
    """The filing to this place begins after the visit did."""

    start: date


@dataclass(frozen=True, slots=True)
class FilingPending:
    """It waits for a decision, due on a day if the area has a limit."""

    due: date | None


@dataclass(frozen=True, slots=True)
class FilingExpired:
    """It ended before the visit began."""

    expired: date


@dataclass(frozen=True, slots=True)
class FilingCancelled:
    """It was cancelled, or ended before its time; `since` is the day of the cancellation,
    respectively its last day."""

    since: date


@dataclass(frozen=True, slots=True)
class FilingFormerArea:
    """It was made under a former insured relation, which no longer held on the day `since`."""

    since: date


@dataclass(frozen=True, slots=True)
class FilingOtherInsurance:
    """It belongs to the person's other insurance."""

    filed: InsuranceType


@dataclass(frozen=True, slots=True)
class FilingReferralDisease:
    """It is a referral for another disease."""

    filed: str


@dataclass(frozen=True, slots=True)
class FilingPlaceMismatch:
    """The person has filed, to other places (codes in order)."""

    filed: tuple[str, ...]


NearMiss = (
    FilingRequired
    | FilingNotStarted
    | FilingPending
    | FilingExpired
    | FilingCancelled
    | FilingFormerArea
    | FilingOtherInsurance
    | FilingReferralDisease
    | FilingPlaceMismatch
)


def near_miss(visit: Visit, filings: Iterable[tuple[Filing, tuple[Lack, ...]]]) -> NearMiss:
    """The nearest miss among filings with what they lack.

    Only a filing that lacks one single thing is near; among several the order of `Lack` decides,
    and among those that lack the same the latest (of reviews the first due).
    """
    missed: dict[Lack, list[Filing]] = {}
    for filing, lacks in filings:
        if len(lacks) == 1:
            missed.setdefault(lacks[0], []).append(filing)
    for lack in Lack:
        if lack in missed:
            return _told(lack, missed[lack], visit)
    return FilingRequired()


def _told(lack: Lack, filings: list[Filing], visit: Visit) -> NearMiss:
    match lack:
        case Lack.STARTED:
            return FilingNotStarted(min(filing.start_date for filing in filings))
        case Lack.ACCEPTED:
            return FilingPending(
                min((one.due_date for one in filings if one.due_date), default=None)
            )
        case Lack.VALID:
            return FilingExpired(max(one.end_date for one in filings if one.end_date))
        case Lack.KEPT:
            return FilingCancelled(max(_last_day(filing) for filing in filings))
        case Lack.RELATION:
            return FilingFormerArea(visit.insured_since or visit.start)
        case Lack.INSURANCE:
            return FilingOtherInsurance(min(filing.insurance for filing in filings))
        case Lack.DISEASE:
            newest = max(filings, key=lambda one: (one.start_date, one.filing_id))
            return FilingReferralDisease(newest.disease_code)
        case Lack.PLACE:
            return FilingPlaceMismatch(tuple(sorted({filing.care_place for filing in filings})))
        case _:
            assert_never(lack)


def _last_day(filing: Filing) -> date:
    if filing.state is FilingState.ENDED and filing.end_date is not None:
        return filing.end_date
    return filing.changed_on or filing.start_date
