"""What policy is asked for a unit of cases, and whether a quote still holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from infra.runtime import journal
from infra.runtime.errors import Reason, Refusal
from services.settlement.deciding.case import Case, Unit
from services.settlement.domain.balance import FIELDS, Row, Values
from services.settlement.domain.quote import change_cause, quote_digest
from services.settlement.store.insured import (
    Reading,
)
from yidi.common.v1 import amounts_pb2, types_pb2, visit_pb2
from yidi.policy.v1 import policy_pb2

_FACTS = ("deductible_level", "settlement_level", "price_limit_level", "grade")


def compute_unit(unit: Unit, reading: Reading, day: str) -> policy_pb2.ComputeUnit:
    cases = [case for case in unit.cases if case.refusal is None]
    first = cases[0]
    _, account = account_of(cases, reading)
    for case in cases:
        case.policy_case = policy_case(case, day)
    return policy_pb2.ComputeUnit(
        id=first.id,
        insured_area=first.insured.area,
        insurance=first.payload.visit.insurance,
        openings=[
            policy_pb2.Accumulator(period=period, **dict(zip(FIELDS, row.values, strict=True)))
            for period, row in openings_of(cases, reading).items()
        ],
        account_balance_fen=account.values[0] if account else 0,
        cases=[case.policy_case for case in cases if case.policy_case is not None],
    )


def openings_of(cases: Sequence[Case], reading: Reading) -> dict[str, Row]:
    """The accumulators that one person's cases are computed from, by benefit period."""
    # Periods are named by the year they begin in; the one before the admission may still run.
    oldest = f"{int(min(case.payload.visit.start_date for case in cases)[:4]) - 1:04d}"
    rows = reading.accumulators[cases[0].person]
    return {period: row for period, row in rows.items() if period >= oldest}


def policy_case(case: Case, day: str) -> policy_pb2.ComputeCase:
    assert case.participant is not None
    assert case.entitlement is not None
    visit, institution = case.payload.visit, case.payload.institution
    return policy_pb2.ComputeCase(
        id=case.id,
        total_fen=case.payload.total_fen,
        parts=case.payload.parts,
        facts=policy_pb2.Facts(
            route=case.route,
            basis=case.entitlement.basis,
            benefit_class=case.entitlement.benefit_class,
            care_type=visit.care_type,
            person_class=case.participant.person_class,
            age=case.participant.age,
            civil_servant=case.participant.civil_servant,
            start_date=visit.start_date,
            end_date=visit.end_date,
            business_day=day,
            disease_code=visit.disease_code,
            use_account=visit.use_account,
            care_area=case.care.area,
            late_filing=case.entitlement.late_filing,
            unfiled=case.entitlement.basis == types_pb2.FILING_BASIS_NONE,
            **{name: getattr(institution, name) for name in _FACTS},
        ),
    )


def visit_of(case: Case) -> visit_pb2.Visit:
    """The visit with pooling areas, whatever county codes it came with."""
    visit = visit_pb2.Visit()
    visit.CopyFrom(case.payload.visit)
    visit.care_area, visit.insured_area = case.care.area, case.insured.area
    return visit


def account_of(cases: Iterable[Case], reading: Reading) -> tuple[str, Row | None]:
    """The account that may pay for a unit: its cases are one person's, but not each names it."""
    named = (case.account for case in cases if case.participant is not None)
    found = next((account for account in named if account in reading.accounts), "")
    return found, reading.accounts.get(found)


def values_of(accumulator: policy_pb2.Accumulator) -> Values:
    return tuple(getattr(accumulator, name) for name in FIELDS)


def amounts_of(amounts: amounts_pb2.Amounts) -> dict[str, int]:
    return {name: getattr(amounts, name) for name in journal.AMOUNTS}


def quote_digest_of(case: Case) -> bytes:
    assert case.benefit is not None
    return quote_digest(
        case.payload.body_digest,
        case.payload.catalogue_version,
        case.benefit.policy.hash,
        amounts_of(case.benefit.amounts),
    )


def quote_changed(case: Case) -> Refusal | None:
    """QUOTE_CHANGED when the patient was told other amounts than the computed ones."""
    payload = case.payload
    if case.is_quote or not payload.HasField("expected"):
        return None
    assert case.benefit is not None
    expected = payload.expected
    quoted = amounts_of(expected.amounts) if expected.HasField("amounts") else {}
    computed = amounts_of(case.benefit.amounts)
    differs = (
        (expected.quote_digest and expected.quote_digest != quote_digest_of(case))
        or (quoted and quoted != computed)
        or (expected.policy_hash and expected.policy_hash != case.benefit.policy.hash)
        or (expected.catalogue_version and expected.catalogue_version != payload.catalogue_version)
    )
    if not differs:
        return None
    cause = change_cause(
        quoted_catalogue=expected.catalogue_version,
        catalogue=payload.catalogue_version,
        quoted_policy=expected.policy_hash,
        policy=case.benefit.policy.hash,
        quoted=quoted,
        computed=computed,
    )
    refusal = Refusal(Reason.ERROR_REASON_QUOTE_CHANGED, cause=cause)
    refusal.details |= {f"quoted_{name}": str(fen) for name, fen in quoted.items()}
    refusal.details |= {f"computed_{name}": str(fen) for name, fen in computed.items()}
    return refusal
