"""Splits a bill by the care place's list: four parts per line that sum to its amount.

Of a line, first what is beyond the quantity of a day or of the visit is the patient's (全自费),
then the part over the price limit (超限价), then the first self-pay share of what is left
(先行自付); the rest is in scope (符合政策范围). An item that is not mapped, not listed, not in
force, 自费, another institution's preparation or not approved is full self-pay as a whole, never an
error. Parts are computed on absolute values and take the sign of the line, so a bill and its
negation cancel. A refund that cites a line of the bill is what that line's split loses by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from infra.runtime.money import share_fen
from services.catalog.domain.across import Decided, split_across
from services.catalog.domain.bill import (
    BillSplit,
    DayInvalid,
    Line,
    LineAmountMismatch,
    LineRepeated,
    LineSplit,
    Parts,
    TotalMismatch,
)
from services.catalog.domain.catalogue import Revision, RuleBook
from services.catalog.domain.item import CatalogClass, FeeCategory, Level, ListType
from services.catalog.domain.line import FEN, limited, parts_of
from services.catalog.domain.mapping import MappingSpell, mapped_code
from services.catalog.domain.rule import (
    MAPPING_NOT_APPROVED,
    NO_LIMIT,
    OUT_OF_FORCE,
    UNLISTED,
    UNMAPPED,
    Rule,
    Terms,
    Verdict,
)

_NAMELESS = Revision(
    date.min,
    date.max,
    "",
    Terms(ListType.OTHER, CatalogClass.SELF_PAID, FeeCategory.OTHER, (), (), "", None, None, ""),
    (NO_LIMIT,) * len(Level),
)
"""What is said of a line that no item of the list stands for."""


def split_bill(
    lines: Sequence[Line],
    *,
    total_fen: int,
    day: date,
    rules: RuleBook,
    institution: str | None,
    mapped: Mapping[str, Sequence[MappingSpell]],
) -> BillSplit:
    """Split every line; `day` is the bill's, for lines without a day of their own.

    `mapped` is the institution's mapping of its item codes (目录对照); it goes before the code that
    the line carries. `institution` may charge its own preparations; None asks nobody, as in a
    manual claim. Raises `DayInvalid` or `LineAmountMismatch` for the first such line, then
    `LineRepeated`, `RefundInvalid` and `TotalMismatch`.
    """
    days = {"": day}
    level = rules.level
    done: list[LineSplit] = []
    across: list[int] = []
    for line in lines:
        on = line.charged_on
        day_of_line = days.get(on)
        if day_of_line is None:
            day_of_line = days[on] = _day_of(on, f"lines[{len(done)}].charged_on")
        line_id = line.line_id
        price = line.unit_price_micro_yuan
        quantity = line.quantity_e4
        amount = line.amount_fen
        # 接口规范 2204/2301: |price × quantity − amount| ≤ 0.01 yuan; refunds have negative ones.
        if not -FEN <= price * quantity - amount * FEN <= FEN:
            raise LineAmountMismatch(line_id)
        code, revision, rule = _found(line, day_of_line, rules, institution, mapped)
        if isinstance(rule, Verdict):
            full, over, first, rest = amount, 0, 0, 0
            applied, reason = rule
        else:
            limit = revision.limits[level - 1]
            if price > limit:
                full, over, first, rest = parts_of(rule, limit, price, quantity, amount, None)
                applied, reason = limited(rule, limit, level, price, quantity, None)
            else:
                _, share, applied, reason, _, _ = rule.share or rule.share_of(price)
                first = share_fen(amount, share) if share else 0
                full, over, rest = 0, 0, amount - first
            if rule.limited:
                across.append(len(done))
        if line.original_line_id:
            across.append(len(done))
        _, _, name, terms, _ = revision
        done.append(
            LineSplit(
                line_id,
                code,
                name,
                terms.catalog_class,
                terms.fee_category,
                amount,
                full,
                over,
                first,
                rest,
                reason,
                applied,
            )
        )
    if len({split.line_id for split in done}) != len(done):
        raise LineRepeated(_repeated(done))
    if across:

        def decided(index: int) -> Decided:
            on = days[lines[index].charged_on]
            return Decided(on, *_found(lines[index], on, rules, institution, mapped))

        split_across(lines, decided, level, across, done)
    return _summed(done, total_fen)


def _found(
    line: Line,
    day: date,
    rules: RuleBook,
    institution: str | None,
    mapped: Mapping[str, Sequence[MappingSpell]],
) -> tuple[str, Revision, Rule | Verdict]:
    """The code, its revision, and the rule that splits the line or the verdict on the whole of it.

    The steps: mapped, listed, in force, class, another institution's preparation, approval.
    """
    spells = mapped.get(line.item_code)
    if spells is None:
        code = line.national_code
        if not code:
            return "", _NAMELESS, UNMAPPED
    else:
        approved = mapped_code(spells, day)
        if not isinstance(approved, str):
            return "", _NAMELESS, MAPPING_NOT_APPROVED[approved]
        code = approved
    revisions = rules.codes.get(code)
    if not revisions:
        return code, _NAMELESS, UNLISTED
    revision = revisions[-1]
    if not revision.first_day <= day <= revision.last_day:
        for revision in revisions:
            if revision.first_day <= day <= revision.last_day:
                break
        else:
            return code, revision, OUT_OF_FORCE
    rule = rules.rule(revision.terms)
    preparing = rule.preparing_institution
    if preparing and institution is not None and institution != preparing:
        return code, revision, rule.foreign
    return code, revision, rule.verdicts[line.hospital_approved] or rule


def _summed(done: Sequence[LineSplit], total_fen: int) -> BillSplit:
    sums: list[list[int] | None] = [None] * (max(FeeCategory) + 1)
    for _, _, _, _, category, amount, full, over, first, rest, _, _ in done:
        total = sums[category]
        if total is None:
            sums[category] = [amount, full, over, first, rest]
        else:
            total[0] += amount
            total[1] += full
            total[2] += over
            total[3] += first
            total[4] += rest
    categories = tuple(
        (category, Parts(*found)) for category in FeeCategory if (found := sums[category])
    )
    whole = Parts(*map(sum, zip([0] * 5, *filter(None, sums), strict=True)))
    if whole.amount_fen != total_fen:
        raise TotalMismatch(total_fen, whole.amount_fen)
    return BillSplit(parts=whole, lines=tuple(done), categories=categories)


def _repeated(done: Iterable[LineSplit]) -> str:
    return next(line_id for line_id, n in Counter(each.line_id for each in done).items() if n > 1)


def _day_of(text: str, field: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DayInvalid(field, text) from None
