"""Days on the wire: ISO dates whose form the contract checks and whose existence we check."""

from __future__ import annotations

from datetime import date

from infra.runtime.errors import Reason, Refusal


def parse_day(text: str, field: str) -> date:
    """The day that `text` names; refuse with DAY_INVALID when there is none, e.g. 2026-02-31."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise Refusal(Reason.ERROR_REASON_DAY_INVALID, field=field, value=text) from error
