"""What changes make of a person, and which cannot be; without a database."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.enrollment.domain.changing import (
    Attributes,
    Change,
    Credential,
    Disqualify,
    NewNumber,
    Person,
    Relation,
    SetStatus,
    ShareWith,
    Sharing,
    Transfer,
    UnshareWith,
    apply,
)
from services.enrollment.domain.identification import CredentialType
from services.enrollment.domain.masking import masked_id_number, masked_name
from services.enrollment.domain.qualification import Qualification, overlap
from services.enrollment.domain.registration import Key
from services.enrollment.domain.status import (
    BELONGING,
    ChangeRefused,
    InsuredStatus,
    Spell,
    insured_since,
    on,
    registered,
    runs,
)
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import participant_pb2

EMPLOYEE = types_pb2.INSURANCE_TYPE_EMPLOYEE
RETIRED = types_pb2.PERSON_CLASS_RETIRED
HOME, NEXT, FAR = "440800", "440100", "110000"
INSIDE = frozenset({HOME, NEXT})
ME, WIFE, SON = "me", "wife", "son"
FIRST = date(2026, 1, 1)
TODAY = date(2026, 6, 1)
SUSPEND, RESUME, END = (
    SetStatus(status)
    for status in (InsuredStatus.SUSPENDED, InsuredStatus.NORMAL, InsuredStatus.ENDED)
)
CARD = Key(CredentialType.SOCIAL_SECURITY_CARD, b"1")
HYPERTENSION = Qualification("M03900", FIRST, None, HOME)


def _day(number: int) -> date:
    return FIRST + timedelta(days=number)


def _person(*spells: Spell, **facts) -> Person:
    relation = Relation(
        area=HOME,
        insurance_type=EMPLOYEE,
        person_class=RETIRED,
        civil_servant=True,
        contracted_institution="H44080000001",
        statuses=spells or registered(FIRST, None),
        qualifications=(HYPERTENSION,),
        account_id="account",
    )
    return Person(ME, 1, (replace(relation, **facts),), (Credential(CARD),), ())


def _to(area: str) -> Transfer:
    return Transfer(area, area in INSIDE, RETIRED)


def _change(person: Person, change: Change, number: int, area: str = HOME) -> Person:
    return apply(person, area, EMPLOYEE, change, day=_day(number), today=TODAY)


def _cause(person: Person, change: Change, number: int, area: str = HOME) -> str:
    with pytest.raises(ChangeRefused) as refused:
        _change(person, change, number, area)
    return refused.value.cause


def _relation(person: Person, area: str) -> Relation:
    (found,) = (one for one in person.relations if one.area == area)
    return found


def test_statuses_are_those_of_the_contract():
    names = participant_pb2.InsuredStatus.DESCRIPTOR.values_by_name
    assert {one.name: one.number for one in names.values() if one.number} == {
        f"INSURED_STATUS_{one.name}": one for one in InsuredStatus
    }


CHANGES = st.lists(
    st.tuples(
        st.sampled_from([HOME, NEXT]),
        st.sampled_from([SUSPEND, RESUME, END, _to(HOME), _to(NEXT), _to(FAR)]),
        st.integers(0, 300),
        st.integers(0, 300),
    ),
    max_size=12,
)


def test_the_last_day_of_the_calendar_means_no_end() -> None:
    """Other systems write 9999-12-31 for what has no end."""
    assert registered(FIRST, date.max) == registered(FIRST, None)
    assert registered(FIRST, FIRST)[-1].status is InsuredStatus.ENDED


@given(CHANGES, st.none() | st.integers(0, 300))
def test_any_changes_leave_one_status_a_day_and_one_area_a_day(changes, planned: int | None):
    """S4-8: the insured status decides; no hole, no overlap, nothing rewritten."""
    last = None if planned is None else _day(planned)
    person = _person(*registered(FIRST, last))
    for area, change, number, today in changes:
        before = person
        try:
            person = apply(before, area, EMPLOYEE, change, day=_day(number), today=_day(today))
        except ChangeRefused:
            continue
        assert person.version == before.version + 1
        for relation in person.relations:
            starts = [spell.start for spell in relation.statuses]
            assert starts == sorted(set(starts))
            for (_, end), (after, _) in pairwise(runs(relation.statuses)):
                assert end is not None
                assert end + timedelta(days=1) == after.start
        for past in range(number):
            for relation in before.relations:
                now = _relation(person, relation.area)
                assert on(now.statuses, _day(past)) == on(relation.statuses, _day(past))
    for number in range(0, 310, 7):
        statuses = [on(relation.statuses, _day(number)) for relation in person.relations]
        assert sum(one is not None and one.status in BELONGING for one in statuses) <= 1


@given(CHANGES)
def test_the_first_day_of_the_relation_never_goes_back(changes):
    """It moves only when somebody comes back; that is what makes former filings void."""
    person = _person()
    for area, change, number, _ in changes:
        try:
            person = apply(person, area, EMPLOYEE, change, day=_day(number), today=_day(301))
        except ChangeRefused:
            continue
    for relation in person.relations:
        found = [insured_since(relation.statuses, _day(number)) for number in range(310)]
        since = [one for one in found if one is not None]
        assert since == sorted(since)
        for number, one in enumerate(found):
            status = on(relation.statuses, _day(number))
            belongs = status is not None and status.status in BELONGING
            assert (one is not None) == belongs
            assert one is None or one <= _day(number)


def test_a_suspension_does_not_begin_a_new_relation_but_coming_back_does():
    person = _change(_change(_person(), SUSPEND, 10), RESUME, 20)
    assert insured_since(_relation(person, HOME).statuses, _day(25)) == FIRST
    person = _change(_change(person, END, 30), RESUME, 40)
    assert insured_since(_relation(person, HOME).statuses, _day(39)) is None
    assert insured_since(_relation(person, HOME).statuses, _day(45)) == _day(40)


@pytest.mark.parametrize(
    ("spells", "change", "number", "cause"),
    [
        ([], RESUME, 10, "2026-01-11的状态是正常参保，不能改为正常参保"),
        ([Spell(_day(5), InsuredStatus.SUSPENDED)], SUSPEND, 10, "状态是暂停参保，不能改为暂停"),
        ([Spell(_day(5), InsuredStatus.ENDED)], END, 10, "状态是终止参保，不能改为终止参保"),
        ([Spell(_day(5), InsuredStatus.ENDED)], SUSPEND, 10, "状态是终止参保，不能改为暂停参保"),
        ([Spell(_day(5), InsuredStatus.ENDED)], _to(FAR), 10, "状态是终止参保，不能改为已转出"),
        ([Spell(_day(5), InsuredStatus.TRANSFERRED)], END, 10, "状态是已转出，不能改为终止参保"),
        ([Spell(_day(5), InsuredStatus.SUSPENDED)], END, 4, "2026-01-06起已是暂停参保"),
        ([Spell(_day(5), InsuredStatus.ENDED)], END, 4, "2026-01-06起已是终止参保"),
        ([], SUSPEND, -1, "参保关系从2026-01-01才开始"),
        ([], _to(HOME), 10, "转入地与转出地是同一统筹区"),
    ],
)
def test_changes_of_status_that_cannot_be(spells, change, number, cause):
    person = _person(Spell(FIRST, InsuredStatus.NORMAL), *spells)
    assert cause in _cause(person, change, number)


def test_a_planned_end_gives_way_to_an_earlier_one():
    """Residents are insured by the calendar year: who moves in spring does not wait."""
    person = _person(*registered(FIRST, date(2026, 12, 31)))
    suspended = _relation(_change(person, SUSPEND, 100), HOME)
    assert [spell.status.name for spell, _ in runs(suspended.statuses)] == [
        "NORMAL",
        "SUSPENDED",
        "ENDED",
    ]
    moved = _relation(_change(person, _to(FAR), 100), HOME)
    assert runs(moved.statuses)[1:] == [(Spell(_day(100), InsuredStatus.TRANSFERRED, FAR), None)]
    ended = _relation(_change(person, END, 100), HOME)
    assert runs(ended.statuses)[1:] == [(Spell(_day(100), InsuredStatus.ENDED), None)]


def test_a_mistake_of_the_same_day_is_mended():
    person = _change(_change(_person(), SUSPEND, 10), RESUME, 10)
    assert runs(_relation(person, HOME).statuses) == [(Spell(FIRST, InsuredStatus.NORMAL), None)]


def test_a_transfer_inside_the_site_takes_person_and_account_along():
    moved = _change(_person(), _to(NEXT), 10)
    there = _relation(moved, NEXT)
    assert there == Relation(
        area=NEXT,
        insurance_type=EMPLOYEE,
        person_class=RETIRED,
        civil_servant=True,
        contracted_institution="",
        statuses=(Spell(_day(10), InsuredStatus.NORMAL),),
        account_id="account",
    )
    back = _change(moved, _to(HOME), 20, NEXT)
    home = _relation(back, HOME)
    assert [(spell.status.name, spell.to_area) for spell in home.statuses] == [
        ("NORMAL", ""),
        ("TRANSFERRED", NEXT),
        ("NORMAL", ""),
    ]
    assert (home.account_id, home.qualifications) == ("account", (HYPERTENSION,))
    assert insured_since(home.statuses, _day(25)) == _day(20)
    assert f"参保人在{HOME}已参加此险种" in _cause(back, RESUME, 25, NEXT)
    assert f"参保人在{NEXT}已参加此险种" in _cause(moved, _to(NEXT), 25)


def test_a_transfer_never_hides_a_second_account():
    """Where older data have two accounts of one person, neither is given up unseen."""
    person = _person()
    other = replace(
        person.relations[0],
        area=NEXT,
        account_id="other",
        statuses=registered(FIRST - timedelta(days=99), FIRST - timedelta(days=1)),
    )
    person = replace(person, relations=(*person.relations, other))
    assert _cause(person, _to(NEXT), 10) == "参保人在440100另有个人账户，请先合并账户"


def test_an_insurance_that_the_person_has_not():
    with pytest.raises(ChangeRefused) as refused:
        apply(
            _person(),
            HOME,
            types_pb2.INSURANCE_TYPE_RESIDENT,
            SUSPEND,
            day=TODAY,
            today=TODAY,
        )
    assert refused.value.cause == "参保人在该统筹区没有参加此险种"


def test_attributes_are_set_anew():
    changed = _change(_person(), Attributes(types_pb2.PERSON_CLASS_EMPLOYED, False, "H2"), 10)
    relation = _relation(changed, HOME)
    assert (relation.person_class, relation.civil_servant, relation.contracted_institution) == (
        types_pb2.PERSON_CLASS_EMPLOYED,
        False,
        "H2",
    )
    assert relation.statuses == _relation(_person(), HOME).statuses


def test_a_former_number_stays_an_alias():
    """S4-46."""
    new = Key(CredentialType.SOCIAL_SECURITY_CARD, b"2")
    token = Credential(Key(CredentialType.ELECTRONIC, b"1"))
    person = replace(_person(), credentials=(Credential(CARD), token))
    changed = _change(person, NewNumber(new, None), 10)
    assert changed.credentials == (Credential(CARD, _day(10)), token, Credential(new))
    again = _change(changed, NewNumber(Key(new.type, b"3"), None), 20)
    assert [one.replaced_on for one in again.credentials] == [_day(10), None, _day(20), None]
    assert _cause(changed, NewNumber(CARD, ME), 20) == "该号码已是参保人现在或以前的号码"
    assert _cause(changed, NewNumber(new, WIFE), 20) == "该号码已由他人使用"


def test_a_new_qualification_cuts_the_one_in_force():
    new = Qualification("M03900", _day(10), _day(375), HOME, ("H1",))
    changed = _relation(_change(_person(), new, 10), HOME).qualifications
    assert changed == (replace(HYPERTENSION, end=_day(9)), new)
    longer = replace(new, end=None)
    person = _change(_change(_person(), new, 10), longer, 10)
    assert _relation(person, HOME).qualifications == (changed[0], longer)
    assert not overlap(_relation(person, HOME).qualifications)
    assert "不一致" in _cause(person, new, 11)
    early = replace(new, start=_day(5))
    assert _cause(person, early, 5) == "此病种已有2026-01-11开始的资格，不能在此之前办理"
    assert "早于" in _cause(person, replace(new, end=_day(9)), 10)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.none() | st.integers(0, 40))))
def test_qualifications_never_overlap(changes):
    person = _person()
    for grants, number, last in changes:
        end = None if last is None else _day(last)
        change: Change = (
            Qualification("M03900", _day(number), end, HOME) if grants else Disqualify("M03900")
        )
        with contextlib.suppress(ChangeRefused):
            person = _change(person, change, number)
    real = [one for one in _relation(person, HOME).qualifications if not one.void]
    assert not overlap(real)


def test_a_qualification_ends():
    ended = _change(_person(), Disqualify("M03900"), 10)
    assert _relation(ended, HOME).qualifications == (replace(HYPERTENSION, end=_day(9)),)
    assert "没有此病种的资格" in _cause(ended, Disqualify("M03900"), 10)
    assert _relation(_change(_person(), Disqualify("M03900"), 0), HOME).qualifications[0].void


def test_an_account_is_shared_and_the_grant_ends():
    """家庭共济."""
    shared = _change(_person(), ShareWith(WIFE, True), 10)
    assert shared.sharings == (Sharing(ME, WIFE, "account", _day(10)),)
    both = _change(shared, ShareWith(SON, True), 10)
    assert [one.user_id for one in both.sharings] == [WIFE, SON]
    ended = _change(both, UnshareWith(WIFE), 20)
    assert [one.end for one in ended.sharings] == [_day(19), None]
    again = _change(ended, ShareWith(WIFE, True), 30)
    assert len(again.sharings) == 3
    undone = _change(_change(both, UnshareWith(WIFE), 10), ShareWith(WIFE, True), 10)
    assert set(undone.sharings) == set(both.sharings)


@pytest.mark.parametrize(
    ("person", "change", "cause"),
    [
        (_person(), ShareWith(ME, True), "不能与本人共济"),
        (_person(), ShareWith(WIFE, False), "没有找到共济使用人"),
        (_person(account_id=""), ShareWith(WIFE, True), "参保人没有可以共济的个人账户"),
        (_change(_person(), END, 5), ShareWith(WIFE, True), "参保人没有可以共济的个人账户"),
        (_change(_person(), ShareWith(WIFE, True), 20), ShareWith(WIFE, True), "已与该使用人共济"),
        (_person(), UnshareWith(WIFE), "参保人在2026-01-11没有与该使用人共济"),
    ],
)
def test_sharing_that_cannot_be(person, change, cause):
    assert _cause(person, change, 10) == cause


@pytest.mark.parametrize("change", [END, _to(FAR)])
def test_what_takes_the_account_away_ends_its_sharing(change):
    shared = _change(_person(), ShareWith(WIFE, True), 10)
    as_user = Sharing(SON, ME, "theirs", FIRST)
    shared = replace(shared, sharings=(*shared.sharings, as_user))
    gone = _change(shared, change, 20)
    assert [one.end for one in gone.sharings] == [_day(19), None]
    kept = _change(shared, _to(NEXT), 20)
    assert kept.sharings == shared.sharings


@pytest.mark.parametrize("name", ["王小明", "王明", "王"])
def test_masks(name: str):
    assert masked_name(name) == "王*"
    assert masked_id_number("44080219900101001X") == "440802********001X"
