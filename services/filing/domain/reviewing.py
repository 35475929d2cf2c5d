"""审核 and 补充材料: what becomes of a filing that waits, or that rests on a promise."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from services.filing.domain.area_rules import Evidence
from services.filing.domain.changing import Asking
from services.filing.domain.evidence import MaterialMissing, given_by, judge
from services.filing.domain.facts import CommitmentState, Filing, FilingState, Material
from services.filing.domain.life import FilingAction, StateWrong, Step, moved


def reviewed(filing: Filing, accepted: bool, cause: str, day: date) -> Step | StateWrong:
    """The filing accepted or refused; its days stay as they were applied for."""
    action = FilingAction.ACCEPT if accepted else FilingAction.REFUSE
    after = moved(filing, action, day)
    return after if isinstance(after, StateWrong) else Step(after, action, None, cause)


def supplemented(
    filing: Filing, materials: frozenset[Material], evidence: Evidence, asking: Asking
) -> Step | StateWrong:
    """The filing with more material; a promise is made good once the rest is proved."""
    after = moved(filing, FilingAction.SUPPLEMENT, asking.day)
    if isinstance(after, StateWrong):
        return after
    given = filing.materials | given_by(asking.channel, materials)
    judged = judge(evidence, given)
    commitment = filing.commitment
    if commitment is CommitmentState.PROMISED and not isinstance(judged, MaterialMissing):
        commitment = judged
    return Step(
        replace(after, materials=given, commitment=commitment),
        FilingAction.SUPPLEMENT,
        asking.channel,
    )


def overdue(filing: Filing, day: date) -> bool:
    """Whether a filing that waits should have been handled before `day`."""
    return (
        filing.state is FilingState.PENDING
        and filing.due_date is not None
        and filing.due_date < day
    )
