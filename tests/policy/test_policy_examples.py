"""Published worked examples, to the fen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from policy_samples import OWN, a_case, document

from services.policy.domain.case import Counters
from services.policy.domain.compute import compute

CASES = yaml.safe_load((Path(__file__).parents[1] / "data" / "policy_cases.yaml").read_text())


@pytest.mark.parametrize("example", CASES, ids=[case["name"] for case in CASES])
def test_published_example(example: dict[str, Any]) -> None:
    """S0-26, S0-33, S0-34, S2-20..22, S4-16..18, S4-58 and the published arithmetic."""
    given = dict(example["case"])
    stays = given.pop("stays_before", 0)
    policy = document(**example["terms"]) if "terms" in example else OWN[tuple(example["document"])]
    money = ("total", "full_self_pay", "first_self_pay", "in_scope")
    case = a_case(
        **{f"{name}_fen" if name in money else name: value for name, value in given.items()}
    )
    benefit = compute(policy, case, {"2026": Counters(stay_count=stays)}, 0)
    got = {
        "fund_total": benefit.fund_total_fen,
        "deductible": benefit.deductible_fen,
        "remote_first_pay": benefit.remote_first_pay_fen,
        "ratio_self_pay": benefit.ratio_self_pay_fen,
        "personal": benefit.account_fen + benefit.cash_fen,
    }
    assert {name: got[name] for name in example["expect"]} == example["expect"]
