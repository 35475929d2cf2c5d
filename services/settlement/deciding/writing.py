"""The decision rows of a unit and the answers that they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

import msgspec

from infra.runtime.clock import business_day
from infra.runtime.contract import REVISION
from services.settlement.deciding.case import Case, Unit
from services.settlement.deciding.computing import (
    account_of,
    openings_of,
    quote_digest_of,
    values_of,
)
from services.settlement.domain.balance import Chain, Row, Values, named
from services.settlement.domain.states import Decision
from services.settlement.store.insured import (
    NewDecision,
    Reading,
)
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.settlement.v1 import payload_pb2


def decide_unit(
    unit: Unit, reading: Reading, now: datetime, number: int
) -> list[tuple[Case, NewDecision, envelope_pb2.ExchangeResult]]:
    rows: Mapping[str, Row] = {}
    given: Mapping[str, Values] = {}
    open_cases = [case for case in unit.cases if case.benefit is not None]
    open_case = open_cases[0] if open_cases else None
    if open_case is not None:
        rows = reading.accumulators.get(open_case.person, {})
        given = {period: row.values for period, row in openings_of(open_cases, reading).items()}
    account_id, account = account_of(unit.cases, reading)
    chain = Chain(rows)
    balance = account.values[0] if account else 0
    answered = []
    for case in unit.cases:
        if case.refusal is not None or case.benefit is None:
            answered.append(_rejection(case, now, number))
            continue
        # What it was computed from but does not add to: without it nobody could compute it again.
        others = {**given, **chain.values}
        kept = chain.apply({delta.period: values_of(delta) for delta in case.benefit.deltas})
        for delta in case.benefit.deltas:
            others.pop(delta.period, None)
        kept_account = None
        paid = case.benefit.amounts.account_fen
        if account is not None and paid:
            kept_account = {
                "account_id": account_id,
                "version": account.version,
                "before": balance,
                "delta": -paid,
            }
            balance -= paid
        balances: dict[str, object] = {"accumulators": kept, "account": kept_account}
        if others:
            balances["openings"] = {period: named(values) for period, values in others.items()}
        answered.append(_commitment(case, now, number, balances, balance))
    if open_case is not None:
        unit.write.person = open_case.person
        unit.write.accumulators = {
            period: (rows[period].version if period in rows else -1, values)
            for period, values in chain.values.items()
        }
        if account is not None and balance != account.values[0]:
            unit.write.account = (account_id, account.version, balance)
    return answered


def _commitment(
    case: Case,
    now: datetime,
    unit: int,
    balances: Mapping[str, object],
    account_balance: int,
) -> tuple[Case, NewDecision, envelope_pb2.ExchangeResult]:
    assert case.benefit is not None
    assert case.participant is not None
    benefit, payload = case.benefit, case.payload
    details = payload_pb2.OutcomeDetails(
        entitlement=case.entitlement,
        steps=benefit.steps,
        quote_digest=quote_digest_of(case),
        catalogue_version=payload.catalogue_version,
        person_class=case.participant.person_class,
        deltas=benefit.deltas,
        account_balance_fen=account_balance,
    ).SerializeToString()
    header = envelope_pb2.OutcomeHeader(
        settlement_id=case.id,
        kind=case.envelope.kind,
        undoes=payload.undoes,
        care_area=case.care.area,
        care_site=case.care.site,
        insured_area=case.insured.area,
        insured_site=case.insured.site,
        route=case.route,
        institution=payload.bill.institution,
        insurance=payload.visit.insurance,
        care_type=payload.visit.care_type,
        amounts=benefit.amounts,
        funds=benefit.funds,
        policy=benefit.policy,
        request_digest=case.envelope.payload_digest,
        business_day=business_day(int(now.timestamp() * 1000)).isoformat(),
        details_digest=hashlib.sha256(details).digest(),
        contract_revision=REVISION,
    )
    header.decided_at.FromDatetime(now)
    raw = header.SerializeToString()
    outcome = envelope_pb2.Outcome(header=raw, details=details, digest=hashlib.sha256(raw).digest())
    decision = _decision(
        case,
        Decision.COMMITTED,
        unit,
        header=header,
        outcome=outcome,
        balances=balances,
        filing_id=_filing_of(case),
    )
    return case, decision, envelope_pb2.ExchangeResult(id=case.id, committed=outcome)


def _filing_of(case: Case) -> str:
    """The filing that the cost counts under, or empty: at home nothing is spent at its place."""
    at_home = case.route == types_pb2.ROUTE_LOCAL
    return "" if at_home or case.entitlement is None else case.entitlement.filing_id


def _rejection(
    case: Case, now: datetime, unit: int
) -> tuple[Case, NewDecision, envelope_pb2.ExchangeResult]:
    rejection = envelope_pb2.Rejection(
        settlement_id=case.id,
        state=types_pb2.DECISION_STATE_REJECTED,
        request_digest=case.envelope.payload_digest,
        business_day=business_day(int(now.timestamp() * 1000)).isoformat(),
        status=case.refusal,
    )
    rejection.decided_at.FromDatetime(now)
    raw = rejection.SerializeToString()
    decision = _decision(case, Decision.REJECTED, unit, rejection=raw)
    return case, decision, envelope_pb2.ExchangeResult(id=case.id, rejected=raw)


def _decision(
    case: Case,
    state: Decision,
    unit: int,
    *,
    header: envelope_pb2.OutcomeHeader | None = None,
    outcome: envelope_pb2.Outcome | None = None,
    rejection: bytes | None = None,
    balances: Mapping[str, object] | None = None,
    filing_id: str = "",
) -> NewDecision:
    return NewDecision(
        settlement_id=case.id,
        unit=unit,
        state=state,
        kind=case.envelope.kind,
        request_digest=case.envelope.payload_digest,
        institution=case.payload.bill.institution,
        care_area=case.care.area,
        insured_area=case.insured.area,
        insurance=case.payload.visit.insurance,
        person_id=case.participant.person_id if case.participant else None,
        header=header,
        outcome=outcome,
        rejection=rejection,
        balances=msgspec.json.encode(balances or {}).decode(),
        policy_case=case.policy_case.SerializeToString() if case.policy_case else None,
        filing_id=filing_id or None,
    )
