"""The computation of one visit in one benefit period: the document's stages in order, then the
personal account, then cash. The patient's side is always what is left, so the parts sum to the
whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.policy.domain.case import (
    Benefit,
    Case,
    Counters,
    DiseaseRefused,
    NotStated,
    Told,
)
from services.policy.domain.document import Benefit as Rules
from services.policy.domain.document import Document, Provenance, Value
from services.policy.domain.facts import BASES, class_code
from services.policy.domain.planning import Plan
from services.policy.domain.stages import NO_COUNTERS, TEMPORARY, Continued, Run
from services.policy.domain.table import UnknownFact

_new = tuple.__new__


def compute(
    document: Document,
    case: Case,
    counters: Mapping[str, Counters],
    account_balance_fen: int,
    *,
    period: str | None = None,
    continued: Continued | None = None,
) -> Benefit:
    """What `case` is paid from the `counters` (by benefit period) and account balance as read.

    `period` overrules the document's own choice, and `continued` is what the other parts of the
    same stay say: for stays that are split at the year's end. Raise `NotStated` naming what the
    document does not state or the case does not hold, `Ambiguous` where two rules apply.
    """
    if case.basis not in BASES:
        raise NotStated(f"basis/{case.basis}")
    rules, case, told = _rules(document, case)
    if case.basis == "account_only":
        if document.account is None:
            raise NotStated("account")
        stated = document.account.value
        return _without_funds(document, case, stated, account_balance_fen, told)
    if rules.no_funds is not None:
        return _without_funds(document, case, rules.no_funds, account_balance_fen, told)
    if period is None:
        period = period_of(document, case)
    run = Run(rules, case, counters, period, continued, told)
    plan: Plan = rules.plans.of(run.case)
    provenance = None if told else plan.provenance
    try:
        run.perform(plan)
    except UnknownFact as error:
        raise NotStated(str(error)) from None
    if not run.paid_remaining:
        raise NotStated(f"{rules.name}/hifp_pay")
    return _benefit(document, run, provenance, account_balance_fen)


def period_of(document: Document, case: Case) -> str:
    """The benefit period of a case that is not split: a calendar year."""
    return (case.business_day if document.period_by == "settlement" else case.end_date)[:4]


def counted(
    document: Document, case: Case, counters: Mapping[str, Counters], period: str
) -> tuple[int, int]:
    """Which stay and which temporary visit elsewhere of the period this is."""
    rules, _, _ = _rules(document, case)
    own = counters.get(f"{period}-{rules.counter}" if rules.counter else period, NO_COUNTERS)
    elsewhere = counters.get(f"{period}-{TEMPORARY}", NO_COUNTERS)
    return own.stay_count + 1, elsewhere.stay_count + 1


def _rules(document: Document, case: Case) -> tuple[Rules, Case, list[Told]]:
    rules = document.benefits.get(case.care_type)
    if rules is None:
        raise NotStated(f"care_type/{case.care_type}")
    diseases = rules.diseases
    if (
        diseases is None
        or case.disease in diseases.covered
        or class_code(case.disease) in diseases.covered
    ):
        return rules, case, []
    if diseases.otherwise == "refused":
        raise DiseaseRefused(case.disease)
    ordinary = document.benefits.get("outpatient")
    if ordinary is None:
        raise NotStated("care_type/outpatient")
    in_scope = case.in_scope_fen
    step = (rules.name, "ordinary", diseases.value, in_scope, in_scope, (case.disease,))
    return ordinary, case._replace(care_type="outpatient"), [step]


def _benefit(
    document: Document, run: Run, provenance: Provenance | None, account_balance_fen: int
) -> Benefit:
    """What came of it; `provenance` is that of all values of the stages, where it is one."""
    run.count_visit()
    case, funds, outside = run.case, run.funds, run.outside_scope
    paid = sum(funds.values())
    account = 0
    if case.use_account:
        own = case.in_scope_fen + outside - paid
        account = _account(document, case, own, outside, account_balance_fen, run.told)
    told = tuple(run.told)
    if provenance is None or account or not told:
        provenance = _weakest(told)
    return _new(
        Benefit,
        (
            document,
            run.remote_first_pay,
            run.deductible - run.relieved_deductible,
            run.ratio_self_pay,
            sum(run.over.values()),
            funds,
            account,
            case.total_fen - paid - account,
            {period: Counters._make(delta) for period, delta in run.deltas.items()},
            provenance,
            told,
            outside,
        ),
    )


def _without_funds(
    document: Document, case: Case, stated: Value, account_balance_fen: int, told: list[Told]
) -> Benefit:
    in_scope = case.in_scope_fen
    told.append(("no_funds", "no_funds", stated, in_scope, 0, ()))
    account = _account(document, case, in_scope, 0, account_balance_fen, told)
    cash = case.total_fen - account
    found = tuple(told)
    return Benefit(document, 0, 0, in_scope, 0, {}, account, cash, {}, _weakest(found), found)


def _account(
    document: Document,
    case: Case,
    in_scope_own: int,
    outside_scope: int,
    balance_fen: int,
    told: list[Told],
) -> int:
    account = document.account
    if not case.use_account or account is None or balance_fen <= 0:
        return 0
    parts = {
        "full_self_pay": case.full_self_pay_fen,
        "over_limit": case.over_limit_fen,
        "first_self_pay": case.first_self_pay_fen - outside_scope,
        "in_scope": in_scope_own,
    }
    personal = sum(fen for name, fen in parts.items() if not account.pays or name in account.pays)
    paid = min(balance_fen, personal)
    if paid:
        facts = (balance_fen,)
        told.append(("personal_account", "account", account.value, personal, paid, facts))
    return paid


def _weakest(told: Sequence[Told]) -> Provenance:
    weakest = Provenance.OFFICIAL
    for _, kind, value, _, _, facts in told:
        if value.provenance > weakest:
            weakest = value.provenance
        if kind == "bracket":
            for each in facts[3]:  # type: ignore[attr-defined]
                if each.value.provenance > weakest:
                    weakest = each.value.provenance
    return weakest
