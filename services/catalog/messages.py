"""Items and publications between the contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from infra.runtime.days import parse_day
from services.catalog.domain.item import (
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    ItemInvalid,
    Level,
    ListType,
)
from services.catalog.store.publications import StoredPublication
from yidi.catalog.v1 import listing_pb2
from yidi.common.v1 import types_pb2


def item_of(message: listing_pb2.CatalogItem, field: str) -> Item:
    """The item; raises `ItemInvalid`, and `Refusal` (DAY_INVALID) naming its place `field`."""
    end = message.end_date
    levels = [limit.level for limit in message.limits]
    if len(set(levels)) != len(levels):
        raise ItemInvalid("limits", "同一机构等级有两个限价")
    return Item(
        national_code=message.national_code,
        name=message.name,
        list_type=ListType(message.list_type),
        catalog_class=CatalogClass(message.catalog_class),
        fee_category=FeeCategory(message.fee_category),
        first_self_pay_bp=_shares(message.self_pay),
        limits_micro_yuan={Level(each.level): each.micro_yuan for each in message.limits},
        limited_use=message.limited_use,
        effective_from=parse_day(message.start_date, f"{field}.start_date"),
        effective_to=parse_day(end, f"{field}.end_date") if end else date.max,
        bands=tuple(
            Band(each.up_to_micro_yuan or None, _shares(each.self_pay)) for each in message.bands
        ),
        day_limit_e4=message.day_limit_e4 or None,
        visit_limit_e4=message.visit_limit_e4 or None,
        dosage_form=message.dosage_form,
        specification=message.specification,
        unit=message.unit,
        negotiated=message.negotiated,
        centrally_purchased=message.centrally_purchased,
        preparing_institution=message.preparing_institution,
    )


def _shares(messages: Iterable[listing_pb2.SelfPay]) -> dict[InsuranceType, int]:
    shares: dict[InsuranceType, int] = {}
    for each in messages:
        if shares.setdefault(InsuranceType(each.insurance), each.basis_points) != each.basis_points:
            raise ItemInvalid("first_self_pay", "同一险种有两个先行自付比例")
    return {insurance: shares.get(insurance, 0) for insurance in InsuranceType}


def item_message(item: Item) -> listing_pb2.CatalogItem:
    """The item as it is told; a share of 0 is left out."""
    return listing_pb2.CatalogItem(
        national_code=item.national_code,
        name=item.name,
        list_type=types_pb2.ListType.ValueType(item.list_type),
        catalog_class=types_pb2.CatalogClass.ValueType(item.catalog_class),
        fee_category=types_pb2.FeeCategory.ValueType(item.fee_category),
        self_pay=_share_messages(item.first_self_pay_bp),
        bands=[
            listing_pb2.PriceBand(
                up_to_micro_yuan=band.up_to_micro_yuan or 0,
                self_pay=_share_messages(band.first_self_pay_bp),
            )
            for band in item.bands
        ],
        limits=[
            listing_pb2.PriceLimit(
                level=types_pb2.InstitutionLevel.ValueType(level), micro_yuan=limit
            )
            for level, limit in item.limits_micro_yuan.items()
        ],
        limited_use=item.limited_use,
        day_limit_e4=item.day_limit_e4 or 0,
        visit_limit_e4=item.visit_limit_e4 or 0,
        dosage_form=item.dosage_form,
        specification=item.specification,
        unit=item.unit,
        negotiated=item.negotiated,
        centrally_purchased=item.centrally_purchased,
        preparing_institution=item.preparing_institution,
        start_date=item.effective_from.isoformat(),
        end_date="" if item.effective_to == date.max else item.effective_to.isoformat(),
    )


def _share_messages(shares: Mapping[InsuranceType, int]) -> list[listing_pb2.SelfPay]:
    return [
        listing_pb2.SelfPay(
            insurance=types_pb2.InsuranceType.ValueType(insurance), basis_points=share
        )
        for insurance, share in shares.items()
        if share
    ]


def publication_message(found: StoredPublication) -> listing_pb2.Publication:
    """The publication as it is told."""
    message = listing_pb2.Publication(
        number=found.publication,
        area=found.area,
        catalogue_version=found.version,
        effective_from=found.effective_from.isoformat(),
        codes=found.codes,
        change=found.base_id is not None,
        reason=found.reason,
        actor=found.actor,
        content_hash=found.content_hash,
    )
    message.publish_time.FromDatetime(found.published_at)
    return message
