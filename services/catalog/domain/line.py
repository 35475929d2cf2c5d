"""The parts of one line, once it is known which rule splits it and how much of it counts."""

from __future__ import annotations

from typing import NamedTuple

from infra.runtime.money import divide_fen, share_fen
from services.catalog.domain.item import Level
from services.catalog.domain.rule import Rule, SplitRule, Verdict
from services.catalog.domain.texts import quantity_text, yuan_of_micro

FEN = 100_000_000
"""Micro-yuan times 1/10,000 in one fen."""

_LEVELS = {
    Level.ONE: "一级及以下机构",
    Level.TWO: "二级机构",
    Level.THREE: "三级机构",
    Level.OTHER: "其他机构",
    Level.UNRATED: "未定级机构",
}


class Room(NamedTuple):
    """Quantities that the day and the visit have left for a line, 1/10,000."""

    day_e4: int
    visit_e4: int


def parts_of(
    rule: Rule, limit: int, price: int, quantity: int, amount: int, room: Room | None
) -> tuple[int, int, int, int]:
    """Full self-pay, over limit, first self-pay and in scope of a quantity and its amount."""
    rest = abs(amount)
    full = over = first = 0
    counted = abs(quantity)
    if room is not None and (beyond := counted - min(counted, *room)):
        full = divide_fen(rest * beyond, counted)
        counted -= beyond
        rest -= full
    if price > limit:
        # The amount may be a fen short of price × quantity, so the part over the limit is bounded.
        over = min(divide_fen((price - limit) * counted, FEN), rest)
        rest -= over
    share = rule.share or rule.share_of(price)
    if share.first_self_pay_bp:
        first = share_fen(rest, share.first_self_pay_bp)
        rest -= first
    return (-full, -over, -first, -rest) if amount < 0 else (full, over, first, rest)


def limited(
    rule: Rule, limit: int, level: Level, price: int, quantity: int, room: Room | None
) -> Verdict:
    """The rules and the reason of a line that a limit of quantity or price may take a part of."""
    share = rule.share or rule.share_of(price)
    if room is None and price > limit:
        return Verdict(
            share.over_rules,
            f"{rule.letter}，超过{_LEVELS[level]}限价{yuan_of_micro(limit)}元的部分自付，其余{share.rest}",
        )
    applied: list[SplitRule] = []
    clauses: list[str] = []
    if room is not None:
        if room.day_e4 < quantity:
            quantity = room.day_e4
            applied.append(SplitRule.OVER_DAY_QUANTITY)
            clauses.append(f"超过每日限量{quantity_text(rule.day_limit_e4)}")
        if room.visit_e4 < quantity:
            quantity = room.visit_e4
            applied.append(SplitRule.OVER_VISIT_QUANTITY)
            clauses.append(f"超过每次就诊限量{quantity_text(rule.visit_limit_e4)}")
        if not quantity:
            return Verdict(tuple(applied), f"{rule.letter}，{'，'.join(clauses)}，全额自费")
        clauses = [f"{clause}的部分自费" for clause in clauses]
    if price > limit:
        applied.append(SplitRule.OVER_PRICE)
        clauses.append(f"超过{_LEVELS[level]}限价{yuan_of_micro(limit)}元的部分自付")
    if not clauses:
        return Verdict(share.rules, share.reason)
    return Verdict(
        (*applied, *share.rules), f"{rule.letter}，{'，'.join(clauses)}，其余{share.rest}"
    )
