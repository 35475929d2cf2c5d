"""The rules of splitting as properties, pure: S0-25/S1-24 care-place scope, S0-37/S0-38 lines."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from charging import (
    DAY,
    NOTHING_FIRST,
    Charge,
    catalogue,
    item,
    parts,
    split,
)
from hypothesis import given
from hypothesis import strategies as st

from infra.runtime.money import divide_fen
from services.catalog.domain.bill import BillSplit
from services.catalog.domain.catalogue import (
    Catalogue,
    RevisionsOverlap,
    by_code,
    catalogue_on,
)
from services.catalog.domain.item import (
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    ItemInvalid,
    Level,
    ListType,
)
from services.catalog.domain.line import FEN
from services.catalog.domain.rule import SplitRule
from services.catalog.domain.texts import quantity_text, yuan_of_micro
from yidi.common.v1 import types_pb2

LIMITS = {Level.ONE: 6_000_000, Level.THREE: 10_000_000}
BANDS = (
    Band(500_000_000, {InsuranceType.EMPLOYEE: 500, InsuranceType.RESIDENT: 1_000}),
    Band(None, {InsuranceType.EMPLOYEE: 3_000, InsuranceType.RESIDENT: 4_000}),
)
PLAIN = (
    item("A", catalog_class=CatalogClass.A, first_self_pay_bp=NOTHING_FIRST),
    item("B"),
    item("LIMITED", limits_micro_yuan=LIMITS, fee_category=FeeCategory.MATERIAL),
    item("RESTRICTED", limited_use="限抢救"),
    item("SELF", catalog_class=CatalogClass.SELF_PAID, first_self_pay_bp=NOTHING_FIRST),
    item(
        "BANDED",
        list_type=ListType.CONSUMABLE,
        fee_category=FeeCategory.MATERIAL,
        first_self_pay_bp=NOTHING_FIRST,
        bands=BANDS,
    ),
    item("NEW", effective_from=date(2026, 10, 5), effective_to=date(2026, 10, 6)),
    item(
        "NEW",
        effective_from=date(2026, 10, 8),
        catalog_class=CatalogClass.A,
        first_self_pay_bp=NOTHING_FIRST,
    ),
)
SHARED = (
    item("DAY", day_limit_e4=20_000),
    item("VISIT", visit_limit_e4=35_000, limits_micro_yuan=LIMITS),
    item("BOTH", day_limit_e4=10_000, visit_limit_e4=15_000, first_self_pay_bp=NOTHING_FIRST),
)
LISTED = catalogue(*PLAIN, *SHARED)
PLAIN_CODES = (*dict.fromkeys(each.national_code for each in PLAIN), "", "NOBODY")
CODES = (*PLAIN_CODES, *(each.national_code for each in SHARED))
INSURANCES, LEVELS = st.sampled_from(InsuranceType), st.sampled_from(Level)


@st.composite
def charges(draw: st.DrawFn, codes: tuple[str, ...]) -> Charge:
    """A line whose amount is within one fen of price × quantity."""
    price = draw(st.integers(0, 2_000_000_000))
    quantity = draw(st.integers(-100_000, 100_000).filter(bool))
    exact = Fraction(price * quantity, 100_000_000)
    off = [fen for fen in range(int(exact) - 2, int(exact) + 3) if abs(exact - fen) <= 1]
    return Charge(
        price,
        quantity,
        draw(st.sampled_from(off)),
        national_code=draw(st.sampled_from(codes)),
        hospital_approved=draw(st.integers(0, 2)),
        charged_on=draw(st.sampled_from(["", "2026-10-05", "2026-10-06"])),
    )


def bills(codes: tuple[str, ...] = CODES, most: int = 12) -> st.SearchStrategy[list[Charge]]:
    return st.lists(charges(codes), min_size=1, max_size=most).map(
        lambda lines: [replace(line, line_id=f"{n:02d}") for n, line in enumerate(lines)]
    )


def within_a_fen(price: int, quantity: int, amount: int) -> bool:
    return abs(price * quantity - amount * FEN) <= FEN


@st.composite
def refunded(draw: st.DrawFn) -> tuple[list[Charge], list[Charge]]:
    """A bill with up to three refunds of each charge, and the lines that they leave."""
    bill, left = [], []
    for line in draw(bills(most=5)):
        bill.append(line)
        price, quantity, amount = line.unit_price_micro_yuan, line.quantity_e4, line.amount_fen
        for number in range(draw(st.integers(0, 3)) if quantity > 0 and amount >= 0 else 0):
            back = draw(st.integers(1, quantity)) if quantity else 0
            fen = min(divide_fen(price * back, FEN), amount)
            if not back or not within_a_fen(price, back, fen):
                break
            if not within_a_fen(price, quantity - back, amount - fen):
                break
            quantity, amount = quantity - back, amount - fen
            bill.append(
                replace(
                    line,
                    line_id=f"{line.line_id}-{number}",
                    quantity_e4=-back,
                    amount_fen=-fen,
                    original_line_id=line.line_id,
                )
            )
        if quantity:
            left.append(replace(line, quantity_e4=quantity, amount_fen=amount))
    return bill, left


def sums(found: BillSplit) -> tuple[int, int, int, int]:
    whole = found.parts
    return (
        whole.full_self_pay_fen,
        whole.over_limit_fen,
        whole.first_self_pay_fen,
        whole.in_scope_fen,
    )


@given(bills(), INSURANCES, LEVELS)
def test_parts_sum_to_the_whole_per_line_category_and_bill(
    bill: list[Charge], insurance: InsuranceType, level: Level
) -> None:
    """S0-38: lines to the bill, exactly."""
    found = split(bill, LISTED, insurance=insurance, level=level)
    for charge, one in zip(bill, found.lines, strict=True):
        assert one.amount_fen == charge.amount_fen == sum(parts(one))
        assert all(part * charge.amount_fen >= 0 for part in parts(one))
        assert 0 < len(one.reason) <= 300
        assert 0 < len(one.rules) <= 8
        assert list(one.rules) == sorted(set(one.rules), key=one.rules.index)
    assert sums(found) == tuple(map(sum, zip(*map(parts, found.lines), strict=True)))
    categories = [
        (each.full_self_pay_fen, each.over_limit_fen, each.first_self_pay_fen, each.in_scope_fen)
        for _, each in found.categories
    ]
    assert sums(found) == tuple(map(sum, zip(*categories, strict=True)))
    assert found.parts.amount_fen == sum(sums(found))
    codes = [category for category, _ in found.categories]
    assert codes == sorted(set(codes))


@given(refunded(), INSURANCES, LEVELS)
def test_a_line_and_its_refunds_come_to_the_split_of_what_is_left(
    refunds: tuple[list[Charge], list[Charge]], insurance: InsuranceType, level: Level
) -> None:
    """S0-37: whatever the chain of partial refunds."""
    bill, left = refunds
    found = split(bill, LISTED, insurance=insurance, level=level)
    assert all(sum(parts(line)) == line.amount_fen for line in found.lines)
    rest = split(left, LISTED, insurance=insurance, level=level)
    chains: dict[str, list[tuple[int, ...]]] = {}
    for line in found.lines:
        chains.setdefault(line.line_id.split("-")[0], []).append(parts(line))
    for line in rest.lines:
        assert parts(line) == tuple(map(sum, zip(*chains[line.line_id], strict=True)))


@given(bills(), INSURANCES, LEVELS, st.randoms())
def test_the_order_of_the_lines_changes_nothing(
    bill: list[Charge], insurance: InsuranceType, level: Level, random: object
) -> None:
    shuffled = list(bill)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one = split(bill, LISTED, insurance=insurance, level=level)
    other = split(shuffled, LISTED, insurance=insurance, level=level)
    assert sorted(one.lines) == sorted(other.lines)
    assert (one.parts, one.categories) == (other.parts, other.categories)


def negated(bill: list[Charge]) -> list[Charge]:
    return [
        replace(
            line,
            line_id=f"{line.line_id}-",
            quantity_e4=-line.quantity_e4,
            amount_fen=-line.amount_fen,
        )
        for line in bill
    ]


@given(bills(), INSURANCES, LEVELS)
def test_a_bill_and_its_negation_cancel(
    bill: list[Charge], insurance: InsuranceType, level: Level
) -> None:
    charged = split(bill, LISTED, insurance=insurance, level=level)
    returned = split(negated(bill), LISTED, insurance=insurance, level=level)
    for one, other in zip(charged.lines, returned.lines, strict=True):
        assert parts(other) == tuple(-part for part in parts(one))
    both = split([*bill, *negated(bill)], LISTED, insurance=insurance, level=level)
    assert (both.parts.amount_fen, sums(both)) == (0, (0, 0, 0, 0))


@given(bills(PLAIN_CODES), INSURANCES, LEVELS)
def test_without_a_shared_quantity_a_bill_is_the_sum_of_its_lines(
    bill: list[Charge], insurance: InsuranceType, level: Level
) -> None:
    whole = split(bill, LISTED, insurance=insurance, level=level)
    alone = [split([line], LISTED, insurance=insurance, level=level) for line in bill]
    assert whole.lines == tuple(each.lines[0] for each in alone)
    assert sums(whole) == tuple(map(sum, zip(*map(sums, alone), strict=True)))


@given(bills(PLAIN_CODES), st.integers(1, 500_000), st.integers(1, 100), INSURANCES, LEVELS)
def test_twice_the_quantity_is_twice_the_parts_within_a_fen(
    bill: list[Charge], price_fen: int, pieces: int, insurance: InsuranceType, level: Level
) -> None:
    def of(times: int) -> list[Charge]:
        return [
            replace(
                line,
                unit_price_micro_yuan=price_fen * 10_000,
                quantity_e4=pieces * times * 10_000,
                amount_fen=price_fen * pieces * times,
            )
            for line in bill
        ]

    once = split(of(1), LISTED, insurance=insurance, level=level)
    twice = split(of(2), LISTED, insurance=insurance, level=level)
    for one, two in zip(once.lines, twice.lines, strict=True):
        assert all(
            abs(2 * part - double) <= 1 for part, double in zip(parts(one), parts(two), strict=True)
        )


@given(bills(("DAY", "VISIT", "BOTH")))
def test_no_more_than_the_limit_of_a_day_and_a_visit_counts(bill: list[Charge]) -> None:
    """At one yuan a piece, what is not full self-pay is the quantity that counts."""
    priced = [
        replace(
            line,
            unit_price_micro_yuan=1_000_000,
            quantity_e4=(quantity := abs(line.quantity_e4) // 100 * 100 + 100),
            amount_fen=quantity // 100,
            hospital_approved=0,
        )
        for line in bill
    ]
    counted: dict[tuple[str, str], int] = {}
    for line, one in zip(priced, split(priced, LISTED).lines, strict=True):
        fen = one.amount_fen - one.full_self_pay_fen
        for pool in ((line.national_code, line.charged_on), (line.national_code, "visit")):
            counted[pool] = counted.get(pool, 0) + fen
    day = {"DAY": 200, "VISIT": 1 << 62, "BOTH": 100}
    visit = {"DAY": 1 << 62, "VISIT": 350, "BOTH": 150}
    for (code, on), fen in counted.items():
        assert fen <= (visit if on == "visit" else day)[code]


@given(charges(CODES), st.integers(0, 3_000_000_000), st.integers(0, 3_000_000_000))
def test_a_higher_limit_never_lowers_what_is_in_scope(charge: Charge, one: int, two: int) -> None:
    def in_scope(limit: int) -> int:
        limited = catalogue(item(limits_micro_yuan={Level.THREE: limit}))
        return abs(sums(split([replace(charge, national_code="B")], limited))[3])

    lower, higher = sorted((one, two))
    assert in_scope(lower) <= in_scope(higher)


def test_a_bill_without_lines_is_nothing() -> None:
    found = split([], LISTED)
    assert (found.parts.amount_fen, found.lines, found.categories) == (0, (), ())


def test_the_longest_texts_fit_their_field() -> None:
    """A reason has at most 300 characters, whatever the list says."""
    listed = catalogue(
        item(
            limited_use="限" * 200,
            first_self_pay_bp=NOTHING_FIRST,
            bands=(
                replace(BANDS[0], up_to_micro_yuan=10**14 + 1),
                replace(BANDS[0], up_to_micro_yuan=10**15 - 1),
                BANDS[1],
            ),
            limits_micro_yuan={Level.UNRATED: 123_456_789_012_345},
            day_limit_e4=99_999_999_999,
            visit_limit_e4=88_888_888_888,
        )
    )
    for approved in range(3):
        charge = Charge(10**15 - 1, 10**11, (10**15 - 1) * 10**3, hospital_approved=approved)
        [line] = split([charge], listed, level=Level.UNRATED).lines
        assert len(line.reason) <= 300


def test_rules_are_made_once_for_all_items_of_the_same_terms() -> None:
    """A long list, or a caller that invents codes, must not fill the memory."""
    listed = catalogue(*(item(f"B{n}") for n in range(50)), item("C", day_limit_e4=1))
    book = listed.rules(InsuranceType.EMPLOYEE, Level.THREE)
    assert listed.rules(InsuranceType.EMPLOYEE, Level.THREE) is book
    split([Charge(0, 1, 0, f"B{n}", line_id=str(n)) for n in range(99)], listed)
    assert len(book._made) == 1
    revisions = [revision for [revision] in listed.codes.values()]
    assert len({id(revision.terms) for revision in revisions}) == 2
    assert len({id(revision.limits) for revision in revisions}) == 1


def test_a_change_replaces_the_codes_that_it_names() -> None:
    former = catalogue(item("A"), item("B"))
    changed = by_code([item("B", limits_micro_yuan={Level.THREE: 1}), item("C")])
    amended = former.amended(2, "2026.1+1", changed)
    assert (amended.id, amended.version, amended.effective_from) == (
        2,
        "2026.1+1",
        former.effective_from,
    )
    assert sorted(amended.codes) == ["A", "B", "C"]
    assert amended.codes["A"] is former.codes["A"]
    bill = [Charge(1_000_000, 10_000, 100)]
    assert sums(split(bill, former))[1] == 0
    assert sums(split(bill, amended))[1] == 100, "the rules of the former list are not kept"


def test_the_latest_list_on_the_day_holds_and_the_provinces_where_there_is_none() -> None:
    listed = catalogue(item())
    early, later, corrected = (
        replace(listed, id=number, effective_from=day)
        for number, day in enumerate([date(2026, 1, 1), date(2026, 6, 1), date(2026, 6, 1)])
    )
    lists = {"440800": [early, later, corrected], "440000": [listed]}

    def on(area: str, day: date) -> Catalogue:
        return catalogue_on(lists, area, "440000", day)

    assert on("440800", date(2026, 5, 31)) is early
    assert on("440800", date(2026, 6, 1)) is corrected
    assert on("440800", date(2025, 12, 31)) is listed
    assert on("440100", DAY) is listed


def test_two_revisions_in_force_on_one_day_are_an_error() -> None:
    with pytest.raises(RevisionsOverlap, match="2026-10-05") as caught:
        by_code([item(effective_from=date(2026, 10, 5)), item()])
    assert (caught.value.national_code, caught.value.day) == ("B", date(2026, 10, 5))


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"catalog_class": CatalogClass.A}, "first_self_pay"),
        ({"first_self_pay_bp": {InsuranceType.EMPLOYEE: 0}}, "first_self_pay"),
        (
            {"first_self_pay_bp": {InsuranceType.EMPLOYEE: 0, InsuranceType.RESIDENT: 10_001}},
            "first_self_pay",
        ),
        ({"limits_micro_yuan": {Level.ONE: -1}}, "limit"),
        ({"effective_to": date(2022, 1, 1)}, "effective_to"),
        ({"name": ""}, "name"),
        ({"name": "长" * 201}, "name"),
        ({"national_code": ""}, "national_code"),
        ({"limited_use": "限" * 201}, "limited_use"),
        ({"day_limit_e4": 0}, "quantity_limit"),
        ({"preparing_institution": "H1"}, "preparing_institution"),
        ({"bands": BANDS}, "bands"),
        ({"first_self_pay_bp": NOTHING_FIRST, "bands": BANDS[:1]}, "bands"),
        ({"first_self_pay_bp": NOTHING_FIRST, "bands": (*BANDS, BANDS[1])}, "bands"),
        ({"first_self_pay_bp": NOTHING_FIRST, "bands": (BANDS[0], *BANDS)}, "bands"),
        ({"first_self_pay_bp": NOTHING_FIRST, "bands": (BANDS[0],) * 10 + BANDS[1:]}, "bands"),
    ],
)
def test_an_item_that_contradicts_itself_is_refused(changes: dict[str, Any], column: str) -> None:
    with pytest.raises(ItemInvalid) as caught:
        item(**changes)
    assert caught.value.column == column


def test_prices_and_quantities_are_written_as_people_read_them() -> None:
    assert [*map(yuan_of_micro, (0, 1_500_000, 12_345_600))] == ["0.00", "1.50", "12.3456"]
    assert [*map(quantity_text, (10_000, 15_000, 1))] == ["1", "1.5", "0.0001"]


def test_split_rules_are_numbered_as_in_the_contract() -> None:
    assert {f"SPLIT_RULE_{rule.name}": rule.value for rule in SplitRule} == {
        name: number
        for name, number in types_pb2.SplitRule.items()
        if name != "SPLIT_RULE_UNSPECIFIED"
    }
