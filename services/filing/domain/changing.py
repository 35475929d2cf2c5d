"""Changes of a filing: another place or first day, back home, ended, void (变更, 取消, 终止).

Each rule answers with the step to write or with why not, and knows only what it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from services.filing.domain.area_rules import AreaRules
from services.filing.domain.channels import family
from services.filing.domain.facts import Filing, FilingChannel, FilingState, Route
from services.filing.domain.life import FilingAction, StateWrong, Step, cancelled, ended, moved
from services.filing.domain.permitted import ChannelNotAllowed
from services.filing.domain.standing import overlapping
from services.filing.domain.validity import last_day


@dataclass(frozen=True, slots=True)
class NotFound:
    """No filing of that number is this person's in this area and insurance."""

    filing_id: str


@dataclass(frozen=True, slots=True)
class ChangedMeanwhile:
    """The caller has seen another version."""

    filing: Filing


@dataclass(frozen=True, slots=True)
class Locked:
    """Changes and cancellations must wait (锁定期)."""

    filing: Filing
    until: date
    """The first day on which it can be changed."""
    after_cost: bool
    citation: str


@dataclass(frozen=True, slots=True)
class Overlapping:
    """This filing stands already."""

    filing: Filing


@dataclass(frozen=True, slots=True)
class EndsBeforeStart:
    """The last day asked for lies before the first."""

    filing: Filing


@dataclass(frozen=True, slots=True)
class Asking:
    """What every change of a filing is asked with."""

    channel: FilingChannel
    day: date
    """Today."""
    route: Route
    """Between the insured area and the place filed to."""
    costs: bool
    """Whether something stands that was paid under it."""


Unmoved = (
    NotFound
    | ChangedMeanwhile
    | StateWrong
    | Locked
    | ChannelNotAllowed
    | Overlapping
    | EndsBeforeStart
)


def seen(filings: Sequence[Filing], filing_id: str, version: int) -> Filing | Unmoved:
    """The filing that the caller means, if it is one of `filings` and as the caller saw it."""
    for filing in filings:
        if filing.filing_id == filing_id:
            return filing if filing.version == version else ChangedMeanwhile(filing)
    return NotFound(filing_id)


def left(
    filing: Filing, action: FilingAction, first: date, rules: AreaRules, asking: Asking
) -> Step | Unmoved:
    """The filing ended the day before `first`, the first day of what comes after it: another filing
    (CHANGE, 变更) or home (GO_HOME, 变更回参保地)."""
    refused = _held(filing, action, rules, asking)
    if refused is not None:
        return refused
    after = ended(filing, action, asking.day, first - timedelta(days=1), costs=asking.costs)
    return after if isinstance(after, StateWrong) else Step(after, action, asking.channel)


def given_up(
    filing: Filing, last: date | None, cause: str, rules: AreaRules, asking: Asking
) -> Step | Unmoved:
    """The filing ended after `last` (终止), or void from its first day without one (取消)."""
    action = FilingAction.CANCEL if last is None else FilingAction.END
    refused = _held(filing, action, rules, asking)
    if refused is not None:
        return refused
    if last is None:
        after = cancelled(filing, asking.day, costs=asking.costs)
    elif last < filing.start_date:
        return EndsBeforeStart(filing)
    else:
        after = ended(filing, action, asking.day, last, costs=asking.costs)
    return after if isinstance(after, StateWrong) else Step(after, action, asking.channel, cause)


def beside(new: Filing, filings: Sequence[Filing], day: date) -> Overlapping | None:
    """Why `new` cannot stand beside the person's filings."""
    filing = overlapping(new, filings, day)
    return None if filing is None else Overlapping(filing)


def _held(filing: Filing, action: FilingAction, rules: AreaRules, asking: Asking) -> Unmoved | None:
    """Why it cannot be left: state, channel or lock-in, which does not hold before acceptance."""
    after = moved(filing, action, asking.day)
    if isinstance(after, StateWrong):
        return after
    if rules.same_channel[(filing.kind,)].value:
        allowed = family(filing.channel).channels
        if asking.channel not in allowed:
            return ChannelNotAllowed(asking.channel, allowed)
    if filing.state is FilingState.PENDING:
        return None
    lock = rules.lock[filing.kind, asking.route]
    if lock.value.only_after_cost and not asking.costs:
        return None
    end = last_day(filing.filed_on, lock.value.months)
    if lock.value.months == 0 or end is None or asking.day > end:
        return None
    return Locked(filing, end + timedelta(days=1), lock.value.only_after_cost, lock.citation)
