"""What a settlement of the demo amounts to, for programs, and whether it ties out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.runtime.errors import Refusal
from infra.runtime.types import short_name
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2

AMOUNTS = (
    "total_fen",
    "full_self_pay_fen",
    "over_limit_fen",
    "first_self_pay_fen",
    "in_scope_fen",
    "remote_first_pay_fen",
    "deductible_fen",
    "ratio_self_pay_fen",
    "over_cap_fen",
)
_PAID = ("fund_total_fen", "account_fen", "cash_fen", "hospital_fen")
_PARTS = ("full_self_pay_fen", "over_limit_fen", "first_self_pay_fen", "in_scope_fen")


def settlement_facts(case: str, result: gateway_pb2.SettlementResult) -> dict[str, Any]:
    """One settlement; areas and amounts are those of the outcome that the journals hold."""
    header = envelope_pb2.OutcomeHeader.FromString(result.outcome_header)
    a, entitled, policy = result.amounts, result.entitlement, result.policy
    return {
        "case": case,
        "care_area": header.care_area,
        "insured_area": header.insured_area,
        "route": short_name(types_pb2.Route.DESCRIPTOR, result.route),
        "filing_basis": short_name(types_pb2.FilingBasis.DESCRIPTOR, entitled.basis),
        "benefit_class": short_name(types_pb2.BenefitClass.DESCRIPTOR, entitled.benefit_class),
        **{name: getattr(a, name) for name in AMOUNTS},
        "funds": {fund.code: fund.fen for fund in result.funds},
        **{name: getattr(a, name) for name in _PAID},
        "policy": {
            "area": policy.area,
            "version": policy.version,
            "hash": policy.hash.hex(),
            "provenance": short_name(types_pb2.Provenance.DESCRIPTOR, policy.provenance),
        },
        "hops_ms": {
            short_name(types_pb2.Hop.DESCRIPTOR, hop.hop): round(hop.duration_us / 1000, 3)
            for hop in sorted(result.hops, key=lambda hop: hop.hop)
        },
    }


def refusal_facts(case: str, refusal: Refusal) -> dict[str, str]:
    """One refusal."""
    return {
        "case": case,
        "reason": refusal.name,
        "message": refusal.message,
        "next_step": refusal.next_step,
    }


def untied(case: str, result: gateway_pb2.SettlementResult) -> Iterator[str]:
    """Every sum of the settlement that does not tie out, as a sentence."""
    a = result.amounts
    header = envelope_pb2.OutcomeHeader.FromString(result.outcome_header)
    in_scope = a.remote_first_pay_fen + a.deductible_fen + a.fund_total_fen
    in_scope += a.ratio_self_pay_fen + a.over_cap_fen
    if 0 < (outside := in_scope - a.in_scope_fen) <= a.first_self_pay_fen:
        in_scope -= outside  # a fund may pay on first self-pay too, which is not in scope
    pairs = [
        ("total = the four parts", a.total_fen, sum(getattr(a, name) for name in _PARTS)),
        ("in scope = its five parts", a.in_scope_fen, in_scope),
        ("total = what is paid", a.total_fen, sum(getattr(a, name) for name in _PAID)),
        ("fund total = the funds", a.fund_total_fen, sum(fund.fen for fund in result.funds)),
        ("total = the lines", a.total_fen, sum(line.amount_fen for line in result.lines)),
    ]
    pairs += [
        (f"{name} = the lines", getattr(a, name), sum(getattr(line, name) for line in result.lines))
        for name in _PARTS
    ]
    if result.categories:
        sums = sum(category.amount_fen for category in result.categories)
        pairs.append(("total = the fee categories", a.total_fen, sums))
    for name, left, right in pairs:
        if left != right:
            yield f"{case}: {name} does not tie out: {left} is not {right} fen"
    if header.amounts != a:
        yield f"{case}: the amounts differ from those in the outcome that the journals hold"
