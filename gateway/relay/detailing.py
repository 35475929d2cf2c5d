"""The nation takes the detail of stays (规程 第三十九条): against its own header, once for ever.

A detail that comes before its header is SETTLEMENT_NOT_FOUND: its care place sends it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from gateway.relay.store import NationStore
from infra.runtime.clock import Clock, instant
from infra.runtime.errors import Reason, Refusal
from infra.runtime.money import yuan
from infra.runtime.types import STAYS
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2
from yidi.relay.v1 import relay_pb2

_PARTS = {
    "full_self_pay_fen": "全自费",
    "over_limit_fen": "超限价",
    "first_self_pay_fen": "先行自付",
    "in_scope_fen": "符合政策范围",
}
_log = structlog.get_logger("yidi.relay")


class Detailing:
    """Keeps what care places upload; two statements per batch whatever its size."""

    def __init__(self, *, store: NationStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def take(
        self, details: Sequence[relay_pb2.StayDetail], care_site: str
    ) -> list[relay_pb2.UploadDetailResult]:
        """Hold each detail that `care_site` sends against its header and keep it."""
        headers = await self._store.headers([detail.id for detail in details], care_site)
        refusals: dict[str, Refusal] = {}
        kept: dict[str, bytes] = {}
        for detail in details:
            header = headers.get(detail.id)
            if header is None:  # not here yet, or another site's
                refusals[detail.id] = Refusal(Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND)
            elif cause := difference(header, detail):
                refusals[detail.id] = _differs(detail.id, cause)
            else:
                kept[detail.id] = detail.SerializeToString(deterministic=True)
        for one in await self._store.keep_details(kept, instant(self._clock)) if kept else ():
            refusals[one] = _differs(one, "已上传过内容不同的明细")
        results = []
        for detail in details:
            refusal = refusals.get(detail.id)
            if refusal is None:
                results.append(relay_pb2.UploadDetailResult(id=detail.id, stored=True))
                continue
            if refusal.reason == Reason.ERROR_REASON_DETAIL_DIFFERS:
                _log.error(
                    "alarm: detail differs from its settlement",
                    settlement_id=detail.id,
                    care_site=care_site,
                )
            results.append(relay_pb2.UploadDetailResult(id=detail.id, error=refusal.status()))
        return results


def difference(header: envelope_pb2.OutcomeHeader, detail: relay_pb2.StayDetail) -> str:
    """In what a detail is not that of its settlement, plain Chinese; empty when it is."""
    if header.kind != types_pb2.EXCHANGE_KIND_SETTLE or header.care_type not in STAYS:
        return "该笔不是住院结算"
    if header.care_area != detail.care_area:
        return f"明细的就医地 {detail.care_area} 不是结算的就医地 {header.care_area}"
    seen: set[str] = set()
    for line in detail.lines:
        if line.line_id in seen:
            return f"明细号 {line.line_id} 重复"
        seen.add(line.line_id)
        if line.amount_fen != sum(getattr(line, name) for name in _PARTS):
            return f"明细 {line.line_id} 的四部分之和不等于其金额"
    amounts: amounts_pb2.Amounts = header.amounts
    total = sum(line.amount_fen for line in detail.lines)
    if total != amounts.total_fen:
        return _sums("医疗费总额", total, amounts.total_fen)
    for name, chinese in _PARTS.items():
        summed = sum(getattr(line, name) for line in detail.lines)
        if summed != getattr(amounts, name):
            return _sums(chinese, summed, getattr(amounts, name))
    return ""


def _sums(name: str, lines_fen: int, settled_fen: int) -> str:
    return f"{name}明细合计 {yuan(lines_fen)} 元，结算 {yuan(settled_fen)} 元"


def _differs(settlement_id: str, cause: str) -> Refusal:
    return Refusal(Reason.ERROR_REASON_DETAIL_DIFFERS, settlement_id=settlement_id, cause=cause)
