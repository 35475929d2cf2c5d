"""Participants seen and changed by the agency, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count, islice
from typing import Any

import asyncpg
import pytest

from infra.local.people import SyntheticPerson
from infra.runtime.call import CallerType, Identity
from infra.runtime.clock import ManualClock, new_id
from infra.runtime.database import Database
from infra.runtime.directory import Place
from infra.runtime.errors import Reason, Refusal
from services.enrollment.participants import ParticipantService
from services.enrollment.service import EnrollmentService
from services.enrollment.vault import Vault
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2, participant_pb2

SECRET = bytes(range(32))
AREA, NEXT, FAR = "440800", "440100", "110000"
SITES = {AREA: "440000", NEXT: "440000", FAR: "110000"}
EMPLOYEE, RESIDENT = types_pb2.INSURANCE_TYPE_EMPLOYEE, types_pb2.INSURANCE_TYPE_RESIDENT
RETIRED = types_pb2.PERSON_CLASS_RETIRED
ELECTRONIC = types_pb2.CREDENTIAL_TYPE_ELECTRONIC
ID_CARD = types_pb2.CREDENTIAL_TYPE_ID_CARD
SOCIAL_CARD = types_pb2.CREDENTIAL_TYPE_SOCIAL_SECURITY_CARD
NORMAL, SUSPENDED, TRANSFERRED, ENDED = (
    participant_pb2.INSURED_STATUS_NORMAL,
    participant_pb2.INSURED_STATUS_SUSPENDED,
    participant_pb2.INSURED_STATUS_TRANSFERRED,
    participant_pb2.INSURED_STATUS_ENDED,
)
TODAY = "2026-11-21"
IDS = ManualClock(1)
NUMBERS = count(1)


def place(area: str) -> Place:
    if area not in SITES:
        raise Refusal(Reason.ERROR_REASON_AREA_UNKNOWN, area=area)
    return Place(area, area, SITES[area], frozenset(), frozenset(), 1, 1)


@pytest.fixture
def make(clock) -> Callable[[Any], ParticipantService]:
    def made(database: Any) -> ParticipantService:
        return ParticipantService(
            database=database, clock=clock, secret=SECRET, place=place, site="440000"
        )

    return made


@pytest.fixture
def service(make, counting) -> ParticipantService:
    return make(counting)


@pytest.fixture
def enrollment(database, clock) -> EnrollmentService:
    return EnrollmentService(database=database, clock=clock, secret=SECRET)


async def register(enrollment, call, person: SyntheticPerson, **facts: Any) -> str:
    known = {
        "id": new_id(IDS),
        "name": person.name,
        "id_number": person.id_number,
        "social_security_card": person.social_security_card,
        "electronic_token": person.electronic_token,
        "insured_area": AREA,
        "insurance": EMPLOYEE,
        "person_class": RETIRED,
        "active_from": "2020-01-01",
    }
    item = enrollment_pb2.RegisterItem(**(known | facts))
    answer = await enrollment.BatchRegister(enrollment_pb2.BatchRegisterRequest(items=[item]), call)
    return answer.results[0].person_id


def changing(person_id: str, version: int = 1, **change: Any):
    known = {
        "request_id": f"request-{next(NUMBERS)}",
        "person_id": person_id,
        "version": version,
        "insured_area": AREA,
        "insurance": EMPLOYEE,
        "day": TODAY,
    }
    return participant_pb2.ChangeParticipantRequest(**(known | change))


async def change(service, call, *args: Any, **facts: Any):
    answer = await service.ChangeParticipant(changing(*args, **facts), call)
    return answer.record


async def get(service, call, **key: Any):
    request = participant_pb2.GetParticipantRequest(**({"insured_area": AREA} | key))
    return (await service.GetParticipant(request, call)).record


async def identify(enrollment, call, person: SyntheticPerson, **facts: Any):
    known = {
        "id": new_id(IDS),
        "credential": visit_pb2.Credential(type=ELECTRONIC, number=person.electronic_token),
        "insured_area": AREA,
        "insurance": EMPLOYEE,
        "day": TODAY,
    }
    item = enrollment_pb2.IdentifyItem(**(known | facts))
    answer = await enrollment.BatchIdentify(enrollment_pb2.BatchIdentifyRequest(items=[item]), call)
    (result,) = answer.results
    if result.HasField("error"):
        return Refusal.from_status(result.error)
    return result.participant


async def refused(awaitable: Awaitable[Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await awaitable
    return caught.value


def spells(record, area: str = AREA) -> list[tuple[int, str, str, str]]:
    (relation,) = (one for one in record.relations if one.area == area)
    return [(one.status, one.start_date, one.end_date, one.to_area) for one in relation.statuses]


async def test_a_person_is_seen_masked_by_every_key(service, enrollment, call, people, counting):
    """R1-60: nobody outside enrollment sees more than a mask."""
    person = next(people)
    person_id = await register(
        enrollment,
        call,
        person,
        personal_number="44080099001",
        civil_servant=True,
        chronic_diseases=["M03900"],
        contracted_institution="H44080000001",
    )
    by_id = await get(service, call, person_id=person_id)
    assert counting.statements == 1
    credential = visit_pb2.Credential(type=ID_CARD, number=person.id_number, name=person.name)
    assert by_id == await get(service, call, credential=credential)
    assert by_id == await get(service, call, personal_number="44080099001")
    assert (by_id.person_id, by_id.version) == (person_id, 1)
    assert by_id.masked_name == f"{person.name[0]}*"
    assert by_id.masked_id_number == f"{person.id_number[:6]}********{person.id_number[-4:]}"
    (relation,) = by_id.relations
    assert (relation.area, relation.insurance, relation.person_class) == (AREA, EMPLOYEE, RETIRED)
    assert (relation.civil_servant, relation.contracted_institution) == (True, "H44080000001")
    assert spells(by_id) == [(NORMAL, "2020-01-01", "", "")]
    assert relation.qualifications[0].granted_area == AREA
    assert sorted(one.type for one in by_id.credentials) == [0, ELECTRONIC, ID_CARD, SOCIAL_CARD]


async def test_other_peoples_participants_are_not_found(service, enrollment, call, people, admin):
    """Unknown, of another area, or under another name: one answer, and it is audited."""
    person = next(people)
    person_id = await register(enrollment, call, person, personal_number="44080099002")
    card = visit_pb2.Credential(type=ID_CARD, number=person.id_number, name="某某")
    before = await admin.fetchval("SELECT count(*) FROM enrollment.audit")
    keys: list[dict[str, Any]] = [
        {"person_id": new_id(IDS)},
        {"person_id": person_id, "insured_area": NEXT},
        {"credential": card},
        {"credential": visit_pb2.Credential(type=ID_CARD, number=person.id_number)},
        {"personal_number": "44080099999"},
        {"personal_number": "44080099002", "insured_area": NEXT},
    ]
    answers = [await refused(get(service, call, **key)) for key in keys]
    assert {one.status().SerializeToString(deterministic=True) for one in answers} == {
        Refusal(Reason.ERROR_REASON_PARTICIPANT_NOT_FOUND)
        .status()
        .SerializeToString(deterministic=True)
    }
    assert await admin.fetchval("SELECT count(*) FROM enrollment.audit") == before + len(keys)
    changes = [
        changing(new_id(IDS), suspend=True),
        changing(person_id, suspend=True, insured_area=NEXT),
    ]
    names = {(await refused(service.ChangeParticipant(one, call))).name for one in changes}
    assert names == {"PARTICIPANT_NOT_FOUND"}


async def test_suspended_and_resumed(service, enrollment, call, people, counting):
    """The near miss says since when; a suspension does not begin a new relation."""
    person = next(people)
    person_id = await register(enrollment, call, person)
    record = await change(service, call, person_id, suspend=True, day="2026-11-01")
    assert counting.statements == 2
    assert record == await get(service, call, person_id=person_id)
    assert record.version == 2
    assert spells(record) == [
        (NORMAL, "2020-01-01", "2026-10-31", ""),
        (SUSPENDED, "2026-11-01", "", ""),
    ]
    near = await identify(enrollment, call, person)
    assert (near.name, near.details) == (
        "INSURANCE_SUSPENDED",
        {"insurance": "职工基本医疗保险", "since": "2026-11-01"},
    )
    assert (await identify(enrollment, call, person, day="2026-10-31")).person_id == person_id
    await change(service, call, person_id, 2, resume=True)
    known = await identify(enrollment, call, person)
    assert known.insured_since == "2020-01-01"


async def test_ended_and_come_back(service, enrollment, call, people):
    """S4-8: insured again after an end begins anew."""
    person = next(people)
    person_id = await register(enrollment, call, person)
    await change(service, call, person_id, end=True, day="2026-10-01")
    assert (await identify(enrollment, call, person)).name == "INSURANCE_NOT_ACTIVE"
    record = await change(service, call, person_id, 2, resume=True, day="2026-11-10")
    assert [one[0] for one in spells(record)] == [NORMAL, ENDED, NORMAL]
    assert (await identify(enrollment, call, person)).insured_since == "2026-11-10"


async def test_a_transfer_inside_the_site(service, enrollment, call, people):
    """S4-46: the person, the account and the former numbers go along."""
    person = next(people)
    person_id = await register(
        enrollment, call, person, personal_number="44080099003", chronic_diseases=["M03900"]
    )
    before = await identify(enrollment, call, person)
    transfer = participant_pb2.Transfer(to_area=NEXT, person_class=RETIRED)
    record = await change(service, call, person_id, transfer=transfer, day="2026-11-01")
    assert spells(record)[-1] == (TRANSFERRED, "2026-11-01", "", NEXT)
    assert spells(record, NEXT) == [(NORMAL, "2026-11-01", "", "")]
    former = await identify(enrollment, call, person)
    assert (former.name, former.details) == (
        "INSURANCE_TRANSFERRED",
        {"insurance": "职工基本医疗保险", "since": "2026-11-01", "area": NEXT},
    )
    now = await identify(enrollment, call, person, insured_area=NEXT)
    assert (now.person_id, now.account_id) == (person_id, before.account_id)
    assert now.insured_since == "2026-11-01"
    sick = await identify(enrollment, call, person, insured_area=NEXT, disease_code="M03900")
    assert (sick.name, sick.details["area"]) == ("CHRONIC_GRANTED_ELSEWHERE", AREA)
    assert await get(service, call, personal_number="44080099003") == record
    assert await get(service, call, person_id=person_id, insured_area=NEXT) == record
    number = participant_pb2.NewNumber(personal_number="A440100001")
    await change(service, call, person_id, 2, new_number=number, insured_area=NEXT)
    found = await get(service, call, personal_number="A440100001", insured_area=NEXT)
    assert found == await get(service, call, personal_number="44080099003")
    assert [one.replaced_on for one in found.credentials if one.type == 0] == [TODAY, ""]


async def test_a_transfer_to_another_site_only_closes(service, enrollment, call, people):
    person = next(people)
    person_id = await register(enrollment, call, person)
    transfer = participant_pb2.Transfer(to_area=FAR, person_class=RETIRED)
    record = await change(service, call, person_id, transfer=transfer)
    assert [one.area for one in record.relations] == [AREA]
    assert (await identify(enrollment, call, person)).details["area"] == FAR
    away = participant_pb2.Transfer(to_area="999999", person_class=RETIRED)
    unknown = await refused(change(service, call, person_id, 2, transfer=away))
    assert (unknown.name, unknown.details) == ("AREA_UNKNOWN", {"area": "999999"})


async def test_a_replaced_card(service, enrollment, call, people):
    """S4-46: it stays an alias, serves earlier days, and is told of to who knows the name."""
    person = next(people)
    person_id = await register(enrollment, call, person)
    number = participant_pb2.NewNumber(social_security_card="NEW-CARD-0001")
    record = await change(service, call, person_id, new_number=number, day="2026-11-10")
    cards = [one.replaced_on for one in record.credentials if one.type == SOCIAL_CARD]
    assert cards == ["2026-11-10", ""]
    assert record == await get(service, call, person_id=person_id)

    def card(text: str, name: str = person.name) -> visit_pb2.Credential:
        return visit_pb2.Credential(type=SOCIAL_CARD, number=text, name=name)

    old = person.social_security_card
    told = await identify(enrollment, call, person, credential=card(old))
    assert (told.name, told.details) == ("CREDENTIAL_REPLACED", {"since": "2026-11-10"})
    hidden = await identify(enrollment, call, person, credential=card(old, "某某"))
    assert hidden.name == "PERSON_NOT_IDENTIFIED"
    for credential, day in ((card(old), "2026-11-09"), (card("NEW-CARD-0001"), TODAY)):
        known = await identify(enrollment, call, person, credential=credential, day=day)
        assert known.person_id == person_id
    assert (await get(service, call, credential=card(old))).person_id == person_id

    other = next(people)
    other_id = await register(enrollment, call, other)
    taken = await refused(change(service, call, other_id, new_number=number))
    assert (taken.name, taken.details) == (
        "PARTICIPANT_CHANGE_REFUSED",
        {"cause": "该号码已由他人使用"},
    )


async def test_qualifications_are_granted_cut_and_ended(service, enrollment, call, people):
    person = next(people)
    person_id = await register(enrollment, call, person, chronic_diseases=["M03900"])
    new = enrollment_pb2.Qualification(
        disease_code="M03900",
        start_date="2026-06-01",
        end_date="2027-05-31",
        granted_area=AREA,
        chosen_institutions=["H44080000001"],
    )
    record = await change(service, call, person_id, qualify=new, day="2026-06-01")
    (relation,) = record.relations
    assert [(one.start_date, one.end_date) for one in relation.qualifications] == [
        ("2020-01-01", "2026-05-31"),
        ("2026-06-01", "2027-05-31"),
    ]
    known = await identify(enrollment, call, person, disease_code="M03900")
    assert known.chosen_institutions == ["H44080000001"]
    record = await change(service, call, person_id, 2, disqualify="M03900")
    assert record == await get(service, call, person_id=person_id)
    near = await identify(enrollment, call, person, disease_code="M03900")
    assert (near.name, near.details) == (
        "CHRONIC_NOT_IN_FORCE",
        {"disease": "M03900", "from": "2026-06-01", "until": "2026-11-20"},
    )


async def test_attributes(service, enrollment, call, people):
    person = next(people)
    person_id = await register(enrollment, call, person)
    attributes = participant_pb2.Attributes(
        person_class=types_pb2.PERSON_CLASS_EMPLOYED,
        civil_servant=True,
        contracted_institution="H44080000007",
    )
    await change(service, call, person_id, attributes=attributes)
    known = await identify(enrollment, call, person)
    assert known.person_class == types_pb2.PERSON_CLASS_EMPLOYED
    assert (known.civil_servant, known.contracted_institution) == (True, "H44080000007")


async def test_a_shared_account_pays_for_who_has_none(service, enrollment, call, people):
    """家庭共济: the own account first, else the oldest grant in force on the day."""
    owner, second, user = islice(people, 3)
    owners = [await register(enrollment, call, one) for one in (owner, second)]
    user_id = await register(
        enrollment,
        call,
        user,
        insurance=RESIDENT,
        person_class=types_pb2.PERSON_CLASS_ADULT_RESIDENT,
    )
    accounts = [(await identify(enrollment, call, one)).account_id for one in (owner, second)]
    days = ("2026-10-01", "2026-09-01")
    for owner_id, day in zip(owners, days, strict=True):
        await change(service, call, owner_id, share_with=user_id, day=day)

    async def account(day: str) -> str:
        known = await identify(enrollment, call, user, insurance=RESIDENT, day=day)
        return known.account_id

    assert await account("2026-08-31") == ""
    assert await account(TODAY) == accounts[1]
    record = await change(service, call, owners[1], 2, unshare_with=user_id, day="2026-11-01")
    assert [(one.start_date, one.end_date) for one in record.sharings] == [
        ("2026-09-01", "2026-10-31")
    ]
    assert await account("2026-10-31") == accounts[1]
    assert await account(TODAY) == accounts[0]
    shown = await get(service, call, person_id=user_id)
    assert [one.owner_person_id for one in shown.sharings] == [owners[1], owners[0]]
    assert (await identify(enrollment, call, owner)).account_id == accounts[0]
    stranger = await refused(change(service, call, owners[0], 2, share_with=new_id(IDS)))
    assert stranger.details == {"cause": "没有找到共济使用人"}


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"resume": True}, "2026-11-21的状态是正常参保，不能改为正常参保"),
        ({"suspend": True, "day": "2019-12-31"}, "参保关系从2020-01-01才开始"),
        ({"suspend": True, "insurance": RESIDENT}, "参保人在该统筹区没有参加此险种"),
        (
            {"transfer": participant_pb2.Transfer(to_area=AREA, person_class=RETIRED)},
            "转入地与转出地是同一统筹区",
        ),
    ],
)
async def test_changes_that_cannot_be(service, enrollment, call, people, counting, facts, cause):
    """Nothing is written, and the version stays."""
    person_id = await register(enrollment, call, next(people))
    answer = await refused(change(service, call, person_id, **facts))
    assert (answer.name, answer.details) == ("PARTICIPANT_CHANGE_REFUSED", {"cause": cause})
    assert counting.statements == 1
    assert (await get(service, call, person_id=person_id)).version == 1
    never = await refused(change(service, call, person_id, suspend=True, day="2026-02-31"))
    assert never.name == "DAY_INVALID"


async def test_a_repeated_request_returns_the_first_answer(
    service, enrollment, call, people, admin
):
    """The clerk's name does not count; another change under the same id is refused."""
    person_id = await register(enrollment, call, next(people))
    request = changing(person_id, suspend=True, operator="经办甲")
    first = await service.ChangeParticipant(request, call)
    later = await change(service, call, person_id, 2, resume=True)
    assert later.version == 3
    request.operator = "经办乙"
    assert await service.ChangeParticipant(request, call) == first
    assert (await get(service, call, person_id=person_id)).version == 3
    request.day = "2026-11-20"
    other = await refused(service.ChangeParticipant(request, call))
    assert (other.name, other.details) == (
        "REQUEST_ID_REUSED",
        {"request_id": request.request_id},
    )
    elsewhere = replace(call, caller=Identity("440000", CallerType.OPERATOR, "另一经办"))
    stale = await refused(service.ChangeParticipant(request, elsewhere))
    assert (stale.name, stale.details) == ("PARTICIPANT_CHANGED_MEANWHILE", {"version": "3"})
    changes = await admin.fetch(
        "SELECT action FROM enrollment.audit WHERE subject = $1 ORDER BY audit_id", person_id
    )
    assert [one["action"] for one in changes] == ["register", "change suspend", "change resume"]


class Meanwhile:
    """A database on which something else happens before the second statement."""

    def __init__(self, inner: Database, happens: Callable[[], Awaitable[object]]) -> None:
        self._inner = inner
        self._happens = happens
        self._statements = 0
        self.engine = inner.engine

    async def run(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        self._statements += 1
        if self._statements == 2:
            await self._happens()
        return await self._inner.run(statement, *arguments)


async def test_two_clerks_at_once(make, database, enrollment, call, people):
    """The second decides anew on what the first left, and so is told."""
    person_id = await register(enrollment, call, next(people))
    other = make(database)

    async def suspend() -> None:
        await change(other, call, person_id, suspend=True)

    slow = make(Meanwhile(database, suspend))
    late = await refused(change(slow, call, person_id, end=True))
    assert (late.name, late.details) == ("PARTICIPANT_CHANGED_MEANWHILE", {"version": "2"})
    assert spells(await get(other, call, person_id=person_id))[-1][0] == SUSPENDED


async def test_one_request_on_two_replicas_at_once(make, database, enrollment, call, people):
    person_id = await register(enrollment, call, next(people))
    request = changing(person_id, suspend=True)
    other, answers = make(database), []

    async def same() -> None:
        answers.append(await other.ChangeParticipant(request, call))

    slow = make(Meanwhile(database, same))
    assert await slow.ChangeParticipant(request, call) == answers[0]
    assert answers[0].record.version == 2


async def test_one_number_for_two_people_at_once(make, database, enrollment, call, people):
    first, second = [await register(enrollment, call, one) for one in islice(people, 2)]
    number = participant_pb2.NewNumber(social_security_card="NEW-CARD-0002")
    other = make(database)

    async def give_away() -> None:
        await change(other, call, first, new_number=number)

    slow = make(Meanwhile(database, give_away))
    late = await refused(change(slow, call, second, new_number=number))
    assert late.details == {"cause": "该号码已由他人使用"}


async def test_a_person_whom_others_change_all_the_time(make, database, enrollment, call, people):
    """Given up after some attempts, when the version is as seen but the write never fits."""
    person_id = await register(enrollment, call, next(people))

    class Losing(Meanwhile):
        async def run(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
            if "UPDATE enrollment.participant" in statement:
                return []
            return await database.run(statement, *arguments)

    losing = make(Losing(database, asyncio.Event().wait))
    assert (await refused(change(losing, call, person_id, end=True))).name == "PERSON_BUSY"


async def test_many_clerks_at_once_change_one_after_another(
    make, database, enrollment, call, people
):
    """Whoever is first changes version 1; nobody else does."""
    person_id = await register(enrollment, call, next(people))
    outcomes = await asyncio.gather(
        *(
            make(database).ChangeParticipant(changing(person_id, suspend=True), call)
            for _ in range(8)
        ),
        return_exceptions=True,
    )
    changed = [one for one in outcomes if not isinstance(one, Refusal)]
    names = {one.name for one in outcomes if isinstance(one, Refusal)}
    assert len(changed) == 1
    assert names == {"PARTICIPANT_CHANGED_MEANWHILE"}


async def test_a_registration_after_a_change(service, enrollment, call, people):
    """What was registered is known otherwise now; a new relation is a change to be seen."""
    person = next(people)
    person_id = await register(enrollment, call, person)
    await change(service, call, person_id, end=True)
    assert await register(enrollment, call, person) == ""
    assert await register(enrollment, call, person, insured_area=NEXT) == person_id
    assert (await get(service, call, person_id=person_id)).version == 3


async def test_a_form_is_filled_and_audited(service, enrollment, call, people, admin, counting):
    """DESIGN §5: names are rendered by enrollment at the edge; every call is audited."""
    person = next(people)
    person_id = await register(enrollment, call, person)

    def fill(**facts: Any):
        known = {"person_id": person_id, "insured_area": AREA, "purpose": "备案表"}
        return service.FillForm(participant_pb2.FillFormRequest(**(known | facts)), call)

    form = await fill()
    assert (form.name, form.id_number) == (person.name, person.id_number)
    assert counting.statements == 1
    assert (await refused(fill(insured_area=NEXT))).name == "PARTICIPANT_NOT_FOUND"
    rows = await admin.fetch(
        "SELECT actor, action FROM enrollment.audit WHERE subject = $1 ORDER BY audit_id DESC",
        person_id,
    )
    assert [tuple(one) for one in rows[:2]] == [(call.caller.spiffe_id, "fill_form 备案表")] * 2


async def test_changes_keep_nothing_in_clear(service, enrollment, call, people, admin):
    """S15: not the number, not the answer of a request, not what the audit digests."""
    person = next(people)
    person_id = await register(enrollment, call, person)
    new = {"social_security_card": "SECRETCARD77"}, {"personal_number": "SECRETNO99"}
    for version, number in enumerate(new, 1):
        await change(
            service,
            call,
            person_id,
            version,
            new_number=participant_pb2.NewNumber(**number),
            operator="经办某人",
        )
    shown = await get(service, call, person_id=person_id)
    secrets = [person.name, person.id_number, shown.masked_id_number, "经办某人"]
    secrets += ["SECRETCARD77", "SECRETNO99"]
    needles = [form for text in secrets for form in (text, text.encode().hex())]
    tables = await admin.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'enrollment'"
    )
    for (table,) in tables:
        for (row,) in await admin.fetch(f"SELECT t::text FROM enrollment.{table} AS t"):
            assert not any(needle in row for needle in needles)
    sealed = await admin.fetchval(
        "SELECT answer FROM enrollment.change_request WHERE person_id = $1 "
        "ORDER BY changed_at DESC, request_id DESC LIMIT 1",
        person_id,
    )
    answer = participant_pb2.ChangeParticipantResponse.FromString(
        Vault(SECRET).open(sealed, person_id, "answer")
    )
    assert answer.record.masked_id_number == shown.masked_id_number
