"""The rules of enrollment, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from random import Random

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from infra.local.people import COUNTIES, check_digit, make_person
from infra.runtime.id_number import Sex, age_on, birth_date, sex
from services.enrollment.domain.attempts import REFUSALS, WINDOW_MS, RefusedAttempts
from services.enrollment.domain.identification import (
    CredentialType,
    Found,
    Identified,
    Insured,
    Refused,
    Why,
    identify,
)
from services.enrollment.domain.qualification import Qualification
from services.enrollment.domain.registration import Key, Known, Membership, Registration, plan
from services.enrollment.domain.spelling import same_name
from services.enrollment.domain.status import InsuredStatus, Spell, registered
from services.enrollment.vault import Vault
from yidi.common.v1 import types_pb2

DAYS = st.dates(date(1900, 1, 1), date(2030, 12, 31))
COUNTY = st.sampled_from([county for counties in COUNTIES.values() for county in counties])
PERSON = "0198f000-0000-7000-8000-000000000001"
OTHER = "0198f000-0000-7000-8000-000000000002"


@given(st.integers(0), COUNTY, DAYS, st.booleans())
def test_synthetic_people_have_valid_numbers(seed: int, county: str, born: date, female: bool):
    person = make_person(Random(seed), county=county, born=born, female=female)
    assert birth_date(person.id_number) == born
    assert person.id_number.startswith(county)
    assert sex(person.id_number) is (Sex.FEMALE if female else Sex.MALE)
    assert person == make_person(Random(seed), county=county, born=born, female=female)
    assert person.name not in repr(person)
    assert person.id_number not in repr(person)


@given(st.integers(0), DAYS, st.integers(0, 16), st.integers(1, 9))
def test_any_wrong_digit_is_found(seed: int, born: date, place: int, step: int):
    number = make_person(Random(seed), county="440802", born=born).id_number
    wrong = str((int(number[place]) + step) % 10)
    assert birth_date(number[:place] + wrong + number[place + 1 :]) is None
    assert sex(number[:place] + wrong + number[place + 1 :]) is None


@pytest.mark.parametrize("birth", ["19900231", "19901301", "19000229", "00000101"])
def test_check_digit_alone_does_not_make_a_date(birth: str):
    first_17 = f"440802{birth}001"
    assert birth_date(first_17 + check_digit(first_17)) is None


@pytest.mark.parametrize("number", ["", "4408021990010100", "44080219900101001x", "４" * 17 + "X"])
def test_what_is_no_number_at_all(number: str):
    assert birth_date(number) is None


def test_a_number_keeps_a_code_that_was_given_after_birth():
    """霞山区 exists since 1984: who was born before still has its code."""
    first_17 = "44080319500101001"
    assert birth_date(first_17 + check_digit(first_17)) == date(1950, 1, 1)


@given(DAYS, DAYS)
def test_age_grows_by_one_a_year(born: date, day: date):
    age = age_on(born, day)
    assert 0 <= age_on(born, day + timedelta(days=1)) - age <= 1
    assert age == 0 or age * 365 <= (day - born).days < (age + 1) * 366


@pytest.mark.parametrize(
    ("born", "day", "age"),
    [
        (date(2000, 2, 29), date(2018, 2, 28), 17),
        (date(2000, 2, 29), date(2018, 3, 1), 18),
        (date(1960, 11, 22), date(2026, 11, 21), 65),
        (date(1960, 11, 21), date(2026, 11, 21), 66),
        (date(2026, 12, 1), date(2026, 11, 21), 0),
    ],
)
def test_age_on_a_day(born: date, day: date, age: int):
    assert age_on(born, day) == age


@pytest.mark.parametrize(
    "spelling", ["阿依古丽•买买提", "阿依古丽・买买提", " 阿依古丽 · 买买提", "阿依古丽．买买提"]
)
def test_spellings_of_one_name(spelling: str):
    assert same_name(spelling) == same_name("阿依古丽·买买提")


def test_credential_numbers_are_those_of_the_contract():
    """The personal number is none of the contract's: no message can ask by it at a counter."""
    inside = set(CredentialType) - {CredentialType.PERSONAL_NUMBER}
    assert CredentialType.PERSONAL_NUMBER not in types_pb2.CredentialType.values()
    for kind in inside:
        assert types_pb2.CredentialType.Name(kind) == f"CREDENTIAL_TYPE_{kind.name}"


EMPLOYEE, RESIDENT = types_pb2.INSURANCE_TYPE_EMPLOYEE, types_pb2.INSURANCE_TYPE_RESIDENT
AREA, ELSEWHERE = "440800", "440100"
NORMAL = InsuredStatus.NORMAL
AT_HOME = (AREA, EMPLOYEE)
FOUND = Found(
    person_id=PERSON,
    id_index=b"i" * 32,
    name_index=b"n" * 32,
    birth_date=date(1960, 5, 1),
    replaced_on=None,
    statuses={AT_HOME: registered(date(2020, 1, 1), date(2026, 12, 31))},
    insured=Insured(types_pb2.PERSON_CLASS_RETIRED, True, "H44080000001"),
    qualifications=(),
    account_id=OTHER,
)
CARD, TOKEN = CredentialType.ID_CARD, CredentialType.ELECTRONIC
DAY = date(2026, 11, 21)


def _ask(found, credential=TOKEN, name_matches=None, day=DAY, disease=False, **asked):
    facts = {"area": AREA, "insurance_type": EMPLOYEE} | asked
    return identify(
        found,
        credential=credential,
        name_matches=name_matches,
        day=day,
        disease_asked=disease,
        **facts,
    )


def _statuses(*spells: tuple[date, InsuredStatus]) -> Found:
    own = tuple(Spell(start, status) for start, status in spells)
    return replace(FOUND, statuses={AT_HOME: own})


SUSPENDED = _statuses(
    (date(2020, 1, 1), NORMAL),
    (date(2026, 3, 1), InsuredStatus.SUSPENDED),
    (date(2026, 4, 1), InsuredStatus.SUSPENDED),
)
TRANSFERRED = replace(
    FOUND,
    statuses={
        AT_HOME: (
            Spell(date(2020, 1, 1), NORMAL),
            Spell(date(2026, 3, 1), InsuredStatus.TRANSFERRED, ELSEWHERE),
        ),
        (ELSEWHERE, EMPLOYEE): (Spell(date(2026, 3, 1), NORMAL),),
    },
)


@pytest.mark.parametrize(
    ("found", "credential", "name_matches"),
    [
        (None, TOKEN, None),
        (FOUND, TOKEN, False),
        (FOUND, CARD, None),
        (FOUND, CredentialType.SOCIAL_SECURITY_CARD, None),
        # A near miss is explained only to those who know the name.
        (SUSPENDED, CARD, False),
        (replace(FOUND, replaced_on=DAY), CARD, False),
        (TRANSFERRED, CARD, False),
    ],
)
@pytest.mark.parametrize("disease", [False, True])
def test_unidentified_people(found, credential, name_matches, disease):
    """S0-18, S4-27: the credential is checked before anything is said of the person."""
    outcome = _ask(found, credential, name_matches, disease=disease)
    assert outcome == Refused(Why.NOT_IDENTIFIED)


def test_who_never_was_in_the_area_is_not_identified():
    """Also when the person is insured elsewhere in the province."""
    assert _ask(FOUND, area=ELSEWHERE) == Refused(Why.NOT_IDENTIFIED)


@pytest.mark.parametrize(
    ("found", "asked", "expected"),
    [
        (FOUND, {"day": date(2019, 12, 31)}, Refused(Why.NOT_ACTIVE)),
        (FOUND, {"day": date(2027, 1, 1)}, Refused(Why.NOT_ACTIVE)),
        (SUSPENDED, {}, Refused(Why.SUSPENDED, since=date(2026, 3, 1))),
        (TRANSFERRED, {}, Refused(Why.TRANSFERRED, since=date(2026, 3, 1), area=ELSEWHERE)),
        (FOUND, {"insurance_type": RESIDENT}, Refused(Why.OTHER_TYPE, insurance_type=EMPLOYEE)),
        (SUSPENDED, {"insurance_type": RESIDENT}, Refused(Why.NOT_ACTIVE)),
        (replace(FOUND, replaced_on=DAY), {}, Refused(Why.REPLACED, since=DAY)),
        (FOUND, {"disease": True}, Refused(Why.NOT_QUALIFIED)),
    ],
)
def test_near_misses(found, asked, expected):
    """Told only after the person is known; the first that stands in the way."""
    assert _ask(found, **asked) == expected


HOME = Qualification("M03900", date(2026, 1, 1), date(2026, 10, 31), AREA, ("H44080000001",))
FAR = Qualification("M03900", date(2026, 1, 1), None, ELSEWHERE)


@pytest.mark.parametrize(
    ("qualifications", "day", "expected"),
    [
        ([HOME, FAR], DAY, Refused(Why.NOT_IN_FORCE, qualification=HOME)),
        ([HOME], date(2025, 12, 31), Refused(Why.NOT_IN_FORCE, qualification=HOME)),
        ([FAR], DAY, Refused(Why.GRANTED_ELSEWHERE, area=ELSEWHERE)),
        ([FAR], date(2025, 12, 31), Refused(Why.NOT_QUALIFIED)),
        ([replace(HOME, end=date(2025, 12, 31))], DAY, Refused(Why.NOT_QUALIFIED)),
    ],
)
def test_qualifications_that_do_not_count(qualifications, day, expected):
    """DOMAIN §1.2: a qualification counts only when the insured place granted it."""
    found = replace(FOUND, qualifications=tuple((AT_HOME, one) for one in qualifications))
    assert _ask(found, day=day, disease=True) == expected


def test_a_qualification_of_the_former_area_does_not_come_along():
    found = replace(TRANSFERRED, qualifications=((AT_HOME, replace(HOME, end=None)),))
    outcome = _ask(found, area=ELSEWHERE, disease=True)
    assert outcome == Refused(Why.GRANTED_ELSEWHERE, area=AREA)


@pytest.mark.parametrize("day", [date(2020, 1, 1), date(2026, 12, 31)])
@pytest.mark.parametrize(("credential", "name_matches"), [(CARD, True), (TOKEN, None)])
def test_identified(day, credential, name_matches):
    """S0-17: e-credential or card; both days of the insurance count."""
    assert _ask(FOUND, credential, name_matches, day) == Identified(
        person_id=PERSON,
        person_class=types_pb2.PERSON_CLASS_RETIRED,
        age=age_on(FOUND.birth_date, day),
        civil_servant=True,
        account_id=OTHER,
        insured_since=date(2020, 1, 1),
        contracted_institution="H44080000001",
        chosen_institutions=(),
    )


def test_a_replaced_card_serves_what_was_begun_with_it():
    """S4-46: a change of number does not break business in flight."""
    found = replace(FOUND, replaced_on=DAY, qualifications=((AT_HOME, HOME),))
    outcome = _ask(found, CARD, True, date(2026, 10, 31), disease=True)
    assert isinstance(outcome, Identified)
    assert outcome.chosen_institutions == HOME.chosen_institutions


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=80))
def test_attempts_follow_a_simple_model(gaps: list[int]):
    attempts, refused, now = RefusedAttempts(), [], 0
    for gap in gaps:
        now += gap
        inside = [at for at in refused if at > now - WINDOW_MS]
        wait = attempts.wait_ms("H1", now)
        assert (wait > 0) == (len(inside) >= REFUSALS)
        assert attempts.wait_ms("H2", now) == attempts.wait_ms("", now) == 0
        if wait:
            assert attempts.wait_ms("H1", now + wait - 1) > 0
            assert attempts.wait_ms("H1", now + wait) == 0
        else:
            attempts.refused("H1", now)
            attempts.refused("", now)
            refused.append(now)


def test_vault_binds_a_text_to_person_and_column():
    vault = Vault(b"k" * 32)
    sealed = vault.encrypt("王小明", PERSON, "name")
    assert vault.decrypt(sealed, PERSON, "name") == "王小明"
    assert sealed != vault.encrypt("王小明", PERSON, "name")
    for person, column in ((OTHER, "name"), (PERSON, "id_number")):
        with pytest.raises(InvalidTag):
            vault.decrypt(sealed, person, column)
    with pytest.raises(InvalidTag):
        Vault(b"l" * 32).decrypt(sealed, PERSON, "name")
    with pytest.raises(ValueError, match="32 bytes"):
        Vault(b"short")


def test_blind_indexes_depend_on_key_type_and_owner():
    vault = Vault(b"k" * 32)
    assert vault.number_index(2, "A") == Vault(b"k" * 32).number_index(2, "A")
    assert vault.number_index(2, "A") != vault.number_index(3, "A")
    assert vault.number_index(2, "A") != Vault(b"l" * 32).number_index(2, "A")
    assert vault.name_index(b"1" * 32, "王") != vault.name_index(b"2" * 32, "王")


MEMBERSHIP = Membership(
    person_class=types_pb2.PERSON_CLASS_RETIRED,
    civil_servant=True,
    contracted_institution="",
    statuses=registered(date(2020, 1, 1), None),
    qualifications=frozenset({HOME}),
)
NOTHING = Known(None, None, (), None)
REGISTRATIONS = st.lists(
    st.builds(
        lambda number, name, card, area, civil: (number, name, card, area, civil),
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from([None, 0, 1]),
        st.sampled_from(["440800", "440100"]),
        st.booleans(),
    ),
    max_size=8,
)


def _registration(number: int, facts: tuple[int, int, int | None, str, bool]) -> Registration:
    person, name, card, area, civil = facts
    others = () if card is None else (Key(CredentialType.SOCIAL_SECURITY_CARD, bytes([card]) * 32),)
    return Registration(
        item_id=f"item{number}",
        candidate_id=f"person{number}",
        name_index=bytes([name]) * 32,
        id_card=Key(CARD, bytes([person]) * 32),
        other_credentials=others,
        area=area,
        insurance_type=1,
        membership=replace(MEMBERSHIP, civil_servant=civil),
    )


class _Stored:
    """What a store would hold after the additions of a plan."""

    def __init__(self) -> None:
        self.people: dict[Key, tuple[str, bytes]] = {}
        self.owners: dict[Key, str] = {}
        self.memberships: dict[tuple[str, str, int], Membership] = {}

    def write(self, additions) -> None:
        for one in additions:
            registration = one.registration
            if one.new_person:
                assert registration.id_card not in self.people
                self.people[registration.id_card] = (one.person_id, registration.name_index)
            for key in one.credentials:
                assert key not in self.owners
                self.owners[key] = one.person_id
            key = (one.person_id, registration.area, registration.insurance_type)
            assert key not in self.memberships
            self.memberships[key] = registration.membership

    def known(self, registration: Registration) -> Known:
        person_id, name_index = self.people.get(registration.id_card, (None, None))
        return Known(
            person_id,
            name_index,
            tuple((k, self.owners[k]) for k in registration.credentials if k in self.owners),
            self.memberships.get((person_id or "", registration.area, 1)),
        )


@given(REGISTRATIONS)
def test_one_batch_is_the_same_as_one_by_one_and_repeating_it_changes_nothing(facts):
    """Insertions never meet a key twice, whatever a batch holds and however it is cut."""
    registrations = [_registration(number, one) for number, one in enumerate(facts)]
    together, singly = _Stored(), _Stored()
    batch = plan(registrations, [NOTHING] * len(registrations))
    together.write(batch.additions)
    answers = {}
    for registration in registrations:
        single = plan([registration], [singly.known(registration)])
        singly.write(single.additions)
        answers |= single.person_ids
    assert batch.person_ids == answers
    assert vars(together) == vars(singly)
    again = plan(registrations, [together.known(one) for one in registrations])
    accepted = {id_: one for id_, one in batch.person_ids.items() if one is not None}
    assert accepted.items() <= again.person_ids.items()
    assert not again.additions
