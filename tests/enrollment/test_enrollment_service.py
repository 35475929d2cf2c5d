"""The enrollment service on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import date
from itertools import islice
from uuid import UUID

import asyncpg
import pytest
from google.rpc import error_details_pb2

from infra.local.people import SyntheticPerson
from infra.runtime.clock import ManualClock, new_id
from infra.runtime.errors import Refusal
from services.enrollment.service import EnrollmentService
from services.enrollment.vault import Vault
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2

SECRET = bytes(range(32))
AREA = "440800"
HOSPITAL = "H11010100001"
EMPLOYEE, RESIDENT = types_pb2.INSURANCE_TYPE_EMPLOYEE, types_pb2.INSURANCE_TYPE_RESIDENT
ELECTRONIC = types_pb2.CREDENTIAL_TYPE_ELECTRONIC
ID_CARD = types_pb2.CREDENTIAL_TYPE_ID_CARD
SOCIAL_CARD = types_pb2.CREDENTIAL_TYPE_SOCIAL_SECURITY_CARD
IDS = ManualClock(1)


@pytest.fixture
def service(counting, clock) -> EnrollmentService:
    return EnrollmentService(database=counting, clock=clock, secret=SECRET)


def registration(person: SyntheticPerson, **changes) -> enrollment_pb2.RegisterItem:
    fields = {
        "id": new_id(IDS),
        "name": person.name,
        "id_number": person.id_number,
        "social_security_card": person.social_security_card,
        "electronic_token": person.electronic_token,
        "insured_area": AREA,
        "insurance": EMPLOYEE,
        "person_class": types_pb2.PERSON_CLASS_RETIRED,
        "active_from": "2020-01-01",
    }
    return enrollment_pb2.RegisterItem(**(fields | changes))


def question(type_: int, number: str, name: str = "", **changes) -> enrollment_pb2.IdentifyItem:
    fields = {
        "id": new_id(IDS),
        "credential": visit_pb2.Credential(type=type_, number=number, name=name),
        "insured_area": AREA,
        "insurance": EMPLOYEE,
        "day": "2026-11-21",
        "institution": HOSPITAL,
    }
    return enrollment_pb2.IdentifyItem(**(fields | changes))


async def register(service, call, *items) -> list[str | Refusal]:
    response = await service.BatchRegister(enrollment_pb2.BatchRegisterRequest(items=items), call)
    return _by_id(items, response.results, "person_id")


async def identify(service, call, *items) -> list[enrollment_pb2.Participant | Refusal]:
    response = await service.BatchIdentify(enrollment_pb2.BatchIdentifyRequest(items=items), call)
    return _by_id(items, response.results, "participant")


def _by_id(items, results, field):
    answers = {
        one.id: Refusal.from_status(one.error) if one.HasField("error") else getattr(one, field)
        for one in results
    }
    assert len(answers) == len(results) == len(items)
    return [answers[item.id] for item in items]


async def test_every_credential_leads_to_the_same_person(service, call, people):
    """S0-17, S4-27, S4-42: e-credential, ID card and social-security card."""
    person = next(people)
    (person_id,) = await register(
        service, call, registration(person, civil_servant=True, chronic_diseases=["M03900"])
    )
    answers = await identify(
        service,
        call,
        question(ELECTRONIC, person.electronic_token),
        question(ID_CARD, person.id_number.lower(), person.name, disease_code="M03900"),
        question(SOCIAL_CARD, person.social_security_card, f" {person.name[0]} {person.name[1:]}"),
    )
    assert answers[0] == answers[1] == answers[2]
    known = answers[0]
    assert UUID(known.person_id) == UUID(person_id)
    assert UUID(known.account_id)
    assert (known.insured_area, known.insurance) == (AREA, EMPLOYEE)
    assert known.person_class == types_pb2.PERSON_CLASS_RETIRED
    born = person.birth_date
    assert known.age == 2026 - born.year - ((born.month, born.day) > (11, 21))
    assert known.civil_servant


async def test_unknown_person_and_wrong_credential_give_the_same_bytes(service, call, people):
    """PROTOCOL §5: nothing tells a guesser that a number exists."""
    person, other = next(people), next(people)
    await register(service, call, registration(person))
    items = [
        question(ID_CARD, other.id_number, other.name),
        question(ID_CARD, person.id_number, other.name + "某"),
        question(ID_CARD, person.id_number),
        question(SOCIAL_CARD, person.social_security_card),
        question(SOCIAL_CARD, person.id_number, person.name),
        question(ELECTRONIC, person.electronic_token, other.name + "某"),
        question(ID_CARD, person.id_number, person.name, insured_area="440100"),
        question(ID_CARD, person.id_number, other.name + "某", disease_code="M03900"),
    ]
    response = await service.BatchIdentify(enrollment_pb2.BatchIdentifyRequest(items=items), call)
    statuses = {result.error.SerializeToString(deterministic=True) for result in response.results}
    assert len(statuses) == 1
    assert Refusal.from_status(response.results[0].error).name == "PERSON_NOT_IDENTIFIED"


async def test_near_misses_are_explained_after_identification(service, call, people):
    person = next(people)
    await register(service, call, registration(person, active_until="2026-06-30"))
    token = person.electronic_token
    ended, resident, sick, invalid = await identify(
        service,
        call,
        question(ELECTRONIC, token),
        question(ELECTRONIC, token, insurance=RESIDENT, day="2026-06-30"),
        question(ELECTRONIC, token, disease_code="M01600", day="2026-06-30"),
        question(ELECTRONIC, token, day="2026-02-31"),
    )
    assert (ended.name, ended.details) == (
        "INSURANCE_NOT_ACTIVE",
        {"insurance": "职工基本医疗保险"},
    )
    assert (resident.name, resident.details) == (
        "INSURANCE_OTHER_TYPE",
        {"insurance": "城乡居民基本医疗保险", "actual": "职工基本医疗保险"},
    )
    assert (sick.name, sick.details) == ("CHRONIC_NOT_QUALIFIED", {"disease": "M01600"})
    assert (invalid.name, invalid.details["field"]) == ("DAY_INVALID", "day")


@pytest.mark.parametrize("size", [1, 7, 256])
async def test_statements_per_batch_are_constant(service, counting, call, people, size):
    """PROTOCOL §8: enrollment is one trip whatever the batch; refusals add one."""
    chosen = list(islice(people, size))
    answers = await register(service, call, *map(registration, chosen))
    assert all(isinstance(one, str) for one in answers)
    assert counting.statements == 2
    assert await register(service, call, *map(registration, chosen)) == answers
    assert counting.statements == 3
    found = await identify(
        service, call, *(question(ID_CARD, one.id_number, one.name) for one in chosen)
    )
    assert [one.person_id for one in found] == answers
    assert counting.statements == 4
    await identify(
        service,
        call,
        *(question(ID_CARD, one.id_number, institution="") for one in chosen),
    )
    assert counting.statements == 6
    await identify(service, call)
    assert counting.statements == 6


async def test_an_institution_that_guesses_has_to_wait(service, call, people, clock, counting):
    """PROTOCOL §5: rate-limited per institution, also inside one batch; agencies are not."""
    person, unknown = next(people), next(people)
    await register(service, call, registration(person))
    right = question(ELECTRONIC, person.electronic_token)
    wrong = [question(ID_CARD, unknown.id_number, unknown.name) for _ in range(25)]
    answers = await identify(service, call, *wrong[:15])
    assert {one.name for one in answers} == {"PERSON_NOT_IDENTIFIED"}
    clock.ms += 10_000
    *answers, last = await identify(service, call, *wrong[15:], right)
    assert [one.name for one in answers] == ["PERSON_NOT_IDENTIFIED"] * 5 + [
        "IDENTIFICATION_LIMITED"
    ] * 5
    assert (last.name, last.retry_ms) == ("IDENTIFICATION_LIMITED", 50_000)
    before = counting.statements
    (limited,) = await identify(service, call, right)
    assert (limited.name, counting.statements) == ("IDENTIFICATION_LIMITED", before)
    elsewhere, agency = await identify(
        service,
        call,
        question(ELECTRONIC, person.electronic_token, institution="H11010100002"),
        question(ELECTRONIC, person.electronic_token, institution=""),
    )
    assert elsewhere.person_id == agency.person_id
    clock.ms += 50_000
    (again,) = await identify(service, call, right)
    assert again.person_id == elsewhere.person_id


async def test_only_refused_identifications_are_audited(service, call, people, admin, clock):
    """PROTOCOL §11; the row names the institution, or the caller when an agency asks."""
    person, unknown = next(people), next(people)
    (person_id,) = await register(service, call, registration(person))
    count = "SELECT count(*) FROM enrollment.audit"
    before = await admin.fetchval(count)
    await identify(service, call, question(ELECTRONIC, person.electronic_token))
    assert await admin.fetchval(count) == before
    await identify(
        service,
        call,
        question(ID_CARD, unknown.id_number, unknown.name),
        question(ID_CARD, person.id_number, "某某", institution=""),
        question(ELECTRONIC, person.electronic_token, insurance=RESIDENT),
    )
    rows = await admin.fetch("SELECT * FROM enrollment.audit ORDER BY audit_id DESC LIMIT 3")
    assert await admin.fetchval(count) == before + 3
    assert {(row["actor"], row["action"], row["subject"]) for row in rows} == {
        (HOSPITAL, "identify not_identified", ""),
        (call.caller.spiffe_id, "identify not_identified", person_id),
        (HOSPITAL, "identify other_type", person_id),
    }
    assert {row["at"].timestamp() * 1000 for row in rows} == {clock.ms}
    assert all(len(row["digest"]) == 32 for row in rows)


async def test_names_and_numbers_are_nowhere_in_clear(service, call, people, admin):
    """DESIGN §4: encrypted at rest, found by blind index; they open only with the secret."""
    person = next(people)
    (person_id,) = await register(service, call, registration(person))
    await identify(service, call, question(ID_CARD, person.id_number, "某某"))
    secrets = [
        person.name,
        person.id_number,
        person.social_security_card,
        person.electronic_token,
    ]
    hidden = [text.encode().hex() for text in secrets]
    tables = await admin.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'enrollment'"
    )
    assert len(tables) >= 10
    for (table,) in tables:
        for (row,) in await admin.fetch(f"SELECT t::text FROM enrollment.{table} AS t"):
            assert not any(text in row for text in secrets + hidden)
    row = await admin.fetchrow(
        "SELECT name, id_number FROM enrollment.participant WHERE person_id = $1", person_id
    )
    vault = Vault(SECRET)
    assert vault.decrypt(row["name"], person_id, "name") == person.name
    assert vault.decrypt(row["id_number"], person_id, "id_number") == person.id_number


async def test_a_registration_lists_every_fault_at_once(service, call, people):
    person = next(people)
    number = person.id_number
    wrong = number[:17] + ("1" if number[17] != "1" else "2")
    faulty = registration(person, id_number=wrong, name=" ", active_until="2019-12-31")
    response = await service.BatchRegister(
        enrollment_pb2.BatchRegisterRequest(
            items=[faulty, registration(person), registration(person, active_from="2020-02-30")]
        ),
        call,
    )
    answers = {one.id: one for one in response.results}
    refusal = Refusal.from_status(answers[faulty.id].error)
    assert refusal.name == "MESSAGE_INVALID"
    assert {one.field for one in refusal.violations} == {"id_number", "name", "active_until"}
    bad_request = error_details_pb2.BadRequest()
    assert any(part.Unpack(bad_request) for part in answers[faulty.id].error.details)
    text = answers[faulty.id].error.SerializeToString()
    assert wrong.encode() not in text
    assert sum(one.HasField("person_id") for one in response.results) == 1
    names = {
        Refusal.from_status(one.error).name for one in response.results if one.HasField("error")
    }
    assert names == {"MESSAGE_INVALID", "DAY_INVALID"}


async def test_what_a_registration_says_of_the_relation(service, call, people):
    """S4-17: qualifications with days and the place that granted them; primary institution."""
    person = next(people)
    item = registration(
        person,
        personal_number="44080012345",
        contracted_institution="H44080000002",
        qualifications=[
            enrollment_pb2.Qualification(
                disease_code=code,
                start_date=start,
                end_date=end,
                granted_area=area,
                chosen_institutions=chosen,
            )
            for code, start, end, area, chosen in (
                ("M03900", "2024-01-01", "2025-12-31", AREA, ["H44080000009"]),
                ("M03900", "2026-01-01", "", AREA, ["H44080000001", "H44080000002"]),
                ("M01600", "2025-01-01", "2026-06-30", AREA, []),
                ("M00500", "2025-01-01", "", "440100", []),
            )
        ],
    )
    (person_id,) = await register(service, call, item)
    assert await register(service, call, item) == [person_id]
    token = person.electronic_token
    first, second, expired, early, elsewhere = await identify(
        service,
        call,
        question(ELECTRONIC, token, disease_code="M03900"),
        question(ELECTRONIC, token, disease_code="M03900", day="2025-12-31"),
        question(ELECTRONIC, token, disease_code="M01600"),
        question(ELECTRONIC, token, disease_code="M03900", day="2023-12-31"),
        question(ELECTRONIC, token, disease_code="M00500"),
    )
    assert first.chosen_institutions == ["H44080000001", "H44080000002"]
    assert second.chosen_institutions == ["H44080000009"]
    assert (first.contracted_institution, first.insured_since) == ("H44080000002", "2020-01-01")
    assert (expired.name, expired.details) == (
        "CHRONIC_NOT_IN_FORCE",
        {"disease": "M01600", "from": "2025-01-01", "until": "2026-06-30"},
    )
    assert (early.name, early.details["from"]) == ("CHRONIC_NOT_IN_FORCE", "2024-01-01")
    assert (elsewhere.name, elsewhere.details) == (
        "CHRONIC_GRANTED_ELSEWHERE",
        {"disease": "M00500", "area": "440100"},
    )


@pytest.mark.parametrize(
    ("days", "fault"),
    [
        ([("2026-01-01", "2025-12-31")], "慢特病资格的终止日期不能早于开始日期"),
        ([("2025-01-01", "2026-01-01"), ("2026-01-01", "")], "同一病种的慢特病资格日期不能重叠"),
        ([("2025-01-01", ""), ("2026-01-01", "")], "同一病种的慢特病资格日期不能重叠"),
    ],
)
async def test_qualifications_that_cannot_be(service, call, people, days, fault):
    item = registration(
        next(people),
        qualifications=[
            enrollment_pb2.Qualification(
                disease_code="M03900", start_date=start, end_date=end, granted_area=AREA
            )
            for start, end in days
        ],
    )
    (refusal,) = await register(service, call, item)
    assert refusal.name == "MESSAGE_INVALID"
    assert [one.description for one in refusal.violations] == [fault]


async def test_two_areas_may_give_the_same_personal_number(service, call, people):
    """人员编号 are of the area's own system; in one area a number has one owner."""
    first, second, third = islice(people, 3)
    answers = await register(
        service,
        call,
        registration(first, personal_number="A0000001"),
        registration(second, personal_number="A0000001", insured_area="440100"),
        registration(third, personal_number="A0000001"),
    )
    assert len({answers[0], answers[1]}) == 2
    assert answers[2].name == "PARTICIPANT_CONFLICT"


async def test_one_person_has_one_account_at_the_site(service, call, people):
    person = next(people)
    await register(service, call, registration(person, active_until="2025-12-31"))
    item = registration(person, insured_area="440100", active_from="2026-01-01")
    await register(service, call, item)
    before, after = await identify(
        service,
        call,
        question(ELECTRONIC, person.electronic_token, day="2025-12-31"),
        question(ELECTRONIC, person.electronic_token, insured_area="440100"),
    )
    assert before.account_id == after.account_id != ""
    assert after.insured_since == "2026-01-01"


async def test_registrations_that_contradict_what_is_known(service, call, people, admin):
    person, other = next(people), next(people)
    (person_id,) = await register(service, call, registration(person))
    answers = await register(
        service,
        call,
        registration(person, name=person.name + "某"),
        registration(other, electronic_token=person.electronic_token),
        registration(person, person_class=types_pb2.PERSON_CLASS_EMPLOYED),
        registration(person, insurance=RESIDENT, insured_area="440100"),
        registration(person, social_security_card="", electronic_token=""),
    )
    assert [one.name for one in answers[:3]] == ["PARTICIPANT_CONFLICT"] * 3
    assert answers[3:] == [person_id, person_id]
    assert (
        await admin.fetchval(
            "SELECT count(*) FROM enrollment.account_link WHERE person_id = $1", person_id
        )
        == 1
    )
    (resident,) = await identify(
        service,
        call,
        question(ELECTRONIC, person.electronic_token, insurance=RESIDENT, insured_area="440100"),
    )
    assert (resident.person_id, resident.account_id) == (person_id, "")


async def test_two_registrations_of_one_token_in_one_batch(service, call, people):
    first, second = next(people), next(people)
    answers = await register(
        service,
        call,
        registration(first),
        registration(second, electronic_token=first.electronic_token),
        registration(first),
    )
    assert answers[0] == answers[2]
    assert answers[1].name == "PARTICIPANT_CONFLICT"


async def test_concurrent_registrations_make_one_person(database, clock, call, people):
    """Eight replicas register the same forty people in different orders."""
    chosen = list(islice(people, 40))
    services = [EnrollmentService(database=database, clock=clock, secret=SECRET) for _ in range(8)]
    orders = [chosen[shift:] + chosen[:shift] for shift in range(0, 40, 5)]
    answers = await asyncio.gather(
        *(
            register(service, call, *map(registration, order))
            for service, order in zip(services, orders, strict=True)
        )
    )
    people_found = [
        {person.id_number: one for person, one in zip(order, answer, strict=True)}
        for order, answer in zip(orders, answers, strict=True)
    ]
    assert all(found == people_found[0] for found in people_found)
    assert len(set(people_found[0].values())) == 40


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE enrollment.participant SET birth_date = '2000-01-01'",
        "DELETE FROM enrollment.audit",
        "UPDATE enrollment.credential SET person_id = person_id",
        "CREATE TABLE enrollment.more (id int)",
        "TRUNCATE enrollment.relation",
    ],
)
async def test_the_app_role_can_only_add_and_read(database, statement):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.run(statement)


async def test_age_is_that_of_the_day_asked_for(service, call, people):
    person = next(p for p in people if p.birth_date.month > 2)
    await register(service, call, registration(person, active_from="1990-01-01"))
    birthday = date(2024, person.birth_date.month, person.birth_date.day)
    eve = date.fromordinal(birthday.toordinal() - 1)
    before, after = await identify(
        service,
        call,
        question(ELECTRONIC, person.electronic_token, day=eve.isoformat()),
        question(ELECTRONIC, person.electronic_token, day=birthday.isoformat()),
    )
    assert (before.age + 1, after.age) == (after.age, 2024 - person.birth_date.year)
