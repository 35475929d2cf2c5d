"""What lines of one bill do to each other: quantities of a day and a visit, and refunds.

A quantity is shared out in the order of (day of the charge, line id), so the order of the bill
changes nothing; a line takes of it what its refunds leave. Charges, and refunds that cite nothing,
have a pool each: a bill and its negation cancel. A refund that cites a line is what the split of
that line loses by it, so the line and its refunds sum to the split of what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import NamedTuple

from services.catalog.domain.bill import Line, LineSplit, RefundInvalid
from services.catalog.domain.catalogue import Revision
from services.catalog.domain.item import Level
from services.catalog.domain.line import Room, limited, parts_of
from services.catalog.domain.rule import Rule, SplitRule, Verdict


class Decided(NamedTuple):
    """What decides a line: its day, its code and revision, and the rule or verdict on it."""

    day: date
    code: str
    revision: Revision
    rule: Rule | Verdict


def split_across(
    bill: Sequence[Line],
    decided: Callable[[int], Decided],
    level: Level,
    across: Iterable[int],
    done: list[LineSplit],
) -> None:
    """Split anew, in `done`, the lines `across`: that share a quantity, or cite another line.

    `decided` says what decides the line of an index. Raises `RefundInvalid`.
    """
    found = {index: decided(index) for index in across}
    order = sorted(found, key=lambda index: (found[index].day, bill[index].line_id))
    citing = [index for index in order if bill[index].original_line_id]
    refunds = _refunds(bill, citing) if citing else {}
    rooms: dict[int, Room] = {}
    pools = _Pools()
    for index in order:
        line = bill[index]
        day, code, revision, rule = found[index]
        if isinstance(rule, Rule) and rule.limited and not line.original_line_id:
            kept = line.quantity_e4
            kept += sum(bill[refund].quantity_e4 for refund in refunds.get(index, ()))
            room = pools.take(rule, code, day, line.quantity_e4 > 0, abs(kept))
            limit = revision.limits[level - 1]
            done[index] = _split_within(line, done[index], rule, limit, level, room)
            rooms[index] = room
    for original, returned in refunds.items():
        _, _, revision, rule = found.get(original) or decided(original)
        splits = _returned(
            bill[original],
            done[original],
            [bill[refund] for refund in returned],
            rule,
            revision.limits[level - 1],
            rooms.get(original),
        )
        for refund, split in zip(returned, splits, strict=True):
            done[refund] = split


class _Pools:
    """Quantities counted so far, by code, by charge or refund, and by day or the whole visit."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, bool, date | None], int] = {}

    def take(self, rule: Rule, code: str, day: date, charge: bool, quantity_e4: int) -> Room:
        """What is left for a line before it takes up to `quantity_e4`."""
        used = self._used
        of_day, of_visit = (code, charge, day), (code, charge, None)
        room = Room(
            max(rule.day_limit_e4 - used.get(of_day, 0), 0),
            max(rule.visit_limit_e4 - used.get(of_visit, 0), 0),
        )
        counted = min(quantity_e4, *room)
        used[of_day] = used.get(of_day, 0) + counted
        used[of_visit] = used.get(of_visit, 0) + counted
        return room


def _split_within(
    line: Line, whole: LineSplit, rule: Rule, limit: int, level: Level, room: Room
) -> LineSplit:
    price, quantity = line.unit_price_micro_yuan, line.quantity_e4
    full, over, first, rest = parts_of(rule, limit, price, quantity, whole.amount_fen, room)
    applied, reason = limited(rule, limit, level, price, abs(quantity), room)
    return whole._replace(
        full_self_pay_fen=full,
        over_limit_fen=over,
        first_self_pay_fen=first,
        in_scope_fen=rest,
        reason=reason,
        rules=applied,
    )


def _returned(
    original: Line,
    whole: LineSplit,
    refunds: Iterable[Line],
    rule: Rule | Verdict,
    limit: int,
    room: Room | None,
) -> Iterator[LineSplit]:
    """Each refund's split, in their order."""
    price, quantity = original.unit_price_micro_yuan, original.quantity_e4
    amount = whole.amount_fen
    before = (
        whole.full_self_pay_fen,
        whole.over_limit_fen,
        whole.first_self_pay_fen,
        whole.in_scope_fen,
    )
    for refund in refunds:
        quantity += refund.quantity_e4
        amount += refund.amount_fen
        after = (amount, 0, 0, 0)
        if isinstance(rule, Rule):
            after = parts_of(rule, limit, price, quantity, amount, room)
        full, over, first, rest = (new - old for new, old in zip(after, before, strict=True))
        before = after
        yield whole._replace(
            line_id=refund.line_id,
            amount_fen=refund.amount_fen,
            full_self_pay_fen=full,
            over_limit_fen=over,
            first_self_pay_fen=first,
            in_scope_fen=rest,
            reason=f"退回原明细{original.line_id}，按原明细的各部分冲减",
            rules=(SplitRule.REFUND,),
        )


def _refunds(bill: Sequence[Line], citing: Iterable[int]) -> dict[int, list[int]]:
    """The refunds of each line that refunds cite, in their order. Raises `RefundInvalid`."""
    lines = {line.line_id: index for index, line in enumerate(bill)}
    left: dict[int, tuple[int, int]] = {}
    refunds: dict[int, list[int]] = {}
    for index in citing:
        refund = bill[index]
        cited = refund.original_line_id
        found = lines.get(cited)
        if refund.quantity_e4 > 0 or refund.amount_fen > 0:
            raise RefundInvalid(refund.line_id, "引用原明细的明细，数量应为负数，金额不得为正数")
        if found is None:
            raise RefundInvalid(refund.line_id, f"原明细{cited}不在本单据内")
        original = bill[found]
        if original.quantity_e4 < 0 or original.original_line_id:
            raise RefundInvalid(refund.line_id, f"原明细{cited}不是收费明细")
        if (refund.item_code, refund.national_code) != (
            original.item_code,
            original.national_code,
        ):
            raise RefundInvalid(refund.line_id, f"项目编码与原明细{cited}不一致")
        if refund.unit_price_micro_yuan != original.unit_price_micro_yuan:
            raise RefundInvalid(refund.line_id, f"单价与原明细{cited}不一致")
        quantity, amount = left.get(found, (original.quantity_e4, original.amount_fen))
        quantity, amount = quantity + refund.quantity_e4, amount + refund.amount_fen
        if quantity < 0:
            raise RefundInvalid(refund.line_id, f"退费数量合计超过原明细{cited}的数量")
        if amount < 0:
            raise RefundInvalid(refund.line_id, f"退费金额合计超过原明细{cited}的金额")
        left[found] = quantity, amount
        refunds.setdefault(found, []).append(index)
    return refunds
