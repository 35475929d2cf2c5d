"""The shadow run: past settlements computed as if a document were published.

Settlement keeps with each decision what policy was asked and the accumulators it was computed
from, so it is asked for them a page at a time; nothing is stored. Each settlement is computed twice
from the same inputs: by the version that computed it, to see that its recorded amounts come out
again, and by the list with the document in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from infra.runtime.errors import Refusal
from services.policy import messages
from services.policy.domain.book import Book, Publication
from services.policy.domain.case import Benefit, CannotCompute, Case
from services.policy.domain.chain import compute_visit
from services.policy.domain.document import Document
from yidi.common.v1 import amounts_pb2
from yidi.policy.v1 import publishing_pb2
from yidi.settlement.v1 import insured_pb2

PAGE = 256
PastCases = Callable[
    [insured_pb2.ListPastCasesRequest], Awaitable[insured_pb2.ListPastCasesResponse]
]
"""Asks settlement for a page of past settlements."""
_LAST_MS = 1 << 62
"""After every activation: a shadow run asks what will be once everything is in use."""


class _Tried(NamedTuple):
    """What came of one past settlement."""

    affected: bool
    reproduced: bool
    outcome: Benefit | CannotCompute | Refusal | None
    """None: the document would not have computed it."""


async def simulate(
    past: PastCases, book: Book, document: Document, request: publishing_pb2.SimulatePolicyRequest
) -> publishing_pb2.SimulatePolicyResponse:
    """One page of the shadow run of `document`."""
    page = await past(
        insured_pb2.ListPastCasesRequest(
            insured_area=document.area,
            insurance=messages.INSURANCE_VALUES[document.insurance],
            from_day=request.from_day,
            to_day=request.to_day,
            page_size=request.page_size or PAGE,
            page_token=request.page_token,
        )
    )
    answer = publishing_pb2.SimulatePolicyResponse(
        settlements=len(page.cases), next_page_token=page.next_page_token
    )
    last = max((each.number for each in book.publications), default=0)
    others = [each for each in book.publications if each.document.hash != document.hash]
    shadow = Book([*others, Publication(last + 1, 0, document)])
    funds: Counter[str] = Counter()
    for case in page.cases:
        tried = _try(case, book, shadow, document)
        answer.affected += tried.affected
        answer.not_reproduced += not tried.reproduced
        if tried.outcome is not None:
            _report(answer, funds, case, tried)
    answer.fund_changes.extend(
        amounts_pb2.FundPayment(code=code, fen=fen) for code, fen in sorted(funds.items()) if fen
    )
    return answer


def _try(past: insured_pb2.PastCase, book: Book, shadow: Book, document: Document) -> _Tried:
    recorded = book.with_hash(past.policy.hash)
    try:
        case = messages.read_case(past.case, document.insurance)
    except Refusal as refusal:  # a contract that has become stricter since
        return _Tried(False, False, refusal)
    again = None if recorded is None else _compute(past, case, recorded)
    reproduced = isinstance(again, Benefit) and _same(past, again)
    try:
        chosen = shadow.find(document.area, document.insurance, case, _LAST_MS)
    except CannotCompute:
        return _Tried(False, reproduced, None)
    if chosen is not document:
        return _Tried(False, reproduced, None)
    return _Tried(True, reproduced, _compute(past, case, document))


def _compute(past: insured_pb2.PastCase, case: Case, document: Document) -> Benefit | CannotCompute:
    counters = {opening.period: messages.read_counters(opening) for opening in past.openings}
    try:
        return compute_visit(document, case, counters, past.account_balance_fen)
    except CannotCompute as refusal:
        return refusal


def _same(past: insured_pb2.PastCase, benefit: Benefit) -> bool:
    return messages.amounts_of(past.case, benefit) == past.amounts and messages.funds_of(
        benefit
    ) == list(past.funds)


def _report(
    answer: publishing_pb2.SimulatePolicyResponse,
    funds: Counter[str],
    past: insured_pb2.PastCase,
    tried: _Tried,
) -> None:
    outcome = tried.outcome
    difference = publishing_pb2.SimulatedDifference(
        settlement_id=past.case.id,
        policy=past.policy,
        before=past.amounts,
        funds_before=past.funds,
        reproduced=tried.reproduced,
    )
    if isinstance(outcome, Benefit):
        if _same(past, outcome):
            return
        difference.after.amounts.CopyFrom(messages.amounts_of(past.case, outcome))
        difference.after.funds.extend(messages.funds_of(outcome))
        funds.update(outcome.funds)
        funds.subtract({fund.code: fund.fen for fund in past.funds})
        answer.account_change_fen += outcome.account_fen - past.amounts.account_fen
        answer.cash_change_fen += outcome.cash_fen - past.amounts.cash_fen
    elif outcome is not None:
        answer.refused += 1
        refusal = (
            outcome if isinstance(outcome, Refusal) else messages.refused(outcome, past.policy.area)
        )
        difference.error.CopyFrom(refusal.status())
    answer.differences.append(difference)
