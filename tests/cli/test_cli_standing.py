"""Where a settlement stands: the sentence and the hops, for every state."""

from __future__ import annotations

from typing import Any

import pytest

from infra.cli.pairs import Holder
from infra.cli.standing import Outcome, Standing
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import types_pb2
from yidi.settlement.v1 import care_pb2

ID = "01a200c1-78cc-7b37-94c8-712f478fc03c"
UNDO = "01a200c2-07db-7bfb-896c-9c6e6dc7734d"
BOTH = {Holder.NATION: True, Holder.INSURED: True}
NONE = {Holder.NATION: False, Holder.INSURED: False}
S = types_pb2


def standing(
    state: S.SettlementState.ValueType,
    held: dict[Holder, bool | None],
    *,
    reason: Refusal | None = None,
    attempts: int = 0,
    next_ms: int = 0,
    undo: care_pb2.JournalRow | None = None,
    hops: tuple[S.Hop.ValueType, ...] = (),
    **row: Any,
) -> Standing:
    made = care_pb2.JournalRow(
        settlement_id=ID,
        state=state,
        **{"kind": S.EXCHANGE_KIND_SETTLE, "route": S.ROUTE_CROSS_PROVINCE, **row},
        insured_site="440000",
    )
    for hop in hops:
        made.hops.add(hop=hop, duration_us=1500)
    if reason is not None:
        made.reason.CopyFrom(reason.status())
    shown = care_pb2.ShowSettlementResponse(row=made, attempts=attempts)
    if next_ms:
        shown.next_attempt_time.FromMilliseconds(next_ms)
    return Standing("110000", shown, held, undo)


UNANSWERED = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="relay")
FILING = Refusal(Reason.ERROR_REASON_FILING_REQUIRED, place="北京市")
CASES = [
    (
        standing(S.SETTLEMENT_STATE_PENDING, NONE),
        "办理中：就医地已登记，等待参保地答复；逾时没有答复时自动向参保地询问；请勿重复收费。",
    ),
    (
        # 2026-11-22 04:01:05 UTC
        standing(S.SETTLEMENT_STATE_IN_DOUBT, NONE, attempts=3, next_ms=1795320065000),
        "结果待确认：已向参保地询问 3 次，下次询问 12:01:05；请勿重复收费。",
    ),
    (
        standing(
            S.SETTLEMENT_STATE_IN_DOUBT,
            {Holder.NATION: False, Holder.INSURED: True},
            cancel_requested=True,
        ),
        "结果待确认：参保地已记账，即将向参保地询问；已请求撤销，确认后自动撤销；请勿重复收费。",
    ),
    (standing(S.SETTLEMENT_STATE_COMPLETED, BOTH), "已完成，三方账本均已记录。"),
    (
        standing(S.SETTLEMENT_STATE_COMPLETED, {Holder.INSURED: True}, route=S.ROUTE_LOCAL),
        "已完成，就医地和参保地账本均已记录。",
    ),
    (
        standing(S.SETTLEMENT_STATE_COMPLETED, {Holder.NATION: False, Holder.INSURED: True}),
        "已完成，但国家账本没有这一笔：请平台人员立即核查。",
    ),
    (
        standing(S.SETTLEMENT_STATE_COMPLETED, {Holder.NATION: None, Holder.INSURED: True}),
        "已完成；未能向国家核对账本，请稍后再查。",
    ),
    (
        standing(S.SETTLEMENT_STATE_COMPLETED, BOTH, kind=S.EXCHANGE_KIND_REFUND, undoes=UNDO),
        f"退费已完成，结算 {UNDO} 已撤销，三方账本均已记录。",
    ),
    (
        standing(
            S.SETTLEMENT_STATE_COMPLETED,
            BOTH,
            undone_by=UNDO,
            undo=care_pb2.JournalRow(
                settlement_id=UNDO,
                kind=S.EXCHANGE_KIND_REVERSAL,
                state=S.SETTLEMENT_STATE_COMPLETED,
            ),
        ),
        f"已由冲正 {UNDO} 撤销。",
    ),
    (
        standing(
            S.SETTLEMENT_STATE_COMPLETED,
            BOTH,
            undone_by=UNDO,
            undo=care_pb2.JournalRow(
                settlement_id=UNDO,
                kind=S.EXCHANGE_KIND_REVERSAL,
                state=S.SETTLEMENT_STATE_IN_DOUBT,
            ),
        ),
        f"已完成，正在撤销：冲正 {UNDO} 结果待确认，请勿重复退费。",
    ),
    (
        standing(S.SETTLEMENT_STATE_COMPLETED, BOTH, cancel_requested=True),
        "已完成，并已请求撤销：即将自动撤销，请勿重复退费。",
    ),
    (
        standing(S.SETTLEMENT_STATE_ABORTED, NONE),
        "已作废，没有发生任何支付；请用新的请求号重新办理。",
    ),
    (
        standing(S.SETTLEMENT_STATE_REJECTED, NONE, reason=FILING),
        f"未办成，没有发生任何支付：{FILING.message}{FILING.next_step}",
    ),
]


@pytest.mark.parametrize(("shown", "sentence"), CASES, ids=[text[:12] for _, text in CASES])
def test_one_sentence_says_where_it_stands(shown: Standing, sentence: str) -> None:
    assert shown.sentence == sentence
    assert shown.facts()["sentence"] == sentence


def outcomes(shown: Standing) -> dict[str, tuple[str, Outcome]]:
    return {S.Hop.Name(step.hop): (step.site, step.outcome) for step in shown.steps}


def test_hops_of_a_completed_settlement() -> None:
    hops = (S.HOP_CATALOG, S.HOP_CARE_OPEN, S.HOP_NATION, S.HOP_INSURED, S.HOP_DECIDE)
    shown = standing(S.SETTLEMENT_STATE_COMPLETED, BOTH, hops=hops)
    assert outcomes(shown) == {
        "HOP_CATALOG": ("110000", Outcome.DONE),
        "HOP_CARE_OPEN": ("110000", Outcome.RECORDED),
        "HOP_NATION": ("100000", Outcome.RECORDED),
        "HOP_INSURED": ("440000", Outcome.DONE),
        "HOP_DECIDE": ("440000", Outcome.RECORDED),
        "HOP_CARE_CLOSE": ("110000", Outcome.RECORDED),
    }
    assert shown.facts()["hops"][2]["duration_ms"] == 1.5
    assert shown.facts()["hops"][-1]["duration_ms"] is None


def test_hops_of_one_in_doubt_say_which_journal_has_it() -> None:
    held: dict[Holder, bool | None] = {Holder.NATION: None, Holder.INSURED: True}
    shown = standing(S.SETTLEMENT_STATE_IN_DOUBT, held, reason=UNANSWERED)
    found = outcomes(shown)
    assert found["HOP_NATION"] == ("100000", Outcome.UNKNOWN)
    assert found["HOP_DECIDE"] == ("440000", Outcome.RECORDED)
    assert shown.steps[-1].outcome is Outcome.IN_DOUBT
    assert shown.steps[-1].facts()["reason"] == "SERVICE_UNAVAILABLE"


def test_hops_of_a_refusal_say_who_refused() -> None:
    hops = (S.HOP_CARE_OPEN, S.HOP_NATION, S.HOP_INSURED, S.HOP_DECIDE)
    decided = standing(S.SETTLEMENT_STATE_REJECTED, NONE, reason=FILING, hops=hops)
    assert outcomes(decided)["HOP_DECIDE"] == ("440000", Outcome.REJECTED)
    assert outcomes(decided)["HOP_NATION"] == ("100000", Outcome.DONE)
    not_sent = standing(S.SETTLEMENT_STATE_REJECTED, NONE, reason=UNANSWERED)
    assert outcomes(not_sent)["HOP_DECIDE"] == ("440000", Outcome.NOT_REACHED)
    assert outcomes(not_sent)["HOP_NATION"] == ("100000", Outcome.NOT_REACHED)


def test_a_local_settlement_has_no_hop_at_the_nation() -> None:
    shown = standing(S.SETTLEMENT_STATE_COMPLETED, {Holder.INSURED: True}, route=S.ROUTE_LOCAL)
    assert "HOP_NATION" not in outcomes(shown)
