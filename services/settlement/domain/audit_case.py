"""Why a settlement is audited after it was completed, and what may be decided of it, once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum

from infra.runtime.money import yuan


class Duty(IntFlag):
    """What a settlement leaves to be done once it is completed; kept with its journal row."""

    UPLOAD_DETAIL = 1
    """The detail of the stay goes to the nation (规程 第三十九条)."""
    INJURY_DECLARED = 2
    """The signed declaration of an injury is verified (规程 第三十五条)."""
    AUDIT_FOUND = 4
    """The fee audit at the door warned."""


class CaseKind(StrEnum):
    """Why a case is in the queue."""

    INJURY_DECLARATION = "INJURY_DECLARATION"
    FINDING = "FINDING"
    PICKED = "PICKED"


class CaseState(StrEnum):
    """Where a case stands; only OPEN changes, once."""

    OPEN = "OPEN"
    CONFIRMED = "CONFIRMED"
    DEDUCTED = "DEDUCTED"


CASES = {Duty.INJURY_DECLARED: CaseKind.INJURY_DECLARATION, Duty.AUDIT_FOUND: CaseKind.FINDING}
"""The case that a duty opens."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What an auditor decides: nothing wrong when `deducted_fen` is 0."""

    deducted_fen: int
    reason: str

    @property
    def state(self) -> CaseState:
        """What it makes of the case."""
        return CaseState.DEDUCTED if self.deducted_fen else CaseState.CONFIRMED


@dataclass(frozen=True, slots=True)
class Standing:
    """What a decision is held against."""

    decided: Decision | None
    """Of this case, before."""
    others_fen: int
    """Deducted in the other cases of the settlement."""
    fund_total_fen: int
    """What the funds paid for it."""
    undone: bool
    """Whether it has been undone since."""


def why_not(decision: Decision, standing: Standing) -> str:
    """What stands against a decision, plain Chinese; empty when nothing does.

    The decision that stands already may be taken again. A case of a settlement that was undone can
    still be confirmed, so that it leaves the queue.
    """
    if standing.decided is not None:
        return "" if standing.decided == decision else "该事项已作出不同的处理，不能更改"
    if not decision.deducted_fen:
        return ""
    if not decision.reason.strip():
        return "扣款须说明理由"
    if standing.undone:
        return "该笔结算已冲正或退费，没有可扣款项"
    total = standing.others_fen + decision.deducted_fen
    if total > standing.fund_total_fen:
        return f"扣款合计 {yuan(total)} 元，超过基金支付的 {yuan(standing.fund_total_fen)} 元"
    return ""
