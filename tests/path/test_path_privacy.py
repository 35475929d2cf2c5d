"""No ID number and no name outside enrollment, and inside it only encrypted (R1-60, S15)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import world
from real_network import RealNetwork
from world import BEIJING, GUANGDONG, GUANGZHOU, ZHANJIANG, outcomes

from infra.runtime.config import NATION
from infra.runtime.errors import Refusal
from infra.runtime.id_number import Sex, sex
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2
from yidi.gateway.v1 import filing_desk_pb2, filing_desk_pb2_grpc, gateway_pb2


def _spellings(text: str) -> list[str]:
    """How a text might lie in a dump: plain, as bytes in hex, as the hex text in hex, in GBK."""
    plain = text.encode()
    found = [text, plain.hex(), plain.hex().encode().hex(), text.encode("gbk").hex()]
    return [one.lower() for one in found]


def _in_beijing(request: gateway_pb2.SettleRequest) -> bool:
    return request.bill.visit.care_area == BEIJING


async def _file(
    path: RealNetwork, hospital: str, requests: Sequence[gateway_pb2.SettleRequest]
) -> None:
    """Ask the filing desk of 湛江 everything about each patient, from 北京."""
    desk = path.clients.institution(filing_desk_pb2_grpc.FilingDeskServiceStub, BEIJING, hospital)
    for request in requests:
        visit = request.bill.visit
        applicant = desk_pb2.Applicant(
            credential=request.credential,
            insured_area=visit.insured_area,
            insurance=visit.insurance,
        )
        check = desk_pb2.VisitCheck(applicant=applicant, visit=visit)
        application = desk_pb2.Application(
            request_id=request.request_id,
            applicant=applicant,
            kind=types_pb2.FILING_KIND_OTHER_TEMPORARY,
            channel=types_pb2.FILING_CHANNEL_NATIONAL_APP,
            care_place=BEIJING,
        )
        listing = desk_pb2.Listing(applicant=applicant)
        await outcomes(
            (
                desk.CheckFiling(filing_desk_pb2.CheckFilingRequest(check=check), timeout=10),
                desk.ApplyFiling(
                    filing_desk_pb2.ApplyFilingRequest(application=application), timeout=10
                ),
                desk.ListFilings(filing_desk_pb2.ListFilingsRequest(listing=listing), timeout=10),
            )
        )


async def test_nobody_can_be_read_outside_enrollment(path: RealNetwork, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Every column of every table of every database, and every log of the network."""
    rare = (dataclasses.replace(person, name=f"亓官{person.name}") for person in world.PEOPLE)
    monkeypatch.setattr("real_network.PEOPLE", rare)
    patients = await path.patients(6)
    requests = []
    for number, patient in enumerate(patients):
        for care_area in (BEIJING, GUANGZHOU, ZHANJIANG):
            request = path.request(patient, care_area=care_area)
            request.credential.type = (number % 3) + 1
            person = patient.person
            request.credential.number = (
                person.electronic_token,
                person.id_number,
                person.social_security_card,
            )[number % 3]
            request.credential.name = person.name if number % 3 else ""
            if number == 5:
                # Refused identifications and messages are logged and audited as well.
                request.credential.name = f"{person.name}错"
            if number == 4:
                request.credential.type = types_pb2.CREDENTIAL_TYPE_UNSPECIFIED
            requests.append(request)
    answers = await outcomes(path.settle(request) for request in requests)
    names = [answer.name for answer in answers if isinstance(answer, Refusal)]
    assert sorted(set(names)) == ["MESSAGE_INVALID", "PERSON_NOT_IDENTIFIED"]
    assert len(names) == 6
    quote = gateway_pb2.QuoteRequest(credential=requests[0].credential, bill=requests[0].bill)
    hospital = quote.bill.reference.institution
    await path.door(BEIJING, hospital).Quote(quote, timeout=10)
    await _file(path, hospital, [request for request in requests if _in_beijing(request)])

    needles = {
        spelling: what
        for patient in patients
        for what, text in (
            ("name", patient.person.name),
            ("ID number", patient.person.id_number),
            ("card", patient.person.social_security_card),
            ("token", patient.person.electronic_token),
        )
        for spelling in _spellings(text)
    }
    marker = requests[0].bill.reference.visit_id.lower()
    seen_marker, tables, leaks = 0, 0, []
    for site, admin in path.admins.items():
        names_of_tables = await admin.fetch(
            """SELECT schemaname, tablename FROM pg_tables
               WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"""
        )
        for schema, table in names_of_tables:
            tables += 1
            rows = await admin.fetch(f'SELECT x::text AS row FROM "{schema}"."{table}" x')
            text = "\n".join(row["row"] for row in rows).lower()
            seen_marker += marker in text
            leaks += [
                f"{site} {schema}.{table}: {what}" for n, what in needles.items() if n in text
            ]
    assert leaks == []
    assert tables > 40
    assert seen_marker >= 2, "the scan would have found a text that is there"

    for log in sorted((path.network.home / "logs").iterdir()):
        text = log.read_text(encoding="utf-8", errors="replace").lower()
        assert [f"{log.name}: {what}" for n, what in needles.items() if n in text] == []


def _charge(request: gateway_pb2.SettleRequest, line_id: str, code: str) -> None:
    """Add a line of one yuan for a service that the hospital has not mapped."""
    request.bill.lines.add(
        line_id=line_id,
        item_code="未对照",
        national_code=code,
        unit_price_micro_yuan=1_000_000,
        quantity_e4=10_000,
        amount_fen=100,
    )
    request.bill.total_fen += 100


async def test_findings_stay_at_the_care_place(path: RealNetwork) -> None:
    """S3-17: the institution is told of a warning on every answer; the insured place never is."""
    [patient] = await path.patients(1)
    request = path.request(patient)
    for line_id in ("twice-1", "twice-2"):
        _charge(request, line_id, "0025010101510000-SAMPLE")
    request.bill.patient.birth_date = "1951-07-13"
    quote = gateway_pb2.QuoteRequest(credential=request.credential, bill=request.bill)
    door = path.door(BEIJING, request.bill.reference.institution)
    quoted = await door.Quote(quote, timeout=10)
    settled = await path.settle(request)
    again = await path.settle(request, replica=1)
    stored = await path.standing(request)
    for answer in (quoted, settled, again, stored):
        [found] = answer.result.findings
        assert (found.rule, list(found.line_ids)) == ("DUP-EXAM", ["twice-1", "twice-2"])
        assert "请核对" in found.message
    kept = await path.admins[BEIJING].fetchval(
        "SELECT request FROM settlement.care_journal WHERE settlement_id = $1::uuid",
        settled.settlement_id,
    )
    assert b"DUP-EXAM" in kept
    assert b"1951-07-13" not in kept
    for site in (NATION, GUANGDONG):
        tables = await path.admins[site].fetch(
            """SELECT schemaname, tablename FROM pg_tables
               WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"""
        )
        for schema, table in tables:
            text = await path.admins[site].fetchval(
                f"""SELECT coalesce(string_agg(x::text, ' '), '') FROM "{schema}"."{table}" x"""
            )
            assert not [one for one in _spellings("DUP-EXAM") if one in text.lower()], table


async def test_an_identity_card_says_the_sex_that_the_audit_judges(path: RealNetwork) -> None:
    """A refusal claims nothing; what the bill says goes before the card; unknown is not judged."""
    [patient] = await path.patients(1)
    male = sex(patient.person.id_number) is Sex.MALE
    wrong, right = (types_pb2.SEX_FEMALE, types_pb2.SEX_MALE)[:: 1 if male else -1]
    request = path.request(patient)
    _charge(request, "other-sex", "003313000001" if male else "003111000001")
    shown = type(request)()
    shown.CopyFrom(request)
    shown.credential.type = types_pb2.CREDENTIAL_TYPE_ID_CARD
    shown.credential.number = patient.person.id_number
    shown.credential.name = patient.person.name
    with pytest.raises(Refusal) as caught:
        await path.settle(shown)
    assert caught.value.name == "FEE_AUDIT_REFUSED"
    assert "other-sex" in caught.value.message
    assert patient.person.id_number not in str(caught.value.status())
    rows = await path.admins[BEIJING].fetchval(
        "SELECT count(*) FROM settlement.care_journal WHERE request_id = $1", shown.request_id
    )
    assert rows == 0
    quote = gateway_pb2.QuoteRequest(credential=shown.credential, bill=shown.bill)
    door = path.door(BEIJING, shown.bill.reference.institution)
    quote.bill.patient.sex = wrong
    assert list((await door.Quote(quote, timeout=10)).result.findings) == []
    quote.bill.patient.sex = right
    with pytest.raises(Refusal, match="FEE_AUDIT_REFUSED"):
        await door.Quote(quote, timeout=10)
    assert (await path.settle(request)).state == types_pb2.SETTLEMENT_STATE_COMPLETED
