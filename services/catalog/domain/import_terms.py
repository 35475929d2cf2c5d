"""What groups of cells say of an item together, judged by `Item`."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

from services.catalog.domain import import_cells as cell
from services.catalog.domain.import_cells import Fault
from services.catalog.domain.item import (
    LONGEST_NAME,
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    ItemInvalid,
    ListType,
)

CSV_TERMS = (
    "list_type",
    "catalog_class",
    "fee_category",
    "first_self_pay_310",
    "first_self_pay_390",
    "bands",
    "limited_use",
    "day_limit",
    "visit_limit",
    "negotiated",
    "centrally_purchased",
    "preparing_institution",
)
"""Columns of a CSV that `read_terms` reads."""
_PATTERN = Item(
    national_code="PATTERN",
    name="-",
    list_type=ListType.PREPARATION,
    catalog_class=CatalogClass.B,
    fee_category=FeeCategory.OTHER,
    first_self_pay_bp=dict.fromkeys(InsuranceType, 0),
    limits_micro_yuan={},
    limited_use="",
    effective_from=date.min,
)
_SHARE, _REIMBURSED, _BANDED = "10", "20", "30"
"""selfpay_prop_type: 目录先自付比例, 目录直接报销比例, 按费用单价范围配置自付比例."""
_NO_TEXT = "限制使用，目录未载明范围"


def judged(**said: Any) -> Item:
    """An item that says this; raises `Fault` for what `Item` refuses."""
    try:
        return replace(_PATTERN, **said)
    except ItemInvalid as fault:
        raise Fault(fault.column, fault.cause) from None


def read_days(cells: tuple[str, str]) -> tuple[date, date | None]:
    """First and last day, None without end; raises `Fault`, as all below."""
    begins = cell.first_day("effective_from", cells[0])
    ends = cell.last_day("effective_to", cells[1])
    judged(effective_from=begins, effective_to=ends or date.max)
    return begins, ends


def read_terms(cells: tuple[str, ...]) -> tuple[Any, ...]:
    """The cells of `CSV_TERMS` as the columns from `list_type` to `preparing_institution`."""
    (kind, class_, category, employee, resident, bands, use, day, visit, negotiated, bulk, own) = (
        cells
    )
    item = judged(
        list_type=cell.chosen("list_type", cell.LIST_TYPES, kind),
        catalog_class=cell.chosen("catalog_class", cell.CLASSES, class_),
        fee_category=cell.chosen("fee_category", cell.CATEGORIES, category),
        first_self_pay_bp={
            InsuranceType.EMPLOYEE: _percent("first_self_pay_310", employee),
            InsuranceType.RESIDENT: _percent("first_self_pay_390", resident),
        },
        bands=tuple(map(_band, bands.strip().split(";"))) if bands.strip() else (),
        limited_use=use.strip(),
        day_limit_e4=cell.quantity("day_limit", day),
        visit_limit_e4=cell.quantity("visit_limit", visit),
        negotiated=cell.flag("negotiated", negotiated),
        centrally_purchased=cell.flag("centrally_purchased", bulk),
        preparing_institution=cell.institution("preparing_institution", own),
    )
    return (
        int(item.list_type),
        int(item.catalog_class),
        int(item.fee_category),
        *(item.first_self_pay_bp[one] for one in InsuranceType),
        [band.up_to_micro_yuan for band in item.bands],
        *([band.first_self_pay_bp[one] for band in item.bands] for one in InsuranceType),
        item.limited_use,
        item.day_limit_e4,
        item.visit_limit_e4,
        item.negotiated,
        item.centrally_purchased,
        item.preparing_institution,
    )


def _percent(column: str, text: str) -> int:
    return cell.scaled(column, cell.PERCENT_DECIMALS, text)


def _band(text: str) -> Band:
    """`up to:share` or `up to:310/390`, the last without an end."""
    up_to, colon, shares = text.partition(":")
    employee, slash, resident = shares.partition("/")
    if not colon:
        raise Fault("bands", "价格分段应写作 500:10;2000:20/25;:30")
    return Band(
        cell.price("bands", up_to),
        {
            InsuranceType.EMPLOYEE: _percent("bands", employee),
            InsuranceType.RESIDENT: _percent("bands", resident if slash else employee),
        },
    )


def read_national_terms(cells: tuple[str, ...]) -> tuple[Any, ...]:
    """list_type, chrgitm_lv, med_chrgitm_type, lmt_used_flag and memo as the columns from
    `list_type` to `limited_use`; the last without `memo` where it restricts nothing."""
    kind, class_, category, restricted, memo = cells
    use = ""
    if cell.flag("lmt_used_flag", restricted or "-"):
        use = memo.strip() or _NO_TEXT
        if len(use) > LONGEST_NAME:
            # The interface allows 500 characters, and only whether there is a text decides.
            use = use[: LONGEST_NAME - 1] + "…"
    return (
        int(cell.chosen("list_type", cell.LIST_TYPES, kind)),
        int(cell.chosen("chrgitm_lv", cell.CLASSES, class_)),
        int(cell.chosen("med_chrgitm_type", cell.CATEGORIES, category)),
        use,
    )


def check_share_kind(kind: str) -> None:
    """Raises `Fault` for a selfpay_prop_type whose share is no first self-pay of the item."""
    if kind == _REIMBURSED:
        raise Fault("selfpay_prop_type", "目录直接报销比例不是先行自付比例，不能换算")
    if kind == _BANDED:
        raise Fault("selfpay_prop_type", "按费用单价范围配置的自付比例没有单价范围，不能采用")
    if kind != _SHARE:
        raise Fault("selfpay_prop_type", f"代码应为 {_SHARE}、{_REIMBURSED}、{_BANDED} 之一")
