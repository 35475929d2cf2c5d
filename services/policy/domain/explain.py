"""Says a step in plain Chinese, as a clerk would read it to a patient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from infra.runtime.money import percent, yuan
from services.policy.domain.case import Step
from services.policy.domain.document import Change, Operation
from services.policy.domain.units import MAX_FEN

_CAPS = {"shared": "年度最高支付限额", "own": "本类待遇年度限额", "stay": "单次限额"}


def text(step: Step) -> str:
    """One sentence; amounts in yuan."""
    return _SENTENCES[step.kind](step)


def changes_of(step: Step) -> list[Change]:
    """The rows that changed the share of a step."""
    inner = (fact for fact in step.facts if type(fact) is tuple)
    return [each for facts in inner for each in facts if isinstance(each, Change)]


def told(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps as the contract tells them: before a fund's first bracket each change of its share,
    since a change has a row, a clause and a provenance of its own."""
    seen: set[tuple[str, str]] = set()
    for step in steps:
        if step.kind == "bracket":
            for change in changes_of(step):
                key = step.stage, change.value.row
                if key not in seen:
                    seen.add(key)
                    facts = (step.facts[0], change.operation)
                    yield Step(step.stage, "changed_share", change.value, 0, 0, facts)
        yield step


def _no_funds(step: Step) -> str:
    return f"基金不支付，符合政策范围费用{yuan(step.input_fen)}元由个人账户或现金支付。"


def _first_pay(step: Step, position: str = "扣除起付线前") -> str:
    ratio = percent(step.value.amount or 0)
    paid = f"{yuan(step.input_fen)}元中自付{yuan(step.result_fen)}元。"
    return f"转外自理：{position}先行自付{ratio}，{paid}"


def _first_pay_after(step: Step) -> str:
    return _first_pay(step, "扣除起付线后")


def _deductible(step: Step) -> str:
    due, _, _ = step.facts
    return f"起付线{yuan(_int(due))}元，本次{yuan(step.result_fen)}元。"


def _deductible_stay(step: Step) -> str:
    due, _, stay = step.facts
    return f"第{stay}次住院起付线{yuan(_int(due))}元，本次{yuan(step.result_fen)}元。"


def _deductible_year(step: Step) -> str:
    due, paid, _ = step.facts
    told = f"已累计{yuan(_int(paid))}元，本次{yuan(step.result_fen)}元。"
    return f"年度起付线{yuan(_int(due))}元，{told}"


def _deductible_cap(step: Step) -> str:
    limit, paid, _ = step.facts
    told = f"此前已付{yuan(_int(paid))}元，本次{yuan(step.result_fen)}元。"
    return f"年度内起付线合计不超过{yuan(_int(limit))}元，{told}"


def _changed_deductible(step: Step) -> str:
    if step.input_fen == step.result_fen:
        return f"起付标准不变，为{yuan(step.result_fen)}元。"
    return f"起付标准由{yuan(step.input_fen)}元调整为{yuan(step.result_fen)}元。"


def _bracket(step: Step) -> str:
    name, numerator, denominator, _ = step.facts
    ratio = _percent(_int(numerator), _int(denominator))
    shown = "".join(_told(change) for change in changes_of(step))
    if shown:
        ratio = f"（{percent(step.value.amount or 0)}{shown}）{ratio}"
    return f"{name}支付{yuan(step.input_fen)}元的{ratio}，计{yuan(step.result_fen)}元。"


def _told(change: Change) -> str:
    amount = change.value.amount or 0
    points = f"{percent(amount)[:-1]}个百分点"
    told = {
        Operation.UNCHANGED: "",
        Operation.SET: f"，按{percent(amount)}",
        Operation.MINUS: f"－{points}",
        Operation.PLUS: f"＋{points}",
        Operation.TIMES: f"×{percent(amount)}",
        Operation.OWN_TIMES: f"，自付部分×{percent(amount)}",
        Operation.AT_LEAST: f"，不低于{percent(amount)}",
        Operation.AT_MOST: f"，不高于{percent(amount)}",
    }
    return told[change.operation]


def _floor(step: Step) -> str:
    name, before = step.facts
    least = f"{yuan(step.input_fen)}元的{percent(step.value.amount or 0)}"
    told = f"按比例计算为{yuan(_int(before))}元，{name}支付{yuan(step.result_fen)}元。"
    return f"保底支付不低于扣除起付线后费用{least}，{told}"


def _ordinary(step: Step) -> str:
    (disease,) = step.facts
    return f"病种{disease}不在参保地门诊慢特病范围，按普通门诊计算。"


def _changed_share(step: Step) -> str:
    name, operation = step.facts
    amount = step.value.amount or 0
    points = f"{percent(amount)[:-1]}个百分点"
    told = {
        Operation.UNCHANGED: "支付比例不变",
        Operation.SET: f"支付比例定为{percent(amount)}",
        Operation.MINUS: f"支付比例降低{points}",
        Operation.PLUS: f"支付比例提高{points}",
        Operation.TIMES: f"支付比例按{percent(amount)}折算",
        Operation.OWN_TIMES: f"个人自付比例按{percent(amount)}折算",
        Operation.AT_LEAST: f"支付比例不低于{percent(amount)}",
        Operation.AT_MOST: f"支付比例不高于{percent(amount)}",
    }
    assert isinstance(operation, Operation)
    return f"{name}{told[operation]}。"


def _cap(step: Step) -> str:
    name, kind, is_fee, limit, room = step.facts
    if limit == MAX_FEN:
        return f"{name}不设最高支付限额。"
    used = max(_int(limit) - _int(room), 0)
    limited = "支付费用的" if is_fee else ""
    before = "" if kind == "stay" else f"此前已用{yuan(used)}元，"
    title = f"{name}{limited}{_CAPS[str(kind)]}"
    return f"{title}{yuan(_int(limit))}元，{before}超出限额的费用{yuan(step.result_fen)}元。"


def _own_deductible(step: Step) -> str:
    name, deductible, _ = step.facts
    own = f"个人负担的合规费用{yuan(step.input_fen)}元"
    line = f"起付标准{yuan(_int(deductible))}元"
    return f"{name}：{own}，{line}，超出{yuan(step.result_fen)}元。"


def _own_deductible_year(step: Step) -> str:
    name, deductible, before = step.facts
    own = f"此前年度累计{yuan(_int(before))}元，本次增加{yuan(step.input_fen)}元"
    line = f"起付标准{yuan(_int(deductible))}元"
    return f"{name}：个人负担的合规费用{own}，{line}，本次进入报销{yuan(step.result_fen)}元。"


def _account(step: Step) -> str:
    (balance,) = step.facts
    paid = f"支付个人负担{yuan(step.input_fen)}元中的{yuan(step.result_fen)}元。"
    return f"个人账户余额{yuan(_int(balance))}元，{paid}"


def _percent(numerator: int, denominator: int) -> str:
    """A share as a percentage, exactly: 91 % of 85 % is 77.35 %."""
    shown = format((Decimal(numerator) * 100 / Decimal(denominator)).normalize(), "f")
    return f"{shown}%"


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


_SENTENCES: dict[str, Callable[[Any], str]] = {
    "no_funds": _no_funds,
    "first_pay": _first_pay,
    "first_pay_after": _first_pay_after,
    "deductible": _deductible,
    "deductible_stay": _deductible_stay,
    "deductible_year": _deductible_year,
    "deductible_cap": _deductible_cap,
    "changed_deductible": _changed_deductible,
    "bracket": _bracket,
    "changed_share": _changed_share,
    "cap": _cap,
    "floor": _floor,
    "ordinary": _ordinary,
    "own_deductible": _own_deductible,
    "own_deductible_year": _own_deductible_year,
    "account": _account,
}
