"""A bill as the rules of the fee audit look at it: its facts, and its lines as charges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

from infra.runtime.id_number import Sex
from services.catalog.domain.audit_rule import AuditRule, Frequency
from services.catalog.domain.bill import Line, LineSplit
from services.catalog.domain.institution import CareType, Registration


class Facts(NamedTuple):
    """What is known of the visit and of the patient."""

    first_day: date
    last_day: date
    care_type: CareType
    registration: Registration
    sex: Sex | None
    born: date | None


class Charge(NamedTuple):
    """A line with what refunds leave of it; named so that charges sort by day and id."""

    at: date
    """Its day; of a line without one the last of the visit."""
    line_id: str
    day: date | None
    """None: some day of a stay of several."""
    code: str
    name: str
    price: int
    quantity_e4: int


class ChargedBill:
    """The lines of one bill as charges, each read when a rule first asks for it."""

    __slots__ = ("_charges", "_days", "_lines", "_refunded", "_splits", "facts")

    def __init__(self, lines: Sequence[Line], splits: Sequence[LineSplit], facts: Facts) -> None:
        self.facts = facts
        self._lines = lines
        self._splits = splits
        self._charges: dict[int, Charge] = {}
        self._days: dict[str, date] = {}
        self._refunded: dict[str, int] | None = None

    @property
    def days(self) -> int:
        """Days of the visit, first and last included."""
        return (self.facts.last_day - self.facts.first_day).days + 1

    def repeats(self, indexes: Sequence[int]) -> bool:
        """Whether two of these lines have one code, price and day."""
        if len(indexes) < 2:
            return False
        lines, splits = self._lines, self._splits
        seen = set()
        for index in indexes:
            line = lines[index]
            seen.add((splits[index].national_code, line.unit_price_micro_yuan, line.charged_on))
        return len(seen) < len(indexes) or self.days == 1

    def shares_a_day(self, indexes: Sequence[int], others: Sequence[int]) -> bool:
        """Whether a line of each is of one day."""
        lines = self._lines
        days = {lines[index].charged_on for index in indexes}
        return self.days == 1 or any(lines[index].charged_on in days for index in others)

    def charges_over(self, of: Frequency, indexes: Sequence[int]) -> bool:
        """Whether the lines, before any refund, charge more than may be in any of its windows."""
        lines, most = self._lines, of.most_e4
        if self.charged_e4(indexes) <= most:
            return False
        if of.days != 1 or self.days == 1:
            return True
        sums: dict[str, int] = defaultdict(int)
        for index in indexes:
            line = lines[index]
            if (quantity := line.quantity_e4) > 0:
                sums[line.charged_on] += quantity
        return sums.pop("", 0) > most * self.days or max(sums.values(), default=0) > most

    def charged_e4(self, indexes: Sequence[int]) -> int:
        """What these lines charge before any refund."""
        lines = self._lines
        return sum(quantity for i in indexes if (quantity := lines[i].quantity_e4) > 0)

    def charges(self, rule: AuditRule, indexes: Iterable[int]) -> list[Charge]:
        """The lines that still charge something while the rule is in force, in order."""
        found = [self._charge(index) for index in indexes]
        return sorted(
            charge
            for charge in found
            if charge.quantity_e4 > 0 and rule.first_day <= charge.at <= rule.last_day
        )

    def _charge(self, index: int) -> Charge:
        charge = self._charges.get(index)
        if charge is None:
            line, split = self._lines[index], self._splits[index]
            dated = bool(line.charged_on) or self.days == 1
            at = self._day(line.charged_on)
            charge = self._charges[index] = Charge(
                at=at,
                line_id=line.line_id,
                day=at if dated else None,
                code=split.national_code,
                name=split.name or split.national_code,
                price=line.unit_price_micro_yuan,
                quantity_e4=line.quantity_e4 + self._returned(line.line_id),
            )
        return charge

    def _day(self, text: str) -> date:
        if not text:
            return self.facts.last_day
        day = self._days.get(text)
        if day is None:
            day = self._days[text] = date.fromisoformat(text)
        return day

    def _returned(self, line_id: str) -> int:
        """What refunds take back of a line, negative."""
        if self._refunded is None:
            self._refunded = defaultdict(int)
            for line in self._lines:
                if original := line.original_line_id:
                    self._refunded[original] += line.quantity_e4
        return self._refunded.get(line_id, 0)
