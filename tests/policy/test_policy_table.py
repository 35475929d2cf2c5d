"""Decision tables: which rows hold, what is asked, which combinations there are; units; cases."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_samples import a_case

from services.policy.domain import units
from services.policy.domain.case import Case, Counters, validate_case
from services.policy.domain.facts import DIMENSIONS, LEVELS, reachable
from services.policy.domain.table import Table, UnknownFact, combinations


def table(*conditions: dict[str, Any]) -> Table[int]:
    return Table("t", [(each, number) for number, each in enumerate(conditions)])


def test_a_row_holds_when_every_fact_that_it_names_does() -> None:
    found = table(
        {"persons": ("retired",), "ages": (70, None)},
        {"persons": ("retired",), "ages": (0, 69)},
        {"persons": ("employed",)},
        {"civil_servant": True},
        {},
    )
    assert found.matching(a_case(person_class="retired", age=70)) == (0, 4)
    assert found.matching(a_case(person_class="retired", age=69, civil_servant=True)) == (1, 3, 4)
    assert found.matching(a_case()) == (2, 4)


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        ((0, 0), (0,), (1, 150)),
        ((2, None), (2, 100, 1000), (1,)),
        ((2, 3), (2, 3), (1, 4, 1000)),
        ((70, 90), (70, 90), (69, 91)),
    ],
)
def test_spans(
    span: tuple[int, int | None], inside: tuple[int, ...], outside: tuple[int, ...]
) -> None:
    found = table({"ages": span})
    assert all(found.matching(a_case(age=age)) for age in inside)
    assert not any(found.matching(a_case(age=age)) for age in outside)


def test_the_narrower_code_answers_for_itself() -> None:
    diseases = table({"diseases": ("M00500",)}, {"diseases": ("M00503",)}, {"diseases": ("other",)})
    by_code = {"M00503": 1, "M00501": 0, "M00500": 0, "M03900": 2, "": 2}
    for code, number in by_code.items():
        assert diseases.matching(a_case(disease=code)) == (number,)
    places = table({"places": ("51",)}, {"places": ("5101", "530100")}, {"places": ("other",)})
    by_area = {"510100": 1, "510199": 1, "511100": 0, "530100": 1, "530200": 2}
    for area, number in by_area.items():
        assert places.matching(a_case(care_area=area)) == (number,)


def test_levels_of_a_deductible_are_those_of_the_deductible() -> None:
    case = a_case(deductible_level="one", settlement_level="three")
    rows: list[tuple[dict[str, Any], int]] = [
        ({"levels": ("one",)}, 1),
        ({"levels": ("three",)}, 3),
    ]
    assert Table("t", rows, level="deductible_level").matching(case) == (1,)
    assert Table("t", rows).matching(case) == (3,)


@pytest.mark.parametrize(
    ("conditions", "facts", "told"),
    [
        ({"levels": ("one",)}, {"settlement_level": ""}, "t(levels=)"),
        ({"levels": ("one",)}, {"settlement_level": "four"}, "t(levels=four)"),
        ({"ages": (0, 5)}, {"age": -1}, "t(ages=-1)"),
        ({"stays": (1, 5)}, {"stay": 0}, "t(stays=0)"),
        ({"places": ("51",)}, {"care_area": ""}, "t(places=)"),
        ({"levels": ("one",), "ages": (0, 5)}, {"settlement_level": ""}, "t(levels=)"),
    ],
)
def test_what_is_not_known_is_no_answer(
    conditions: dict[str, Any], facts: dict[str, Any], told: str
) -> None:
    with pytest.raises(UnknownFact) as refusal:
        table(conditions).matching(a_case(**facts))
    assert str(refusal.value) == told


def test_gaps_and_overlaps_are_found_by_their_combination() -> None:
    found = table(
        {"levels": ("one", "two"), "ages": (0, 59)},
        {"levels": ("three",)},
        {"levels": ("three",), "ages": (60, None)},
        {"levels": ("one", "two", "other", "unrated"), "ages": (60, None)},
    )
    rows = {named: mask.bit_count() for named, (mask,) in combinations([found], {})}
    wrong = {named for named, count in rows.items() if count != 1}
    assert wrong == {
        (("levels", "other|unrated"), ("ages", "0-59")),
        (("levels", "three"), ("ages", "60-")),
    }


def test_only_reachable_pairs_of_route_and_class_are_asked() -> None:
    found = table({"routes": ("local",), "classes": ("local",)})
    pairs = {
        (dict(named)["routes"], dict(named)["classes"]) for named, _ in combinations([found], {})
    }
    routes, classes = (DIMENSIONS[key].values or {} for key in ("routes", "classes"))
    assert pairs == {pair for pair in product(routes, classes) if reachable(*pair)}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=True))
def test_every_case_is_in_exactly_one_combination_with_its_rows(random: Random) -> None:
    """What the completeness check enumerates is what a case meets."""

    def conditions() -> dict[str, Any]:
        named: dict[str, Any] = {}
        if random.random() < 0.7:
            named["levels"] = tuple(random.sample(sorted(LEVELS), random.randrange(1, 5)))
        if random.random() < 0.7:
            first = random.randrange(100)
            named["ages"] = first, random.choice((None, first, first + 20))
        if random.random() < 0.5:
            named["late_filing"] = random.random() < 0.5
        if random.random() < 0.5:
            named["diseases"] = tuple(random.sample(("M00500", "M00503", "M03900", "other"), 2))
        return named

    found = table(*(conditions() for _ in range(random.randrange(1, 6))))
    enumerated = {frozenset(named): mask for named, (mask,) in combinations([found], {})}
    for _ in range(20):
        case = a_case(
            settlement_level=random.choice(sorted(LEVELS)),
            age=random.randrange(130),
            late_filing=random.random() < 0.5,
            disease=random.choice(("", "M00500", "M00503", "M00501", "M03900", "M04600")),
        )
        known = {
            value
            for named in enumerated
            for key, values in named
            for value in values.split("|")
            if key == "diseases"
        }
        codes = (case.disease, f"{case.disease[:4]}00")
        disease = next((each for each in codes if each in known), "other")
        met = {
            mask
            for named, mask in enumerated.items()
            if all(holds(case._replace(disease=disease), *each) for each in named)
        }
        assert met == {sum(1 << number for number in found.matching(case))}


def holds(case: Case, key: str, values: str) -> bool:
    value = getattr(case, DIMENSIONS[key].fact)
    if key == "ages":
        spans = [units.span(each) for each in values.split("|")]
        return any(first <= value <= (1000 if last is None else last) for first, last in spans)
    return (str(value).lower() if key == "late_filing" else value) in values.split("|")


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (units.fen, "1300元", 130_000),
        (units.fen, "2.5万元", 2_500_000),
        (units.fen, "0.01元", 1),
        (units.basis_points, "12.5%", 1_250),
        (units.points, "2.5个百分点", 250),
    ],
)
def test_units(read: Any, text: str, value: int) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (units.fen, "1300"),
        (units.fen, 1300),
        (units.fen, "85%"),
        (units.fen, "-1元"),
        (units.fen, "0.001元"),
        (units.fen, "10000000001元"),
        (units.basis_points, "101%"),
        (units.basis_points, "10个百分点"),
        (units.basis_points, "0.85"),
        (units.basis_points, "0.005%"),
        (units.points, "10%"),
        (units.span, "9-3"),
        (units.span, True),
        (units.span, "-3"),
    ],
)
def test_a_quantity_without_its_unit_is_an_error(read: Any, text: object) -> None:
    with pytest.raises(ValueError, match=re_quoted(text)):
        read(text)


def re_quoted(text: object) -> str:
    return repr(text).replace("(", r"\(").replace(".", r"\.")


def test_a_case_is_told_everything_that_is_wrong_with_it() -> None:
    """Negative amounts, unknown names, parts that do not sum: never a number."""
    case = a_case(
        route="abroad",
        basis="none",
        benefit_class="vip",
        care_type="chronic",
        person_class="adult_resident",
        age=-2,
        settlement_level="four",
        deductible_level="0",
        grade="x",
        institution_kind="y",
        aid="z",
        care_area="51",
        start_date="2026-13-01",
        end_date="2026-11-1",
        full_self_pay_fen=-1,
    )
    used = {"2026": Counters(pooled_used_fen=-5)}
    faults = validate_case(case, "employee", used, -1)
    assert {each.field for each in faults} == {
        "route",
        "basis",
        "benefit_class",
        "person_class",
        "age",
        "settlement_level",
        "deductible_level",
        "grade",
        "institution_kind",
        "aid",
        "care_area",
        "disease",
        "start_date",
        "end_date",
        "full_self_pay_fen",
        "account_balance_fen",
        "2026.pooled_used_fen",
    }
    assert all(each.text for each in faults)


def test_a_case_that_leaves_out_what_it_does_not_know_is_not_wrong() -> None:
    unknown = a_case(benefit_class="", settlement_level="", care_area="", grade="", age=-1)
    assert validate_case(unknown, "employee", {}, 0) == []
    assert validate_case(a_case(), "employee", {"2026": Counters(1)}, 5) == []
    # 两地双向: who has only promised the material and is back home too soon (filing).
    back = a_case(route="local", benefit_class="other_temporary")
    assert validate_case(back, "employee") == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"route": "local", "benefit_class": "referral"}, "benefit_class"),
        ({"route": "cross_province", "benefit_class": "long_term_back_home"}, "benefit_class"),
        ({"start_date": "2026-11-11"}, "end_date"),
        ({"total_fen": 7}, "total_fen"),
        ({"business_day": ""}, "business_day"),
        ({"in_scope_fen": 10**12 + 1, "total_fen": 10**12 + 1}, "in_scope_fen"),
        ({"age": 151}, "age"),
        ({"disease": "I10"}, "disease"),
    ],
)
def test_single_faults(changes: dict[str, Any], field: str) -> None:
    assert field in {each.field for each in validate_case(a_case(**changes), "employee", {}, 0)}
    assert validate_case(a_case(), "commercial", {}, 0)[0].field == "insurance"
