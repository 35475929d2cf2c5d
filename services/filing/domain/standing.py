"""Which filings of one person stand side by side (异地长期 and 临时外出, several places)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from services.filing.domain.facts import Filing, FilingKind, FilingState, InsuranceType


def of_relation(
    filings: Iterable[Filing], area: str, insurance: InsuranceType, since: date | None
) -> list[Filing]:
    """The filings of the present insured relation: one made before `since` covers nothing any more
    and stands in no new one's way (None: not told, all do)."""
    return [
        filing
        for filing in filings
        if (filing.insured_area, filing.insurance) == (area, insurance)
        and (since is None or filing.filed_on >= since)
    ]


def overlapping(new: Filing, filings: Iterable[Filing], day: date) -> Filing | None:
    """The filing that `new` cannot stand beside on some day, or None.

    Two long-term filings never overlap whatever their places; two of the same kind (and, for
    referrals, the same disease) not at the same place. Those that wait for review count too, and
    those ended that still run on `day`.
    """
    for filing in filings:
        if (
            filing.filing_id not in (new.filing_id, new.replaces)
            and _runs(filing, day)
            and _days_overlap(new, filing)
            and _alike(new, filing)
        ):
            return filing
    return None


def _runs(filing: Filing, day: date) -> bool:
    if filing.state is FilingState.ENDED:
        return filing.end_date is None or filing.end_date > day
    return filing.state in (FilingState.PENDING, FilingState.ACCEPTED)


def _days_overlap(one: Filing, other: Filing) -> bool:
    return (other.end_date is None or one.start_date <= other.end_date) and (
        one.end_date is None or other.start_date <= one.end_date
    )


def _alike(one: Filing, other: Filing) -> bool:
    if one.kind.long_term and other.kind.long_term:
        return True
    return (one.kind, one.care_place) == (other.kind, other.care_place) and (
        one.kind is not FilingKind.REFERRAL or one.disease_code == other.disease_code
    )
