"""The filing service on a real PostgreSQL; enrollment is a stand-in that knows everybody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID, uuid5

import asyncpg
import pytest

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock, new_id
from infra.runtime.errors import Reason, Refusal
from services.filing.domain.area_rules import Provenance, Stated
from services.filing.places import Places
from services.filing.service import FilingService
from services.filing.written_rules import load_area_rules
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2
from yidi.filing.v1 import filing_pb2

SITE = "440000"
AREA = "440800"
EMPLOYEE = types_pb2.INSURANCE_TYPE_EMPLOYEE
NAMES = {"110000": "北京市", "310000": "上海市"}
IDS = ManualClock(1)


class Enrollment:
    """Makes a person of every token; the token `nobody` and lost answers are the exceptions."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, float]] = []

    async def BatchIdentify(
        self, request: enrollment_pb2.BatchIdentifyRequest, *, timeout: float, traceparent: str
    ) -> enrollment_pb2.BatchIdentifyResponse:
        assert traceparent == "00-trace"
        self.calls.append((len(request.items), timeout))
        results = []
        for item in reversed(request.items):
            number = item.credential.number
            if number == "lost":
                continue
            result = enrollment_pb2.IdentifyResult(id=item.id)
            if number == "nobody":
                refusal = Refusal(Reason.ERROR_REASON_PERSON_NOT_IDENTIFIED)
                result.error.CopyFrom(refusal.status())
            else:
                result.participant.person_id = person(number)
                result.participant.insured_area = item.insured_area
                result.participant.insurance = item.insurance
                result.participant.person_class = types_pb2.PERSON_CLASS_RETIRED
            results.append(result)
        return enrollment_pb2.BatchIdentifyResponse(results=results)


def person(token: str) -> str:
    return str(uuid5(UUID(int=0), token))


@pytest.fixture
def enrollment() -> Enrollment:
    return Enrollment()


@pytest.fixture
def call() -> Call:
    return Call(Identity("440000", CallerType.OPERATOR, "经办示例"), 1 << 62, "00-trace")


@pytest.fixture
def service(counting, clock, enrollment, directory) -> FilingService:
    return make_service(counting, clock, enrollment, directory)


def make_service(database, clock, enrollment, directory, rules=None) -> FilingService:
    return FilingService(
        database=database,
        clock=clock,
        enrollment=enrollment,
        places=Places(directory, SITE),
        rules=rules or load_area_rules(),
        area_names=NAMES,
        call_seconds=2.0,
        allow_illustrative=True,
    )


def to_file(token: str, **changes) -> filing_pb2.CreateFilingItem:
    fields = {
        "id": new_id(IDS),
        "credential": visit_pb2.Credential(type=types_pb2.CREDENTIAL_TYPE_ELECTRONIC, number=token),
        "insured_area": AREA,
        "insurance": EMPLOYEE,
        "kind": types_pb2.FILING_KIND_OTHER_TEMPORARY,
        "channel": types_pb2.FILING_CHANNEL_NATIONAL_APP,
        "care_place": "110000",
        "start_date": "2026-11-01",
        "filed_on": "2026-11-01",
        "commitment": types_pb2.COMMITMENT_STATE_NOT_NEEDED,
    }
    return filing_pb2.CreateFilingItem(**(fields | changes))


def to_resolve(token: str, **changes) -> filing_pb2.ResolveEntitlementItem:
    visit = {
        "care_area": "110000",
        "insured_area": AREA,
        "insurance": EMPLOYEE,
        "care_type": types_pb2.CARE_TYPE_INPATIENT,
        "start_date": "2026-11-10",
        "end_date": "2026-11-20",
        "inpatient_type": types_pb2.INPATIENT_TYPE_ORDINARY,
    }
    return filing_pb2.ResolveEntitlementItem(
        id=new_id(IDS),
        person_id=person(token),
        person_class=types_pb2.PERSON_CLASS_RETIRED,
        visit=visit_pb2.Visit(**(visit | changes)),
        care_site="110000",
        route=types_pb2.ROUTE_CROSS_PROVINCE,
        day="2026-11-21",
    )


async def create(service, call, *items) -> list[filing_pb2.Filing | Refusal]:
    response = await service.BatchCreateFilings(
        filing_pb2.BatchCreateFilingsRequest(items=items), call
    )
    return _by_id(items, response.results, "filing")


async def resolve(service, call, *items) -> list[filing_pb2.Entitlement | Refusal]:
    response = await service.BatchResolveEntitlement(
        filing_pb2.BatchResolveEntitlementRequest(items=items), call
    )
    return _by_id(items, response.results, "entitlement")


def _by_id(items, results, field):
    answers = {
        one.id: Refusal.from_status(one.error) if one.HasField("error") else getattr(one, field)
        for one in results
    }
    assert len(answers) == len(results) == len(items)
    return [answers[item.id] for item in items]


async def test_filed_then_entitled(service, call):
    """S4-10, S4-21: effective at once, six months, every fact comes back with the answer."""
    (refused,) = await resolve(service, call, to_resolve("t1"))
    assert (refused.name, refused.details["place"]) == ("FILING_REQUIRED", "北京市")
    assert refused.decided
    (filing,) = await create(
        service,
        call,
        to_file(
            "t1",
            kind=types_pb2.FILING_KIND_REFERRAL,
            referral_institution="H44080300001",
            start_date="2026-11-10",
            filed_on="2026-11-13",
            commitment=types_pb2.COMMITMENT_STATE_PROMISED,
        ),
    )
    assert (filing.kind, filing.care_place) == (types_pb2.FILING_KIND_REFERRAL, "110000")
    assert (filing.start_date, filing.end_date) == ("2026-11-10", "2027-05-10")
    (answer,) = await resolve(service, call, to_resolve("t1"))
    assert answer == filing_pb2.Entitlement(
        basis=types_pb2.FILING_BASIS_FILED,
        benefit_class=types_pb2.BENEFIT_CLASS_REFERRAL_NAMED,
        filing_id=filing.filing_id,
        filing_kind=types_pb2.FILING_KIND_REFERRAL,
        channel=types_pb2.FILING_CHANNEL_NATIONAL_APP,
        referral_institution="H44080300001",
        commitment=types_pb2.COMMITMENT_STATE_PROMISED,
        late_filing=True,
        reason=answer.reason,
        clause=answer.clause,
        reasons=answer.reasons,
    )
    assert "补办" in answer.reason


async def test_a_long_term_filing_has_no_end(service, call):
    """S0-10, S4-8."""
    (filing,) = await create(
        service, call, to_file("t2", kind=types_pb2.FILING_KIND_RETIRED_RESETTLED)
    )
    assert filing.end_date == ""


async def test_refusals_name_places_and_days(service, call):
    await create(
        service,
        call,
        to_file("t3", start_date="2026-01-05", filed_on="2026-01-05"),
        to_file("t4", care_place="310000"),
        to_file("t4", care_place="320100"),
    )
    expired, elsewhere, injured, day, area = await resolve(
        service,
        call,
        to_resolve("t3"),
        to_resolve("t4"),
        to_resolve("t3", injury=types_pb2.ANSWER_YES, third_party=types_pb2.ANSWER_YES),
        to_resolve("t3", end_date="2026-11-31"),
        to_resolve("t3", insured_area="440900"),
    )
    assert (expired.name, expired.details) == (
        "FILING_EXPIRED",
        {"place": "北京市", "expired": "2026-07-05"},
    )
    assert (elsewhere.name, elsewhere.details) == (
        "FILING_PLACE_MISMATCH",
        {"place": "北京市", "filed": "上海市、320100"},
    )
    assert injured.name == "THIRD_PARTY_LIABLE"
    assert (day.name, day.details["field"]) == ("DAY_INVALID", "visit.end_date")
    assert (area.name, area.details["area"]) == ("POLICY_NOT_FOUND", "440900")


@pytest.mark.parametrize("size", [1, 7, 256])
async def test_statements_per_batch_are_constant(service, counting, enrollment, call, size):
    """PROTOCOL §8: filing is one trip whatever the batch; taking over reads and writes once."""
    tokens = [f"batch{size}-{number}" for number in range(size)]
    filings = await create(service, call, *map(to_file, tokens))
    assert (counting.statements, enrollment.calls) == (2, [(size, 2.0)])
    answers = await resolve(service, call, *map(to_resolve, tokens))
    assert counting.statements == 3
    assert [one.filing_id for one in answers] == [one.filing_id for one in filings]
    assert await create(service, call) == await resolve(service, call) == []
    assert (counting.statements, len(enrollment.calls)) == (3, 1)


async def test_one_bad_item_fails_alone(service, call):
    good, nobody, lost, emergency, day = await create(
        service,
        call,
        to_file("t5"),
        to_file("nobody"),
        to_file("lost"),
        to_file("t5", kind=types_pb2.FILING_KIND_EMERGENCY),
        to_file("t5", start_date="9999-12-31"),
    )
    assert UUID(good.filing_id)
    assert (nobody.name, nobody.decided) == ("PERSON_NOT_IDENTIFIED", True)
    assert lost.name == "SERVICE_UNAVAILABLE"
    assert emergency.name == "FILING_NOT_ELIGIBLE"
    assert "视同已备案" in emergency.message
    assert (day.name, day.details["field"]) == ("DAY_INVALID", "start_date")


async def test_the_same_request_again_returns_the_filing_whatever_the_rules_are_now(
    service, counting, clock, enrollment, directory, call, admin
):
    """PROTOCOL §6: a stored answer is always given; another body under the id is refused."""
    item = to_file("t6", start_date="2026-10-01")
    (first,) = await create(service, call, item)
    rules = load_area_rules()
    none = Stated(0, "试验", Provenance.OFFICIAL)
    days = dict.fromkeys(rules[AREA].back_dating_days, none)
    strict = make_service(
        counting,
        clock,
        enrollment,
        directory,
        {AREA: replace(rules[AREA], back_dating_days=days)},
    )
    assert await create(strict, call, item) == [first]
    (other,) = await create(strict, call, to_file("t6", start_date="2026-10-01"))
    assert other.name == "FILING_NOT_ELIGIBLE"
    for change in (
        {"care_place": "310000"},
        {"start_date": "2026-10-02"},
        {"credential": visit_pb2.Credential(type=1, number="t7")},
        {"kind": types_pb2.FILING_KIND_EMERGENCY},
    ):
        reused = to_file("t6", **({"start_date": "2026-10-01"} | change), id=item.id)
        (refused,) = await create(service, call, reused)
        assert (refused.name, refused.details) == ("REQUEST_ID_REUSED", {"request_id": item.id})
    rows = await admin.fetch("SELECT * FROM filing.request WHERE request_id = $1", item.id)
    assert len(rows) == 1
    (audit,) = await admin.fetch("SELECT * FROM filing.audit WHERE subject = $1", first.filing_id)
    assert (audit["actor"], audit["action"]) == (call.caller.spiffe_id, "take over filing")
    assert audit["digest"] == rows[0]["digest"]
    assert audit["at"].timestamp() * 1000 == clock.ms


async def test_request_ids_belong_to_their_caller(service, call):
    """PROTOCOL §6: unique per authenticated caller."""
    item = to_file("t8")
    (mine,) = await create(service, call, item)
    other = Call(Identity("440000", CallerType.OPERATOR, "另一经办"), 1 << 62, "00-trace")
    (theirs,) = await create(service, other, to_file("t8", care_place="310000", id=item.id))
    assert mine.filing_id != theirs.filing_id


async def test_fifty_callers_with_one_request_id_make_one_filing(
    database, clock, enrollment, directory, call, admin
):
    services = [make_service(database, clock, enrollment, directory) for _ in range(2)]
    item = to_file("t9")
    answers = await asyncio.gather(
        *(create(services[number % 2], call, item) for number in range(50))
    )
    assert len({answer[0].filing_id for answer in answers}) == 1
    count = "SELECT count(*) FROM filing.filing WHERE person_id = $1"
    assert await admin.fetchval(count, person("t9")) == 1


async def test_the_call_to_enrollment_ends_before_the_caller_gives_up(
    database, clock, enrollment, directory, call
):
    """Deadlines are passed down."""
    service = make_service(database, clock, enrollment, directory)
    late = Call(call.caller, deadline_us=0, traceparent=call.traceparent)
    await create(service, late, to_file("t10"))
    assert enrollment.calls == [(1, 0.0)]


async def test_no_credential_is_stored(service, call, admin):
    """Only enrollment may hold what a patient shows."""
    await create(service, call, to_file("token-that-must-not-stay"))
    for table in ("filing", "audit", "request", "history", "person"):
        for (row,) in await admin.fetch(f"SELECT t::text FROM filing.{table} AS t"):
            assert "token-that-must-not-stay" not in row


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE filing.filing SET kind = 1",
        "UPDATE filing.filing SET care_place = '110000'",
        "UPDATE filing.history SET actor = ''",
        "DELETE FROM filing.history",
        "UPDATE filing.request SET answer = NULL",
        "DELETE FROM filing.filing",
        "UPDATE filing.audit SET actor = ''",
        "CREATE TABLE filing.more (id int)",
    ],
)
async def test_the_app_role_can_only_add_and_read(database, statement):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.run(statement)
