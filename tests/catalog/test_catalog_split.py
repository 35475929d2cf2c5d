"""One line and one bill, pure: S0-25/S1-24 care-place scope, S0-37/S0-38 lines and categories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalog.domain.catalogue import RuleBook, by_code
from services.catalog.domain.item import (
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    ItemInvalid,
    Level,
)
from services.catalog.domain.split import (
    APPROVED,
    BillSplit,
    DayInvalid,
    LineAmountMismatch,
    LineSplit,
    TotalMismatch,
    split_bill,
)

DAY = date(2026, 10, 8)
NO, NOT_GIVEN = 1, 0


@dataclass(frozen=True)
class Charge:
    unit_price_micro_yuan: int
    quantity_e4: int
    amount_fen: int
    national_code: str = "B"
    line_id: str = "1"
    item_code: str = "own"
    hospital_approved: int = NOT_GIVEN
    charged_on: str = ""


def item(code: str = "B", **changes: object) -> Item:
    base = Item(
        national_code=code,
        name="示例项目",
        catalog_class=CatalogClass.B,
        fee_category=FeeCategory.WESTERN_DRUG,
        first_self_pay_bp={InsuranceType.EMPLOYEE: 1_000, InsuranceType.RESIDENT: 1_500},
        limits_micro_yuan={},
        limited_use="",
        effective_from=date(2023, 1, 1),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


NOTHING_FIRST = {InsuranceType.EMPLOYEE: 0, InsuranceType.RESIDENT: 0}
LIMITS = {Level.ONE: 6_000_000, Level.THREE: 10_000_000}
ITEMS = (
    item("A", catalog_class=CatalogClass.A, first_self_pay_bp=NOTHING_FIRST),
    item("B"),
    item("LIMITED", limits_micro_yuan=LIMITS, fee_category=FeeCategory.MATERIAL),
    item("RESTRICTED", limited_use="限抢救"),
    item("SELF", catalog_class=CatalogClass.SELF_PAID, first_self_pay_bp=NOTHING_FIRST),
    item("NEW", effective_from=date(2026, 10, 5), effective_to=date(2026, 10, 6)),
    item(
        "NEW",
        effective_from=date(2026, 10, 8),
        catalog_class=CatalogClass.A,
        first_self_pay_bp=NOTHING_FIRST,
    ),
)


def rules(
    insurance: InsuranceType = InsuranceType.EMPLOYEE, level: Level = Level.THREE
) -> RuleBook:
    return RuleBook(by_code(ITEMS), insurance, level)


def split(
    *charges: Charge, book: RuleBook | None = None, mapped: dict[str, str] | None = None
) -> BillSplit:
    total = sum(charge.amount_fen for charge in charges)
    return split_bill(charges, total_fen=total, day=DAY, rules=book or rules(), mapped=mapped or {})


def line(charge: Charge, book: RuleBook | None = None) -> LineSplit:
    [found] = split(charge, book=book).lines
    return found


def parts(found: LineSplit) -> tuple[int, int, int, int]:
    """Full self-pay, over limit, first self-pay, in scope."""
    return (
        found.full_self_pay_fen,
        found.over_limit_fen,
        found.first_self_pay_fen,
        found.in_scope_fen,
    )


def test_class_a_is_wholly_in_scope() -> None:
    found = line(Charge(12_340_000, 20_000, 2_468, "A"))
    assert parts(found) == (0, 0, 0, 2_468)
    assert found.reason == "甲类，全额纳入医保范围"


@pytest.mark.parametrize(
    ("insurance", "first", "text"),
    [(InsuranceType.EMPLOYEE, 247, "10%"), (InsuranceType.RESIDENT, 370, "15%")],
)
def test_class_b_pays_a_first_share_by_insurance(
    insurance: InsuranceType, first: int, text: str
) -> None:
    found = line(Charge(12_340_000, 20_000, 2_468), rules(insurance))
    assert parts(found) == (0, 0, first, 2_468 - first)
    assert found.reason == f"乙类，先行自付{text}后纳入医保范围"


def test_over_limit_comes_before_the_first_share() -> None:
    """15 yuan against a limit of 10, three pieces: 15 over, 10 % of the other 30 first."""
    found = line(Charge(15_000_000, 30_000, 4_500, "LIMITED"))
    assert parts(found) == (0, 1_500, 300, 2_700)
    assert found.reason == "乙类，超过三级机构限价10.00元的部分自付，其余先行自付10%后纳入医保范围"


@pytest.mark.parametrize(
    ("level", "over"), [(Level.ONE, 2_700), (Level.THREE, 1_500), (Level.TWO, 0)]
)
def test_limit_is_that_of_the_institutions_level(level: Level, over: int) -> None:
    found = line(Charge(15_000_000, 30_000, 4_500, "LIMITED"), rules(level=level))
    assert found.over_limit_fen == over


def test_price_at_the_limit_is_not_over_it() -> None:
    assert line(Charge(10_000_000, 10_000, 1_000, "LIMITED")).over_limit_fen == 0


@pytest.mark.parametrize("answer", [NOT_GIVEN, NO])
def test_restricted_item_without_approval_is_self_paid(answer: int) -> None:
    found = line(Charge(1_000_000, 10_000, 100, "RESTRICTED", hospital_approved=answer))
    assert parts(found) == (100, 0, 0, 0)
    assert found.reason == "限定支付范围：限抢救；未经医院审批，全额自费"


def test_restricted_item_with_approval_is_covered() -> None:
    found = line(Charge(1_000_000, 10_000, 100, "RESTRICTED", hospital_approved=APPROVED))
    assert parts(found) == (0, 0, 10, 90)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("SELF", "自费项目，不在医保支付范围"),
        ("", "机构项目未对照国家医保编码，全额自费"),
        ("NOBODY", "编码不在就医地医保目录内，全额自费"),
    ],
)
def test_what_is_not_covered_is_self_paid_with_a_reason_and_no_error(
    code: str, reason: str
) -> None:
    """S3-23: the care place's scope decides; the same cost at home may be covered (S1-25)."""
    found = line(Charge(1_000_000, 10_000, 100, code))
    assert parts(found) == (100, 0, 0, 0)
    assert found.reason == reason
    assert found.national_code == code


def test_the_registered_mapping_goes_before_the_code_on_the_line() -> None:
    [found] = split(Charge(1_000_000, 10_000, 100, "A"), mapped={"own": "SELF"}).lines
    assert (found.national_code, found.full_self_pay_fen) == ("SELF", 100)
    [found] = split(Charge(1_000_000, 10_000, 100, ""), mapped={"own": "A"}).lines
    assert (found.national_code, found.in_scope_fen) == ("A", 100)
    [found] = split(Charge(1_000_000, 10_000, 100, "A"), mapped={"own": ""}).lines
    assert (found.national_code, found.full_self_pay_fen) == ("", 100)


@pytest.mark.parametrize(
    ("charged_on", "expected"),
    [
        ("2026-10-04", (100, 0, 0, 0)),
        ("2026-10-05", (0, 0, 10, 90)),
        ("2026-10-06", (0, 0, 10, 90)),
        ("2026-10-07", (100, 0, 0, 0)),
        ("2026-10-08", (0, 0, 0, 100)),
        ("", (0, 0, 0, 100)),
    ],
)
def test_the_day_of_the_charge_picks_the_revision(
    charged_on: str, expected: tuple[int, int, int, int]
) -> None:
    found = line(Charge(1_000_000, 10_000, 100, "NEW", charged_on=charged_on))
    assert parts(found) == expected


def test_a_day_that_does_not_exist_is_named() -> None:
    charges = (Charge(1_000_000, 10_000, 100), Charge(0, 1, 0, charged_on="2026-02-31"))
    with pytest.raises(DayInvalid) as caught:
        split(*charges)
    assert (caught.value.field, caught.value.value) == ("lines[1].charged_on", "2026-02-31")


@pytest.mark.parametrize(("amount", "good"), [(334, True), (333, True), (335, False), (331, False)])
def test_amount_may_be_one_fen_off(amount: int, good: bool) -> None:
    """1.11 yuan × 3 = 3.33: |price × quantity − amount| ≤ 0.01 (医保定点医药机构接口规范)."""
    charge = Charge(1_110_000, 30_000, amount, line_id="7")
    if good:
        assert sum(parts(line(charge))) == amount
        return
    with pytest.raises(LineAmountMismatch) as caught:
        line(charge)
    assert caught.value.line_id == "7"


def test_total_must_be_the_sum_of_the_lines() -> None:
    with pytest.raises(TotalMismatch) as caught:
        split_bill(
            [Charge(1_000_000, 10_000, 100)], total_fen=101, day=DAY, rules=rules(), mapped={}
        )
    assert (caught.value.total_fen, caught.value.sum_fen) == (101, 100)


def test_two_revisions_in_force_on_one_day_are_an_error() -> None:
    with pytest.raises(ValueError, match="2026-10-05"):
        by_code([item(), item(effective_from=date(2026, 10, 5))])


@pytest.mark.parametrize(
    "changes",
    [
        {"catalog_class": CatalogClass.A},
        {"first_self_pay_bp": {InsuranceType.EMPLOYEE: 0}},
        {"first_self_pay_bp": {InsuranceType.EMPLOYEE: 0, InsuranceType.RESIDENT: 10_001}},
        {"limits_micro_yuan": {Level.ONE: -1}},
        {"effective_to": date(2022, 1, 1)},
        {"name": ""},
        {"limited_use": "限" * 201},
    ],
)
def test_an_item_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ItemInvalid):
        item(**changes)


@st.composite
def charges(draw: st.DrawFn) -> Charge:
    price = draw(st.integers(0, 2_000_000_000))
    quantity = draw(st.integers(-1_000_000, 1_000_000).filter(bool))
    exact = Fraction(price * quantity, 100_000_000)
    off = [fen for fen in range(int(exact) - 2, int(exact) + 3) if abs(exact - fen) <= 1]
    return Charge(
        price,
        quantity,
        draw(st.sampled_from(off)),
        national_code=draw(st.sampled_from([*(each.national_code for each in ITEMS), "", "X"])),
        hospital_approved=draw(st.integers(0, 2)),
        charged_on=draw(st.sampled_from(["", "2026-10-05"])),
    )


BOOKS = [rules(insurance, level) for insurance in InsuranceType for level in Level]


@given(st.lists(charges(), min_size=1, max_size=12), st.sampled_from(BOOKS))
def test_parts_sum_to_the_whole_per_line_category_and_bill(
    bill: list[Charge], book: RuleBook
) -> None:
    found = split(*bill, book=book)
    for charge, one in zip(bill, found.lines, strict=True):
        assert one.amount_fen == charge.amount_fen == sum(parts(one))
        assert all(part * charge.amount_fen >= 0 for part in parts(one))
        assert 0 < len(one.reason) <= 300
    sums = [
        (each.full_self_pay_fen, each.over_limit_fen, each.first_self_pay_fen, each.in_scope_fen)
        for each in (found.parts, *(category for _, category in found.categories))
    ]
    whole, *categories = sums
    assert whole == tuple(map(sum, zip(*map(parts, found.lines), strict=True)))
    assert whole == tuple(map(sum, zip(*categories, strict=True)))
    assert found.parts.amount_fen == sum(whole)
    codes = [category for category, _ in found.categories]
    assert codes == sorted(set(codes))


@given(st.lists(charges(), min_size=1, max_size=6), st.sampled_from(BOOKS))
def test_a_refund_is_the_exact_mirror(bill: list[Charge], book: RuleBook) -> None:
    refund = [
        replace(charge, quantity_e4=-charge.quantity_e4, amount_fen=-charge.amount_fen)
        for charge in bill
    ]
    charged, refunded = split(*bill, book=book), split(*refund, book=book)
    for one, other in zip(charged.lines, refunded.lines, strict=True):
        assert parts(other) == tuple(-part for part in parts(one))
    both = split(*bill, *refund, book=book)
    assert both.parts.amount_fen == both.parts.in_scope_fen == both.parts.over_limit_fen == 0


@given(charges(), st.integers(0, 3_000_000_000), st.integers(0, 3_000_000_000))
def test_a_higher_limit_never_lowers_what_is_in_scope(charge: Charge, one: int, two: int) -> None:
    def in_scope(limit: int) -> int:
        limited = item("B", limits_micro_yuan={Level.THREE: limit})
        book = RuleBook(by_code([limited]), InsuranceType.EMPLOYEE, Level.THREE)
        return abs(line(replace(charge, national_code="B"), book).in_scope_fen)

    lower, higher = sorted((one, two))
    assert in_scope(lower) <= in_scope(higher)


def test_rules_are_kept_for_items_only() -> None:
    """A caller that invents codes must not fill the memory."""
    book = rules()
    assert all(book.rule(f"INVENTED{number}", DAY).national_code == "" for number in range(9))
    assert book.rule("B", DAY) is book.rule("B", DAY + timedelta(days=1))
    assert len(book._rules) == 1
