"""Lines of bills and items of lists, short to write, for the tests of splitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from services.catalog.domain.bill import BillSplit, LineSplit
from services.catalog.domain.catalogue import Catalogue, by_code
from services.catalog.domain.item import (
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    Level,
    ListType,
)
from services.catalog.domain.mapping import MappingSpell
from services.catalog.domain.split import split_bill

DAY = date(2026, 10, 8)
HOSPITAL = "H1"
NOTHING_FIRST = {InsuranceType.EMPLOYEE: 0, InsuranceType.RESIDENT: 0}


@dataclass(frozen=True)
class Charge:
    unit_price_micro_yuan: int
    quantity_e4: int
    amount_fen: int
    national_code: str = "B"
    line_id: str = "1"
    item_code: str = "own"
    hospital_approved: int = 0
    charged_on: str = ""
    original_line_id: str = ""


def item(code: str = "B", **changes: object) -> Item:
    """A drug of 乙类 with 10 % first self-pay of employees and 15 % of residents."""
    base = Item(
        national_code=code,
        name=f"示例项目{code}",
        list_type=ListType.DRUG,
        catalog_class=CatalogClass.B,
        fee_category=FeeCategory.WESTERN_DRUG,
        first_self_pay_bp={InsuranceType.EMPLOYEE: 1_000, InsuranceType.RESIDENT: 1_500},
        limits_micro_yuan={},
        limited_use="",
        effective_from=date(2023, 1, 1),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def catalogue(*items: Item) -> Catalogue:
    return Catalogue(1, "440000", "2026.1", date(2023, 1, 1), by_code(items))


def split(
    charges: Sequence[Charge],
    listed: Catalogue,
    *,
    insurance: InsuranceType = InsuranceType.EMPLOYEE,
    level: Level = Level.THREE,
    institution: str | None = HOSPITAL,
    mapped: Mapping[str, Sequence[MappingSpell]] | None = None,
    total_fen: int | None = None,
) -> BillSplit:
    return split_bill(
        charges,
        total_fen=sum(each.amount_fen for each in charges) if total_fen is None else total_fen,
        day=DAY,
        rules=listed.rules(insurance, level),
        institution=institution,
        mapped=mapped or {},
    )


def parts(found: LineSplit) -> tuple[int, int, int, int]:
    """Full self-pay, over limit, first self-pay, in scope."""
    return (
        found.full_self_pay_fen,
        found.over_limit_fen,
        found.first_self_pay_fen,
        found.in_scope_fen,
    )
