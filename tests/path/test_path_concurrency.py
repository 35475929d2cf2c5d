"""Many callers, two replicas of each server: one settlement per request, nothing lost
(PROTOCOL §3, §4, §6; issue 2, Checked by tests)."""

from __future__ import annotations

from real_network import RealNetwork
from world import BEIJING, GUANGDONG, GUANGZHOU, ZHANJIANG, outcomes

from infra.runtime.config import NATION
from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc


async def test_fifty_callers_with_one_new_request_id_make_one_settlement(
    path: RealNetwork,
) -> None:
    """On two gateway replicas, over every route."""
    [patient] = await path.patients(1)
    for care_area, site in ((BEIJING, BEIJING), (GUANGZHOU, GUANGDONG), (ZHANJIANG, GUANGDONG)):
        request = path.request(patient, care_area=care_area)
        answers = await outcomes(path.settle(request, replica=n % 2) for n in range(50))
        settled = [answer for answer in answers if not isinstance(answer, Refusal)]
        assert settled
        assert {a.name for a in answers if isinstance(a, Refusal)} <= {"OUTCOME_PENDING"}
        assert len({answer.settlement_id for answer in settled}) == 1
        assert len({answer.result.outcome_header for answer in settled}) == 1
        journal = await path.admins[site].fetch(
            "SELECT settlement_id, state FROM settlement.care_journal WHERE request_id = $1",
            request.request_id,
        )
        assert [row["state"] for row in journal] == ["COMPLETED"]
        assert str(journal[0]["settlement_id"]) == settled[0].settlement_id
        decided = await path.admins[GUANGDONG].fetchval(
            "SELECT count(*) FROM settlement.decision WHERE settlement_id = $1",
            journal[0]["settlement_id"],
        )
        assert decided == 1
    stays = await path.admins[GUANGDONG].fetchval(
        "SELECT stay_count FROM settlement.accumulator WHERE person_id = $1::uuid",
        patient.person_id,
    )
    assert stays == 3


async def test_one_bill_from_two_replicas_under_two_request_ids_is_settled_once(
    path: RealNetwork,
) -> None:
    [patient] = await path.patients(1)
    request = path.request(patient)
    other = type(request)()
    other.CopyFrom(request)
    other.request_id += "-2"
    answers = await outcomes(path.settle((request, other)[n % 2], replica=n % 2) for n in range(20))
    settled = {a.settlement_id for a in answers if not isinstance(a, Refusal)}
    assert len(settled) == 1
    refused = {a.name for a in answers if isinstance(a, Refusal)}
    assert refused
    assert refused <= {"BILL_ALREADY_SETTLING", "BILL_ALREADY_SETTLED"}
    states = await path.admins[BEIJING].fetch(
        "SELECT state FROM settlement.care_journal WHERE visit_id = $1",
        request.bill.reference.visit_id,
    )
    assert [row["state"] for row in states] == ["COMPLETED"]


async def test_five_people_settled_two_hundred_times_by_two_instances(path: RealNetwork) -> None:
    """No lost update, nobody busy, and the journals of the three sites agree afterwards."""
    patients = await path.patients(5)
    requests = [
        path.request(patients[n % 5], care_area=(BEIJING, GUANGZHOU, ZHANJIANG, ZHANJIANG)[n % 4])
        for n in range(200)
    ]
    answers = await outcomes(
        path.settle(request, replica=n % 2) for n, request in enumerate(requests)
    )
    assert [str(answer) for answer in answers if isinstance(answer, Refusal)] == []
    differences = await path.admins[GUANGDONG].fetch(
        """WITH delta AS (
               SELECT d.person_id, b ->> 'period' AS period, e.key AS name,
                      sum(e.value::bigint) AS total, count(DISTINCT b ->> 'version') AS writes
               FROM settlement.decision d, jsonb_array_elements(d.balances -> 'accumulators') b,
                    jsonb_each_text(b -> 'delta') e
               WHERE d.state = 'COMMITTED' GROUP BY 1, 2, 3
           ), stored AS (
               SELECT a.person_id, a.period, a.version, e.key AS name, e.value::bigint AS total
               FROM settlement.accumulator a,
                    jsonb_each_text(to_jsonb(a) - 'person_id' - 'period' - 'insured_area'
                                    - 'insurance' - 'version') e
           )
           SELECT * FROM stored s FULL JOIN delta d USING (person_id, period, name)
           WHERE s.total IS DISTINCT FROM d.total OR s.version + 1 IS DISTINCT FROM d.writes"""
    )
    assert differences == []
    stays = await path.admins[GUANGDONG].fetch(
        "SELECT stay_count FROM settlement.accumulator WHERE person_id = ANY($1::uuid[])",
        [patient.person_id for patient in patients],
    )
    assert [row["stay_count"] for row in stays] == [40] * 5
    for care_site in (BEIJING, GUANGDONG):
        await _journals_agree(path, care_site)


async def _journals_agree(path: RealNetwork, care_site: str) -> None:
    pair = {
        "business_day": path.today.isoformat(),
        "care_site": care_site,
        "insured_site": GUANGDONG,
    }
    clients = path.clients
    care = await clients.operator(
        care_pb2_grpc.CareServiceStub, care_site, "settlement"
    ).GetCareJournalDigest(care_pb2.GetCareJournalDigestRequest(**pair), timeout=10)
    insured = await clients.operator(
        insured_pb2_grpc.InsuredServiceStub, GUANGDONG, "settlement"
    ).GetInsuredJournalDigest(insured_pb2.GetInsuredJournalDigestRequest(**pair), timeout=10)
    assert care.journal.open_count == 0
    assert care.journal.count > 0
    assert care.journal == insured.journal
    nation = await clients.operator(
        relay_pb2_grpc.RelayServiceStub, NATION, "relay"
    ).GetNationJournalDigest(relay_pb2.GetNationJournalDigestRequest(**pair), timeout=10)
    if care_site == GUANGDONG:
        # The nation hears nothing of what stays inside a province.
        assert nation.journal.count == 0
    else:
        assert nation.journal == care.journal


async def test_every_amount_ties_out(path: RealNetwork) -> None:
    """The identities of DESIGN §4 hold in every row of every journal."""
    [patient] = await path.patients(1)
    for care_area in (BEIJING, GUANGZHOU):
        await path.settle(path.request(patient, care_area=care_area))
    for site, table in (
        (BEIJING, "settlement.care_journal"),
        (GUANGDONG, "settlement.care_journal"),
        (GUANGDONG, "settlement.decision"),
        (NATION, "relay.outcome"),
    ):
        broken, rows = await path.admins[site].fetchrow(
            f"""SELECT count(*) FILTER (WHERE
                   total_fen <> fund_total_fen + account_fen + cash_fen + hospital_fen
                   OR total_fen <> full_self_pay_fen + over_limit_fen + first_self_pay_fen
                                   + in_scope_fen
                   OR in_scope_fen <> remote_first_pay_fen + deductible_fen + fund_total_fen
                                      + ratio_self_pay_fen + over_cap_fen
                   OR fund_total_fen <> (SELECT coalesce(sum(f), 0) FROM unnest(fund_fen) f)),
                   count(*)
                FROM {table} WHERE outcome_digest IS NOT NULL"""
        )
        assert (broken, rows > 0) == (0, True)


async def test_a_refusal_is_final_on_every_replica(path: RealNetwork) -> None:
    [patient] = await path.patients(1, places=())
    request = path.request(patient)
    answers = await outcomes(path.settle(request, replica=n % 2) for n in range(6))
    assert {answer.name for answer in answers} == {"FILING_REQUIRED"}
    assert len({answer.details["settlement_id"] for answer in answers}) == 1
    found = await path.admins[BEIJING].fetch(
        "SELECT state FROM settlement.care_journal WHERE request_id = $1", request.request_id
    )
    assert [row["state"] for row in found] == ["REJECTED"]
    state = types_pb2.SETTLEMENT_STATE_REJECTED
    assert types_pb2.SettlementState.Name(state).endswith(found[0]["state"])
