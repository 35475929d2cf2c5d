"""Loading, freshness and computing over the contract, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from policy_samples import deductible, fund, only, row
from publishing_desk import (
    AREA,
    LEVELS,
    LI,
    a_case,
    a_unit,
    chronic,
    compute,
    funds_pay,
    in_folder,
    written,
)
from structlog.testing import capture_logs

from infra.runtime.clock import ManualClock, new_id
from infra.runtime.database import Database
from infra.runtime.errors import Reason, Refusal
from services.policy import messages
from services.policy.domain import facts
from services.policy.domain.canonical import DocumentError, content_hash
from services.policy.domain.case import Counters
from services.policy.loader import DOCUMENTS, NOTICE, load_documents, read_folder
from services.policy.reading import opened_diseases
from services.policy.service import STALE_MS, PolicyService
from yidi.common.v1 import amounts_pb2, types_pb2
from yidi.policy.v1 import policy_pb2


async def opened(database: Database, clock: ManualClock, **settings: Any) -> PolicyService:
    service = PolicyService(
        database=database, clock=clock, **({"allow_illustrative": True} | settings)
    )
    await service.refresh()
    return service


def reason(case: policy_pb2.CaseResult) -> str:
    return Refusal.from_status(case.error).name if case.HasField("error") else "benefit"


async def test_compute_answers_every_amount_with_its_clause(
    database: Database, clock: ManualClock
) -> None:
    """S0-40, S4-16: referral from 湛江, the pooled fund's 80 % less ten points."""
    assert await load_documents(database, DOCUMENTS, clock, areas=["440800", "440100"]) == 4
    service = await opened(database, clock)
    opening = policy_pb2.Accumulator(period="2026", stay_count=1)
    unit = a_unit(clock, openings=[opening], account_balance_fen=100_000)
    result = (await compute(service, unit))[unit.id]
    (case,) = result.cases
    assert case.id == unit.cases[0].id
    benefit = case.benefit
    assert benefit.amounts == amounts_pb2.Amounts(
        total_fen=1_180_000,
        full_self_pay_fen=50_000,
        first_self_pay_fen=50_000,
        in_scope_fen=1_080_000,
        deductible_fen=80_000,
        ratio_self_pay_fen=300_000,
        fund_total_fen=700_000,
        account_fen=100_000,
        cash_fen=380_000,
    )
    assert list(benefit.funds) == [amounts_pb2.FundPayment(code="hifp_pay", fen=700_000)]
    assert list(benefit.deltas) == [
        policy_pb2.Accumulator(
            period="2026", stay_count=1, deductible_paid_fen=80_000, pooled_used_fen=700_000
        )
    ]
    assert benefit.policy.area == "440800"
    assert len(benefit.policy.hash) == 32
    assert benefit.policy.provenance == types_pb2.PROVENANCE_ILLUSTRATIVE
    first = benefit.steps[0]
    assert (first.stage, first.value, first.unit) == (
        "deductible",
        80_000,
        policy_pb2.STEP_UNIT_FEN,
    )
    assert first.row == "inpatient/deductible[levels=three]"
    assert first.clause.startswith("示例数值 ")
    assert all(step.text.endswith("。") for step in benefit.steps)
    assert "－10个百分点" in "".join(step.text for step in benefit.steps)


async def test_the_fee_of_the_year_is_accumulated_where_brackets_count_it(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    rows = (row("50%", up_to="1万元"), row("90%"))
    text = written(fund(*rows, brackets={"over": "year"}))
    await load_documents(database, in_folder(tmp_path, a=text), clock)
    service = await opened(database, clock)
    used = policy_pb2.Accumulator(period="2026", fee_used_fen=1_000_000)
    assert await funds_pay(service, clock) == 500_000 + 72_000
    unit = a_unit(clock, openings=[used])
    benefit = (await compute(service, unit))[unit.id].cases[0].benefit
    assert benefit.amounts.fund_total_fen == 972_000
    assert benefit.deltas[0].fee_used_fen == 1_080_000


async def test_every_fact_of_the_contract_decides(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    """Each of them changes the share by one point where a document asks for it."""
    given: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "places": ({"places": ["51"]}, {"care_area": "510100"}),
        "grades": ({"grades": ["three_a"]}, {"grade": types_pb2.INSTITUTION_GRADE_THREE_A}),
        "kinds": (
            {"kinds": ["community"]},
            {"institution_kind": policy_pb2.INSTITUTION_KIND_COMMUNITY},
        ),
        "aids": ({"aids": ["subsistence"]}, {"aid": policy_pb2.AID_CLASS_SUBSISTENCE}),
        "indirect": ({"settled_directly": False}, {"settled_directly": types_pb2.ANSWER_NO}),
        "late": ({"late_filing": True}, {"late_filing": True}),
        "civil": ({"civil_servant": True}, {"civil_servant": True}),
        "ages": ({"ages": "70-"}, {"age": 70}),
        "unfiled": ({"unfiled": True}, {"unfiled": True}),
        "routes": (
            {"routes": ["local"]},
            {
                "route": types_pb2.ROUTE_LOCAL,
                "benefit_class": types_pb2.BENEFIT_CLASS_LOCAL,
            },
        ),
    }
    adjust = [only("plus", "1个百分点", **when) for when, _ in given.values()]
    text = written(fund("50%", adjust=adjust))
    await load_documents(database, in_folder(tmp_path, a=text), clock)
    service = await opened(database, clock)
    plain = {"grade": types_pb2.INSTITUTION_GRADE_NONE, "care_area": "440100"}
    assert await funds_pay(service, clock, **plain) == 540_000
    for name, (_, fact) in given.items():
        assert await funds_pay(service, clock, **(plain | fact)) == 550_800, name


def test_the_contract_and_the_documents_spell_alike() -> None:
    """PROTOCOL §11: no value of the contract is out of reach of a document."""
    for spelt, known in (
        (messages.ROUTES, facts.ROUTES),
        (messages.CLASSES, facts.BENEFIT_CLASSES),
        (messages.CARE_TYPES, facts.CARE_TYPES),
        (messages.PERSONS, facts.PERSON_CLASSES),
        (messages.LEVELS, facts.LEVELS),
        (messages.GRADES, facts.GRADES),
        (messages.KINDS, facts.KINDS),
        (messages.AIDS, facts.AIDS),
        (messages.BASES, {**facts.BASES, "none": ""}),
    ):
        assert set(spelt.values()) == set(known)
    fields = [field.name for field in policy_pb2.Accumulator.DESCRIPTOR.fields]
    assert set(fields) == {"period", *Counters._fields}


async def test_each_fault_stays_in_its_case(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    stated = [row("600元", levels=["three"]), row("not_stated", levels=["one", "two", "other"])]
    text = written(deductible(*stated, row("500元", levels=["unrated"])), fund("80%"))
    text = text.replace("2000-01-01", "2024-01-01")
    sample = written(area="440100").replace("secondary", "illustrative")
    await load_documents(database, in_folder(tmp_path, a=text, b=sample), clock)
    service = await opened(database, clock, allow_illustrative=False)
    negative = a_case(clock)
    negative.parts.in_scope_fen = -1
    unequal = a_case(clock)
    unequal.total_fen += 1
    bad_day = a_case(clock, end_date="2026-02-31")
    not_stated = a_case(clock, deductible_level=types_pb2.INSTITUTION_LEVEL_TWO)
    not_given = a_case(clock, deductible_level=types_pb2.INSTITUTION_LEVEL_UNSPECIFIED)
    too_old = a_case(clock, end_date="2023-12-31", start_date="2023-12-30")
    mixed = a_unit(clock, negative, unequal, bad_day, not_stated, not_given, too_old, a_case(clock))
    illustrative = a_unit(clock, area="440100")
    foreign = a_unit(clock, area="999999")
    results = await compute(service, mixed, illustrative, foreign)
    assert [reason(case) for case in results[mixed.id].cases] == [
        "MESSAGE_INVALID",
        "TOTAL_MISMATCH",
        "DAY_INVALID",
        "POLICY_NOT_STATED",
        "POLICY_NOT_STATED",
        "POLICY_NOT_FOUND",
        "benefit",
    ]
    missing = Refusal.from_status(results[mixed.id].cases[3].error)
    assert missing.decided
    assert "inpatient/deductible" in missing.message
    assert results[mixed.id].cases[6].benefit.amounts.deductible_fen == 60_000
    assert reason(results[illustrative.id].cases[0]) == "POLICY_NOT_OFFICIAL"
    assert reason(results[foreign.id].cases[0]) == "POLICY_NOT_FOUND"


async def test_all_that_is_wrong_with_a_case_is_told_at_once(
    database: Database, clock: ManualClock
) -> None:
    service = await opened(database, clock)
    case = a_case(
        clock,
        care_type=types_pb2.CARE_TYPE_CHRONIC,
        person_class=types_pb2.PERSON_CLASS_MINOR_OR_STUDENT,
        benefit_class=types_pb2.BENEFIT_CLASS_LONG_TERM_BACK_HOME,
        age=151,
        end_date="2026-02-31",
    )
    case.parts.over_limit_fen = -1
    unit = a_unit(clock, case)
    [result] = (await compute(service, unit))[unit.id].cases
    refusal = Refusal.from_status(result.error)
    assert refusal.name == "MESSAGE_INVALID"
    assert {each.field for each in refusal.violations} == {
        "facts.disease_code",
        "facts.person_class",
        "facts.benefit_class",
        "facts.age",
        "facts.end_date",
        "parts.over_limit_fen",
    }
    assert all(each.description.endswith("。") for each in refusal.violations)
    # Nobody can mend what enrollment holds by sending another message: that is decided.
    minor = a_case(clock, person_class=types_pb2.PERSON_CLASS_MINOR_OR_STUDENT)
    unit = a_unit(clock, minor)
    [result] = (await compute(service, unit))[unit.id].cases
    refusal = Refusal.from_status(result.error)
    assert (refusal.name, refusal.decided) == ("POLICY_NOT_STATED", True)
    assert "person_class/minor_or_student" in refusal.message


async def test_a_chronic_disease_that_is_not_opened_is_paid_in_full_and_claimed_at_home(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    """The five of 2024 are opened from December 2024 on, cross-province only; a class code stands
    for its diseases."""
    text = written(benefits=chronic("M05300", "M00500", "M03200", otherwise="refused"))
    await load_documents(database, in_folder(tmp_path, a=text), clock)
    service = await opened(database, clock)

    async def visit(disease: str, day: str, route: types_pb2.Route.ValueType) -> Refusal | None:
        case = a_case(
            clock,
            care_type=types_pb2.CARE_TYPE_CHRONIC,
            disease_code=disease,
            route=route,
            start_date=day,
            end_date=day,
        )
        unit = a_unit(clock, case)
        [result] = (await compute(service, unit))[unit.id].cases
        return Refusal.from_status(result.error) if result.HasField("error") else None

    cross, province = types_pb2.ROUTE_CROSS_PROVINCE, types_pb2.ROUTE_IN_PROVINCE
    early = await visit("M05300", "2024-11-30", cross)
    assert early is not None
    assert (early.name, early.decided) == ("DISEASE_NOT_OPENED", True)
    assert "全额垫付" in early.next_step
    assert "回参保地手工报销" in early.next_step
    assert await visit("M05300", "2024-12-01", cross) is None
    assert await visit("M05300", "2024-11-30", province) is None
    assert await visit("M00503", "2023-01-01", cross) is None
    never = await visit("M03200", "2026-11-01", cross)
    assert never is not None
    assert never.name == "DISEASE_NOT_OPENED"
    assert await visit("M03200", "2026-11-01", province) is None
    refused = await visit("M03900", "2026-11-01", cross)
    assert refused is not None
    assert (refused.name, refused.decided) == ("DISEASE_NOT_COVERED", True)
    assert "回参保地手工报销" in refused.next_step


async def test_a_disease_without_benefit_at_home_is_ordinary_care(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    text = written(benefits=chronic("M01600", otherwise="outpatient"))
    await load_documents(database, in_folder(tmp_path, a=text), clock)
    service = await opened(database, clock)
    chronic_care = {"care_type": types_pb2.CARE_TYPE_CHRONIC}
    assert await funds_pay(service, clock, **chronic_care, disease_code="M01600") == 540_000
    assert await funds_pay(service, clock, **chronic_care, disease_code="M03900") == 324_000


def test_the_national_table_names_ten_diseases() -> None:
    table = opened_diseases()
    assert len(table._since) == 10
    assert sorted(set(table._since.values())) == ["2022-01-01", "2024-12-01"]


async def test_two_rules_that_both_apply_refuse_and_alarm(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No document with an overlap can be published, so it is put there by hand."""
    service = await opened(database, clock)
    text = written(deductible("100元", row("200元", levels=list(LEVELS))), fund("80%"))
    await put(database, text)
    await service.refresh()
    unit = a_unit(clock)
    with capture_logs() as logs:
        [case] = (await compute(service, unit))[unit.id].cases
    refusal = Refusal.from_status(case.error)
    assert (refusal.name, refusal.decided) == ("POLICY_AMBIGUOUS", True)
    assert "inpatient/deductible" in refusal.message
    assert [log["event"] for log in logs] == ["alarm: two rules apply"]


async def put(database: Database, text: str, content: str | None = None) -> None:
    """Publish a document past every check."""
    import yaml

    from services.policy.domain.canonical import canonical

    content = canonical(yaml.safe_load(text)) if content is None else content
    await database.run(
        """
        INSERT INTO policy.document (publication, area, insurance, version, effective_from,
                                     effective_to, content, hash, published_at, activated_at)
        SELECT (SELECT coalesce(max(publication), 0) + 1 FROM policy.document), '440800', '310',
               $1, '2000-01-01', '9999-12-31', $2, $3, '2020-01-01', '2020-01-01'
        """,
        content_hash(content).hex(),
        content,
        content_hash(content),
    )


async def test_what_an_older_program_published_is_left_out_with_an_alarm(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    old = '{"area":"440800","insurance":"310","plans":{},"version":"2023-02-03.1"}'
    await put(database, "", old)
    await put(database, "", "[1]")
    with capture_logs() as logs:
        service = await opened(database, clock)
    assert [log["publication"] for log in logs if "alarm" in log["event"]] == [1, 2]
    # Nothing here can be computed with, so nobody has to change over together.
    await load_documents(database, in_folder(tmp_path, a=written()), clock)
    await service.refresh()
    assert await funds_pay(service, clock) == 800_000


async def test_stale_replica_refuses_undecided(database: Database, clock: ManualClock) -> None:
    await load_documents(database, DOCUMENTS, clock, areas=[AREA])
    service = PolicyService(database=database, clock=clock, allow_illustrative=True)
    unit = a_unit(clock)

    async def stale() -> str | None:
        result = (await compute(service, unit))[unit.id]
        return Refusal.from_status(result.error).name if result.HasField("error") else None

    assert await stale() == "POLICY_STALE"
    with pytest.raises(Refusal, match="POLICY_STALE"):
        await service.GetCoverage(policy_pb2.GetCoverageRequest(), LI)
    await service.refresh()
    clock.ms += STALE_MS
    assert await stale() is None
    clock.ms += 1
    assert await stale() == "POLICY_STALE"
    result = (await compute(service, unit))[unit.id]
    assert not Refusal.from_status(result.error).decided
    with pytest.raises(Refusal, match="POLICY_STALE"):
        await service.BatchCalculate(policy_pb2.BatchCalculateRequest(), LI)
    await service.refresh()
    assert await stale() is None


async def test_computing_asks_the_database_for_nothing(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PROTOCOL §8: policy is memory, whatever the batch."""
    await load_documents(database, DOCUMENTS, clock, areas=[AREA])
    service = await opened(database, clock)

    async def forbidden(*_: object) -> None:
        pytest.fail("BatchCompute ran a statement")

    monkeypatch.setattr(database, "run", forbidden)
    for size in (1, 7, 256):
        units = [a_unit(clock) for _ in range(size)]
        results = await compute(service, *units)
        assert set(results) == {unit.id for unit in units}


async def test_an_agency_calculates_against_a_named_version(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    """Nobody's cases, in order, sample values allowed and said; nothing is stored."""
    later = written(fund("90%"), version="2", effective={"start": "2027-01-01"})
    sample = later.replace("secondary", "illustrative")
    await load_documents(database, in_folder(tmp_path, a=written(), b=sample), clock)
    service = await opened(database, clock, allow_illustrative=False)

    def item(version: str) -> policy_pb2.CalculateItem:
        return policy_pb2.CalculateItem(
            id=new_id(clock),
            insured_area=AREA,
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            version=version,
            cases=[a_case(clock), a_case(clock)],
        )

    items = [item(""), item("2"), item("3")]
    response = await service.BatchCalculate(policy_pb2.BatchCalculateRequest(items=items), LI)
    found = {result.id: result for result in response.results}
    in_force, named, unknown = (found[each.id] for each in items)
    assert [case.benefit.amounts.fund_total_fen for case in in_force.cases] == [800_000, 800_000]
    assert [case.benefit.amounts.fund_total_fen for case in named.cases] == [972_000, 972_000]
    assert named.cases[0].benefit.policy.provenance == types_pb2.PROVENANCE_ILLUSTRATIVE
    assert Refusal.from_status(unknown.error).name == "POLICY_VERSION_NOT_FOUND"


async def test_coverage_says_what_is_paid_since_when_and_how_well_founded(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    later = written(
        benefits=chronic("M01600", otherwise="refused"),
        version="2",
        effective={"start": "2027-01-01"},
    )
    await load_documents(database, in_folder(tmp_path, a=written(), b=later), clock)
    service = await opened(database, clock)
    request = policy_pb2.GetCoverageRequest(insured_area=AREA)
    first, second = (await service.GetCoverage(request, LI)).policies
    assert (first.policy.version, first.effective_from) == ("1", "2000-01-01")
    assert (second.policy.version, second.effective_from) == ("2", "2027-01-01")
    assert first.policy.provenance == types_pb2.PROVENANCE_SECONDARY
    assert [benefit.name for benefit in second.benefits] == ["chronic", "inpatient", "outpatient"]
    assert list(second.benefits[0].diseases) == ["M01600"]
    assert list(second.benefits[0].care_types) == [types_pb2.CARE_TYPE_CHRONIC]
    none = policy_pb2.GetCoverageRequest(insured_area="440100")
    assert not (await service.GetCoverage(none, LI)).policies


async def test_loading_again_changes_nothing(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    folder = in_folder(tmp_path, a=written(), b=written(area="440100"))
    assert await load_documents(database, folder, clock) == 2
    assert await load_documents(database, folder, clock) == 0
    audit = await database.run("SELECT action, subject, digest FROM policy.audit")
    stored = await database.run("SELECT hash, written FROM policy.document ORDER BY publication")
    assert {row["digest"] for row in audit} == {row["hash"] for row in stored}
    assert stored[0]["written"] == (folder / "a.yaml").read_text()
    in_folder(tmp_path, a=written(deductible("801元"), fund("80%")))
    with pytest.raises(DocumentError, match=r"a\.yaml: 440800/310/1 is published with other"):
        await load_documents(database, folder, clock)


async def test_two_loaders_at_once_publish_once(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    texts = {f"p{number}": written(version=f"{number}") for number in range(5)}
    folder = in_folder(tmp_path, **texts)
    added = await asyncio.gather(*(load_documents(database, folder, clock) for _ in range(4)))
    assert sum(added) == 5
    numbers = await database.run("SELECT publication FROM policy.document ORDER BY 1")
    assert [row["publication"] for row in numbers] == list(range(1, 6))


def test_folder_faults_name_the_file_and_the_line(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="holds no document"):
        read_folder(tmp_path)
    in_folder(tmp_path, a="area: [")
    with pytest.raises(DocumentError, match=r"a\.yaml:2: is no YAML"):
        read_folder(tmp_path)
    gap = deductible(row("100元", levels=["one"]))
    in_folder(tmp_path, a=written(gap, fund("80%")))
    with pytest.raises(DocumentError, match=r"a\.yaml:\d+: benefits\.inpatient\.stages\[0\]"):
        read_folder(tmp_path)
    in_folder(tmp_path, a=written(), b=written())
    with pytest.raises(DocumentError, match=r"b\.yaml: 440800/310/1 stands in a\.yaml too"):
        read_folder(tmp_path)


async def test_a_later_document_counts_after_its_notice(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    """A site that computes already changes over at one instant, on all replicas."""
    await load_documents(database, in_folder(tmp_path, a=written()), clock)
    replicas = [await opened(database, clock) for _ in range(2)]
    in_folder(tmp_path, b=written(deductible("1800元"), fund("80%"), version="2"))
    assert await load_documents(database, tmp_path, clock) == 1
    clock.ms += int(NOTICE.total_seconds() * 1000) - 1
    for paid in (800_000, 720_000):
        for replica in replicas:
            await replica.refresh()
            assert await funds_pay(replica, clock) == paid
        clock.ms += 1


async def test_published_documents_are_immutable(database: Database, clock: ManualClock) -> None:
    await load_documents(database, DOCUMENTS, clock, areas=[AREA])
    for statement in (
        "UPDATE policy.document SET content = ''",
        "DELETE FROM policy.document",
        "DELETE FROM policy.audit",
        "UPDATE policy.draft SET content = ''",
        "UPDATE policy.review SET approved = true",
        "DELETE FROM policy.retirement",
        "DELETE FROM policy.request_key",
        "CREATE TABLE policy.more (id int)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.run(statement)


async def test_background_task_keeps_the_list_fresh(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It survives a database that is away, and ends with `stop`."""
    await load_documents(database, DOCUMENTS, clock, areas=[AREA])
    service = PolicyService(database=database, clock=clock, allow_illustrative=True)
    monkeypatch.setattr("services.policy.service.POLL_S", 0.0)
    rounds = asyncio.Queue[None]()
    answers = asyncio.Queue[bool]()
    real = service._store.last_numbers

    async def last_numbers() -> Any:
        rounds.put_nowait(None)
        if not await answers.get():
            raise Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE)
        return await real()

    await service.start()
    monkeypatch.setattr(service._store, "last_numbers", last_numbers)
    clock.ms += STALE_MS + 1
    await rounds.get()
    answers.put_nowait(False)
    await rounds.get()
    unit = a_unit(clock)
    assert (await compute(service, unit))[unit.id].HasField("error")
    answers.put_nowait(True)
    await rounds.get()
    assert not (await compute(service, unit))[unit.id].HasField("error")
    await service.stop()
