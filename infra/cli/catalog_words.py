"""Items and publications as `yidi catalog` prints them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from infra.cli.terminal import DIM, local_time
from infra.runtime.money import percent
from infra.runtime.types import chinese
from yidi.catalog.v1 import listing_pb2
from yidi.common.v1 import types_pb2

_LIST = types_pb2.ListType.DESCRIPTOR
_CLASS = types_pb2.CatalogClass.DESCRIPTOR
_INSURANCE = types_pb2.InsuranceType.DESCRIPTOR
_LEVEL = types_pb2.InstitutionLevel.DESCRIPTOR


def item_line(found: listing_pb2.CatalogItem) -> Text:
    """An item among others: code, name, class."""
    line = Text(f"{found.national_code}  ", style=DIM)
    line.append(found.name, style="bold")
    packed = " ".join(filter(None, (found.dosage_form, found.specification, found.unit)))
    kind = f"{chinese(_LIST, found.list_type)} {chinese(_CLASS, found.catalog_class)}"
    return line.append(f"  {f'{packed}  ' if packed else ''}{kind}", style="default")


def revision_lines(found: listing_pb2.CatalogItem) -> list[Text]:
    """What a list says of an item on some days, a line each for what there is."""
    facts = [_shares(found.self_pay)] if found.self_pay else []
    lower = ""
    for band in found.bands:
        upper = _price(band.up_to_micro_yuan) if band.up_to_micro_yuan else ""
        span = f"{lower or '0'} 元以上" if not upper else f"{upper} 元及以下"
        facts.append(f"单价 {span}：{_shares(band.self_pay) or '不先行自付'}")
        lower = upper
    if found.limits:
        prices = "，".join(
            f"{chinese(_LEVEL, each.level)} {_price(each.micro_yuan)}" for each in found.limits
        )
        facts.append(f"限价（元） {prices}")
    if found.limited_use:
        facts.append(f"限定支付 {found.limited_use}")
    for name, limit in (("每日", found.day_limit_e4), ("每次", found.visit_limit_e4)):
        if limit:
            facts.append(f"{name}限量 {_scaled(limit, 4)}")
    if found.preparing_institution:
        facts.append(f"制剂机构 {found.preparing_institution}")
    marks = [("谈判药品", found.negotiated), ("集中带量采购", found.centrally_purchased)]
    facts += [name for name, marked in marks if marked]
    days = f"{found.start_date} 至 {found.end_date}" if found.end_date else f"{found.start_date} 起"
    return [Text(days, style="cyan").append("  ").append(item_line(found))] + [
        Text(f"  {fact}") for fact in facts
    ]


def publication_line(found: listing_pb2.Publication) -> Text:
    """A publication on one line, with its number."""
    line = Text(f"{found.number}  ", style=DIM).append(found.catalogue_version, style="bold")
    kind = f"更改：{found.reason}" if found.change else "整部目录"
    line.append(f"  {found.effective_from} 起  {found.codes} 项  {kind}", style="default")
    return line.append(f"  {local_time(found.publish_time, '%Y-%m-%d %H:%M')} {found.actor}", DIM)


def _shares(shares: Iterable[listing_pb2.SelfPay]) -> str:
    told = [
        f"{chinese(_INSURANCE, each.insurance)} {percent(each.basis_points)}" for each in shares
    ]
    return f"先行自付 {'，'.join(told)}" if told else ""


def _price(micro_yuan: int) -> str:
    return _scaled(micro_yuan, 6)


def _scaled(number: int, decimals: int) -> str:
    whole, part = divmod(number, 10**decimals)
    return f"{whole}.{part:0{decimals}d}".rstrip("0").rstrip(".")
