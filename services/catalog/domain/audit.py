"""The fee audit at the door (智能审核): holds a bill against the rules of its area.

Rules are compiled once into an index, so that a line which nothing selects costs a few look-ups.
What is not known is not judged: the patient's sex and age where nobody said them, the day of a line
where the institution dates none of a stay of several days. Such lines stand for the whole stay:
a quantity per day is held against the days of the stay, and two of them share no single day.

A line counts with what the refunds that cite it leave of it; refunds themselves are never judged.
The order of the lines in the bill decides nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

from infra.runtime.id_number import age_on
from services.catalog.domain.audit_bill import Charge, ChargedBill, Facts
from services.catalog.domain.audit_rule import (
    Action,
    Ages,
    AuditRule,
    CareTypes,
    Condition,
    Duplicate,
    Exclusive,
    Frequency,
    OnlySex,
    Places,
    Selector,
)
from services.catalog.domain.bill import Line, LineSplit
from services.catalog.domain.catalogue import Timeline
from services.catalog.domain.item import FeeCategory, ListType
from services.catalog.domain.texts import quantity_text

MOST_FINDINGS = 100
LONGEST_MESSAGE = 300
"""Characters, as the contract bounds it."""
_MOST_LEARNT = 1_000
_MOST_NAMED = 3
_LONGEST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that does not hold, and the lines that it is about, in order of day and id."""

    rule: AuditRule
    line_ids: tuple[str, ...]
    message: str


class _Live(NamedTuple):
    """The part of an index whose rules may find something in bills of one kind."""

    slots: frozenset[int]
    categories: tuple[bool, ...]
    """By fee category: whether one of the slots selects it."""
    learnt: dict[str, tuple[FeeCategory, tuple[int, ...]]]
    """Slots of codes that came before, with the category that they had then; bounded."""


def _may_find(condition: Condition, facts: Facts) -> bool:
    """Whether a bill of this visit and patient may break the condition, whatever its lines."""
    at = facts.registration
    match condition:
        case OnlySex(sex):
            return facts.sex is not None and facts.sex is not sex
        case Ages():
            return facts.born is not None
        case Places(grades, levels, kinds):
            return not (
                (not grades or at.grade in grades)
                and (not levels or at.price_limit_level in levels)
                and (not kinds or at.kind in kinds)
            )
        case CareTypes(care_types):
            return facts.care_type not in care_types
    return True


class Auditor:
    """The rules of one area, compiled."""

    __slots__ = (
        "_categories",
        "_codes",
        "_heads",
        "_list_types",
        "_lives",
        "_prefixes",
        "_rules",
        "_short",
    )

    def __init__(self, rules: Iterable[AuditRule]) -> None:
        self._rules = tuple(
            sorted(rules, key=lambda rule: (-rule.action, rule.code, rule.first_day))
        )
        # Of rule n, what it selects is slot 2n and what that excludes slot 2n + 1.
        self._codes: dict[str, list[int]] = {}
        self._prefixes: dict[str, list[int]] = {}
        self._categories: list[list[int]] = [[] for _ in range(max(FeeCategory) + 1)]
        self._list_types: dict[ListType, list[int]] = {}
        for number, rule in enumerate(self._rules):
            self._enter(rule.selector, 2 * number)
            if isinstance(rule.condition, Exclusive):
                self._enter(rule.condition.against, 2 * number + 1)
        # Most codes share their beginning with no prefix: one look-up tells.
        self._short = min(map(len, self._prefixes), default=0)
        self._heads = frozenset(prefix[: self._short] for prefix in self._prefixes)
        self._lives: dict[tuple[object, ...], _Live] = {}

    def _enter(self, selector: Selector, slot: int) -> None:
        for code in selector.codes:
            self._codes.setdefault(code, []).append(slot)
        for prefix in selector.prefixes:
            self._prefixes.setdefault(prefix, []).append(slot)
        for category in selector.fee_categories:
            self._categories[category].append(slot)
        for list_type in selector.list_types:
            self._list_types.setdefault(list_type, []).append(slot)

    def findings(
        self,
        lines: Sequence[Line],
        splits: Sequence[LineSplit],
        facts: Facts,
        codes: Mapping[str, Timeline],
    ) -> tuple[Finding, ...]:
        """What is wrong with a bill that could be split: refusals first, at most `MOST_FINDINGS`.

        `splits` has the split of each line in the order of `lines`, made by the list `codes`.
        """
        selected = self._selected(splits, self._live(facts), codes)
        if not selected:
            return ()
        bill = ChargedBill(lines, splits, facts)
        found: list[Finding] = []
        for slot in sorted(selected):
            if slot % 2 == 0:
                rule = self._rules[slot // 2]
                judge = _JUDGES[type(rule.condition)]
                others = selected.get(slot + 1, ())
                found += judge(bill, rule, rule.condition, selected[slot], others)
                if len(found) >= MOST_FINDINGS:
                    break
        return tuple(found[:MOST_FINDINGS])

    def _live(self, facts: Facts) -> _Live:
        """What is left of the index for such a bill: as many kinds as the facts have values."""
        at = facts.registration
        known = facts.born is not None
        key = (facts.care_type, at.grade, at.price_limit_level, at.kind, facts.sex, known)
        live = self._lives.get(key)
        if live is None:
            slots = frozenset(
                2 * number + side
                for number, rule in enumerate(self._rules)
                if _may_find(rule.condition, facts)
                for side in (0, 1)
            )
            categories = tuple(not slots.isdisjoint(each) for each in self._categories)
            live = self._lives[key] = _Live(slots, categories, {})
        return live

    def _selected(
        self, splits: Sequence[LineSplit], live: _Live, listed: Mapping[str, Timeline]
    ) -> Mapping[int, list[int]]:
        """Slot → indexes of the lines it selects."""
        codes, heads, short = self._codes, self._heads, self._short
        list_types = self._list_types
        slots, categories, learnt = live
        selected: dict[int, list[int]] = {}
        for index, split in enumerate(splits):
            code = split.national_code
            category = split.fee_category
            if categories[category] or code[:short] in heads or code in codes or list_types:
                known = learnt.get(code)
                if known is None or known[0] is not category:
                    known = self._learn(live, code, category)
                for slot in known[1]:
                    if slot in selected:
                        selected[slot].append(index)
                    else:
                        selected[slot] = [index]
                if list_types and (timeline := listed.get(code)):
                    for slot in list_types.get(timeline[-1].terms.list_type, ()):
                        if slot in slots and slot not in known[1]:
                            selected.setdefault(slot, []).append(index)
        return selected

    def _learn(
        self, live: _Live, code: str, category: FeeCategory
    ) -> tuple[FeeCategory, tuple[int, ...]]:
        """The live slots of a code of a category, kept for the next line that has it."""
        slots: set[int] = set()
        if code:
            slots.update(self._codes.get(code, ()), self._categories[category])
            for prefix, of_prefix in self._prefixes.items():
                if code.startswith(prefix):
                    slots.update(of_prefix)
        if len(live.learnt) >= _MOST_LEARNT:
            live.learnt.clear()  # codes that somebody made up are learnt too
        known = live.learnt[code] = category, tuple(slots & live.slots)
        return known


def _duplicates(
    bill: ChargedBill, rule: AuditRule, of: Duplicate, indexes: Sequence[int], _: Sequence[int]
) -> Iterable[Finding]:
    if of.most_e4 is None and not bill.repeats(indexes):
        return
    if of.most_e4 is not None and bill.charged_e4(indexes) <= of.most_e4:
        return
    for (_code, _price, day), group in _groups(
        bill.charges(rule, indexes), lambda charge: (charge.code, charge.price, charge.day)
    ).items():
        count = sum(charge.quantity_e4 for charge in group)
        days = bill.days if day is None else 1
        if len(group) > 1 if of.most_e4 is None else count > of.most_e4 * days:
            when = _stay(bill.facts) if day is None else _spelt(day, day)
            yield _finding(rule, group, day=when, count=quantity_text(count))


def _frequency(
    bill: ChargedBill, rule: AuditRule, of: Frequency, indexes: Sequence[int], _: Sequence[int]
) -> Iterable[Finding]:
    if not bill.charges_over(of, indexes):
        return
    groups = _groups(bill.charges(rule, indexes), lambda charge: "" if of.together else charge.code)
    for group in groups.values():
        for charges, most, when in _windows(bill, of, group):
            count = sum(charge.quantity_e4 for charge in charges)
            if count > most:
                texts = {"count": quantity_text(count), "most": quantity_text(most)}
                yield _finding(rule, charges, day=when, **texts)


def _windows(
    bill: ChargedBill, of: Frequency, group: list[Charge]
) -> Iterable[tuple[list[Charge], int, str]]:
    """Charges that count together, how much they may come to, and their days.

    Windows begin on a day with a charge; one that holds too much is told once, and the next begins
    after it.
    """
    if of.days is None:
        yield group, of.most_e4, "本单据"
        return
    undated = [charge for charge in group if charge.day is None]
    if undated:
        yield undated, of.most_e4 * -(-bill.days // of.days), _stay(bill.facts)
    dated = [charge for charge in group if charge.day is not None]
    start = end = total = 0
    while start < len(dated):
        first = dated[start].at
        last = first + timedelta(days=min(of.days - 1, (date.max - first).days))
        while end < len(dated) and dated[end].at <= last:
            total += dated[end].quantity_e4
            end += 1
        if total > of.most_e4:
            yield dated[start:end], of.most_e4, _spelt(first, last)
            start, total = end, 0
        while start < end and dated[start].at == first:
            total -= dated[start].quantity_e4
            start += 1


def _any(
    bill: ChargedBill, rule: AuditRule, _: Condition, indexes: Sequence[int], __: Sequence[int]
) -> Iterable[Finding]:
    """Of conditions that the visit or the patient breaks, whatever the lines: see `_may_find`."""
    return _all(rule, bill.charges(rule, indexes))


def _age(
    bill: ChargedBill, rule: AuditRule, of: Ages, indexes: Sequence[int], _: Sequence[int]
) -> Iterable[Finding]:
    born = bill.facts.born
    assert born is not None, "a rule of ages is not live without one"
    outside = [
        charge
        for charge in bill.charges(rule, indexes)
        if (age := age_on(born, charge.at)) < of.youngest
        or (of.oldest is not None and age > of.oldest)
    ]
    yield from _all(rule, outside)


def _exclusive(
    bill: ChargedBill, rule: AuditRule, of: Exclusive, indexes: Sequence[int], others: Sequence[int]
) -> Iterable[Finding]:
    if not others or not bill.shares_a_day(indexes, others):
        return
    against = _groups(bill.charges(rule, others), lambda charge: charge.day)
    for day, group in _groups(bill.charges(rule, indexes), lambda charge: charge.day).items():
        own = {charge.line_id for charge in group}
        excluded = [charge for charge in against.get(day, ()) if charge.line_id not in own]
        if day is not None and excluded:
            texts = {"items": _named(group), "others": _named(excluded), "day": _spelt(day, day)}
            yield _finding(rule, sorted([*group, *excluded]), **texts)


_JUDGES: dict[type[Condition], Callable[..., Iterable[Finding]]] = {
    Duplicate: _duplicates,
    Frequency: _frequency,
    OnlySex: _any,
    Ages: _age,
    Places: _any,
    Exclusive: _exclusive,
    CareTypes: _any,
}


def _groups(charges: Iterable[Charge], key: Callable[[Charge], Any]) -> dict[Any, list[Charge]]:
    found: dict[Any, list[Charge]] = defaultdict(list)
    for charge in charges:
        found[key(charge)].append(charge)
    return found


def _all(rule: AuditRule, charges: Sequence[Charge]) -> Iterable[Finding]:
    if charges:
        yield _finding(rule, charges)


def _finding(rule: AuditRule, charges: Sequence[Charge], **texts: str) -> Finding:
    told = rule.message.format_map({"items": _named(charges)} | texts)
    return Finding(rule, tuple(charge.line_id for charge in charges), told[:LONGEST_MESSAGE])


def _named(charges: Sequence[Charge]) -> str:
    """Names of a few items: `血常规、尿常规等5项`."""
    names = list(dict.fromkeys(charge.name[:_LONGEST_NAMED] for charge in charges))
    told = "、".join(names[:_MOST_NAMED])
    return told if len(names) <= _MOST_NAMED else f"{told}等{len(names)}项"


def _spelt(first: date, last: date) -> str:
    return first.isoformat() if first == last else f"{first}至{last}"


def _stay(facts: Facts) -> str:
    return _spelt(facts.first_day, facts.last_day)


def auditors(rules: Mapping[str, Sequence[AuditRule]], province: str) -> Callable[[str], Auditor]:
    """The auditor of an area of `province`; `rules` by area, under "" the national ones.

    Of rules with one code the area's go before the province's, and these before the national.
    """
    whole = _over(rules.get("", ()), rules.get(province, ()))
    of_province = Auditor(whole)
    own = {
        area: Auditor(_over(whole, found))
        for area, found in rules.items()
        if area and area[:2] == province[:2]
    }
    return lambda area: own.get(area, of_province)


def _over(general: Sequence[AuditRule], special: Sequence[AuditRule]) -> tuple[AuditRule, ...]:
    replaced = {rule.code for rule in special}
    return (*special, *(rule for rule in general if rule.code not in replaced))


def refused(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that refuse the bill."""
    return tuple(found for found in findings if found.rule.action is Action.REFUSE)
