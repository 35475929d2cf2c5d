"""A slow, plain computation of the written model agrees with the engine.

It shares nothing with the engine but the written document: rows are scanned one after the other,
shares are fractions, limits are found by search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from policy_random import Drawing

from services.policy.domain.case import Benefit, CannotCompute, Case, Counters
from services.policy.domain.compiling import compile_document
from services.policy.domain.compute import compute
from services.policy.domain.written import WrittenDocument

FACTS = {
    "care_types": "care_type",
    "routes": "route",
    "classes": "benefit_class",
    "persons": "person_class",
    "grades": "grade",
    "kinds": "institution_kind",
    "aids": "aid",
    "ages": "age",
    "civil_servant": "civil_servant",
    "settled_directly": "settled_directly",
    "late_filing": "late_filing",
    "unfiled": "unfiled",
}
USED = {
    "hifp_pay": "pooled_used_fen",
    "hifob_pay": "large_amount_used_fen",
    "hifmi_pay": "major_illness_used_fen",
    "maf_pay": "assistance_used_fen",
}


class Refused(Exception):
    """No row, or more than one, or a row without a value."""


def rounded(value: Fraction) -> int:
    """Half away from zero; nothing here is negative."""
    assert value >= 0
    whole, rest = divmod(value.numerator, value.denominator)
    return whole + (1 if 2 * rest >= value.denominator else 0)


def part(fen: int, basis_points: int) -> int:
    return rounded(Fraction(fen * basis_points, 10_000))


class Reference:
    """One visit, computed from the document as written."""

    def __init__(
        self, written: WrittenDocument, case: Case, counters: Mapping[str, Counters]
    ) -> None:
        self.benefit = written.benefits["inpatient"]
        self.case = case
        self.counters = counters
        self.main = "2026"
        self.own = f"2026-{self.benefit.counter}" if self.benefit.counter else "2026"
        self.stay = self.before(self.own, "stay_count") + 1
        self.temporary = self.before("2026-temporary", "stay_count") + 1
        self.delta: dict[tuple[str, str], int] = {}
        self.left = case.in_scope_fen
        self.first, self.deductible, self.ratio = 0, 0, 0
        self.charged = 0
        self.over = {"shared": 0, "own": 0, "stay": 0}
        self.outside = 0
        self.barred = {"first": 0, "ratio": 0}
        self.funds: dict[str, int] = {}
        for stage in self.benefit.stages or ():
            if stage.first_pay is not None and self.bound(stage.first_pay.when):
                share = self.stated(self.one(stage.first_pay.rows))
                paid = part(self.left, share)
                self.left -= paid
                self.first += paid
                self.barred["first"] += paid if stage.first_pay.barred else 0
            elif stage.deductible is not None and self.bound(stage.deductible.when, "deductible"):
                self.deduct(stage.deductible)
            elif stage.fund is not None and self.bound(stage.fund.when):
                {"remaining": self.remaining, "over_cap": self.beyond, "own": self.patients}[
                    stage.fund.of
                ](stage.fund)
        if not any(
            stage.fund is not None and stage.fund.of == "remaining" and self.bound(stage.fund.when)
            for stage in self.benefit.stages or ()
        ):
            raise Refused
        self.count(self.own, "stay_count", 1)
        self.count(self.own, "deductible_paid_fen", self.charged)
        asks = '"temporaries":[' in self.benefit.model_dump_json()
        if asks and case.benefit_class == "other_temporary":
            self.count("2026-temporary", "stay_count", 1)

    def before(self, period: str, name: str) -> int:
        return int(getattr(self.counters.get(period, Counters()), name))

    def count(self, period: str, name: str, fen: int) -> None:
        if fen:
            self.delta[period, name] = self.delta.get((period, name), 0) + fen

    # Rows

    def bound(self, when: Any, level: str = "settlement") -> bool:
        return when is None or self.holds(when, [when], level)

    def holds(self, conditions: Any, among: Sequence[Any], level: str) -> bool:
        for key, attribute in FACTS.items():
            wanted, actual = getattr(conditions, key), getattr(self.case, attribute)
            if wanted is None:
                continue
            if isinstance(wanted, bool):
                if wanted is not actual:
                    return False
            elif key == "ages":
                if not wanted[0] <= actual <= (1000 if wanted[1] is None else wanted[1]):
                    return False
            elif actual not in wanted:
                return False
        for key, number in (("stays", self.stay), ("temporaries", self.temporary)):
            span = getattr(conditions, key)
            if span and not span[0] <= number <= (1000 if span[1] is None else span[1]):
                return False
        if conditions.levels and getattr(self.case, f"{level}_level") not in conditions.levels:
            return False
        disease, area = self.case.disease, self.case.care_area
        candidates = {
            "diseases": [disease, f"{disease[:4]}00"],
            "places": [area, area[:4], area[:2]],
        }
        for key, names in candidates.items():
            accepted = getattr(conditions, key)
            if accepted is not None:
                known = {each for other in among for each in getattr(other, key) or ()}
                name = next((each for each in names if each in known), "other")
                if name not in accepted:
                    return False
        return True

    def all(self, rows: Sequence[Any], level: str = "settlement") -> list[Any]:
        return [each for each in rows if self.holds(each, rows, level)]

    def one(self, rows: Sequence[Any], level: str = "settlement") -> Any:
        found = self.all(rows, level)
        if len(found) != 1:
            raise Refused
        return found[0]

    def stated(self, row: Any) -> int:
        if row.value is None:
            raise Refused
        return int(row.value)

    def money(self, rows: Sequence[Any], level: str = "settlement") -> int:
        row = self.one(rows, level)
        if row.share is None:
            return self.stated(row)
        bill = self.case.total_fen if row.of == "total" else self.case.in_scope_fen
        return max(part(bill, row.share), row.at_least or 0)

    def change(self, adjustment: Any, level: str = "settlement") -> tuple[str, int] | None:
        if not self.bound(adjustment.when, level):
            return None
        row = self.one(adjustment.rows, level)
        name = next(
            each
            for each in (
                "value",
                "set",
                "minus",
                "plus",
                "times",
                "own_times",
                "at_least",
                "at_most",
            )
            if each in row.model_fields_set
        )
        if name != "value" and getattr(row, name) is None:
            raise Refused
        return name, 0 if name == "value" else getattr(row, name)

    def adjusted(self, fen: int, adjustments: Sequence[Any], level: str) -> int:
        for adjustment in adjustments:
            change = self.change(adjustment, level)
            if change is not None:
                name, operand = change
                fen = {
                    "value": fen,
                    "set": operand,
                    "minus": max(0, fen - operand),
                    "plus": fen + operand,
                    "times": part(fen, operand),
                    "at_least": max(fen, operand),
                    "at_most": min(fen, operand),
                }[name]
        return fen

    # Stages

    def deduct(self, stage: Any) -> None:
        due = self.money(stage.rows, "deductible")
        due = self.adjusted(due, stage.adjust, "deductible")
        paid = self.before(self.own, "deductible_paid_fen")
        if stage.due == "topped_up":
            due = max(0, due - paid)
        if stage.year_cap is not None:
            due = min(due, max(0, self.money(stage.year_cap, "deductible") - paid))
        self.deductible = self.charged = min(due, self.left)
        self.left -= self.charged

    def ratios(self, stage: Any) -> Callable[[int], tuple[Fraction, Fraction | None]]:
        """Share as stated → share after the changes, and without those that bar."""
        changes = [(self.change(each), each.barred) for each in stage.adjust]

        def ratio(stated: int) -> tuple[Fraction, Fraction | None]:
            share, unbarred = Fraction(stated, 10_000), None
            for change, barred in changes:
                if change is None:
                    continue
                if barred and unbarred is None:
                    unbarred = share
                elif not barred and unbarred is not None:
                    unbarred = self.changed(unbarred, *change)
                share = self.changed(share, *change)
            return share, unbarred

        return ratio

    @staticmethod
    def changed(share: Fraction, name: str, operand: int) -> Fraction:
        by = Fraction(operand, 10_000)
        return {
            "value": share,
            "set": by,
            "minus": max(Fraction(0), share - by),
            "plus": min(Fraction(1), share + by),
            "times": share * by,
            "own_times": 1 - (1 - share) * by,
            "at_least": max(share, by),
            "at_most": min(share, by),
        }[name]

    def share_out(
        self, stage: Any, base: int, start: int, counted: int = 0, floor: int = 0
    ) -> tuple[int, dict[str, int], int | None]:
        """What is paid of the fee from `start`, what lies beyond by the name of the cap, and what
        is left under the limits of the payment."""
        limits: dict[str, tuple[int, str]] = {}
        for cap in sorted(
            stage.caps,
            key=lambda each: ("own", "stay", "shared").index(
                "stay" if each.over == "stay" else each.counts
            ),
        ):
            name = "stay" if cap.over == "stay" else cap.counts
            room = self.money(cap.rows)
            if cap.over == "year":
                period = self.own if cap.counts == "own" else self.main
                used = "fee_used_fen" if cap.limit == "fee" else USED[stage.code]
                room = max(0, room - self.before(period, used))
            if cap.limit == "fee":
                room = max(0, room - counted)
            if cap.limit not in limits or room < limits[cap.limit][0]:
                limits[cap.limit] = room, name
        beyond: dict[str, int] = {}
        end = base
        if "fee" in limits:
            end = min(base, limits["fee"][0])
            beyond[limits["fee"][1]] = base - end
        rows = self.all(stage.ratio)
        bounds = [each.up_to for each in rows]
        if len(set(bounds)) != len(bounds) or None not in bounds:
            raise Refused
        rows.sort(key=lambda each: 10**15 if each.up_to is None else each.up_to)
        by_year = stage.accumulate == "year" or stage.brackets.over == "year"
        left: int | None = limits["payment"][0] if "payment" in limits else None
        paid, at, low = 0, 0, 0
        ratio: Callable[[int], tuple[Fraction, Fraction | None]] | None = None
        for each in rows:
            high = 10**15 if each.up_to is None else each.up_to
            size = min(end, high - start) - at
            lowest, low = max(low, floor), high
            if size <= 0:
                continue
            ratio = ratio or self.ratios(stage)
            share, unbarred = ratio(self.stated(each))
            past = start + at - lowest if by_year else 0

            def pays(fee: int, share: Fraction = share, past: int = past) -> int:
                return rounded((past + fee) * share) - rounded(past * share)

            here = pays(size)
            stop = left is not None and here >= left - paid
            if left is not None and stop:
                here = left - paid
                size = min(size, self.fits(pays, here, share, size, by_year))
            if unbarred is not None and unbarred > share:
                kept = unbarred - share
                self.barred["ratio"] += rounded((past + size) * kept) - rounded(past * kept)
            paid += here
            at += size
            if stop:
                break
        if "payment" in limits:
            name = limits["payment"][1]
            beyond[name] = beyond.get(name, 0) + end - at
        return paid, beyond, left

    @staticmethod
    def fits(
        pays: Callable[[int], int], room: int, share: Fraction, most: int, by_year: bool
    ) -> int:
        """The fee that uses up what is left: exactly of one visit, the least one over a year."""
        if room == 0:
            return 0
        if not by_year:
            return rounded(room / share)
        low, high = 0, most
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if pays(middle) >= room else (middle + 1, high)
        return low

    def pay(self, stage: Any, fen: int) -> None:
        if fen:
            self.funds[stage.code] = self.funds.get(stage.code, 0) + fen
        if stage.code not in USED:
            return
        counts = {cap.counts for cap in stage.caps if cap.over == "year"}
        apart = self.own != self.main
        if stage.code == "hifp_pay":
            periods = {self.own} | ({self.main} if "shared" in counts_of_payment(stage) else set())
        else:
            periods = {self.own} if apart and "own" in counts else set()
            periods |= (
                {self.main} if not apart or "own" not in counts or "shared" in counts else set()
            )
        for period in periods:
            self.count(period, USED[stage.code], fen)

    def remaining(self, stage: Any) -> None:
        base = self.left
        counted = self.charged if stage.brackets.count == "in_scope" else 0
        by_year = stage.brackets.over == "year"
        start = counted + (self.before(self.own, "fee_used_fen") if by_year else 0)
        paid, beyond, room = self.share_out(stage, base, start, counted)
        within = base - sum(beyond.values())
        if stage.floor is not None and self.bound(stage.floor.when):
            bill = self.case.total_fen if stage.floor.of == "total" else self.case.in_scope_fen
            share = self.stated(self.one(stage.floor.rows))
            least = min(part(max(0, bill - self.charged), share), within)
            paid = max(paid, least if room is None else min(least, room))
        for name, fen in beyond.items():
            self.over[name] += fen
        self.ratio += within - paid
        self.left = 0
        yearly = {cap.counts for cap in stage.caps if cap.limit == "fee" and cap.over == "year"}
        if by_year or yearly:
            periods = {self.own} | ({self.main} if "shared" in yearly else set())
            for period in periods:
                self.count(period, "fee_used_fen", base + counted)
        self.pay(stage, paid)

    def beyond(self, stage: Any) -> None:
        names = stage.beyond or ("shared", "own", "stay")
        base = sum(self.over[name] for name in names)
        if base == 0:
            return
        start = 0
        if stage.brackets.over == "year":
            period = f"2026-{stage.code[:-4]}"
            start = self.before(period, "fee_used_fen")
            self.count(period, "fee_used_fen", base)
        paid, beyond, _ = self.share_out(stage, base, start)
        within = base - sum(beyond.values())
        self.ratio += within - paid
        for name in names:
            taken = min(within, self.over[name])
            self.over[name] -= taken
            within -= taken
        self.pay(stage, paid)

    def patients(self, stage: Any) -> None:
        amounts = {
            "ratio_self_pay": max(0, self.ratio - self.barred["ratio"]),
            "over_cap": sum(self.over.values()),
            "remote_first_pay": max(0, self.first - self.barred["first"]),
            "deductible": self.deductible,
            "first_self_pay": self.case.first_self_pay_fen - self.outside,
        }
        base = sum(fen for name, fen in amounts.items() if name in stage.parts)
        before = 0
        if stage.accumulate == "year":
            main = stage.code in ("hifob_pay", "hifmi_pay")
            period = self.main if main else f"2026-{stage.code[:-4]}"
            before = self.before(period, "major_illness_base_fen")
            self.count(period, "major_illness_base_fen", base)
        due = 0
        if stage.deductible is not None:
            due = self.adjusted(self.money(stage.deductible), stage.adjust_deductible, "settlement")
        from_fen, to_fen = max(0, before - due), max(0, before + base - due)
        floor = due if stage.brackets.count == "in_scope" else 0
        paid, _, _ = self.share_out(stage, to_fen - from_fen, from_fen + floor, 0, floor)
        self.pay(stage, paid)
        for name, fen in amounts.items():
            if name not in stage.parts:
                continue
            taken = min(paid, fen)
            paid -= taken
            if name == "ratio_self_pay":
                self.ratio -= taken
            elif name == "remote_first_pay":
                self.first -= taken
            elif name == "deductible":
                self.deductible -= taken
            elif name == "first_self_pay":
                self.outside += taken
            else:
                for cap in ("own", "stay", "shared"):
                    here = min(taken, self.over[cap])
                    self.over[cap] -= here
                    taken -= here


def counts_of_payment(stage: Any) -> set[str]:
    """The yearly caps that the benefit has for its pooled fund."""
    return {cap.counts for cap in stage.caps if cap.over == "year"}


def answer(found: Benefit) -> dict[str, Any]:
    return {
        "first": found.remote_first_pay_fen,
        "deductible": found.deductible_fen,
        "ratio": found.ratio_self_pay_fen,
        "over": found.over_cap_fen,
        "funds": found.funds,
        "outside": found.outside_scope_fen,
        "delta": {
            (period, name): fen
            for period, delta in found.deltas.items()
            for name, fen in delta._asdict().items()
            if fen
        },
    }


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_engine(seed: int) -> None:
    """Some thousand random documents, six cases each: parts, funds and what is counted."""
    computed = refused = 0
    for number in range(150):
        drawing = Drawing(Random(f"{seed} {number}"))
        document = compile_document(drawing.document())
        for _ in range(6):
            case, counters = drawing.case(), drawing.counters()
            expected: dict[str, Any] | None = None
            try:
                reference = Reference(document.written, case, counters)
                expected = {
                    "first": reference.first,
                    "deductible": reference.deductible,
                    "ratio": reference.ratio,
                    "over": sum(reference.over.values()),
                    "funds": reference.funds,
                    "outside": reference.outside,
                    "delta": reference.delta,
                }
                computed += 1
            except Refused:
                refused += 1
            try:
                found: dict[str, Any] | None = answer(compute(document, case, counters, 0))
            except CannotCompute:
                found = None
            assert found == expected, (seed, number, case, counters)
    assert computed > 2 * refused > 0
