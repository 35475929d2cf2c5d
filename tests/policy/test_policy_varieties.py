"""Every variety of rule that real areas use is data alone; the amounts are worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from policy_samples import (
    a_case,
    cap,
    deductible,
    document,
    first_pay,
    fund,
    only,
    row,
)

from services.policy.domain.case import Benefit, Case, Counters, NotStated
from services.policy.domain.chain import compute_unit
from services.policy.domain.compute import compute
from services.policy.domain.document import Document

TEMPORARY = {"route": "cross_province", "benefit_class": "other_temporary"}


def yuan(amount: int) -> int:
    """Fen."""
    return amount * 100


def one(policy: Document, **facts: Any) -> Benefit:
    """A visit; `fee` is its in-scope cost in yuan."""
    if "fee" in facts:
        facts["in_scope_fen"] = yuan(facts.pop("fee"))
    return compute(policy, a_case(**facts), {}, 0)


def chain(policy: Document, *cases: Case, used: dict[str, Counters] | None = None) -> list[Benefit]:
    found = compute_unit(cases, used or {}, 0, lambda _: policy, allow_illustrative=True)
    assert all(isinstance(each, Benefit) for each in found), found
    return [each for each in found if isinstance(each, Benefit)]


def deductibles(policy: Document, *cases: Case) -> list[int]:
    return [each.deductible_fen // 100 for each in chain(policy, *cases)]


def pays(policy: Document, **facts: Any) -> Decimal:
    """Yuan that the funds pay together."""
    return Decimal(one(policy, **facts).fund_total_fen) / 100


# Deductibles


def test_deductible_per_stay_by_level() -> None:
    policy = document(
        deductible(row("400元", levels=["one"]), row("600元", levels=["three"])), fund("80%")
    )
    cases = [a_case(deductible_level=level) for level in ("one", "three", "three")]
    assert deductibles(policy, *cases) == [400, 600, 600]


def test_deductible_of_the_nth_stay_by_percent_minus_fixed_or_free() -> None:
    """北京 1300 then half; 济宁 600 then 150 less; 济南 1000, 500, none."""
    half = document(deductible("1300元", adjust=[only("times", "50%", stays="2-")]), fund("85%"))
    less = document(deductible("600元", adjust=[only("minus", "150元", stays="2-")]), fund("80%"))
    free = document(
        deductible(row("1000元", stays="1"), row("500元", stays="2"), row("0元", stays="3-")),
        fund("85%"),
    )
    three = [a_case()] * 3
    assert deductibles(half, *three) == [1300, 650, 650]
    assert deductibles(less, *three) == [600, 450, 450]
    assert deductibles(free, *three) == [1000, 500, 0]


def test_deductible_total_of_the_year() -> None:
    """河南居民 2019: 600, 600 and 1200 are cut at 2300 in a year, then none (WE-05)."""
    policy = document(
        deductible(
            row("600元", levels=["two"]),
            row("1200元", levels=["three"]),
            year_cap=[row("2300元")],
        ),
        fund("65%"),
    )
    levels = ("two", "two", "three", "three")
    cases = [a_case(deductible_level=level) for level in levels]
    assert deductibles(policy, *cases) == [600, 600, 1100, 0]


def test_one_deductible_a_year_at_the_highest_level() -> None:
    """杭州 and 济宁 outpatient (累计补差): a higher level tops up what was paid at a lower one."""
    policy = document(
        deductible(
            row("200元", levels=["one"]),
            row("400元", levels=["two"]),
            row("600元", levels=["three"]),
            due="topped_up",
        ),
        fund("70%"),
    )
    levels = ("one", "three", "two", "three")
    cases = [a_case(deductible_level=level) for level in levels]
    assert deductibles(policy, *cases) == [200, 400, 0, 0]


def test_yearly_deductible_is_eaten_up_by_small_visits() -> None:
    """上海: 1500 accumulate over the year."""
    policy = document(deductible("1500元", due="topped_up"), fund("85%"))
    cases = [a_case(in_scope_fen=yuan(fee)) for fee in (900, 900, 900)]
    found = chain(policy, *cases)
    assert [each.deductible_fen // 100 for each in found] == [900, 600, 0]
    assert [each.fund_total_fen for each in found] == [0, yuan(255), yuan(765)]


def test_deductible_as_a_percentage_of_the_bill() -> None:
    """亳州: out of the province 20 % of the total, at least 2000."""
    policy = document(
        deductible(
            {**row(routes=["cross_province"]), "share": "20%", "of": "total", "at_least": "2000元"},
            row("500元", routes=["local", "in_province"]),
        ),
        fund("60%"),
    )
    away = {**TEMPORARY, "full_self_pay_fen": yuan(5000)}
    assert one(policy, fee=20_000, **away).deductible_fen == yuan(5000)
    assert pays(policy, fee=20_000, **away) == 9000
    assert one(policy, fee=4000, **away).deductible_fen == yuan(2000)  # 1800 is below the floor
    assert one(policy, fee=4000).deductible_fen == yuan(500)


def test_no_deductible_for_some_diseases() -> None:
    policy = document(
        deductible("600元", adjust=[only("set", "0元", diseases=["M00500"])]), fund("80%")
    )
    assert one(policy, disease="M00503").deductible_fen == 0
    assert one(policy, disease="").deductible_fen == yuan(600)


def test_tcm_hospitals_have_a_lower_deductible() -> None:
    """济南: −20 %."""
    policy = document(
        deductible("1000元", adjust=[only("times", "80%", kinds=["tcm"])]), fund("85%")
    )
    assert one(policy, institution_kind="tcm").deductible_fen == yuan(800)
    assert one(policy).deductible_fen == yuan(1000)


def test_separate_deductible_and_ratio_away() -> None:
    """大理 residents: 700 and 60 % at home, 900 and 50 % outside the prefecture."""
    home, away = ["local"], ["in_province", "cross_province"]
    policy = document(
        deductible(row("700元", routes=home), row("900元", routes=away)),
        fund(row("60%", routes=home), row("50%", routes=away)),
    )
    assert pays(policy, fee=10_000) == 5580
    assert pays(policy, fee=10_000, **TEMPORARY) == 4550


# Ratios


def test_ratio_by_level_and_person_with_a_bonus_for_age() -> None:
    """成都: 85 % at level three, +2 at 50, +4 at 60, +6 at 70, +8 at 80, +10 at 90; ≤ 100 %."""
    bonus = {
        "when": {"ages": "50-"},
        "rows": [
            row(plus=f"{points}个百分点", ages=ages)
            for points, ages in (
                (2, "50-59"),
                (4, "60-69"),
                (6, "70-79"),
                (8, "80-89"),
                (10, "90-"),
            )
        ],
    }
    policy = document(
        fund(row("85%", levels=["three"]), row("92%", levels=["one"]), adjust=[bonus])
    )
    for age, paid in ((49, 8500), (50, 8700), (69, 8900), (89, 9300), (120, 9500)):
        assert pays(policy, age=age) == paid
    assert pays(policy, age=90, settlement_level="one") == 10_000  # 102 %


def test_self_share_multiplier() -> None:
    """北京: the retired pay 60 % of the own share of the employed, in every bracket."""
    policy = document(
        deductible("1300元"),
        fund(
            row("85%", up_to="3万元"),
            row("90%", up_to="4万元"),
            row("95%"),
            adjust=[only("own_times", "60%", persons=["retired"])],
        ),
    )
    # 28,700 × 85 % + 10,000 × 90 % + 10,000 × 95 %; then 91 %, 94 %, 97 %.
    assert pays(policy, fee=50_000) == 24_395 + 9000 + 9500
    assert pays(policy, fee=50_000, person_class="retired") == 26_117 + 9400 + 9700


def test_brackets_absolute_or_above_the_deductible() -> None:
    """WE-14: 30,000, deductible 400; bounds that count the deductible pay 24,680."""
    rows = row("80%", up_to="1万元"), row("85%", up_to="3万元"), row("90%")
    absolute = document(deductible("400元"), fund(*rows))
    above = document(deductible("400元"), fund(*rows, brackets={"count": "above_deductible"}))
    assert pays(absolute, fee=30_000) == 24_680
    assert pays(above, fee=30_000) == 8000 + 16_660


def test_brackets_of_the_year() -> None:
    """Two stays of 8000: the second one begins at 8000."""
    rows = row("80%", up_to="1万元"), row("90%")
    year = document(fund(*rows, brackets={"over": "year"}))
    stay = document(fund(*rows))
    two = [a_case(in_scope_fen=yuan(8000))] * 2
    assert [each.fund_total_fen // 100 for each in chain(year, *two)] == [6400, 1600 + 5400]
    assert [each.fund_total_fen // 100 for each in chain(stay, *two)] == [6400, 6400]


def test_hospital_grade() -> None:
    """大同 residents in the province: 三甲 60 %, 二级乙等及以下 85 %; between them not stated."""
    lower = ["two_b", "two_c", "one_a", "one_b", "one_c", "one", "none"]
    between = ["three_special", "three_b", "three_c", "three", "two_a", "two"]
    policy = document(
        fund(
            row("60%", grades=["three_a"]),
            row("85%", grades=lower),
            row("not_stated", grades=between),
        )
    )
    assert pays(policy, grade="three_a") == 6000
    assert pays(policy, grade="two_b") == 8500
    with pytest.raises(NotStated, match=r"ratio\[grades=three_special"):
        one(policy, grade="two_a")


# Caps


def test_fee_cap_and_payment_cap() -> None:
    """A limit of 2000 on the payment, or on the fee that half is paid of."""
    payment = document(fund("50%", caps=[cap("2000元")]))
    fee = document(fund("50%", caps=[cap("2000元", limit="fee")]))
    cases = [a_case(in_scope_fen=yuan(1500))] * 4
    assert [each.fund_total_fen // 100 for each in chain(payment, *cases)] == [750, 750, 500, 0]
    found = chain(fee, *cases)
    assert [each.fund_total_fen // 100 for each in found] == [750, 250, 0, 0]
    assert [each.over_cap_fen // 100 for each in found] == [0, 1000, 1500, 1500]


def test_a_fee_cap_and_a_payment_cap_both_bind() -> None:
    """A fee of at most 1000 at 80 % and at most 900 paid: 800, though 900 is the smaller number."""
    policy = document(
        fund("80%", caps=[cap("1000元", limit="fee", over="stay"), cap("900元", over="stay")])
    )
    found = one(policy, fee=5000)
    assert found.fund_total_fen == yuan(800)
    assert (found.ratio_self_pay_fen, found.over_cap_fen) == (yuan(200), yuan(4000))


def test_cap_of_one_kind_of_care_within_the_cap_of_all() -> None:
    """济宁: outpatient pays 2000 a year and counts towards the 100,000 of the pooled fund."""
    outpatient = {
        "care_types": ["outpatient"],
        "counter": "outpatient",
        "counts_stays": False,
        "stages": [fund("50%", caps=[cap("2000元", counts="own"), cap("10万元")])],
    }
    policy = document(benefit=outpatient)
    visit = a_case(care_type="outpatient", in_scope_fen=yuan(6000))
    found = compute(policy, visit, {"2026": Counters(pooled_used_fen=yuan(99_000))}, 0)
    assert found.fund_total_fen == yuan(1000)
    fresh = compute(policy, visit, {}, 0)
    assert fresh.fund_total_fen == yuan(2000)
    paid = Counters(pooled_used_fen=yuan(2000))
    assert fresh.deltas == {"2026-outpatient": paid, "2026": paid}


# How care elsewhere is lowered


def test_points_and_multiplier_differ() -> None:
    """湛江 −10/−20 points (S4-16, S4-17), none through named institutions (S4-18); 深圳 × 90 %."""
    points = document(
        fund(
            "80%",
            adjust=[
                {
                    "when": {"classes": ["referral", "emergency", "other_temporary"]},
                    "rows": [
                        row(minus="10个百分点", classes=["referral", "emergency"]),
                        row(minus="20个百分点", classes=["other_temporary"]),
                    ],
                }
            ],
        )
    )
    times = document(fund("80%", adjust=[only("times", "90%", classes=["referral"])]))
    by_class = {
        each: pays(points, route="cross_province", benefit_class=each)
        for each in ("referral", "emergency", "other_temporary", "referral_named")
    }
    assert by_class == {
        "referral": 7000,
        "emergency": 7000,
        "other_temporary": 6000,
        "referral_named": 8000,
    }
    assert pays(times, route="cross_province", benefit_class="referral") == 7200


def test_fixed_table_of_remote_ratios() -> None:
    """大同 employees out of the province: long-term 80, referral 70, 非急未转 55 %."""
    policy = document(
        fund(
            row("80%", classes=["long_term_at_place"]),
            row("70%", classes=["referral"]),
            row("55%", classes=["other_temporary"]),
        )
    )
    paid = [
        pays(policy, route="cross_province", benefit_class=each)
        for each in ("long_term_at_place", "referral", "other_temporary")
    ]
    assert paid == [8000, 7000, 5500]


def test_first_pay_before_or_after_the_deductible() -> None:
    """WE-28 (S2-20): 50,000, 10 %, deductible 600, 80 %: 35,520 or 35,568."""
    away, due, paid = (
        first_pay("10%", classes=["other_temporary"]),
        deductible("600元"),
        fund("80%"),
    )
    visit = {"fee": 50_000, **TEMPORARY}
    assert pays(document(away, due, paid), **visit) == 35_520
    assert pays(document(due, away, paid), **visit) == 35_568
    assert pays(document(away, due, paid), fee=50_000) == 39_520


def test_first_pay_by_hospital_kind_and_filing() -> None:
    """A Shandong city: 40 % unfiled; 厦门: 10 % when the filing was late; 绍兴: by kind."""
    policy = document(
        {
            "first_pay": {
                "when": {"routes": ["cross_province"]},
                "rows": [
                    row("10%", unfiled=False, late_filing=True),
                    row("5%", unfiled=False, late_filing=False, kinds=["general"]),
                    row("0%", unfiled=False, late_filing=False, kinds=["tcm", "community"]),
                    row("40%", unfiled=True),
                ],
            }
        },
        fund("100%"),
    )
    away: dict[str, Any] = TEMPORARY
    assert pays(policy, **away) == 9500
    assert pays(policy, **away, institution_kind="tcm") == 10_000
    assert pays(policy, **away, late_filing=True) == 9000
    assert pays(policy, **away, unfiled=True) == 6000
    assert pays(policy, unfiled=True) == 10_000


def test_not_settled_directly() -> None:
    """吉林市: 10 points more where it was the patient's own doing (WE-35: 35 and 25 %)."""
    policy = document(
        fund(
            "55%",
            adjust=[
                only("minus", "20个百分点", classes=["other_temporary"]),
                only("minus", "10个百分点", settled_directly=False),
            ],
        )
    )
    assert pays(policy, **TEMPORARY) == 3500
    assert pays(policy, **TEMPORARY, settled_directly=False) == 2500


def test_floor_of_the_ratio() -> None:
    """蚌埠 residents: 45 % less 10 points, but not below 40 %."""
    policy = document(
        deductible("2500元"),
        fund(
            "45%",
            adjust=[
                only("minus", "10个百分点", classes=["other_temporary"]),
                only("at_least", "40%", routes=["cross_province"]),
            ],
        ),
    )
    assert pays(policy, fee=22_500, **TEMPORARY) == 8000


def test_floor_of_the_payment() -> None:
    """保底: at least 40 % of the whole bill less the deductible, out-of-scope cost included, but
    not more than there is in scope, nor than the cap leaves."""
    floor = {"of": "total", "when": {"routes": ["cross_province"]}, "rows": [row("40%")]}
    policy = document(
        deductible("2500元"), fund("60%", floor=floor, caps=[cap("8000元", over="stay")])
    )
    away: dict[str, Any] = {**TEMPORARY, "fee": 12_500, "full_self_pay_fen": yuan(5000)}
    assert pays(policy, **away) == 6000  # also 40 % of 15,000
    more = {**away, "full_self_pay_fen": yuan(7000)}
    found = one(policy, **more)
    assert found.fund_total_fen == yuan(6800)
    assert found.ratio_self_pay_fen == yuan(3200)
    assert pays(policy, **{**away, "full_self_pay_fen": yuan(90_000)}) == 8000
    assert pays(policy, fee=12_500, full_self_pay_fen=yuan(90_000)) == 6000


def test_halved_and_the_rest_barred_from_major_illness() -> None:
    """中山 residents unfiled: half of the normal pay; the other half does not count as 合规费用."""
    policy = document(
        fund("70%", adjust=[{**only("times", "50%", unfiled=True), "barred": True}]),
        fund("60%", of="own", code="hifmi_pay", parts=["ratio_self_pay"]),
    )
    filed, unfiled = one(policy), one(policy, unfiled=True)
    assert filed.funds == {"hifp_pay": yuan(7000), "hifmi_pay": yuan(1800)}
    # 3500 of 7000; of the 6500 left only 3000 may be counted.
    assert unfiled.funds == {"hifp_pay": yuan(3500), "hifmi_pay": yuan(1800)}
    assert unfiled.cash_fen == yuan(4700)


def test_barred_first_pay_leaves_the_share_to_be_counted() -> None:
    policy = document(
        first_pay("10%", barred=True),
        fund("80%"),
        fund("50%", of="own", code="hifmi_pay", parts=["ratio_self_pay", "remote_first_pay"]),
    )
    # 10,000: 1000 barred, 1800 of 9000 own, half of them paid.
    assert one(policy).funds == {"hifp_pay": yuan(7200), "hifmi_pay": yuan(900)}


def test_harder_with_every_temporary_visit() -> None:
    """Unreferred: 20 points less the first time, 30 the second, then nothing."""
    policy = document(
        fund(
            "80%",
            adjust=[
                {
                    "when": {"classes": ["other_temporary"]},
                    "rows": [
                        row(minus="20个百分点", temporaries="1"),
                        row(minus="30个百分点", temporaries="2"),
                        row(set="0%", temporaries="3-"),
                    ],
                }
            ],
        )
    )
    away = a_case(**TEMPORARY)
    found = chain(policy, away, a_case(), away, away, away)
    assert [each.fund_total_fen // 100 for each in found] == [6000, 8000, 5000, 0, 0]


def test_care_place_by_area() -> None:
    """成都: no reduction in 四川, 重庆, 云南, 贵州 and 西藏."""
    near = ["51", "50", "53", "52", "54"]
    policy = document(
        fund(
            "85%",
            adjust=[
                {
                    "when": {"classes": ["other_temporary"]},
                    "rows": [
                        row("unchanged", places=near),
                        row(minus="10个百分点", places=["other"]),
                    ],
                }
            ],
        )
    )
    assert pays(policy, **TEMPORARY, care_area="500100") == 8500
    assert pays(policy, **TEMPORARY, care_area="110000") == 7500


# Later funds


def test_large_amount_flat_or_segmented() -> None:
    """济宁: 90 % beyond 100,000 up to 250,000 paid; or 80 then 90 %, over the stay or the year."""
    pooled = fund("80%", caps=[cap("10万元")])
    flat = document(pooled, fund("90%", of="over_cap", code="hifob_pay", caps=[cap("25万元")]))
    found = one(flat, fee=500_000)
    assert found.funds == {"hifp_pay": yuan(100_000), "hifob_pay": yuan(250_000)}
    assert found.over_cap_fen == 50_000_000 - 12_500_000 - 27_777_778
    rows = row("80%", up_to="1万元"), row("90%")
    used = {"2026": Counters(pooled_used_fen=yuan(100_000))}
    for over, second in (("stay", 6400), ("year", 1600 + 5400)):
        large = fund(*rows, of="over_cap", code="hifob_pay", brackets={"over": over})
        two = [a_case(in_scope_fen=yuan(8000))] * 2
        paid = chain(document(pooled, large), *two, used=used)
        assert [each.funds["hifob_pay"] // 100 for each in paid] == [6400, second]


def test_major_illness_with_absolute_brackets() -> None:
    """WE-09 style: 12,000 to 30,000 at 50 %, to 100,000 at 60 %, above 65 %; accumulated."""
    policy = document(
        fund("0%"),
        fund(
            row("50%", up_to="3万元"),
            row("60%", up_to="10万元"),
            row("65%"),
            of="own",
            code="hifmi_pay",
            parts=["ratio_self_pay"],
            accumulate="year",
            deductible=[row("12000元")],
        ),
    )
    assert pays(policy, fee=120_000) == 9000 + 42_000 + 13_000
    halves = chain(policy, *[a_case(in_scope_fen=yuan(60_000))] * 2)
    assert [each.fund_total_fen // 100 for each in halves] == [9000 + 18_000, 24_000 + 13_000]


def test_major_illness_with_relative_brackets() -> None:
    """WE-08 (北京): above 39,525, 60 % of the first 50,000 and 70 % of the rest: 107,332.50."""
    policy = document(
        fund("0%"),
        fund(
            row("60%", up_to="5万元"),
            row("70%"),
            of="own",
            code="hifob_pay",
            parts=["ratio_self_pay"],
            accumulate="year",
            deductible=[row("39525元")],
            brackets={"count": "above_deductible"},
        ),
    )
    assert pays(policy, fee=200_000) == Decimal("107332.50")


def test_major_illness_prefers_those_in_need() -> None:
    """低保: half the deductible, 5 points more, no cap (national benefit list)."""
    poor = ["subsistence", "destitute", "returning_poor"]
    policy = document(
        fund("0%"),
        fund(
            "60%",
            of="own",
            code="hifmi_pay",
            parts=["ratio_self_pay"],
            accumulate="year",
            deductible=[row("14000元")],
            adjust_deductible=[only("times", "50%", aids=poor)],
            adjust=[only("plus", "5个百分点", aids=poor)],
            caps=[cap(row("unlimited", aids=poor), row("3万元", aids=["none", "marginal"]))],
        ),
    )
    assert pays(policy, fee=114_000) == 30_000
    assert pays(policy, fee=114_000, aid="subsistence") == 69_550


def test_major_illness_counts_first_self_pay_where_the_area_says_so() -> None:
    """乙类先行自付 lies outside the in-scope cost: what is paid of it is told apart."""
    policy = document(
        fund("90%"),
        fund("50%", of="own", code="hifmi_pay", parts=["ratio_self_pay", "first_self_pay"]),
    )
    found = one(policy, fee=10_000, first_self_pay_fen=yuan(4000))
    assert found.funds == {"hifp_pay": yuan(9000), "hifmi_pay": yuan(2500)}
    assert (found.ratio_self_pay_fen, found.outside_scope_fen) == (0, yuan(1500))
    assert found.cash_fen == yuan(2500)


def test_medical_assistance_with_and_without_deductible() -> None:
    """After 大病, of what is left; the year's own costs of each fund are counted apart."""
    aid = fund(
        "70%",
        of="own",
        code="maf_pay",
        parts=["ratio_self_pay", "deductible"],
        accumulate="year",
        deductible=[
            row("0元", aids=["destitute"]),
            row("2000元", aids=["subsistence", "returning_poor", "marginal"]),
        ],
        when={"aids": ["destitute", "subsistence", "returning_poor", "marginal"]},
        caps=[cap("3万元")],
    )
    major = fund(
        "60%",
        of="own",
        code="hifmi_pay",
        parts=["ratio_self_pay", "deductible"],
        accumulate="year",
        deductible=[row("5000元")],
    )
    policy = document(deductible("500元"), fund("60%"), major, aid)
    visit: dict[str, Any] = {"fee": 20_500}
    # 8000 + 500 own; 大病 60 % of 3500; 6400 left.
    assert one(policy, **visit).funds == {"hifp_pay": yuan(12_000), "hifmi_pay": yuan(2100)}
    assert one(policy, **visit, aid="destitute").funds["maf_pay"] == yuan(4480)
    found = one(policy, **visit, aid="subsistence")
    assert found.funds["maf_pay"] == yuan(3080)
    assert found.deltas["2026"].major_illness_base_fen == yuan(8500)
    assert found.deltas["2026-maf"].major_illness_base_fen == yuan(6400)
    _, again = chain(policy, *[a_case(in_scope_fen=yuan(20_500), aid="subsistence")] * 2)
    # 8500 own, all of it above: 大病 5100, 3400 left, all above what has been counted.
    assert again.funds == {
        "hifp_pay": yuan(12_000),
        "hifmi_pay": yuan(5100),
        "maf_pay": yuan(2380),
    }


def test_a_deductible_that_is_relieved_counts_as_charged() -> None:
    """Else the yearly one would be asked for again."""
    policy = document(
        deductible("500元", due="topped_up"),
        fund("100%"),
        fund("100%", of="own", code="maf_pay", parts=["deductible"]),
    )
    first, second = chain(policy, a_case(), a_case())
    assert (first.deductible_fen, first.funds["maf_pay"]) == (0, yuan(500))
    assert first.deltas["2026"].deductible_paid_fen == yuan(500)
    assert second.funds == {"hifp_pay": yuan(10_000)}


def test_civil_servant_supplement() -> None:
    policy = document(
        deductible("600元"),
        fund("80%"),
        fund(
            "50%",
            of="own",
            code="cvlserv_pay",
            parts=["ratio_self_pay", "deductible"],
            when={"civil_servant": True},
        ),
    )
    assert one(policy, fee=10_600).funds == {"hifp_pay": yuan(8000)}
    paid = one(policy, fee=10_600, civil_servant=True)
    assert paid.funds == {"hifp_pay": yuan(8000), "cvlserv_pay": yuan(1300)}


def test_enterprise_supplement_above_the_large_amount() -> None:
    policy = document(
        fund("80%", caps=[cap("8000元")]),
        fund("50%", of="over_cap", code="hifob_pay", caps=[cap("1000元")]),
        fund("100%", of="over_cap", code="hifes_pay"),
    )
    found = one(policy, fee=15_000)
    assert found.funds == {"hifp_pay": yuan(8000), "hifob_pay": yuan(1000), "hifes_pay": yuan(3000)}
    assert (found.ratio_self_pay_fen, found.over_cap_fen) == (yuan(3000), 0)


# Personal account, chronic diseases, dates


def test_personal_account_pays_after_every_fund_what_its_scope_allows() -> None:
    funds = [
        fund("80%"),
        fund("50%", of="own", code="cvlserv_pay", parts=["ratio_self_pay"]),
    ]
    visit = a_case(use_account=True, full_self_pay_fen=yuan(300), first_self_pay_fen=yuan(200))
    for scope, paid in (
        ({}, 1500),
        ({"pays": ["in_scope"]}, 1000),
        ({"pays": ["first_self_pay", "in_scope"]}, 1200),
    ):
        policy = document(*funds, account={**row(), **scope})
        found = compute(policy, visit, {}, yuan(99_999))
        assert found.account_fen == yuan(paid)
        assert found.cash_fen == yuan(1500 - paid)


def test_ordinary_outpatient_from_the_account_only() -> None:
    """大同: no fund pays; what is in scope and the rest is the patient's."""
    policy = document(
        benefit={"care_types": ["outpatient"], "stages": None, "no_funds": row()}, account=row()
    )
    visit = a_case(care_type="outpatient", use_account=True, in_scope_fen=yuan(100))
    found = compute(policy, visit, {}, yuan(60))
    assert (found.funds, found.account_fen, found.cash_fen) == ({}, yuan(60), yuan(40))


def test_chronic_by_disease_with_class_codes() -> None:
    """A class code stands for its diseases, unless one of them has a row of its own."""
    rows = (
        row("90%", diseases=["M00503"]),
        row("85%", diseases=["M00500"]),
        row("70%", diseases=["other"]),
    )
    chronic = {
        "care_types": ["chronic"],
        "counts_stays": False,
        "diseases": {**row(), "covered": ["M00500", "M03900"], "otherwise": "refused"},
        "stages": [fund(*rows)],
    }
    policy = document(benefit=chronic)
    for disease, paid in (("M00503", 9000), ("M00501", 8500), ("M00500", 8500), ("M03900", 7000)):
        assert pays(policy, care_type="chronic", disease=disease) == paid


def test_residents_have_classes_of_their_own() -> None:
    """连云港 residents: ≤ 10,000 80 %, above 85 %; students 10 points more."""
    policy = document(
        fund(
            row("80%", up_to="1万元"),
            row("85%"),
            adjust=[only("plus", "10个百分点", persons=["minor_or_student"])],
        ),
        insurance="resident",
    )
    assert pays(policy, fee=20_000, person_class="adult_resident") == 16_500
    assert pays(policy, fee=20_000, person_class="minor_or_student") == 18_500
