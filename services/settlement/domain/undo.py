"""Undo: the exact negation of a stored original, as a settlement of its own.

No policy is run: amounts, funds, deltas and the account's share are the original's with the other
sign, booked to the original's benefit periods, person and insurance, whatever is true today. Later
settlements are never recomputed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from services.settlement.domain.balance import FIELDS, Values


@dataclass(frozen=True, slots=True)
class Original:
    """What an undo needs of the settlement that it undoes."""

    settlement_id: str
    committed: bool
    is_undo: bool
    institution: str
    business_day: date | None
    undone_by: str | None


class Refused:
    """Why a settlement cannot be undone; the values are reasons of the catalogue."""

    NOT_FOUND = "ORIGINAL_NOT_FOUND"
    ALREADY = "ALREADY_UNDONE"
    REFUND_INSTEAD = "REFUND_INSTEAD"


def may_undo(
    original: Original | None, *, institution: str, reversal: bool, today: date
) -> str | None:
    """The reason against it, or None.

    Only the institution that settled may undo, only what was committed, only once, and an undo
    itself is never undone. A reversal (冲正) belongs to the original's business day.
    """
    if (
        original is None
        or not original.committed
        or original.is_undo
        or original.institution != institution
    ):
        return Refused.NOT_FOUND
    if original.undone_by is not None:
        return Refused.ALREADY
    if reversal and original.business_day != today:
        return Refused.REFUND_INSTEAD
    return None


def negated(amounts: Mapping[str, int]) -> dict[str, int]:
    """Every amount with the other sign."""
    return {name: -fen for name, fen in amounts.items()}


def negated_deltas(balances: Mapping[str, object]) -> dict[str, Values]:
    """The deltas of a decision row's `balances`, by benefit period, with the other sign.

    A field that is younger than the decision is absent there: it added nothing to it.
    """
    kept = balances.get("accumulators") or []
    assert isinstance(kept, list)
    return {row["period"]: tuple(-row["delta"].get(name, 0) for name in FIELDS) for row in kept}


def negated_account(balances: Mapping[str, object]) -> tuple[str, int] | None:
    """The account that paid, and what it gets back in fen; None when it did not pay."""
    kept = balances.get("account")
    if not isinstance(kept, dict):
        return None
    return kept["account_id"], -kept["delta"]
