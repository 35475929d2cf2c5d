"""The library of areas: sound, sourced, and together covering every variety that real rules use."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_varieties import (
    FILES,
    LIBRARY,
    VARIETY,
    changes,
    document,
    first_pays,
    ratio_rows,
)

from services.policy import messages
from services.policy.domain import facts
from services.policy.domain.book import Book, Publication
from services.policy.domain.canonical import DocumentError, canonical, content_hash
from services.policy.domain.case import (
    Benefit,
    CannotCompute,
    Case,
    Counters,
    NotFound,
    NotStated,
)
from services.policy.domain.chain import compute_visit
from services.policy.domain.compiling import compile_document
from services.policy.domain.document import Bracket, Change, Document, Money, Provenance, Value
from services.policy.domain.scopes import plans
from services.policy.loader import read_folder
from services.policy.reading import examine, read


@pytest.mark.parametrize("variety", VARIETY)
def test_variety_is_expressed_by_a_document(variety: str) -> None:
    """Every way of real texts is written somewhere as data alone."""
    name, uses = VARIETY[variety]
    assert uses(name), f"{name} does not use: {variety}"


@pytest.mark.parametrize("name", sorted(FILES))
def test_document_may_be_published(name: str) -> None:
    """It compiles and the check finds no error: no gap, no overlap, no row for nobody."""
    found = examine(FILES[name].read_text(encoding="utf-8"))
    assert found.document is not None
    assert found.errors == ()


def test_library_is_the_country_in_small() -> None:
    """The sites' nine, the third seed area, and more than a dozen other areas."""
    areas = {document(name).area for name in LIBRARY}
    assert {"110000", "140200", "370100", "370800", "440100", "440800"} <= areas
    assert len(areas) >= 20
    assert len(LIBRARY) >= 28
    for name in LIBRARY:
        own = document(name)
        assert name == f"{own.area}_{own.insurance}"
        assert len(own.written.notes) >= 1


def test_no_two_documents_hold_at_once() -> None:
    by_key: dict[tuple[str, str], list[Document]] = {}
    for name in LIBRARY:
        by_key.setdefault((document(name).area, document(name).insurance), []).append(
            document(name)
        )
    for documents in by_key.values():
        for one, other in combinations(documents, 2):
            assert (
                one.effective_to < other.effective_from or other.effective_to < one.effective_from
            )


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_value_has_its_source_and_every_source_its_use(name: str) -> None:
    """Sample figures say that they are, and nothing else does."""
    written = document(name).written
    for source in written.sources.values():
        assert ("示例" in source.title) == (source.provenance == "illustrative")
    used = {row["source"] for row in founded(written.model_dump())}
    assert used == set(written.sources)
    values = [each for each in values_of(document(name)) if each.amount is not None]
    assert all(each.clause and each.provenance in Provenance for each in values)


def founded(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, dict):
        if "clause" in data:
            yield data
        for each in data.values():
            yield from founded(each)
    elif isinstance(data, list | tuple):
        for each in data:
            yield from founded(each)


def values_of(of: Document) -> list[Value]:
    """The value of every row of every table."""
    found: list[Value] = []
    for plan in plans(of):
        for place in plan.places():
            for row in place.table.rows:
                value = row.value if isinstance(row, Money | Bracket | Change) else row
                assert isinstance(value, Value)
                found.append(value)
    return found


@cache
def silent(name: str) -> set[str]:
    """The rows that say that the source states nothing."""
    return {each.row for each in values_of(document(name)) if each.amount is None}


def test_reductions_of_the_seeds_are_official() -> None:
    """S1-26..32, S2-20..22, S4-16..18: read in the texts themselves; what is filled in is not."""
    rows = {
        (name, row.clause): document(name).written.sources[row.source].provenance
        for name in ("370800_390", "440800_310", "440800_390", "140200_310", "140200_390")
        for row in [*changes(name, "minus"), *changes(name, "value")]
    }
    chronic = "异地门诊慢特病与本地相同（原文未载）"
    assert {prov for (_, clause), prov in rows.items() if clause != chronic} == {"official"}
    assert rows["140200_310", chronic] == "illustrative"
    (first_pay, *_) = first_pays("370800_310")
    sources = document("370800_310").written.sources
    assert sources[first_pay.rows[0].source].provenance == "official"
    for name in ("140200_310", "140200_390"):
        for row in ratio_rows(name):
            if row.value is not None and row.classes:
                source = document(name).written.sources[row.source].provenance
                emergency = row.classes == ("emergency",)
                assert source == ("illustrative" if emergency else "official")


def test_datong_leaves_the_damaged_tier_out() -> None:
    """S1-28, S1-35: the grades between 三甲 and 二级乙等 are not guessed, and the notes say so."""
    assert "残缺" in document("140200_390").written.notes[0]
    for grade in ("three_special", "three_b", "three_c", "two_a"):
        with pytest.raises(NotStated, match="three_special"):
            visit("140200_390", route="in_province", benefit_class="referral", grade=grade)
    for grade, paid in (("three_a", 6000), ("two_b", 8500), ("one_c", 8500)):
        benefit = visit("140200_390", route="in_province", benefit_class="referral", grade=grade)
        assert benefit.fund_total_fen == (1_000_000 - 80_000) * paid // 10_000


def test_datong_emergency_is_a_sample_like_referral() -> None:
    """S1-34: no ratio is stated; the row says that it is an example."""
    for route in ("in_province", "cross_province"):
        emergency = visit("140200_310", route=route, benefit_class="emergency")
        referral = visit("140200_310", route=route, benefit_class="referral")
        assert emergency.funds == referral.funds
        assert emergency.provenance is Provenance.ILLUSTRATIVE


def test_datong_ordinary_care_is_paid_from_the_account() -> None:
    """S1-1, S1-20: the pooled fund pays inpatient care and approved chronic diseases only."""
    benefit = visit("140200_310", route="cross_province", care_type="outpatient", balance=300_000)
    assert (benefit.fund_total_fen, benefit.account_fen) == (0, 300_000)
    resident = visit("140200_390", route="cross_province", care_type="outpatient")
    assert resident.cash_fen == 1_000_000


def test_chronic_disease_without_benefit_at_home_is_ordinary_care() -> None:
    """A class code covers its diseases; what is not covered falls to ordinary outpatient care."""
    covered = visit("140200_310", route="cross_province", care_type="chronic", disease="M00503")
    assert (covered.deductible_fen, covered.fund_total_fen) == (0, 750_000)
    other = visit("140200_310", route="cross_province", care_type="chronic", disease="M12300")
    assert other.fund_total_fen == 0


@pytest.mark.parametrize(
    ("name", "facts_", "before", "paid"),
    [
        # 20 % of the bill, at least 2,000: 10,000 - 2,000, 60 %.
        ("341600_390", {"benefit_class": "referral"}, {}, 480_000),
        # 45 - 10 points of 7,500 is less than the floor of 40 %.
        ("340300_390", {"benefit_class": "other_temporary"}, {}, 300_000),
        ("340300_390", {"benefit_class": "referral"}, {}, 337_500),
        # 80 % x 80 % and 80 % x 90 % of 9,000.
        ("440300_310", {"benefit_class": "other_temporary"}, {}, 576_000),
        ("440300_310", {"benefit_class": "referral"}, {}, 648_000),
        ("350900_390", {"benefit_class": "referral"}, {}, 405_000),
        ("350900_390", {"benefit_class": "referral", "unfiled": True}, {}, 360_000),
        ("442000_390", {"benefit_class": "other_temporary", "unfiled": True}, {}, 299_000),
        ("532900_390", {"benefit_class": "referral"}, {}, 455_000),
        ("350200_310", {"benefit_class": "referral", "late_filing": True}, {}, 640_000),
        # Tibet is one of five places where nothing is lowered; 87 % at 50 years.
        ("510100_310", {"benefit_class": "referral", "care_area": "540100"}, {}, 800_400),
        ("510100_310", {"benefit_class": "referral", "care_area": "110000"}, {}, 696_000),
        # 70 % of 9,700, then 70 % of the 3,210 left; the 963 left then are under 3,000.
        (
            "500000_390",
            {"deductible_level": "two", "settlement_level": "two", "aid": "subsistence"},
            {},
            903_700,
        ),
        ("330100_310", {"benefit_class": "referral"}, {}, 533_000),
        # The second stay of a year counts on where the first ended: 34,000 + 8,000 over 35,000.
        (
            "330100_310",
            {"benefit_class": "referral"},
            {"2021": Counters(1, 150_000, fee_used_fen=3_400_000)},
            82_000 + 602_000,
        ),
        ("progressive_390", {"benefit_class": "other_temporary"}, {}, 500_000),
        (
            "progressive_390",
            {"benefit_class": "other_temporary"},
            {"2022-temporary": Counters(stay_count=1)},
            400_000,
        ),
        (
            "progressive_390",
            {"benefit_class": "other_temporary"},
            {"2022-temporary": Counters(stay_count=2)},
            0,
        ),
        ("430800_310", {"care_type": "outpatient", "benefit_class": "referral"}, {}, 100_000),
        ("310000_390", {"age": 60}, {}, 679_000),
    ],
)
def test_remote_rules_to_the_fen(
    name: str, facts_: dict[str, Any], before: dict[str, Counters], paid: int
) -> None:
    """10,000 yuan in another province, by hand."""
    benefit = visit(name, counters=before, route="cross_province", **facts_)
    assert benefit.fund_total_fen == paid


def visit(
    name: str,
    *,
    balance: int = 0,
    counters: dict[str, Counters] | None = None,
    **changes_: Any,
) -> Benefit:
    """10,000 yuan in scope at a hospital of level three."""
    own = document(name)
    resident = own.insurance == "390"
    keys: dict[str, Any] = {
        "route": "local",
        "basis": "filed",
        "benefit_class": "long_term_at_place",
        "care_type": "inpatient",
        "person_class": "adult_resident" if resident else "employed",
        "age": 50,
        "deductible_level": "three",
        "settlement_level": "three",
        "end_date": own.effective_from,
        "business_day": own.effective_from,
        "use_account": balance > 0,
        "total_fen": 1_000_000,
        "full_self_pay_fen": 0,
        "over_limit_fen": 0,
        "first_self_pay_fen": 0,
        "in_scope_fen": 1_000_000,
        "grade": "three_a",
    }
    return compute_visit(own, Case(**{**keys, **changes_}), counters or {}, balance)


SUM = st.one_of(st.integers(0, 200_000), st.integers(0, 3_000_000), st.integers(0, 10**8))
USED = st.one_of(st.just(0), st.integers(0, 200_000), st.integers(0, 10**8))


@st.composite
def visits(draw: st.DrawFn, name: str) -> tuple[Case, dict[str, Counters], int]:
    """A visit that can be, with what was used before it."""
    own = document(name)
    route = draw(st.sampled_from(sorted(facts.ROUTES)))
    classes = [each for each in facts.BENEFIT_CLASSES if facts.reachable(route, each)]
    last = date.fromisoformat(own.effective_from).replace(day=28)
    parts = [draw(SUM) for _ in range(4)]
    case = Case(
        route=route,
        basis="local" if route == "local" else "filed",
        benefit_class=draw(st.sampled_from(classes)),
        care_type=draw(st.sampled_from(sorted(own.benefits))),
        person_class=draw(st.sampled_from(facts.PERSONS_OF_INSURANCE[own.written.insurance])),
        age=draw(st.integers(0, 120)),
        deductible_level=draw(st.sampled_from(sorted(facts.LEVELS))),
        settlement_level=draw(st.sampled_from(sorted(facts.LEVELS))),
        start_date=own.effective_from,
        end_date=last.isoformat(),
        business_day=last.isoformat(),
        use_account=draw(st.booleans()),
        total_fen=sum(parts),
        full_self_pay_fen=parts[0],
        over_limit_fen=parts[1],
        first_self_pay_fen=parts[2],
        in_scope_fen=parts[3],
        grade=draw(st.sampled_from(sorted(facts.GRADES))),
        institution_kind=draw(st.sampled_from(sorted(facts.KINDS))),
        care_area=draw(st.sampled_from(["510100", "540100", "110000", "330100"])),
        disease=draw(st.sampled_from(["M03900", "M00503", "M07803", "M12300"])),
        civil_servant=draw(st.booleans()),
        aid=draw(st.sampled_from(sorted(facts.AIDS))),
        settled_directly=draw(st.booleans()),
        late_filing=draw(st.booleans()),
        unfiled=draw(st.booleans()),
    )
    period = own.effective_from[:4]
    counters = st.builds(Counters, st.integers(0, 4), *[USED] * 7)
    names = [period, f"{period}-temporary"]
    names += [f"{period}-{each.counter}" for each in own.written.benefits.values() if each.counter]
    return case, {each: draw(counters) for each in names}, draw(USED)


@pytest.mark.parametrize("name", sorted(FILES))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_visit_is_paid_to_the_fen_or_refused_by_a_row(name: str, data: st.DataObject) -> None:
    """No reachable visit meets a gap or two rows; what is refused is refused by the row that says
    that its source states nothing."""
    own = document(name)
    case, counters, balance = data.draw(visits(name))
    refusal: CannotCompute | None = None
    try:
        benefit = compute_visit(own, case, counters, balance)
    except CannotCompute as error:
        refusal = error
    if refusal is not None:
        assert isinstance(refusal, NotStated)
        assert refusal.missing in silent(name)
        return
    own_side = benefit.remote_first_pay_fen + benefit.deductible_fen
    own_side += benefit.ratio_self_pay_fen + benefit.over_cap_fen
    assert own_side + benefit.fund_total_fen - benefit.outside_scope_fen == case.in_scope_fen
    assert benefit.fund_total_fen + benefit.account_fen + benefit.cash_fen == case.total_fen
    assert min(*benefit.funds.values(), benefit.cash_fen, benefit.account_fen, own_side, 0) == 0
    assert benefit.account_fen <= balance


def test_hash_is_of_the_canonical_form() -> None:
    """The same content in another order has the same hash; another value has another."""
    text = FILES["440800_310"].read_text(encoding="utf-8")
    data = read(text).data
    turned = dict(reversed(data.items()))
    assert compile_document(data).hash == compile_document(turned).hash
    assert compile_document(data).hash == content_hash(canonical(data))
    changed = read(text.replace("value: 80%", "value: 81%")).data
    assert compile_document(changed).hash != compile_document(data).hash


def test_names_are_the_contracts_spelling() -> None:
    """PROTOCOL §11: documents use the wire spelling, so no value of the contract is unreachable."""
    pairs = [
        (messages.ROUTES, facts.ROUTES),
        (messages.CLASSES, facts.BENEFIT_CLASSES),
        (messages.CARE_TYPES, facts.CARE_TYPES),
        (messages.PERSONS, facts.PERSON_CLASSES),
        (messages.LEVELS, facts.LEVELS),
        (messages.GRADES, facts.GRADES),
        (messages.KINDS, facts.KINDS),
        (messages.AIDS, facts.AIDS),
    ]
    for wire, known in pairs:
        assert set(wire.values()) == set(known)
    assert set(messages.BASES.values()) == set(facts.BASES) | {"none"}


def test_folder_faults_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="holds no document"):
        read_folder(tmp_path)
    (tmp_path / "a.yaml").write_text("area: [", encoding="utf-8")
    with pytest.raises(DocumentError, match=r"a\.yaml"):
        read_folder(tmp_path)
    text = FILES["440800_310"].read_text(encoding="utf-8")
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DocumentError, match=r"b\.yaml.*440800/310/.* stands in a\.yaml too"):
        read_folder(tmp_path)


def test_older_figures_pay_no_later_visit() -> None:
    """The older figures of an area never pay a later visit."""
    book = Book([Publication(1, 0, document("510100_390"))])
    with pytest.raises(NotFound):
        book.find("510100", "390", a_day("2026-06-01"), 1)
    assert book.find("510100", "390", a_day("2014-06-01"), 1).version == "2014-01-01.1"


def a_day(day: str) -> Case:
    return Case(
        route="local", basis="local", benefit_class="local", care_type="inpatient",
        person_class="adult_resident", age=40, deductible_level="two", settlement_level="two",
        start_date=day, end_date=day, business_day=day, use_account=False, total_fen=0,
        full_self_pay_fen=0, over_limit_fen=0, first_self_pay_fen=0, in_scope_fen=0,
    )  # fmt: skip
