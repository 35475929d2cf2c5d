"""What a row of a written document holds, in Chinese."""

from __future__ import annotations

from typing import Any

from infra.runtime.money import percent
from services.policy.domain.units import MAX_FEN, amount
from services.policy.domain.written import MoneyChange, MoneyRow, ShareChange


def value_text(row: Any) -> str:
    """What a row holds, in Chinese."""
    if isinstance(row, MoneyChange | ShareChange):
        return _change(row)
    if isinstance(row, MoneyRow):
        if row.share is not None:
            base = "医疗费总额" if row.of == "total" else "符合范围费用"
            least = "" if row.at_least is None else f"，不低于{amount(row.at_least)}"
            return f"{base}的{percent(row.share)}{least}"
        if row.value is None:
            return "未载明"
        return "不封顶" if row.value == MAX_FEN else amount(row.value)
    share = "未载明" if row.value is None else percent(row.value)
    bound = getattr(row, "up_to", None)
    return share if bound is None else f"{amount(bound)}以内{share}"


_CHANGES = {
    "set": "定为{}",
    "minus": "减{}",
    "plus": "加{}",
    "times": "乘以{}",
    "own_times": "个人负担部分乘以{}",
    "at_least": "不低于{}",
    "at_most": "不高于{}",
}


def _change(row: MoneyChange | ShareChange) -> str:
    key = next((key for key in _CHANGES if key in row.model_fields_set), None)
    if key is None:
        return "不变"
    operand = getattr(row, key)
    if operand is None:
        told = "未载明"
    elif key in ("times", "own_times"):
        told = percent(operand)
    elif isinstance(row, MoneyChange):
        told = amount(operand)
    elif key in ("minus", "plus"):
        told = f"{percent(operand)[:-1]}个百分点"
    else:
        told = percent(operand)
    return _CHANGES[key].format(told)
