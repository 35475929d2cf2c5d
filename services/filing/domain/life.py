"""What can be done to a filing in which state, in one table; nothing else moves a filing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from enum import IntEnum
from types import MappingProxyType

from services.filing.domain.facts import Filing, FilingChannel, FilingState

_COSTS = "且已有费用"
_EXPIRED = "但已到期"


class FilingAction(IntEnum):
    """办理事项; the numbers are those of the contract."""

    APPLY = 1
    ACCEPT = 2
    REFUSE = 3
    SUPPLEMENT = 4
    CHANGE = 5
    GO_HOME = 6
    END = 7
    CANCEL = 8
    TAKE_OVER = 9


BIRTHS = frozenset({FilingAction.APPLY, FilingAction.TAKE_OVER})
"""What makes a filing, so nothing that can be done to one."""

# A pending filing is not changed: a change is accepted at once and would go round its review.
MOVES: Mapping[tuple[FilingState, FilingAction], FilingState] = MappingProxyType(
    {
        (FilingState.PENDING, FilingAction.ACCEPT): FilingState.ACCEPTED,
        (FilingState.PENDING, FilingAction.REFUSE): FilingState.REFUSED,
        (FilingState.PENDING, FilingAction.SUPPLEMENT): FilingState.PENDING,
        (FilingState.PENDING, FilingAction.CANCEL): FilingState.CANCELLED,
        (FilingState.ACCEPTED, FilingAction.SUPPLEMENT): FilingState.ACCEPTED,
        (FilingState.ACCEPTED, FilingAction.CHANGE): FilingState.ENDED,
        (FilingState.ACCEPTED, FilingAction.GO_HOME): FilingState.ENDED,
        (FilingState.ACCEPTED, FilingAction.END): FilingState.ENDED,
        (FilingState.ACCEPTED, FilingAction.CANCEL): FilingState.CANCELLED,
    }
)
"""State and action → the state that it makes. CHANGE and GO_HOME of a filing that would end before
its first day make it CANCELLED instead (`ended`)."""


@dataclass(frozen=True, slots=True)
class Step:
    """A filing after something was done to it; its version and state are those of the event."""

    filing: Filing
    action: FilingAction
    channel: FilingChannel | None
    """None on review, which comes through no channel."""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class StateWrong:
    """The state does not allow the action; `but` says in Chinese what else is wrong with it."""

    filing: Filing
    action: FilingAction
    but: str = ""


def moved(filing: Filing, action: FilingAction, day: date) -> Filing | StateWrong:
    """The filing after `action` on `day`, one version on, or why the table has no such move."""
    state = MOVES.get((filing.state, action))
    if state is None:
        return StateWrong(filing, action)
    over = state in (FilingState.REFUSED, FilingState.ENDED, FilingState.CANCELLED)
    return replace(
        filing,
        state=state,
        version=filing.version + 1,
        due_date=filing.due_date if state is FilingState.PENDING else None,
        changed_on=day if over else filing.changed_on,
    )


def ended(
    filing: Filing, action: FilingAction, day: date, last: date, *, costs: bool
) -> Filing | StateWrong:
    """The filing ended by CHANGE, GO_HOME or END after its day `last`, void where it never began.

    Refused once it has expired, and where something was paid under it and a day that has passed
    would lose its cover.
    """
    after = moved(filing, action, day)
    if isinstance(after, StateWrong):
        return after
    if filing.end_date is not None and filing.end_date < day:
        return StateWrong(filing, action, _EXPIRED)
    if costs and (last < filing.start_date or (day - last).days > 1):
        return StateWrong(filing, action, _COSTS)
    if last < filing.start_date:
        return replace(after, state=FilingState.CANCELLED)
    if filing.end_date is not None and filing.end_date < last:
        return after
    return replace(after, end_date=last)


def cancelled(filing: Filing, day: date, *, costs: bool) -> Filing | StateWrong:
    """The filing void from its first day; refused once something was paid under it."""
    if costs:
        return StateWrong(filing, FilingAction.CANCEL, _COSTS)
    return moved(filing, FilingAction.CANCEL, day)
