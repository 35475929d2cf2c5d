"""Rules of a filing's life, without a server: moves, what stands beside what, lock-in, promises."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from itertools import product
from uuid import UUID

import pytest
from desk_world import RULES
from hypothesis import given
from hypothesis import strategies as st

from services.filing.domain.changing import (
    Asking,
    EndsBeforeStart,
    Locked,
    given_up,
    left,
    seen,
)
from services.filing.domain.facts import (
    CommitmentState,
    Filing,
    FilingChannel,
    FilingKind,
    FilingState,
    InsuranceType,
    Material,
    Route,
)
from services.filing.domain.life import BIRTHS, MOVES, FilingAction, StateWrong, Step, moved
from services.filing.domain.permitted import ChannelNotAllowed
from services.filing.domain.reviewing import overdue, reviewed, supplemented
from services.filing.domain.standing import of_relation, overlapping
from services.filing.domain.validity import last_day

DAY = date(2026, 11, 21)
FILED = date(2026, 6, 10)
FILING = Filing(
    filing_id=str(UUID(int=1)),
    insured_area="370800",
    insurance=InsuranceType.EMPLOYEE,
    kind=FilingKind.LONG_TERM_RESIDENT,
    channel=FilingChannel.WINDOW,
    care_place="110000",
    start_date=FILED,
    end_date=None,
    filed_on=FILED,
    referral_institution="",
    commitment=CommitmentState.MATERIAL_COMPLETE,
)
TEMPORARY = replace(FILING, filing_id=str(UUID(int=2)), kind=FilingKind.OTHER_TEMPORARY)
ASKING = Asking(FilingChannel.WINDOW, DAY, Route.CROSS_PROVINCE, costs=False)
JINING, ZHANJIANG, DATONG = RULES["370800"], RULES["440800"], RULES["140200"]
IN_STATE = {
    state: replace(FILING, state=state, due_date=DAY if state is FilingState.PENDING else None)
    for state in FilingState
}


@pytest.mark.parametrize(("state", "action"), list(product(FilingState, FilingAction)))
def test_nothing_moves_but_by_the_table(state: FilingState, action: FilingAction) -> None:
    filing = IN_STATE[state]
    after = moved(filing, action, DAY)
    wanted = MOVES.get((state, action))
    if wanted is None:
        assert after == StateWrong(filing, action)
        return
    assert not isinstance(after, StateWrong)
    assert (after.state, after.version) == (wanted, filing.version + 1)
    over = wanted in (FilingState.ENDED, FilingState.CANCELLED, FilingState.REFUSED)
    assert after.changed_on == (DAY if over else None)
    assert (after.due_date is not None) == (wanted is FilingState.PENDING)


def test_what_is_over_stays_over_and_nobody_applies_twice() -> None:
    over = (FilingState.REFUSED, FilingState.ENDED, FilingState.CANCELLED)
    assert not {state for state, _ in MOVES} & set(over)
    assert not {action for _, action in MOVES} & BIRTHS
    assert {action for _, action in MOVES} | BIRTHS == set(FilingAction)


@pytest.mark.parametrize(
    ("first", "state", "end"),
    [
        (DAY, FilingState.ENDED, DAY - timedelta(days=1)),
        (DAY + timedelta(days=9), FilingState.ENDED, DAY + timedelta(days=8)),
        (FILED + timedelta(days=1), FilingState.ENDED, FILED),
        (FILED, FilingState.CANCELLED, None),
        (FILED - timedelta(days=5), FilingState.CANCELLED, None),
    ],
)
@pytest.mark.parametrize("action", [FilingAction.CHANGE, FilingAction.GO_HOME])
def test_a_filing_ends_the_day_before_what_follows_or_is_void(
    first: date, state: FilingState, end: date | None, action: FilingAction
) -> None:
    step = left(FILING, action, first, DATONG, ASKING)
    assert isinstance(step, Step)
    assert (step.filing.state, step.filing.end_date, step.action) == (state, end, action)


@pytest.mark.parametrize("first", [FILED, DAY - timedelta(days=1)])
def test_no_paid_day_loses_its_cover(first: date) -> None:
    paid = replace(ASKING, costs=True)
    wrong = left(FILING, FilingAction.CHANGE, first, DATONG, paid)
    assert wrong == StateWrong(FILING, FilingAction.CHANGE, "且已有费用")
    assert isinstance(left(FILING, FilingAction.CHANGE, DAY, DATONG, paid), Step)


def test_void_only_while_nothing_was_paid_and_never_turned_into_an_end() -> None:
    step = given_up(FILING, None, "不去了", DATONG, ASKING)
    assert isinstance(step, Step)
    assert (step.filing.state, step.filing.end_date) == (FilingState.CANCELLED, None)
    assert (step.action, step.cause) == (FilingAction.CANCEL, "不去了")
    paid = replace(ASKING, costs=True)
    wrong = StateWrong(FILING, FilingAction.CANCEL, "且已有费用")
    assert given_up(FILING, None, "", DATONG, paid) == wrong


def test_an_end_lies_within_the_filing() -> None:
    """Dates in the wrong order are refused; a filing never becomes longer by ending."""
    early = FILED - timedelta(days=1)
    assert given_up(FILING, early, "", DATONG, ASKING) == EndsBeforeStart(FILING)
    until = replace(FILING, end_date=DAY + timedelta(days=3))
    step = given_up(until, date(9999, 12, 31), "", DATONG, ASKING)
    assert isinstance(step, Step)
    assert step.filing.end_date == until.end_date
    expired = replace(FILING, end_date=DAY - timedelta(days=1))
    for action in (FilingAction.CHANGE, FilingAction.GO_HOME):
        wrong = left(expired, action, DAY, DATONG, ASKING)
        assert wrong == StateWrong(expired, action, "但已到期")


@pytest.mark.parametrize(
    ("day", "costs", "held"),
    [
        (date(2026, 12, 10), True, True),
        (date(2026, 12, 11), True, False),
        (date(2026, 12, 10), False, False),
    ],
)
def test_jining_locks_for_six_months_once_cost_occurred(day: date, costs: bool, held: bool) -> None:
    """S2-12, S2-13: without cost any time; with cost six months from the filing."""
    asking = replace(ASKING, day=day, costs=costs)
    found = left(FILING, FilingAction.CHANGE, day, JINING, asking)
    assert isinstance(found, Locked) is held
    if isinstance(found, Locked):
        assert (found.until, found.after_cost) == (date(2026, 12, 11), True)


@pytest.mark.parametrize("costs", [True, False])
@pytest.mark.parametrize(("day", "held"), [(date(2026, 12, 10), True), (date(2026, 12, 11), False)])
def test_zhanjiang_locks_for_six_months_whether_or_not_cost_occurred(
    day: date, held: bool, costs: bool
) -> None:
    """S4-9."""
    asking = replace(ASKING, day=day, costs=costs)
    assert isinstance(left(FILING, FilingAction.CHANGE, day, ZHANJIANG, asking), Locked) is held
    ended = given_up(FILING, day, "", ZHANJIANG, asking)
    assert isinstance(ended, Locked) is held


@given(st.dates(date(2020, 1, 1), date(2030, 12, 31)), st.integers(0, 400))
def test_the_lock_ends_after_the_same_day_six_months_later(filed: date, days: int) -> None:
    """民法典 第201、202条: the last day is that of the same number."""
    filing = replace(FILING, filed_on=filed, start_date=filed)
    day = filed + timedelta(days=days)
    last = last_day(filed, 6)
    assert last is not None
    asking = replace(ASKING, day=day)
    found = left(filing, FilingAction.GO_HOME, day, ZHANJIANG, asking)
    assert isinstance(found, Locked) is (day <= last)


def test_what_waits_for_review_is_not_locked() -> None:
    waiting = IN_STATE[FilingState.PENDING]
    asking = replace(ASKING, day=FILED + timedelta(days=1))
    step = given_up(waiting, None, "", ZHANJIANG, asking)
    assert isinstance(step, Step)
    assert step.filing.state is FilingState.CANCELLED


@pytest.mark.parametrize(
    ("filed", "asked", "taken"),
    [
        (FilingChannel.NATIONAL_APP, FilingChannel.MINI_PROGRAM, True),
        (FilingChannel.NATIONAL_APP, FilingChannel.WINDOW, False),
        (FilingChannel.WINDOW, FilingChannel.WINDOW, True),
        (FilingChannel.WINDOW, FilingChannel.PHONE, False),
    ],
)
def test_jining_changes_through_the_channel_of_the_filing(
    filed: FilingChannel, asked: FilingChannel, taken: bool
) -> None:
    """S2-15; the national channels are one family. Elsewhere any channel will do."""
    filing = replace(TEMPORARY, channel=filed)
    asking = replace(ASKING, channel=asked)
    found = left(filing, FilingAction.CHANGE, DAY, JINING, asking)
    assert isinstance(found, Step) is taken
    if isinstance(found, ChannelNotAllowed):
        assert found.channel is asked
        assert filed in found.allowed
    assert isinstance(left(filing, FilingAction.CHANGE, DAY, DATONG, asking), Step)


def test_only_the_version_seen_is_changed() -> None:
    other = replace(FILING, filing_id=str(UUID(int=9)))
    assert seen([other, FILING], FILING.filing_id, 1) is FILING
    assert type(seen([other, FILING], FILING.filing_id, 2)).__name__ == "ChangedMeanwhile"
    assert type(seen([other], FILING.filing_id, 1)).__name__ == "NotFound"


LATER = replace(FILING, filing_id=str(UUID(int=3)), start_date=DAY, filed_on=DAY)


@pytest.mark.parametrize(
    ("standing", "beside"),
    [
        (replace(FILING, care_place="310000"), False),  # a second long-term, anywhere
        (replace(FILING, kind=FilingKind.RETIRED_RESETTLED, care_place="310000"), False),
        (replace(FILING, state=FilingState.PENDING, due_date=DAY, care_place="310000"), False),
        (TEMPORARY, True),
        (replace(FILING, end_date=DAY - timedelta(days=1)), True),
        (replace(FILING, end_date=DAY), False),
        (replace(FILING, state=FilingState.CANCELLED), True),
        (replace(FILING, state=FilingState.REFUSED), True),
        (replace(FILING, state=FilingState.ENDED, end_date=DAY), True),
        (replace(FILING, state=FilingState.ENDED, end_date=DAY + timedelta(days=1)), False),
    ],
)
def test_one_long_term_filing_at_a_time(standing: Filing, beside: bool) -> None:
    assert (overlapping(LATER, [standing], DAY) is None) is beside


@pytest.mark.parametrize(
    ("changes", "beside"),
    [
        ({}, False),
        ({"care_place": "310000"}, True),
        ({"kind": FilingKind.REFERRAL}, True),
        ({"kind": FilingKind.LONG_TERM_RESIDENT}, True),
        ({"start_date": DAY + timedelta(days=30)}, False),
    ],
)
def test_the_same_kind_at_the_same_place_once(changes: dict[str, object], beside: bool) -> None:
    """Filings of different kinds or places stand side by side."""
    new = replace(TEMPORARY, **{"filing_id": str(UUID(int=4)), "start_date": DAY} | changes)
    assert (overlapping(new, [TEMPORARY], DAY) is None) is beside


def test_referrals_stand_beside_those_for_another_disease() -> None:
    referral = replace(TEMPORARY, kind=FilingKind.REFERRAL, disease_code="C34")
    again = replace(referral, filing_id=str(UUID(int=4)))
    assert overlapping(again, [referral], DAY) is referral
    assert overlapping(replace(again, disease_code="I21"), [referral], DAY) is None


def test_a_filing_does_not_overlap_itself_nor_what_it_replaces() -> None:
    assert overlapping(FILING, [FILING], DAY) is None
    assert overlapping(replace(LATER, replaces=FILING.filing_id), [FILING], DAY) is None


@given(st.permutations([FILING, TEMPORARY, replace(FILING, filing_id=str(UUID(int=5)))]))
def test_order_does_not_decide_whether_filings_overlap(filings: list[Filing]) -> None:
    assert overlapping(LATER, filings, DAY) is not None


def test_what_was_filed_under_a_former_relation_stands_in_no_way() -> None:
    """DOMAIN §5: after a transfer the patient must be able to file again, to the same place."""
    area, employee = "370800", InsuranceType.EMPLOYEE
    assert of_relation([FILING], area, employee, None) == [FILING]
    assert of_relation([FILING], area, employee, FILED) == [FILING]
    assert of_relation([FILING], area, employee, FILED + timedelta(days=1)) == []
    assert of_relation([FILING], area, InsuranceType.RESIDENT, None) == []
    assert of_relation([FILING], "440800", employee, None) == []


@pytest.mark.parametrize(
    ("given_now", "commitment"),
    [
        ({Material.FILING_FORM}, CommitmentState.PROMISED),
        ({Material.RESIDENCE_PERMIT}, CommitmentState.MATERIAL_COMPLETE),
    ],
)
def test_a_promise_is_made_good_by_the_material(
    given_now: set[Material], commitment: CommitmentState
) -> None:
    """S4-14, 医保发〔2022〕22号 二（五）."""
    filing = replace(
        FILING,
        commitment=CommitmentState.PROMISED,
        materials=frozenset({Material.FILING_FORM, Material.COMMITMENT}),
    )
    evidence = ZHANJIANG.evidence[filing.kind, Route.CROSS_PROVINCE].value
    step = supplemented(filing, frozenset(given_now), evidence, ASKING)
    assert isinstance(step, Step)
    assert step.filing.commitment is commitment
    assert step.filing.materials == filing.materials | given_now
    assert (step.filing.state, step.filing.version) == (FilingState.ACCEPTED, 2)


def test_a_review_keeps_the_days() -> None:
    waiting = IN_STATE[FilingState.PENDING]
    accepted, refused = reviewed(waiting, True, "", DAY), reviewed(waiting, False, "不符", DAY)
    assert isinstance(accepted, Step)
    assert isinstance(refused, Step)
    assert accepted.filing == replace(waiting, state=FilingState.ACCEPTED, version=2, due_date=None)
    assert (refused.filing.state, refused.cause) == (FilingState.REFUSED, "不符")
    assert isinstance(reviewed(FILING, True, "", DAY), StateWrong)


def test_overdue_after_the_due_day() -> None:
    waiting = IN_STATE[FilingState.PENDING]
    assert not overdue(waiting, DAY)
    assert overdue(waiting, DAY + timedelta(days=1))
    assert not overdue(FILING, DAY + timedelta(days=1))
