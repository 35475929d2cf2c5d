"""Each fault has its own reason, a plain Chinese sentence and the next step; nothing is stored
twice or half (issue 2, Bad input)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from datetime import date, timedelta
from pathlib import Path

import pytest
from world import BEIJING, GUANGDONG, GUANGZHOU, ZHANJIANG, Patient, World, world

from infra.runtime.clock import SystemClock
from infra.runtime.config import NATION, Settings
from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import gateway_pb2

_UNFILLED = re.compile(r"（[a-z_]+）|[{}]")
Change = Callable[[gateway_pb2.SettleRequest], object]


async def _stored(sites: World, request: gateway_pb2.SettleRequest) -> list[str]:
    """Every row that a request has left at any site, as `site.table state`."""
    found: list[str] = []
    for site in (BEIJING, GUANGDONG):
        admin = await sites.admin(site)
        rows = await admin.fetch(
            """SELECT settlement_id, 'care_journal ' || state AS what FROM settlement.care_journal
               WHERE request_id = $1
               UNION ALL SELECT settlement_id, 'request_key ' || state
               FROM settlement.request_key WHERE request_id = $1
               UNION ALL SELECT settlement_id, 'bill ' || state
               FROM settlement.bill WHERE request_id = $1""",
            request.request_id,
        )
        found += [row["what"] for row in rows]
        ids = list({row["settlement_id"] for row in rows})
        for other in (BEIJING, GUANGDONG):
            decided = await (await sites.admin(other)).fetch(
                """SELECT state, balances::text FROM settlement.decision
                   WHERE settlement_id = ANY($1)""",
                ids,
            )
            found += [f"decision {row['state']}" for row in decided]
            assert all("accumulators" not in row["balances"] for row in decided)
        found += await (await sites.admin(NATION)).fetchval(
            "SELECT coalesce(array_agg('outcome'::text), '{}') FROM relay.outcome"
            " WHERE settlement_id = ANY($1)",
            ids,
        )
    return sorted(found)


async def _refused(sites: World, request: gateway_pb2.SettleRequest) -> Refusal:
    """The refusal of a request, which reads well."""
    with pytest.raises(Refusal) as caught:
        await sites.settle(request)
    refusal = caught.value
    for text in (refusal.message, refusal.next_step):
        assert re.search("[一-鿿]", text), text
        assert not _UNFILLED.search(text), text
    return refusal


DECIDED = ["bill REJECTED", "care_journal REJECTED", "decision REJECTED", "request_key REJECTED"]


def _set(path: str, value: object) -> Change:
    *parents, name = path.split(".")

    def change(request: gateway_pb2.SettleRequest) -> None:
        target = request
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, name, value)

    return change


def _line(number: int, **fields: int) -> Change:
    def change(request: gateway_pb2.SettleRequest) -> None:
        for name, value in fields.items():
            setattr(request.bill.lines[number], name, value)

    return change


def _impossible_day(request: gateway_pb2.SettleRequest) -> None:
    request.bill.visit.start_date, request.bill.visit.end_date = "2026-02-31", "2026-03-02"


def _third_party(request: gateway_pb2.SettleRequest) -> None:
    request.bill.visit.injury = types_pb2.ANSWER_YES
    request.bill.visit.third_party = types_pb2.ANSWER_YES


def _before_the_policy(request: gateway_pb2.SettleRequest) -> None:
    request.bill.visit.start_date, request.bill.visit.end_date = "2023-01-10", "2023-01-15"


def _before_the_catalogue(request: gateway_pb2.SettleRequest) -> None:
    request.bill.visit.start_date, request.bill.visit.end_date = "2022-01-10", "2022-01-15"


@pytest.mark.parametrize("care_area", [BEIJING, GUANGZHOU, ZHANJIANG])
@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("AREA_UNKNOWN", _set("bill.visit.insured_area", "999999")),
        ("TOTAL_MISMATCH", _set("bill.total_fen", 1)),
        ("LINE_AMOUNT_MISMATCH", _line(0, amount_fen=30_002)),
        ("DAY_INVALID", _impossible_day),
        ("INSTITUTION_NOT_NETWORKED", _before_the_catalogue),
        (
            "INSTITUTION_NOT_NETWORKED",
            _set("bill.visit.care_type", types_pb2.CARE_TYPE_PHARMACY),
        ),
        ("MESSAGE_INVALID", _set("bill.visit.injury", types_pb2.ANSWER_YES)),
        ("MESSAGE_INVALID", _set("bill.reference.visit_id", "V\x00")),
        ("MESSAGE_INVALID", _set("request_id", "short")),
        ("FOREIGN_CODE", _set("bill.visit.care_area", "370800")),
        ("FOREIGN_CODE", _set("bill.reference.institution", "H37080000001")),
    ],
)
async def test_what_is_refused_at_the_care_place_leaves_nothing(
    sites: World, care_area: str, reason: str, change: Change
) -> None:
    [patient] = await sites.patients(1)
    request = sites.request(patient, care_area=care_area)
    hospital = request.bill.reference.institution
    change(request)
    with pytest.raises(Refusal) as caught:
        await sites.institution(care_area, hospital).Settle(request, timeout=30)
    assert caught.value.name == reason
    assert not caught.value.decided
    assert not _UNFILLED.search(caught.value.message + caught.value.next_step)
    assert await _stored(sites, request) == []


async def test_an_unregistered_or_suspended_institution_settles_nothing(sites: World) -> None:
    [patient] = await sites.patients(1)
    for code, reason in (
        ("H44019999999", "INSTITUTION_UNKNOWN"),
        ("H44010000003", "INSTITUTION_AGREEMENT_NOT_IN_FORCE"),
    ):
        request = sites.request(patient, care_area=GUANGZHOU)
        request.bill.reference.institution = code
        refusal = await _refused(sites, request)
        assert (refusal.name, refusal.details["institution"]) == (reason, code)
        assert await _stored(sites, request) == []


async def test_line_ids_are_unique_within_a_bill(sites: World) -> None:
    [patient] = await sites.patients(1)
    request = sites.request(patient)
    for place in (2, 3):
        request.bill.lines[place].line_id = request.bill.lines[0].line_id
    refusal = await _refused(sites, request)
    assert refusal.name == "MESSAGE_INVALID"
    assert [fault.field for fault in refusal.violations] == [
        "bill.lines[2].line_id",
        "bill.lines[3].line_id",
    ]
    assert await _stored(sites, request) == []


async def test_a_malformed_message_lists_every_fault_with_its_path(sites: World) -> None:
    [patient] = await sites.patients(1)
    request = sites.request(patient)
    request.request_id = "x"
    request.credential.number = ""
    visit = request.bill.visit
    visit.insured_area = "44"
    visit.end_date = "yesterday"
    visit.care_type = types_pb2.CARE_TYPE_UNSPECIFIED
    request.bill.lines[2].quantity_e4 = 0
    refusal = await _refused(sites, request)
    assert refusal.name == "MESSAGE_INVALID"
    faults = {violation.field: violation.description for violation in refusal.violations}
    assert set(faults) >= {
        "request_id",
        "credential.number",
        "bill.visit.insured_area",
        "bill.visit.end_date",
        "bill.visit.care_type",
        "bill.lines[2].quantity_e4",
    }
    assert all(re.search("[一-鿿]", text) for text in faults.values())
    assert refusal.details["count"] == str(len(refusal.violations))
    assert await _stored(sites, request) == []


@pytest.mark.parametrize("care_area", [BEIJING, GUANGZHOU, ZHANJIANG])
@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("PERSON_NOT_IDENTIFIED", _set("credential.number", "0" * 32)),
        ("INSURANCE_OTHER_TYPE", _set("bill.visit.insurance", types_pb2.INSURANCE_TYPE_RESIDENT)),
        ("THIRD_PARTY_LIABLE", _third_party),
        ("POLICY_NOT_FOUND", _before_the_policy),
    ],
)
async def test_what_the_insured_place_refuses_is_decided_once(
    sites: World, care_area: str, reason: str, change: Change
) -> None:
    """A row at both places, the bill free, nothing at the nation (PROTOCOL §1)."""
    [patient] = await sites.patients(1)
    if reason == "POLICY_NOT_FOUND" and care_area != ZHANJIANG:
        await sites.file(
            [patient],
            care_area,
            kind=types_pb2.FILING_KIND_OTHER_TEMPORARY,
            start_date="2023-01-01",
            filed_on="2023-01-01",
        )
    request = sites.request(patient, care_area=care_area)
    change(request)
    refusal = await _refused(sites, request)
    assert (refusal.name, refusal.decided) == (reason, True)
    assert await _stored(sites, request) == DECIDED
    again = await _refused(sites, request)
    assert (again.name, again.details) == (reason, refusal.details)
    assert await _stored(sites, request) == DECIDED


async def test_a_chronic_disease_needs_its_qualification(sites: World) -> None:
    [patient] = await sites.patients(1)
    request = sites.request(
        patient,
        care_type=types_pb2.CARE_TYPE_CHRONIC,
        inpatient_type=types_pb2.INPATIENT_TYPE_UNSPECIFIED,
        disease_code="M03900",
    )
    refusal = await _refused(sites, request)
    assert (refusal.name, refusal.details["disease"]) == ("CHRONIC_NOT_QUALIFIED", "M03900")
    assert await _stored(sites, request) == DECIDED
    [qualified] = await sites.patients(1, chronic_diseases=["M03900"])
    request.credential.CopyFrom(qualified.credential)
    request.request_id += "-2"
    assert (await sites.settle(request)).state == types_pb2.SETTLEMENT_STATE_COMPLETED


async def test_what_the_policy_does_not_state_is_never_guessed(sites: World) -> None:
    [patient] = await sites.patients(
        1, person_class=types_pb2.PERSON_CLASS_MINOR_OR_STUDENT, places=()
    )
    request = sites.request(patient, care_area=ZHANJIANG)
    refusal = await _refused(sites, request)
    assert (refusal.name, refusal.decided) == ("POLICY_NOT_STATED", True)
    assert await _stored(sites, request) == DECIDED


async def _filed(sites: World, place: str, start: date) -> Patient:
    [patient] = await sites.patients(1, places=())
    await sites.file(
        [patient],
        place,
        kind=types_pb2.FILING_KIND_OTHER_TEMPORARY,
        start_date=start.isoformat(),
        filed_on=start.isoformat(),
    )
    return patient


@pytest.mark.parametrize(
    ("place", "days_ago", "reason", "named"),
    [
        (BEIJING, 500, "FILING_EXPIRED", "北京市"),
        (GUANGZHOU, 30, "FILING_PLACE_MISMATCH", "广州市"),
    ],
)
async def test_the_filing_there_is_explains_the_refusal(
    sites: World, place: str, days_ago: int, reason: str, named: str
) -> None:
    """Only after identification are near misses explained (PROTOCOL §11)."""
    patient = await _filed(sites, place, sites.today - timedelta(days=days_ago))
    request = sites.request(patient)
    refusal = await _refused(sites, request)
    assert (refusal.name, refusal.decided) == (reason, True)
    assert named in refusal.message
    assert await _stored(sites, request) == DECIDED


async def test_a_wrong_credential_and_an_unknown_person_get_the_same_answer(sites: World) -> None:
    [patient] = await sites.patients(1)
    answers = []
    for number, name in (
        (patient.person.id_number, "王不对"),
        (patient.person.id_number, ""),
        ("440802195001010011", patient.person.name),
    ):
        request = sites.request(patient, care_area=GUANGZHOU)
        request.credential.type = types_pb2.CREDENTIAL_TYPE_ID_CARD
        request.credential.number, request.credential.name = number, name
        refusal = await _refused(sites, request)
        answers.append((refusal.name, refusal.message, set(refusal.details)))
    assert len(set(map(str, answers))) == 1
    assert answers[0][0] == "PERSON_NOT_IDENTIFIED"
    request.request_id += "-2"
    request.credential.number = patient.person.id_number
    request.credential.name = patient.person.name
    assert (await sites.settle(request)).state == types_pb2.SETTLEMENT_STATE_COMPLETED


async def test_too_many_failed_identifications_are_stopped(sites: World) -> None:
    """20 a minute per institution; undecided, so the row stays in doubt until recovery."""
    [patient] = await sites.patients(1)
    code = "H44082300002"

    def guess() -> gateway_pb2.SettleRequest:
        request = sites.request(patient, care_area=ZHANJIANG)
        request.bill.reference.institution = code
        request.credential.number = "0" * 32
        return request

    for _ in range(20):
        assert (await _refused(sites, guess())).name == "PERSON_NOT_IDENTIFIED"
    request = guess()
    quote = gateway_pb2.QuoteRequest(credential=request.credential, bill=request.bill)
    with pytest.raises(Refusal) as caught:
        await sites.institution(ZHANJIANG, code).Quote(quote, timeout=30)
    assert caught.value.name == "IDENTIFICATION_LIMITED"
    assert caught.value.retry_ms


async def test_county_codes_mean_their_pooling_area(sites: World) -> None:
    """区县代码 are aliases in the directory (PROTOCOL §5)."""
    [patient] = await sites.patients(1)
    for care_area, county in ((BEIJING, "110105"), (GUANGZHOU, "440106"), (ZHANJIANG, "440811")):
        request = sites.request(patient, care_area=care_area)
        request.bill.visit.insured_area = "440802"
        request.bill.visit.care_area = county
        door = sites.institution(care_area)
        assert (await door.Settle(request, timeout=30)).result.route == (
            types_pb2.ROUTE_CROSS_PROVINCE
            if care_area == BEIJING
            else types_pb2.ROUTE_LOCAL
            if care_area == ZHANJIANG
            else types_pb2.ROUTE_IN_PROVINCE
        )


@pytest.fixture(scope="module")
async def hurried(
    database_settings: Callable[..., Settings], sample_pki: Path
) -> AsyncIterator[World]:
    """Sites that leave a settlement no time at all, and pay nothing on sample values."""
    async with world(
        database_settings=database_settings,
        pki=sample_pki,
        clock=SystemClock(),
        limits={"settle_ms": 100, "hop_margin_ms": 100},
    ) as made:
        yield made


@pytest.mark.parametrize("care_area", [BEIJING, ZHANJIANG])
async def test_without_time_nothing_is_claimed(hurried: World, care_area: str) -> None:
    """Admission comes before PENDING (PROTOCOL §7)."""
    [patient] = await hurried.patients(1)
    request = hurried.request(patient, care_area=care_area)
    refusal = await _refused(hurried, request)
    assert refusal.name == "DEADLINE_TOO_SHORT"
    assert await _stored(hurried, request) == []
