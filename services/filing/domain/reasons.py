"""Why a visit is entitled as it is; the numbers are those of the contract's EntitlementReason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import IntEnum


class EntitlementReason(IntEnum):
    """One machine code per reason; sentence, clause and next step stand in the contract."""

    LOCAL = 1
    BACK_HOME = 2
    BACK_HOME_PROMISED = 3
    LONG_TERM_AT_PLACE = 4
    REFERRAL_NAMED = 5
    REFERRAL = 6
    LONG_TERM_REFERRED = 7
    EMERGENCY_FILED = 8
    OTHER_TEMPORARY = 9
    DEEMED_EMERGENCY = 10
    EMERGENCY_OVER_TEMPORARY = 11
    EXEMPT_IN_PROVINCE = 12
    EXEMPT_PAIR = 13
    ACCOUNT_ONLY = 14
    UNFILED_LEVEL = 15
    LATE_FILING = 16
    ADMITTED_WITHIN_VALIDITY = 17
    FILED_TO_PROVINCE = 18
    LINKED_PLACE = 19
    PROMISE_OPEN = 20
    NOT_BOUND_OUTPATIENT = 21
    NOT_BOUND_CHRONIC = 22
    FILING_ENDED_SINCE = 23


@dataclass(frozen=True, slots=True)
class Given:
    """A reason with what its sentence says of this visit."""

    code: EntitlementReason
    citation: str = ""
    """The area's own rule; empty: the clause of the contract."""
    place: str = ""
    """Area code that the sentence names, or empty."""
    day: date | None = None
    """Day that the sentence names."""
