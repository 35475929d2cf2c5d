"""The computation of one case: the document's stages in order.

Remote first pay, deductible, the pooled fund's segments up to its caps, the large-amount fund
above them, the personal account, cash. Each published step rounds once; the patient's side is
always what is left, so the parts sum to the whole.
"""

from __future__ import annotations

from collections.abc import Mapping

from infra.runtime.money import BASIS_POINTS, percent, share_fen, yuan
from services.policy.domain.case import Benefit, Case, Counters, NotStated, Step
from services.policy.domain.document import (
    DeductibleKind,
    Document,
    Layer,
    Plan,
    Provenance,
    ReductionKind,
    Segment,
    SegmentBase,
    Value,
)
from services.policy.domain.names import BENEFIT_CLASSES

_NO_COUNTERS = Counters()
_ENTITLED = frozenset(("filed", "deemed_emergency", "exempt", "account_only", "local"))
"""Bases on which something is paid; settlement refuses the others before it asks."""


def compute(
    document: Document, case: Case, counters: Mapping[str, Counters], account_balance_fen: int
) -> Benefit:
    """What `case` is paid from the `counters` (by benefit period) and account balance as read.

    Raise `NotStated` naming the row that the document does not have.
    """
    if case.basis not in _ENTITLED:
        raise NotStated(f"basis/{case.basis}")
    plan = document.plans.get(case.care_type)
    if plan is None:
        raise NotStated(f"care_type/{case.care_type}")
    steps: list[Step] = []
    if case.basis == "account_only":
        if document.account is None:
            raise NotStated("account")
        return _without_funds(document, case, document.account, account_balance_fen, steps)
    if plan.no_funds is not None:
        return _without_funds(document, case, plan.no_funds, account_balance_fen, steps)

    period = case.business_day[:4]
    own_period = f"{period}-{plan.counter}" if plan.counter else period
    whole = counters.get(period, _NO_COUNTERS)
    own = counters.get(own_period, _NO_COUNTERS)

    in_scope = case.in_scope_fen
    points, first_before, first_after = _reduction(plan, case, in_scope, steps)
    base = in_scope - first_before
    deductible = _deductible(plan, case, base, own, steps)
    above = base - deductible
    remote_first_pay = first_before
    if first_after is not None:
        after = share_fen(above, first_after.amount)
        steps.append(_first_pay_step(first_after, above, after, "扣除起付线后"))
        remote_first_pay += after
        above -= after

    cap, layer, used, room = _cap(document, plan, case.person_class, whole, own)
    start = deductible if plan.segment_base is SegmentBase.IN_SCOPE else 0
    segments = _segments(plan, case)
    pooled, beyond = _pooled(segments, above, start, points, room, steps)
    large, over_cap = 0, beyond
    if cap is not None:
        text = f"统筹基金年度最高支付限额{yuan(cap.amount)}元，"
        text += f"此前已用{yuan(used.pooled_used_fen)}元，超出限额的费用{yuan(beyond)}元。"
        steps.append(_step("pooled_cap", cap, above, beyond, text))
        if beyond and layer is not None:
            large, over_cap = _above(layer, case.person_class, beyond, used, steps)

    large_own = layer is not None and layer is plan.above_cap
    delta = Counters(
        stay_count=1 if plan.counts_stays else 0,
        deductible_paid_fen=deductible,
        pooled_used_fen=pooled,
        large_amount_used_fen=large if large_own or not plan.counter else 0,
    )
    deltas = {own_period: delta} if any(delta) else {}
    if plan.counter and plan.in_period_cap:
        shared = Counters(0, 0, pooled, 0 if large_own else large)
        if any(shared):
            deltas[period] = shared
    funds = pooled + large
    account = _account(document, case, case.total_fen - funds, account_balance_fen, steps)
    return Benefit(
        document,
        remote_first_pay,
        deductible,
        above - funds - over_cap,
        over_cap,
        pooled,
        large,
        account,
        case.total_fen - funds - account,
        deltas,
        _weakest(steps),
        steps,
    )


def _without_funds(
    document: Document, case: Case, stated: Value, account_balance_fen: int, steps: list[Step]
) -> Benefit:
    in_scope = case.in_scope_fen
    text = f"基金不支付，符合政策范围费用{yuan(in_scope)}元由个人账户或现金支付。"
    steps.append(_step("no_funds", stated, in_scope, 0, text))
    account = _account(document, case, case.total_fen, account_balance_fen, steps)
    cash = case.total_fen - account
    return Benefit(document, 0, 0, in_scope, 0, 0, 0, account, cash, {}, _weakest(steps), steps)


def _reduction(
    plan: Plan, case: Case, in_scope: int, steps: list[Step]
) -> tuple[int, int, Value | None]:
    """Points off the ratio, first pay before the deductible (fen), first pay due after it."""
    benefit_class = case.benefit_class
    if benefit_class == "local":
        return 0, 0, None
    reduction = plan.reductions.get((case.route, benefit_class))
    if reduction is None:
        raise NotStated(f"{plan.name}/remote/{case.route}/{benefit_class}")
    value = reduction.value
    if reduction.kind is ReductionKind.FIRST_PAY_BEFORE_DEDUCTIBLE:
        first = share_fen(in_scope, value.amount)
        steps.append(_first_pay_step(value, in_scope, first, "扣除起付线前"))
        return 0, first, None
    if reduction.kind is ReductionKind.FIRST_PAY_AFTER_DEDUCTIBLE:
        return 0, 0, value
    name = BENEFIT_CLASSES[benefit_class]
    if reduction.kind is ReductionKind.POINTS:
        text = f"{name}：统筹基金支付比例降低{percent(value.amount)[:-1]}个百分点。"
    else:
        text = f"{name}：待遇不降低。"
    steps.append(_step("remote_reduction", value, 0, 0, text))
    return value.amount, 0, None


def _first_pay_step(value: Value, base: int, first: int, position: str) -> Step:
    text = f"转外自理：{position}先行自付{percent(value.amount)}，"
    text += f"{yuan(base)}元中自付{yuan(first)}元。"
    return _step("remote_first_pay", value, base, first, text)


def _deductible(plan: Plan, case: Case, base: int, own: Counters, steps: list[Step]) -> int:
    stays = plan.deductibles.get((case.deductible_level, case.person_class))
    if stays is None:
        raise NotStated(f"{plan.name}/deductible/{case.deductible_level}/{case.person_class}")
    per_stay = plan.deductible_kind is DeductibleKind.PER_STAY
    number = own.stay_count + 1
    value = stays[-1][1]
    for first, stated in stays:
        if number >= first:
            value = stated
            break
    due = value.amount if per_stay else max(value.amount - own.deductible_paid_fen, 0)
    deductible = min(due, base)
    if not per_stay:
        paid = yuan(own.deductible_paid_fen)
        text = f"年度起付线{yuan(value.amount)}元，已累计{paid}元，本次{yuan(deductible)}元。"
    elif plan.counts_stays:
        text = f"第{number}次住院起付线{yuan(value.amount)}元，本次{yuan(deductible)}元。"
    else:
        text = f"起付线{yuan(value.amount)}元，本次{yuan(deductible)}元。"
    steps.append(_step("deductible", value, base, deductible, text))
    return deductible


def _segments(plan: Plan, case: Case) -> tuple[Segment, ...]:
    ages = plan.ratios.get((case.settlement_level, case.person_class, case.route))
    if ages is None:
        raise NotStated(f"{plan.name}/ratio/{case.settlement_level}/{case.person_class}")
    for first, segments in ages:
        if case.age >= first:
            return segments
    return ages[-1][1]


def _cap(
    document: Document, plan: Plan, person_class: str, whole: Counters, own: Counters
) -> tuple[Value | None, Layer | None, Counters, int | None]:
    """The cap that binds first, what pays above it, the counters that it is held against, and
    the fen left under it (None: no cap)."""
    cap: Value | None = None
    layer: Layer | None = None
    room: int | None = None
    if plan.in_period_cap:
        cap = document.period_caps[person_class]
        layer = document.above_period_cap
        room = max(cap.amount - whole.pooled_used_fen, 0)
    if plan.caps:
        own_cap = plan.caps.get(person_class)
        if own_cap is None:
            raise NotStated(f"{plan.name}/cap/{person_class}")
        own_room = max(own_cap.amount - own.pooled_used_fen, 0)
        if room is None or own_room <= room:
            return own_cap, plan.above_cap, own, own_room
    return cap, layer, whole, room


def _pooled(
    segments: tuple[Segment, ...],
    above: int,
    start: int,
    points: int,
    room: int | None,
    steps: list[Step],
) -> tuple[int, int]:
    """What the pooled fund pays of `above`, and the part of it that lies beyond its cap."""
    paid, left, position = 0, above, start
    for segment in segments:
        if left == 0:
            break
        bound = segment.up_to_fen
        size = left if bound is None else min(left, bound - position)
        if size <= 0:
            continue
        value = segment.ratio
        ratio = max(value.amount - points, 0)
        share = share_fen(size, ratio)
        if room is not None and share > room - paid:
            rest = room - paid
            size = min(size, _covered(rest, ratio))
            share = rest
            bound = None
        paid += share
        shown = percent(ratio)
        if points:
            shown = f"（{percent(value.amount)}－{percent(points)[:-1]}个百分点）{shown}"
        text = f"统筹基金支付{yuan(size)}元的{shown}，计{yuan(share)}元。"
        steps.append(_step("pooled_fund", value, size, share, text))
        left -= size
        position += size
        if bound is None:
            break
    return paid, left


def _above(
    layer: Layer, person_class: str, beyond: int, used: Counters, steps: list[Step]
) -> tuple[int, int]:
    """What the fund above the cap pays of `beyond`, and what lies beyond its own cap too."""
    value = layer.ratios.get(person_class)
    if value is None:
        raise NotStated(f"large_amount/{person_class}")
    size, share = beyond, share_fen(beyond, value.amount)
    if layer.cap is not None:
        room = max(layer.cap.amount - used.large_amount_used_fen, 0)
        if share > room:
            size, share = min(size, _covered(room, value.amount)), room
    text = f"大额补助支付{yuan(size)}元的{percent(value.amount)}，计{yuan(share)}元。"
    steps.append(_step("large_amount", value, size, share, text))
    if layer.cap is not None:
        text = f"大额补助年度最高支付限额{yuan(layer.cap.amount)}元，"
        text += (
            f"此前已用{yuan(used.large_amount_used_fen)}元，超出限额的费用{yuan(beyond - size)}元。"
        )
        steps.append(_step("large_amount_cap", layer.cap, beyond, beyond - size, text))
    return share, beyond - size


def _covered(room: int, ratio: int) -> int:
    """The greatest fee whose rounded share is still within `room`.

    Any smaller fee would let one more fen of cost raise the funds by two.
    """
    return (room * BASIS_POINTS + BASIS_POINTS // 2 - 1) // ratio


def _account(
    document: Document, case: Case, personal: int, balance_fen: int, steps: list[Step]
) -> int:
    stated = document.account
    if not case.use_account or stated is None or balance_fen <= 0 or personal == 0:
        return 0
    paid = min(balance_fen, personal)
    text = f"个人账户余额{yuan(balance_fen)}元，支付个人负担{yuan(personal)}元中的{yuan(paid)}元。"
    steps.append(_step("personal_account", stated, personal, paid, text))
    return paid


def _step(stage: str, value: Value, input_fen: int, result_fen: int, text: str) -> Step:
    return Step(
        stage,
        value.row,
        input_fen,
        result_fen,
        value.amount,
        value.unit,
        value.clause,
        value.provenance,
        text,
    )


def _weakest(steps: list[Step]) -> Provenance:
    return max(step.provenance for step in steps)
