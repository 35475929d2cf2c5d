"""Entitlement from filings in a real PostgreSQL, in the words that callers get."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import uuid4

import pytest
from filing_facts import FILING, NAMED_HOSPITAL, REFERRAL

from infra.runtime.errors import Reason, Refusal
from services.filing.consulting import Consulting
from services.filing.domain.facts import CommitmentState, Filing, FilingKind, FilingState
from services.filing.store import FilingStore, PersonChange
from services.filing.written_rules import load_area_rules
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.filing.v1 import filing_pb2

RULES = load_area_rules()
NAMES = {"110000": "北京市", "310000": "上海市", "370100": "济南市"}
AT = datetime(2026, 11, 21, 2, tzinfo=UTC)


@pytest.fixture
def store(counting) -> FilingStore:
    return FilingStore(counting)


@pytest.fixture
def consulting(store) -> Consulting:
    return make_consulting(store)


def make_consulting(store, *, allow_illustrative=True) -> Consulting:
    return Consulting(
        store=store, rules=RULES, area_names=NAMES, allow_illustrative=allow_illustrative
    )


async def filed(store: FilingStore, *filings: Filing) -> str:
    """A person with these filings."""
    person = str(uuid4())
    made = [replace(filing, filing_id=str(uuid4())) for filing in filings]
    change = PersonChange(person, 0, made, (), (), ())
    assert await store.change([change], AT) == (frozenset({person}), [])
    return person


def visit(person: str, item: Mapping[str, object] | None = None, **changes):
    facts = {
        "care_area": "110000",
        "insured_area": "440800",
        "insurance": types_pb2.INSURANCE_TYPE_EMPLOYEE,
        "care_type": types_pb2.CARE_TYPE_INPATIENT,
        "start_date": "2026-11-10",
        "end_date": "2026-11-20",
        "inpatient_type": types_pb2.INPATIENT_TYPE_ORDINARY,
    }
    asked = {
        "id": str(uuid4()),
        "person_id": person,
        "person_class": types_pb2.PERSON_CLASS_RETIRED,
        "visit": visit_pb2.Visit(**(facts | changes)),
        "care_site": "110000",
        "route": types_pb2.ROUTE_CROSS_PROVINCE,
        "day": "2026-11-21",
    }
    return filing_pb2.ResolveEntitlementItem(**(asked | (item or {})))


async def answers(consulting: Consulting, *items) -> list[filing_pb2.Entitlement | Refusal]:
    results = await consulting.resolve(items)
    assert [one.id for one in results] == [item.id for item in items]
    return [
        Refusal.from_status(one.error) if one.HasField("error") else one.entitlement
        for one in results
    ]


async def test_the_answer_carries_every_fact_and_reason(consulting, store):
    person = await filed(
        store,
        replace(FILING, kind=FilingKind.LONG_TERM_RESIDENT, care_place="310000", end_date=None),
        replace(
            REFERRAL,
            referral_institution=NAMED_HOSPITAL,
            start_date=date(2026, 11, 10),
            filed_on=date(2026, 11, 12),
            end_date=date(2026, 11, 15),
            commitment=CommitmentState.PROMISED,
        ),
    )
    (answer,) = await answers(consulting, visit(person))
    (filing_id,) = [
        one.filing_id
        for one in (await store.of_people([person]))[person]
        if one.kind is FilingKind.REFERRAL
    ]
    named = RULES["440800"].referrals
    clause = next(iter(named.values())).citation
    procedure = "基本医疗保险跨省异地就医直接结算经办规程"
    code = filing_pb2.EntitlementReason
    reasons = [
        filing_pb2.Reason(
            code=code.ENTITLEMENT_REASON_REFERRAL_NAMED,
            text="经参保地指定医疗机构转诊，待遇不降低（备案地北京市）",
            clause=clause,
        ),
        filing_pb2.Reason(
            code=code.ENTITLEMENT_REASON_LONG_TERM_REFERRED,
            text="异地长期备案人员再转诊到其他地区，按转诊待遇（长期备案地上海市）",
            clause="医保发〔2022〕22号 二（五）",
        ),
        filing_pb2.Reason(
            code=code.ENTITLEMENT_REASON_LATE_FILING,
            text="入院后、结算前补办备案（2026-11-12备案）",
            clause=f"{procedure} 第十六条",
        ),
        filing_pb2.Reason(
            code=code.ENTITLEMENT_REASON_ADMITTED_WITHIN_VALIDITY,
            text="备案有效期内入院，有效期满后出院照常结算（有效期至2026-11-15）",
            clause=f"{procedure} 第十二条",
        ),
        filing_pb2.Reason(
            code=code.ENTITLEMENT_REASON_PROMISE_OPEN,
            text="备案材料承诺待补",
            clause="医保发〔2022〕22号 二（五）",
            next_step="请尽快补齐备案材料，以便回参保地就医时享受待遇。",
        ),
    ]
    assert answer == filing_pb2.Entitlement(
        basis=types_pb2.FILING_BASIS_FILED,
        benefit_class=types_pb2.BENEFIT_CLASS_REFERRAL_NAMED,
        filing_id=filing_id,
        filing_kind=types_pb2.FILING_KIND_REFERRAL,
        channel=types_pb2.FILING_CHANNEL_NATIONAL_APP,
        referral_institution=NAMED_HOSPITAL,
        commitment=types_pb2.COMMITMENT_STATE_PROMISED,
        late_filing=True,
        reason="；".join(one.text for one in reasons),
        clause="；".join(
            [
                clause,
                "医保发〔2022〕22号 二（五）",
                f"{procedure} 第十六条",
                f"{procedure} 第十二条",
            ]
        ),
        reasons=reasons,
    )


async def test_every_field_of_the_item_reaches_the_decision(consulting, store):
    person = await filed(store, FILING)
    referred = await filed(store, replace(REFERRAL, disease_code="C34.900"))
    clinic = {"institution": "H2", "contracted_institution": "H1"}
    chronic = {"institution": "H2", "chosen_institutions": ["H1", "H3"]}
    outpatient = {
        "care_type": types_pb2.CARE_TYPE_OUTPATIENT,
        "inpatient_type": types_pb2.INPATIENT_TYPE_UNSPECIFIED,
    }
    former, other, disease, same, free, bound, chosen = await answers(
        consulting,
        visit(person, {"insured_since": "2026-11-02"}),
        visit(person, insurance=types_pb2.INSURANCE_TYPE_RESIDENT),
        visit(referred, diagnosis_codes=["S72.000"]),
        visit(referred, diagnosis_codes=["S72.000", "C34.100"]),
        visit(person, clinic, **outpatient),
        visit(
            person,
            clinic | {"route": types_pb2.ROUTE_LOCAL, "care_site": "370000"},
            **(outpatient | {"care_area": "370800", "insured_area": "370800"}),
        ),
        visit(
            person,
            chronic | {"route": types_pb2.ROUTE_LOCAL, "care_site": "370000"},
            **(
                outpatient
                | {"care_area": "370800", "insured_area": "370800"}
                | {"care_type": types_pb2.CARE_TYPE_CHRONIC, "disease_code": "M03900"}
            ),
        ),
    )
    assert (former.name, former.details) == (
        "FILING_FORMER_AREA",
        {"place": "北京市", "since": "2026-11-02"},
    )
    assert (other.name, other.details) == (
        "FILING_OTHER_INSURANCE",
        {
            "place": "北京市",
            "filed": "职工基本医疗保险",
            "insurance": "城乡居民基本医疗保险",
        },
    )
    assert (disease.name, disease.details["filed"]) == ("FILING_REFERRAL_DISEASE", "C34.900")
    assert same.filing_kind == types_pb2.FILING_KIND_REFERRAL
    codes = [reason.code for reason in free.reasons]
    assert codes[-1] == filing_pb2.ENTITLEMENT_REASON_NOT_BOUND_OUTPATIENT
    assert (bound.name, bound.details) == ("INSTITUTION_NOT_CHOSEN", {"chosen": "H1"})
    assert chosen.details == {"chosen": "H1、H3"}


async def test_near_misses_name_places_and_days(consulting, store):
    pending = replace(FILING, state=FilingState.PENDING, due_date=date(2026, 11, 24))
    cancelled = replace(FILING, state=FilingState.CANCELLED, changed_on=date(2026, 11, 5))
    later = replace(FILING, start_date=date(2026, 11, 12))
    elsewhere = [replace(FILING, care_place=place) for place in ("310000", "370100")]
    people = [
        await filed(store, *filings) for filings in ([pending], [cancelled], [later], elsewhere)
    ]
    found = await answers(consulting, *map(visit, people))
    assert [(one.name, one.details) for one in found] == [
        ("FILING_PENDING", {"place": "北京市", "due": "2026-11-24"}),
        ("FILING_CANCELLED", {"place": "北京市", "since": "2026-11-05"}),
        ("FILING_NOT_STARTED", {"place": "北京市", "start": "2026-11-12"}),
        ("FILING_PLACE_MISMATCH", {"place": "北京市", "filed": "上海市、济南市"}),
    ]
    assert all(one.decided for one in found)


async def test_a_filing_counts_the_moment_it_is_written(consulting, store):
    """DOMAIN §5: filed but not visible at the hospital is what patients complain of."""
    person = str(uuid4())
    (before,) = await answers(consulting, visit(person))
    assert before.name == "FILING_REQUIRED"
    made = replace(FILING, filing_id=str(uuid4()))
    await store.change([PersonChange(person, 0, [made], (), (), ())], AT)
    (after,) = await answers(consulting, visit(person))
    assert after.filing_id == made.filing_id


async def test_no_sample_value_entitles_where_samples_are_not_allowed(store):
    """济南's 省本级 is linked on a sample; 湛江's named hospitals stand in its notice."""
    linked = await filed(
        store,
        replace(FILING, care_place="379900"),
        replace(REFERRAL, referral_institution=NAMED_HOSPITAL),
    )
    item = {"care_site": "370000"}
    asked = [visit(linked, item, care_area="370100"), visit(linked)]
    lenient, _ = await answers(make_consulting(store), *asked)
    assert lenient.reasons[1].code == filing_pb2.ENTITLEMENT_REASON_LINKED_PLACE
    strict, named = await answers(make_consulting(store, allow_illustrative=False), *asked)
    assert strict.name == "FILING_PLACE_MISMATCH"
    assert named.benefit_class == types_pb2.BENEFIT_CLASS_REFERRAL_NAMED


async def test_a_bad_item_fails_alone(consulting, store):
    person = await filed(store, FILING)
    day, since, area, good = await answers(
        consulting,
        visit(person, end_date="2026-11-31"),
        visit(person, {"insured_since": "2026-02-30"}),
        visit(person, insured_area="440900"),
        visit(person),
    )
    assert (day.name, day.details["field"]) == ("DAY_INVALID", "visit.end_date")
    assert (since.name, since.details["field"]) == ("DAY_INVALID", "insured_since")
    assert (area.name, area.details["area"]) == ("POLICY_NOT_FOUND", "440900")
    assert good.basis == types_pb2.FILING_BASIS_FILED


@pytest.mark.parametrize("size", [1, 7, 256])
async def test_one_statement_per_batch(consulting, store, counting, size):
    """PROTOCOL §8: filing is one trip whatever the batch, and none for nothing."""
    person = await filed(store, FILING, replace(FILING, care_place="310000"))
    people = [person, *(str(uuid4()) for _ in range(size - 1))]
    counting.statements = 0
    found = await answers(consulting, *map(visit, people))
    assert counting.statements == 1
    assert isinstance(found[0], filing_pb2.Entitlement)
    assert {one.name for one in found[1:]} <= {"FILING_REQUIRED"}
    assert await consulting.resolve([]) == []
    assert counting.statements == 1


async def test_calls_about_one_person_each_share_a_look_up(consulting, store, counting):
    """Speed: what one visit costs in the database is shared by the visits that come with it."""
    people = [await filed(store, FILING) for _ in range(3)]
    nobody = str(uuid4())
    counting.statements = 0
    asked = [*people, people[0], nobody]
    found = await asyncio.gather(*(answers(consulting, visit(person)) for person in asked))
    assert counting.statements == 1
    assert [one.basis for (one,) in found[:4]] == [types_pb2.FILING_BASIS_FILED] * 4
    assert found[4][0].name == "FILING_REQUIRED"
    made = await filed(store, FILING)
    (answer,) = await answers(consulting, visit(made))
    assert answer.basis == types_pb2.FILING_BASIS_FILED


async def test_a_look_up_that_fails_fails_everybody_in_it_and_nobody_after():
    class Failing(FilingStore):
        failing = True

        async def of_people(self, person_ids):
            if self.failing:
                raise Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE, cause="test")
            return {}

    store = Failing(None)
    consulting = make_consulting(store)
    calls = [consulting.resolve([visit(str(uuid4()))]) for _ in range(2)]
    failed = await asyncio.gather(*calls, return_exceptions=True)
    assert [one.name for one in failed] == ["DATABASE_UNAVAILABLE"] * 2
    store.failing = False
    (answer,) = await answers(consulting, visit(str(uuid4())))
    assert answer.name == "FILING_REQUIRED"
