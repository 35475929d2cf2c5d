"""Where a settlement stands: every hop with its outcome, and one plain Chinese sentence.

Pure: it is given what the care place shows of it and which other journals hold it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from infra.cli.pairs import Holder
from infra.cli.terminal import local_time
from infra.runtime.config import NATION
from infra.runtime.errors import Refusal
from infra.runtime.types import chinese, short_name
from yidi.common.v1 import types_pb2
from yidi.settlement.v1 import care_pb2

State = types_pb2.SettlementState
_PENDING = types_pb2.SETTLEMENT_STATE_PENDING
_IN_DOUBT = types_pb2.SETTLEMENT_STATE_IN_DOUBT
_COMPLETED = types_pb2.SETTLEMENT_STATE_COMPLETED
_REJECTED = types_pb2.SETTLEMENT_STATE_REJECTED
_ABORTED = types_pb2.SETTLEMENT_STATE_ABORTED
OPEN = (_PENDING, _IN_DOUBT)
_ROLES = {
    types_pb2.HOP_CATALOG: (Holder.CARE, "catalog"),
    types_pb2.HOP_CARE_OPEN: (Holder.CARE, "settlement"),
    types_pb2.HOP_NATION: (Holder.NATION, "relay"),
    types_pb2.HOP_INSURED: (Holder.INSURED, "settlement"),
    types_pb2.HOP_ENROLLMENT: (Holder.INSURED, "enrollment"),
    types_pb2.HOP_FILING: (Holder.INSURED, "filing"),
    types_pb2.HOP_POLICY: (Holder.INSURED, "policy"),
    types_pb2.HOP_DECIDE: (Holder.INSURED, "settlement"),
    types_pb2.HOP_CARE_CLOSE: (Holder.CARE, "settlement"),
}
"""The hops in the order of the way, each with where it is."""
_ALWAYS = (
    types_pb2.HOP_CARE_OPEN,
    types_pb2.HOP_NATION,
    types_pb2.HOP_DECIDE,
    types_pb2.HOP_CARE_CLOSE,
)
"""Hops that write a journal: shown also when nothing is known of them."""


class Outcome(StrEnum):
    """What came of a hop."""

    DONE = "done"
    RECORDED = "recorded"
    NOT_RECORDED = "not_recorded"
    REJECTED = "rejected"
    ABORTED = "aborted"
    NOT_REACHED = "not_reached"
    PENDING = "pending"
    IN_DOUBT = "in_doubt"
    UNKNOWN = "unknown"

    @property
    def zh(self) -> str:
        """Its name for people."""
        return _OUTCOMES[self]


_OUTCOMES = {
    Outcome.DONE: "已办",
    Outcome.RECORDED: "已记账",
    Outcome.NOT_RECORDED: "未见记账",
    Outcome.REJECTED: "已拒绝",
    Outcome.ABORTED: "已作废",
    Outcome.NOT_REACHED: "未到达",
    Outcome.PENDING: "办理中",
    Outcome.IN_DOUBT: "待确认",
    Outcome.UNKNOWN: "未能询问",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One hop of a settlement."""

    site: str
    role: str
    hop: types_pb2.Hop.ValueType
    duration_us: int | None
    """None when it was not measured, or its answer was lost."""
    outcome: Outcome
    reason: Refusal | None = None

    def facts(self) -> dict[str, Any]:
        """The hop for programs."""
        return {
            "site": self.site,
            "role": self.role,
            "hop": short_name(types_pb2.Hop.DESCRIPTOR, self.hop),
            "duration_ms": None if self.duration_us is None else self.duration_us / 1000,
            "outcome": str(self.outcome),
            "reason": None if self.reason is None else self.reason.name,
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """A settlement as the sites know it."""

    care_site: str
    shown: care_pb2.ShowSettlementResponse
    held: Mapping[Holder, bool | None]
    """Which other journals of its pair hold it; None: could not be asked."""
    undo: care_pb2.JournalRow | None = None
    """The settlement that undoes this one, where one is known."""

    @property
    def row(self) -> care_pb2.JournalRow:
        """Its row at the care place."""
        return self.shown.row

    @property
    def reason(self) -> Refusal | None:
        """The last reason on its row."""
        return Refusal.from_status(self.row.reason) if self.row.HasField("reason") else None

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every hop of its way."""
        return tuple(self._steps())

    def _steps(self) -> Iterator[Step]:
        measured = {hop.hop: hop.duration_us for hop in self.row.hops}
        across = self.row.route == types_pb2.ROUTE_CROSS_PROVINCE
        for hop, (holder, role) in _ROLES.items():
            if hop not in measured and (
                hop not in _ALWAYS or (holder is Holder.NATION and not across)
            ):
                continue
            outcome, reason = self._outcome(hop)
            yield Step(self._site(holder), role, hop, measured.get(hop), outcome, reason)

    def _site(self, holder: Holder) -> str:
        if holder is Holder.NATION:
            return NATION
        return self.care_site if holder is Holder.CARE else self.row.insured_site

    def _outcome(self, hop: types_pb2.Hop.ValueType) -> tuple[Outcome, Refusal | None]:
        if hop == types_pb2.HOP_CARE_CLOSE:
            return self._closed(), self.reason
        if hop == types_pb2.HOP_CARE_OPEN:
            return Outcome.RECORDED, None
        if hop == types_pb2.HOP_NATION:
            return self._journaled(Holder.NATION), None
        if hop == types_pb2.HOP_DECIDE:
            return self._decided()
        return Outcome.DONE, None

    def _closed(self) -> Outcome:
        return {
            _PENDING: Outcome.PENDING,
            _IN_DOUBT: Outcome.IN_DOUBT,
            _COMPLETED: Outcome.RECORDED,
            _REJECTED: Outcome.REJECTED,
            _ABORTED: Outcome.ABORTED,
        }.get(self.row.state, Outcome.UNKNOWN)

    def _decided(self) -> tuple[Outcome, Refusal | None]:
        reason = self.reason
        if self.row.state == _ABORTED:
            return Outcome.ABORTED, None
        if self.row.state == _REJECTED:
            if reason is not None and reason.decided:
                return Outcome.REJECTED, reason
            return Outcome.NOT_REACHED, None
        return self._journaled(Holder.INSURED), None

    def _journaled(self, holder: Holder) -> Outcome:
        held = self.held.get(holder)
        if held is None:
            return Outcome.UNKNOWN
        if held:
            return Outcome.RECORDED
        if self.row.state in (_REJECTED, _ABORTED):
            return Outcome.DONE if self._passed(holder) else Outcome.NOT_REACHED
        return Outcome.NOT_RECORDED

    def _passed(self, holder: Holder) -> bool:
        return any(_ROLES.get(hop.hop, ("", ""))[0] is holder for hop in self.row.hops)

    @property
    def sentence(self) -> str:
        """Where it stands and what happens next, in plain Chinese."""
        if self.row.state == _PENDING:
            return (
                f"{self._kind}办理中：就医地已登记，等待参保地答复；"
                "逾时没有答复时自动向参保地询问；请勿重复收费。"
            )
        if self.row.state == _IN_DOUBT:
            return self._doubt()
        if self.row.state == _COMPLETED:
            return self._completed()
        if self.row.state == _ABORTED:
            return f"{self._kind}已作废，没有发生任何支付；请用新的请求号重新办理。"
        if self.row.state == _REJECTED:
            reason = self.reason
            why = f"{reason.message}{reason.next_step}" if reason is not None else ""
            return f"{self._kind}未办成，没有发生任何支付：{why or '原因未记录。'}"
        return "就医地的状态不是本版本所认识的，请升级后再查。"

    @property
    def _kind(self) -> str:
        settle = self.row.kind == types_pb2.EXCHANGE_KIND_SETTLE
        return "" if settle else chinese(types_pb2.ExchangeKind.DESCRIPTOR, self.row.kind)

    def _doubt(self) -> str:
        asked = "即将向参保地询问"
        if self.shown.attempts:
            asked = f"已向参保地询问 {self.shown.attempts} 次"
            if self.shown.HasField("next_attempt_time"):
                asked += f"，下次询问 {local_time(self.shown.next_attempt_time)}"
        seen = "参保地已记账，" if self.held.get(Holder.INSURED) else ""
        cancel = "已请求撤销，确认后自动撤销；" if self.row.cancel_requested else ""
        return f"{self._kind}结果待确认：{seen}{asked}；{cancel}请勿重复收费。"

    def _completed(self) -> str:
        undoing = self._undoing()
        if undoing:
            return undoing
        done = f"{self._kind}已完成"
        if self.row.undoes:
            done += f"，结算 {self.row.undoes} 已撤销"
        missing = [holder.zh for holder, held in self.held.items() if held is False]
        if missing:
            return f"{done}，但{'、'.join(missing)}账本没有这一笔：请平台人员立即核查。"
        unasked = [holder.zh for holder, held in self.held.items() if held is None]
        if unasked:
            return f"{done}；未能向{'、'.join(unasked)}核对账本，请稍后再查。"
        books = "三方账本" if Holder.NATION in self.held else "就医地和参保地账本"
        return f"{done}，{books}均已记录。"

    def _undoing(self) -> str:
        if self.undo is not None:
            kind = chinese(types_pb2.ExchangeKind.DESCRIPTOR, self.undo.kind)
            if self.undo.state == _COMPLETED:
                return f"已由{kind} {self.undo.settlement_id} 撤销。"
            if self.undo.state in OPEN:
                return (
                    f"已完成，正在撤销：{kind} {self.undo.settlement_id} 结果待确认，请勿重复退费。"
                )
        if self.row.cancel_requested:
            return "已完成，并已请求撤销：即将自动撤销，请勿重复退费。"
        return ""

    def facts(self) -> dict[str, Any]:
        """The settlement for programs."""
        row = self.row
        completed = row.state == _COMPLETED
        return {
            "settlement_id": row.settlement_id,
            "state": short_name(State.DESCRIPTOR, row.state),
            "kind": short_name(types_pb2.ExchangeKind.DESCRIPTOR, row.kind),
            "route": short_name(types_pb2.Route.DESCRIPTOR, row.route),
            "care_site": self.care_site,
            "insured_site": row.insured_site,
            "insured_area": row.insured_area,
            "institution": row.bill.institution,
            "visit_id": row.bill.visit_id,
            "bill_id": row.bill.bill_id,
            "request_id": row.request_id,
            "undoes": row.undoes or None,
            "undone_by": row.undone_by or None,
            "cancel_requested": row.cancel_requested,
            "open_time": row.open_time.ToJsonString(),
            "state_time": row.state_time.ToJsonString(),
            "attempts": self.shown.attempts,
            "next_attempt_time": (
                self.shown.next_attempt_time.ToJsonString()
                if self.shown.HasField("next_attempt_time")
                else None
            ),
            "reason": None if self.reason is None else self.reason.name,
            "journals": {
                "care": completed,
                **{str(holder): held for holder, held in self.held.items()},
            },
            "hops": [step.facts() for step in self.steps],
            "trail": [
                {"time": entry.time.ToJsonString(), "actor": entry.actor, "action": entry.action}
                for entry in self.shown.trail
            ],
            "findings": [
                {
                    "rule": found.rule,
                    "action": short_name(types_pb2.AuditAction.DESCRIPTOR, found.action),
                    "line_ids": list(found.line_ids),
                    "message": found.message,
                }
                for found in self.shown.findings
            ],
            "sentence": self.sentence,
        }
