"""The demo's plain data, the sample people and amounts as people read them."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st
from stdnum.iso7064 import mod_11_2

from infra.cli.demo.story import STORY, visit_days
from infra.cli.samples import PEOPLE, sample_institutions, sample_visits
from infra.cli.terminal import yuan
from yidi.common.v1 import types_pb2


@given(today=st.dates(date(2024, 1, 1), date(2040, 12, 31)), nights=st.integers(0, 30))
def test_a_visit_ends_by_today_within_one_year(today: date, nights: int) -> None:
    first, last = visit_days(today, nights)
    assert last - first == timedelta(days=nights)
    assert first.year == last.year
    assert last <= today
    assert today - last <= timedelta(days=30)
    assert last == today or (last.month, last.day) == (12, 31)


def test_the_story_has_the_visits_of_the_demo() -> None:
    cases = [chapter.case for chapter in STORY]
    assert len(set(cases)) == len(cases)
    guided = [chapter for chapter in STORY if chapter.guided is not None]
    assert [chapter.case for chapter in guided] == ["planned_without_filing"]
    assert {chapter.visit.care_site for chapter in STORY} == {"110000", "440000", "370000"}
    emergency = next(c for c in STORY if c.case == "emergency_without_filing")
    assert emergency.filing is None
    assert emergency.visit.inpatient_type == types_pb2.INPATIENT_TYPE_EMERGENCY


def test_sample_people_are_labelled_synthetic_with_valid_numbers() -> None:
    assert len({person.id for person in PEOPLE}) == len(PEOPLE)
    for person in PEOPLE:
        assert "合成" in person.name
        assert mod_11_2.is_valid(person.id_number)


def test_every_sample_visit_belongs_to_a_sample_person_and_institution() -> None:
    tokens = {person.token: person for person in PEOPLE}
    visits = sample_visits()
    assert len(visits) == 4
    known = {
        code for site in ("110000", "370000", "440000") for code, _ in sample_institutions(site)
    }
    for request in visits.values():
        person = tokens[request.credential.number]
        visit = request.bill.visit
        assert visit.insured_area == person.area
        assert visit.care_area == person.care_place
        assert visit.start_date >= person.filed_on
        assert request.bill.reference.institution in known
        assert request.bill.total_fen == sum(line.amount_fen for line in request.bill.lines)


@given(st.integers(-(10**13), 10**13))
def test_yuan_loses_no_fen(fen: int) -> None:
    shown = yuan(fen)
    assert int(shown.replace(",", "").replace(".", "")) == fen
