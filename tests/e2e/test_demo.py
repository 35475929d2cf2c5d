"""`yidi demo` end to end: the visits, their amounts, their spelling, the story on a terminal."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Any

import pytest
from rich.cells import cell_len

HOPS = {"catalog", "care_open", "insured", "enrollment", "filing", "policy", "decide", "care_close"}
KEYS = [
    "case", "care_area", "insured_area", "route", "filing_basis", "benefit_class", "total_fen",
    "full_self_pay_fen", "over_limit_fen", "first_self_pay_fen", "in_scope_fen",
    "remote_first_pay_fen", "deductible_fen", "ratio_self_pay_fen", "over_cap_fen", "funds",
    "fund_total_fen", "account_fen", "cash_fen", "hospital_fen", "policy", "hops_ms",
]  # fmt: skip
CLASSES = {
    "long_term_resident": ("cross_province", "filed", "long_term_at_place"),
    "long_term_outpatient": ("cross_province", "filed", "long_term_at_place"),
    "referral_named": ("cross_province", "filed", "referral_named"),
    "referral": ("cross_province", "filed", "referral"),
    "emergency_without_filing": ("cross_province", "deemed_emergency", "emergency"),
    "planned_without_filing": ("cross_province", "filed", "other_temporary"),
    "in_province": ("in_province", "filed", "referral"),
    "treated_in_guangdong": ("cross_province", "filed", "other_temporary"),
    "local": ("local", "local", "local"),
}
PERCENT = {
    # 湛江 sample ratios at level three: retired 85, employed 80; 湛医保〔2023〕11号 二(五) lowers
    # referral and emergency by 10 points and other temporary by 20, 二(六) a named referral by 0.
    "long_term_resident": 85,
    "referral_named": 80,
    "referral": 70,
    "emergency_without_filing": 70,
    "planned_without_filing": 60,
    "in_province": 70,
    # 济宁: 80 for employed people at level three, after the first pay.
    "treated_in_guangdong": 80,
}


def rounded(value: Fraction) -> int:
    return int(value + Fraction(1, 2))


@pytest.fixture(scope="module")
def story(yidi: Any) -> dict[str, Any]:
    ran = yidi("demo", "--json")
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def settlement(story: dict[str, Any], case: str) -> dict[str, Any]:
    (found,) = [row for row in story["settlements"] if row["case"] == case]
    return dict(found)


def test_demo_spells_its_json_as_the_protocol_says(story: dict[str, Any]) -> None:
    assert list(story) == ["settlements", "refusals", "verify"]
    assert [row["case"] for row in story["settlements"]] == list(CLASSES)
    for row in story["settlements"]:
        assert list(row) == KEYS
        assert (row["route"], row["filing_basis"], row["benefit_class"]) == CLASSES[row["case"]]
        assert list(row["policy"]) == ["area", "version", "hash", "provenance"]
        assert row["policy"]["area"] == row["insured_area"]
        assert re.fullmatch("[0-9a-f]{64}", row["policy"]["hash"])
        assert row["policy"]["provenance"] in ("official", "secondary", "illustrative")
        national = {"nation"} if row["route"] == "cross_province" else set()
        assert set(row["hops_ms"]) == HOPS | national | {"total"}
        assert all(0 <= spent <= row["hops_ms"]["total"] for spent in row["hops_ms"].values())
        # What no hop claims (sockets, the care site's relay) is in the total only.
        assert sum(row["hops_ms"].values()) <= 2 * row["hops_ms"]["total"]


def test_demo_amounts_tie_out(story: dict[str, Any]) -> None:
    for row in story["settlements"]:
        assert all(row[key] >= 0 for key in KEYS if key.endswith("_fen"))
        assert row["total_fen"] == (
            row["full_self_pay_fen"] + row["over_limit_fen"]
            + row["first_self_pay_fen"] + row["in_scope_fen"]
        )  # fmt: skip
        assert row["in_scope_fen"] == (
            row["remote_first_pay_fen"] + row["deductible_fen"] + row["fund_total_fen"]
            + row["ratio_self_pay_fen"] + row["over_cap_fen"]
        )  # fmt: skip
        assert row["total_fen"] == (
            row["fund_total_fen"] + row["account_fen"] + row["cash_fen"] + row["hospital_fen"]
        )
        assert row["fund_total_fen"] == sum(row["funds"].values())


@pytest.mark.parametrize("case", PERCENT)
def test_demo_inpatient_benefit_is_the_areas_own(story: dict[str, Any], case: str) -> None:
    """S4-13, S4-16, S4-17, S4-18, S4-58: the fund pays its ratio of what is left in scope."""
    row = settlement(story, case)
    # 济宁市异地就医联网结算服务指南（2024年1月）: 10 % first pay for temporary care of employees.
    first_pay = Fraction(row["in_scope_fen"], 10) if case == "treated_in_guangdong" else Fraction(0)
    assert row["remote_first_pay_fen"] == rounded(first_pay)
    assert row["deductible_fen"] == (60000 if case == "treated_in_guangdong" else 80000)
    above = row["in_scope_fen"] - row["remote_first_pay_fen"] - row["deductible_fen"]
    assert row["funds"] == {"hifp_pay": rounded(Fraction(above * PERCENT[case], 100))}


def test_demo_unfiled_patient_is_guided_filed_and_settled(story: dict[str, Any]) -> None:
    """S0-19, S4-11: the hospital files for the patient before discharge, then settles directly."""
    (refusal,) = story["refusals"]
    assert list(refusal) == ["case", "reason", "message", "next_step"]
    assert refusal["case"] == "planned_without_filing"
    assert refusal["reason"] == "FILING_REQUIRED"
    assert "北京" in refusal["message"]
    assert "备案" in refusal["next_step"]
    assert settlement(story, "planned_without_filing")["benefit_class"] == "other_temporary"


def test_demo_again_has_the_same_amounts(story: dict[str, Any], yidi: Any) -> None:
    again = json.loads(yidi("demo", "--json").stdout)

    def constant(told: dict[str, Any]) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "hops_ms"} for row in told["settlements"]]

    assert constant(again) == constant(story)
    assert again["refusals"] == story["refusals"]
    assert again["verify"] == story["verify"] == {"ok": True}


@pytest.mark.parametrize("columns", [80, 100])
def test_demo_story_fits_the_terminal(yidi: Any, columns: int) -> None:
    ran = yidi("demo", columns=columns)
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.splitlines() if cell_len(line.rstrip()) > columns] == []
    words = re.sub(r"\s+", "", ran.stdout)
    # S4-11: the late filing is marked; each step has its clause and how well it is founded.
    for text in (
        "已备案其他跨省临时外出就医人员，",
        "补办备案latefiling",
        "官方湛医保〔2023〕11号二(六)",
        "转载济宁职工医保待遇汇总",
    ):
        assert text in words
    assert "…" not in ran.stdout.replace("sha256", "").replace("… 示例", "").replace("… 转载", "")
    assert "逐位相同" in ran.stdout
