"""The load of `yidi bench catalog`: a list of any length as a file, bills over all of it, one core
that splits.

`python -m loadtests.catalog ITEMS SECONDS ROUNDS` is the process whose domain code is measured. A
rate is of a second of processor time, so that other work on the machine counts as little as it can.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from random import Random
from statistics import median
from typing import NamedTuple

from infra.runtime.clock import Clock, new_id
from infra.runtime.money import divide_fen
from loadtests.policy import rate
from services.catalog.domain.bill import BillSplit
from services.catalog.domain.catalogue import Catalogue, by_code
from services.catalog.domain.item import FeeCategory, InsuranceType, Item, Level
from services.catalog.domain.line import FEN
from services.catalog.domain.split import split_bill
from services.catalog.samples.full import many_items
from yidi.catalog.v1 import catalog_pb2
from yidi.common.v1 import types_pb2, visit_pb2

AREA, HOSPITAL = "110000", "H11010100001"
FEW = 10_000
SIZES = 20, 300
"""Lines of the bills; those of either size have as many lines together."""
_LINES = 30_000
"""Lines of the bills of one size, each of another item."""
_DAY = date(2026, 11, 20)
_STAY_DAYS = 10
_SEED = 20_261_120


class Bill(NamedTuple):
    """Lines as the contract has them, and their sum."""

    lines: Sequence[catalog_pb2.FeeLine]
    total_fen: int


def drawn_items(number: int) -> list[Item]:
    """At most `_LINES` items from all over the list of `number` rows, in any order."""
    every = max(number // _LINES, 1)
    items = [
        item
        for place, item in enumerate(many_items(AREA, number))
        # Only primary care charges it: the fee audit refuses it to a hospital.
        if place % every == 0 and item.fee_category is not FeeCategory.GENERAL_TREATMENT
    ]
    Random(_SEED).shuffle(items)
    return items[:_LINES]


def bills(items: Sequence[Item], size: int) -> list[Bill]:
    """Bills of `size` lines, each of another item."""
    random = Random(_SEED)
    return [
        _bill(random, items[first : first + size])
        for first in range(0, len(items) - size + 1, size)
    ]


def _bill(random: Random, items: Sequence[Item]) -> Bill:
    lines = [_line(random, str(place), item) for place, item in enumerate(items, 1)]
    return Bill(lines, sum(line.amount_fen for line in lines))


def _line(random: Random, line_id: str, item: Item) -> catalog_pb2.FeeLine:
    limit = item.limits_micro_yuan.get(Level.THREE) or random.randrange(1, 500) * 1_000_000
    price = limit * random.randrange(70, 120) // 1_000_000 * 10_000
    quantity = random.randrange(1, 6) * 10_000
    return catalog_pb2.FeeLine(
        line_id=line_id,
        item_code=f"N{line_id}",
        national_code=item.national_code,
        unit_price_micro_yuan=price,
        quantity_e4=quantity,
        amount_fen=divide_fen(price * quantity, FEN),
        hospital_approved=types_pb2.ANSWER_YES
        if item.limited_use
        else types_pb2.ANSWER_UNSPECIFIED,
        charged_on=(_DAY - timedelta(days=random.randrange(_STAY_DAYS))).isoformat(),
    )


def requests(clock: Clock, drawn: Iterable[Bill]) -> Iterator[catalog_pb2.SplitFeesItem]:
    """Each bill as the gateway asks for its split."""
    for bill in drawn:
        yield catalog_pb2.SplitFeesItem(
            id=new_id(clock),
            institution=HOSPITAL,
            visit=visit_pb2.Visit(
                care_area=AREA,
                insured_area="440800",
                insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                care_type=types_pb2.CARE_TYPE_INPATIENT,
                start_date=(_DAY - timedelta(days=_STAY_DAYS)).isoformat(),
                end_date=_DAY.isoformat(),
            ),
            route=types_pb2.ROUTE_CROSS_PROVINCE,
            lines=bill.lines,
            total_fen=bill.total_fen,
        )


class Splitting:
    """The work of the rounds, on one list."""

    def __init__(self, number: int) -> None:
        self._catalogue = Catalogue(1, AREA, "", _DAY, by_code(many_items(AREA, number)))
        items = drawn_items(number)
        self._bills = {size: bills(items, size) for size in SIZES}

    def split(self, size: int) -> int:
        """Every bill of a size once; how many lines that was."""
        rules = self._catalogue.rules(InsuranceType.EMPLOYEE, Level.THREE)
        done = 0
        for bill in self._bills[size]:
            found: BillSplit = split_bill(
                bill.lines,
                total_fen=bill.total_fen,
                day=_DAY,
                rules=rules,
                institution=HOSPITAL,
                mapped={},
            )
            done += len(found.lines)
        return done

    def mixed(self) -> int:
        """As many lines in bills of either size."""
        return sum(self.split(size) for size in SIZES)


def measure(number: int, seconds: float, rounds: int) -> dict[str, float]:
    """Lines split with `number` rows and with `FEW`: medians of `rounds` of `seconds`."""
    many, few = Splitting(number), Splitting(min(FEW, number))
    # As a process that serves does: what stays is not walked again and again.
    gc.collect()
    gc.freeze()
    works: dict[str, Callable[[], int]] = {
        "lines_per_s": many.mixed,
        **{f"lines_per_s_bills_of_{size}": partial(many.split, size) for size in SIZES},
        f"lines_per_s_of_{FEW}": few.mixed,
    }
    for work in works.values():
        work()
    rates = [{name: rate(work, seconds) for name, work in works.items()} for _ in range(rounds)]
    return {name: round(median(each[name] for each in rates), 1) for name in works}


def main() -> None:
    """Measure; items, seconds and rounds are the arguments."""
    number, seconds, rounds = sys.argv[1:]
    print(json.dumps(measure(int(number), float(seconds), int(rounds))))


if __name__ == "__main__":
    main()
