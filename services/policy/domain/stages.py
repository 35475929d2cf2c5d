"""One visit under way: each stage takes from what is left and notes who has got what.

First pays and the deductible take from the in-scope amount, the pooled fund pays brackets of what
is left up to its caps, further funds pay what lies beyond the caps or what the patient is left
with. Each published step rounds once; what accumulates over a year is paid as the difference of
two sums, so that it does not matter how visits are batched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from infra.runtime.money import share_fen
from services.policy.domain.case import Ambiguous, Case, Counters, Told
from services.policy.domain.choosing import amount
from services.policy.domain.document import Benefit as Rules
from services.policy.domain.document import Fund
from services.policy.domain.planning import (
    ACCUMULATED,
    Due,
    Plan,
    PlannedCap,
    PlannedDeductible,
    PlannedFirstPay,
    PlannedFund,
    Refusal,
    changed_due,
    of_bill,
)
from services.policy.domain.shares import covered, share

NO_COUNTERS = Counters()
_STAYS, _DEDUCTIBLE, _FEE = map(
    Counters._fields.index, ("stay_count", "deductible_paid_fen", "fee_used_fen")
)
_OWN_BASE = Counters._fields.index("major_illness_base_fen")
_ACCUMULATED = {code: Counters._fields.index(name) for code, name in ACCUMULATED.items()}
_NOTHING = (0,) * len(Counters._fields)
_MAIN_BASE = ("hifmi_pay", "hifob_pay")
"""Funds whose yearly own costs are the 大病 base of the period; the others keep their own."""
TEMPORARY = "temporary"
"""Suffix of the accumulator that counts temporary visits elsewhere."""
_Room = tuple[PlannedCap, int, int]
"""A cap, its limit and what is left under it."""


class Continued(NamedTuple):
    """What a stay that is split at the year's end brings from the parts before."""

    stay: int
    temporary: int
    total_fen: int
    in_scope_fen: int
    """Of the whole stay: what a deductible by share of the bill counts."""
    deductible_fen: int | None = None
    """What has been paid of the one deductible of the stay; None: this is the first part."""


class Run:
    """One computation under way: what is left to share out, and who has got what."""

    __slots__ = (
        "barred_first",
        "barred_ratio",
        "case",
        "continued",
        "counters",
        "deducted",
        "deductible",
        "deltas",
        "funds",
        "left",
        "outside_scope",
        "over",
        "own",
        "own_period",
        "paid_remaining",
        "period",
        "ratio_self_pay",
        "relieved_deductible",
        "remote_first_pay",
        "rules",
        "stay",
        "told",
        "whole",
    )

    def __init__(
        self,
        rules: Rules,
        case: Case,
        counters: Mapping[str, Counters],
        period: str,
        continued: Continued | None,
        told: list[Told],
    ) -> None:
        self.rules = rules
        self.counters = counters
        self.period = period
        self.whole = self.own = counters.get(period, NO_COUNTERS)
        self.own_period = period
        if rules.counter:
            self.own_period = f"{period}-{rules.counter}"
            self.own = counters.get(self.own_period, NO_COUNTERS)
        self.continued = continued
        self.stay = self.own.stay_count + 1 if continued is None else continued.stay
        if rules.asks_stays:
            case = self._numbered(case)
        self.case = case
        self.left = case.in_scope_fen
        self.remote_first_pay = 0
        self.barred_first = 0
        self.barred_ratio = 0
        """What of first and ratio self-pay no later fund may count."""
        self.deducted = False
        self.deductible = 0
        self.relieved_deductible = 0
        """What later funds pay of it: it counts as charged all the same."""
        self.ratio_self_pay = 0
        self.paid_remaining = False
        self.over = {"own": 0, "stay": 0, "shared": 0}
        """Cost beyond the caps, by the name of the cap."""
        self.outside_scope = 0
        self.funds: dict[str, int] = {}
        self.deltas: dict[str, list[int]] = {}
        """By benefit period: the fields of `Counters`."""
        self.told = told

    def _numbered(self, case: Case) -> Case:
        """The case with which stay and temporary visit of the period it is."""
        temporary = 1
        if self.continued is not None:
            temporary = self.continued.temporary
        elif self.rules.counts_temporaries:
            counted = self.counters.get(f"{self.period}-{TEMPORARY}", NO_COUNTERS)
            temporary += counted.stay_count
        if self.stay == case.stay and temporary == case.temporary:
            return case
        return Case._make((*case[:-2], self.stay, temporary))

    def perform(self, plan: Plan) -> None:
        """All stages in their order."""
        for stage in plan.stages:
            if isinstance(stage, PlannedFund):
                if stage.stage.of == "remaining":
                    self._pay_remaining(stage)
                elif stage.stage.of == "over_cap":
                    self._pay_over_cap(stage)
                else:
                    self._pay_own(stage)
            elif isinstance(stage, PlannedDeductible):
                self._deduct(stage)
            elif isinstance(stage, PlannedFirstPay):
                self._first_pay(stage)
            else:
                stage.refusal(self.case)

    def _first_pay(self, stage: PlannedFirstPay) -> None:
        base = self.left
        paid = share_fen(base, stage.basis_points)
        self.left -= paid
        self.remote_first_pay += paid
        if stage.barred:
            self.barred_first += paid
        kind = "first_pay_after" if self.deducted else "first_pay"
        self.told.append(("remote_first_pay", kind, stage.value, base, paid, ()))

    def _deduct(self, stage: PlannedDeductible) -> None:
        if self.deducted:
            raise Ambiguous(f"{self.rules.name}/deductible")
        self.deducted = True
        if stage.due is None:
            raise self._refused(stage.refusal)
        continued = self.continued
        bill = self.case if continued is None else continued
        due = self._due(stage.due, bill)
        paid_before = self.own.deductible_paid_fen
        charged = due
        if stage.topped_up:
            charged = max(due - paid_before, 0)
        elif continued is not None and continued.deductible_fen is not None:
            charged = max(due - continued.deductible_fen, 0)
        base = self.left
        kind = "deductible_year" if stage.topped_up else "deductible"
        if not stage.topped_up and self.rules.counts_stays:
            kind = "deductible_stay"
        value = stage.due.money.value
        facts = (due, paid_before, self.stay)
        limit = 0
        if stage.year_cap is not None:
            limit = of_bill(stage.year_cap, bill)
            charged = min(charged, max(limit - paid_before, 0))
        if charged > base:
            charged = base
        self.told.append(("deductible", kind, value, base, charged, facts))
        if stage.year_cap is not None:
            value, facts = stage.year_cap.value, (limit, paid_before, 0)
            self.told.append(("deductible", "deductible_cap", value, due, charged, facts))
        self.left -= charged
        self.deductible = charged

    def _pay_remaining(self, fund: PlannedFund) -> None:
        stage = fund.stage
        base = self.left
        counted_deductible = self.deductible if stage.counts_deductible else 0
        start = counted_deductible
        if stage.brackets_by_year:
            start += self.own.fee_used_fen
        fee, payment = self._rooms(fund, counted_deductible)
        paid, over_fee, over_payment = self._share_out(fund, base, start, fee, payment)
        if fee is not None:
            self.over[fee[0].cap.name] += over_fee
        if payment is not None:
            self.over[payment[0].cap.name] += over_payment
        within = base - over_fee - over_payment
        if stage.floor is not None:
            paid = self._floored(fund, paid, within, payment)
        self.left = 0
        self.paid_remaining = True
        self.ratio_self_pay += within - paid
        if stage.counts_fee:
            self.count(self.own_period, _FEE, base + counted_deductible)
            if self.rules.counter and stage.shares_fee:
                self.count(self.period, _FEE, base + counted_deductible)
        self._paid(stage, paid)

    def _floored(self, fund: PlannedFund, paid: int, most: int, payment: _Room | None) -> int:
        """保底: what the fund pays at least of the bill less the deductible."""
        if fund.floor_refusal is not None:
            raise self._refused(fund.floor_refusal)
        stage, value = fund.stage, fund.floor
        if value is None or stage.floor is None:
            return paid
        bill = self.case.total_fen if stage.floor.of_total else self.case.in_scope_fen
        base = max(bill - self.deductible, 0)
        least = min(share_fen(base, amount(value)), most)
        if payment is not None:
            least = min(least, payment[2])
        facts = (stage.name, paid)
        self.told.append((stage.code, "floor", value, base, max(paid, least), facts))
        return max(paid, least)

    def _pay_over_cap(self, fund: PlannedFund) -> None:
        stage = fund.stage
        base = 0
        for name in stage.beyond:
            base += self.over[name]
        if base == 0:
            return
        start = 0
        if stage.brackets_by_year:
            period = _apart(self.period, stage)
            start = self.counters.get(period, NO_COUNTERS).fee_used_fen
            self.count(period, _FEE, base)
        paid, over_fee, over_payment = self._share_out(fund, base, start, *self._rooms(fund, 0))
        within = base - over_fee - over_payment
        self.ratio_self_pay += within - paid
        # What lies beyond this fund's caps stays beyond those before it.
        for name in stage.beyond:
            taken = min(within, self.over[name])
            if taken:
                self.over[name] -= taken
                within -= taken
        self._paid(stage, paid)

    def _pay_own(self, fund: PlannedFund) -> None:
        stage = fund.stage
        parts = self._own_parts(stage.parts)
        base = sum(parts.values())
        before = 0
        if stage.by_year:
            main = stage.code in _MAIN_BASE
            period = self.period if main else _apart(self.period, stage)
            before = self.counters.get(period, NO_COUNTERS).major_illness_base_fen
            if self.deltas.get(period, _NOTHING)[_OWN_BASE]:
                raise Ambiguous(f"{self.rules.name}/{stage.code}")
            self.count(period, _OWN_BASE, base)
        if fund.refusal is not None:
            raise self._refused(fund.refusal)
        deductible = 0
        over = base
        if fund.due is not None:
            deductible = self._due(fund.due, self.case)
            over = max(before + base - deductible, 0) - max(before - deductible, 0)
            kind = "own_deductible_year" if stage.by_year else "own_deductible"
            facts = (stage.name, deductible, before)
            self.told.append((stage.code, kind, fund.due.money.value, base, over, facts))
        floor = deductible if stage.counts_deductible else 0
        start = max(before - deductible, 0) + floor
        paid, _, _ = self._share_out(fund, over, start, *self._rooms(fund, 0), floor)
        self._relieve(parts, paid)
        self._paid(stage, paid)

    def _own_parts(self, names: Sequence[str]) -> dict[str, int]:
        """What of the patient's side a fund counts."""
        parts = {
            "ratio_self_pay": max(self.ratio_self_pay - self.barred_ratio, 0),
            "over_cap": sum(self.over.values()),
            "remote_first_pay": max(self.remote_first_pay - self.barred_first, 0),
            "deductible": self.deductible - self.relieved_deductible,
            "first_self_pay": self.case.first_self_pay_fen - self.outside_scope,
        }
        return {name: fen for name, fen in parts.items() if name in names}

    def _relieve(self, parts: Mapping[str, int], paid: int) -> None:
        """Take from the parts that a fund counted what it pays of them, in their order."""
        for name, fen in parts.items():
            taken = min(paid, fen)
            paid -= taken
            if name == "ratio_self_pay":
                self.ratio_self_pay -= taken
            elif name == "remote_first_pay":
                self.remote_first_pay -= taken
            elif name == "deductible":
                self.relieved_deductible += taken
            elif name == "first_self_pay":
                self.outside_scope += taken
            else:
                for cap, beyond in self.over.items():
                    here = min(taken, beyond)
                    self.over[cap] -= here
                    taken -= here

    def _share_out(
        self,
        fund: PlannedFund,
        base: int,
        start: int,
        fee: _Room | None,
        payment: _Room | None,
        floor: int = 0,
    ) -> tuple[int, int, int]:
        """What the fund pays of `base`, which begins at `start` of the brackets, and what of it
        lies beyond the limits of fee and payment. Brackets pay nothing below `floor`."""
        stage = fund.stage
        code = stage.code
        by_year = stage.by_year or stage.brackets_by_year
        left = base
        if fee is not None and fee[2] < base:
            left = fee[2]
        beyond_fee = base - left
        room = None if payment is None else payment[2]
        paid, position, lower = 0, start, floor
        for value, bound, numerator, denominator, barred, told, refusal in fund.brackets:
            if not left:
                break
            size = left
            if bound is not None:
                if bound <= position:
                    lower = max(bound, floor)
                    continue
                if bound - position < left:
                    size = bound - position
            if refusal is not None:
                raise self._refused(refusal)
            before = position - lower if by_year else 0
            part = share(size, numerator, denominator, before)
            full = room is not None and part >= room - paid
            if room is not None and full:
                part = room - paid
                size = min(size, covered(part, numerator, denominator, before, by_year=by_year))
            paid += part
            if barred:
                self.barred_ratio += share(size, barred, denominator, before)
            self.told.append((code, "bracket", value, size, part, told))
            left -= size
            if full:
                break
            position += size
            lower = position if position > floor else floor
        for limited, beyond in ((fee, beyond_fee), (payment, left)):
            if limited is not None:
                (cap, money, _, _), limit, before = limited
                told = (stage.name, cap.name, cap.is_fee, limit, before)
                self.told.append((code, "cap", money.value, base, beyond, told))
        return paid, beyond_fee, left

    def _rooms(self, fund: PlannedFund, deductible: int) -> tuple[_Room | None, _Room | None]:
        """The limit of the fee and the limit of the payment that leave the least."""
        if fund.refusal is not None:
            raise self._refused(fund.refusal)
        fee: _Room | None = None
        payment: _Room | None = None
        for planned in fund.caps:
            cap, money, fen, counter = planned
            limit = left = of_bill(money, self.case) if fen is None else fen
            if counter is not None:
                used = self.own if cap.name == "own" else self.whole
                left = limit - used[counter] if limit > used[counter] else 0
            if cap.is_fee:
                # What counts towards the brackets counts towards the limit of the fee.
                left = max(left - deductible, 0)
                if fee is None or left < fee[2]:
                    fee = planned, limit, left
            elif payment is None or left < payment[2]:
                payment = planned, limit, left
        return fee, payment

    def _due(self, due: Due, bill: Case | Continued) -> int:
        """A deductible; the steps of its changes are told."""
        fen, told = due.fen, due.told
        if fen is None:
            fen, told = changed_due(due.stage, of_bill(due.money, bill), due.changes)
        if told:
            self.told += told
        return fen

    def _refused(self, refusal: Refusal | None) -> AssertionError:
        """Nothing could be chosen: ask again, so that it says why."""
        assert refusal is not None
        refusal(self.case)
        return AssertionError("a refusal refuses every visit of its kind")

    def _paid(self, stage: Fund, fen: int) -> None:
        if not fen:
            return
        self.funds[stage.code] = self.funds.get(stage.code, 0) + fen
        number = _ACCUMULATED.get(stage.code)
        if number is None:
            return
        if not self.rules.counter:
            self.count(self.period, number, fen)
        elif stage.code == "hifp_pay":
            self.count(self.own_period, number, fen)
            if self.rules.shares_cap:
                self.count(self.period, number, fen)
        else:
            limited = {cap.name for cap in stage.caps}
            if "own" in limited:
                self.count(self.own_period, number, fen)
            if "own" not in limited or "shared" in limited:
                self.count(self.period, number, fen)

    def count_visit(self) -> None:
        """What every visit counts, whatever pays."""
        rules, continued = self.rules, self.continued
        first = continued is None or continued.deductible_fen is None
        if first and rules.counts_stays:
            self.count(self.own_period, _STAYS, 1)
        if self.deductible:
            self.count(self.own_period, _DEDUCTIBLE, self.deductible)
        if first and rules.counts_temporaries and self.case.benefit_class == "other_temporary":
            self.count(f"{self.period}-{TEMPORARY}", _STAYS, 1)

    def count(self, period: str, number: int, fen: int) -> None:
        """Add to one of `Counters`."""
        if fen:
            delta = self.deltas.get(period)
            if delta is None:
                delta = self.deltas[period] = list(_NOTHING)
            delta[number] += fen


def _apart(period: str, stage: Fund) -> str:
    """The accumulator of what one fund counts for itself."""
    return f"{period}-{stage.code.removesuffix('_pay')}"
