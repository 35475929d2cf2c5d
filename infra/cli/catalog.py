"""`yidi catalog`: the lists of a care place (就医地目录), seen, searched and changed."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.descriptor import EnumDescriptor
from rich.text import Text

from infra.cli import catalog_import
from infra.cli.asking import every_page, show
from infra.cli.catalog_asking import Area, asked
from infra.cli.catalog_files import CALL_S, Listing
from infra.cli.catalog_words import item_line, publication_line, revision_lines
from infra.cli.filing_asking import written
from infra.cli.options import (
    MOST_INT64,
    As,
    AsJson,
    RequestId,
    SiteCode,
    choice,
    new_request_id,
    one_of,
)
from infra.local.processes import LocalNetworkError
from infra.local.supervisor import OPERATOR
from infra.runtime.clock import SystemClock, business_day
from yidi.catalog.v1 import listing_pb2
from yidi.common.v1 import types_pb2

app = typer.Typer(
    help="Lists of what is covered at the care place, and at what price (就医地目录).",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(catalog_import.app)
Code = Annotated[str, typer.Argument(metavar="CODE", help="国家医保编码.")]
_PAGE = 1_000
_MOST_INT32 = (1 << 31) - 1


@app.command("show")
def show_(
    code: Code,
    area: Area,
    publication: Annotated[
        int,
        typer.Option(
            "--publication", min=0, max=MOST_INT64, help="As of this one; 0 is the newest."
        ),
    ] = 0,
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Show an item with its revisions and the publications that say something of it."""
    request = listing_pb2.GetItemRequest(area=area, national_code=code, publication=publication)

    async def ask(listing: Listing) -> listing_pb2.GetItemResponse:
        answer: listing_pb2.GetItemResponse = await listing.GetItem(request, timeout=CALL_S)
        return answer

    found = asked(who, site, area, ask)
    lines = [line for each in found.revisions for line in revision_lines(each)]
    show(found, [*lines, *map(publication_line, found.publications)], as_json)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="Beginning of the code or part of the name.")],
    area: Area,
    day: Annotated[str, typer.Option("--day", metavar="DATE", help="Today when left out.")] = "",
    list_type: Annotated[
        int | None, choice(types_pb2.ListType.DESCRIPTOR, "--list", "Only this list.")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, max=_PAGE, help="Show so many.")] = 100,
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Search the list that is in force on a day."""
    request = listing_pb2.SearchItemsRequest(
        area=area,
        text=text,
        list_type=types_pb2.ListType.ValueType(list_type or 0),
        day=day or business_day(SystemClock().now_ms()).isoformat(),
        page_size=most,
    )

    async def ask(listing: Listing) -> listing_pb2.SearchItemsResponse:
        answer: listing_pb2.SearchItemsResponse = await listing.SearchItems(request, timeout=CALL_S)
        return answer

    found = asked(who, site, area, ask)
    nothing = Text("没有符合条件的项目 None found.", style="yellow")
    show(found, [item_line(each) for each in found.items] or nothing, as_json)


@app.command()
def publications(
    area: Area, site: SiteCode = None, who: As = OPERATOR, as_json: AsJson = False
) -> None:
    """List what was published: whole lists and changes, newest first."""

    async def ask(listing: Listing) -> listing_pb2.ListPublicationsResponse:
        request = listing_pb2.ListPublicationsRequest(area=area, page_size=_PAGE)
        found: listing_pb2.ListPublicationsResponse = await every_page(
            listing.ListPublications, request, CALL_S
        )
        return found

    found = asked(who, site, area, ask)
    show(found, [publication_line(each) for each in found.publications], as_json)


@app.command()
def change(
    code: Code,
    area: Area,
    version: Annotated[str, typer.Option(help="As `yidi catalog publications` tells it.")],
    day: Annotated[str, typer.Option("--day", metavar="DATE", help="First day that it holds.")],
    reason: Annotated[str, typer.Option(help="Why, for the history.")],
    until: Annotated[
        str, typer.Option("--until", metavar="DATE", help="Last day; without end when left out.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="The item as proto JSON; options go before it.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="医保目录名称.")] = None,
    catalog_class: Annotated[
        int | None, choice(types_pb2.CatalogClass.DESCRIPTOR, "--class", "收费项目等级.")
    ] = None,
    self_pay: Annotated[
        list[str] | None,
        typer.Option(metavar="INSURANCE:PERCENT", help="自付比例; repeat for each insurance."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="LEVEL:YUAN", help="限价 of a level; LEVEL: alone removes it."),
    ] = None,
    limited_use: Annotated[str | None, typer.Option(help="限定支付范围; '' removes it.")] = None,
    request_id: RequestId = None,
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Change an item from a day on: what the options do not say stays as it is on that day."""

    async def ask(listing: Listing) -> listing_pb2.ChangeItemsResponse:
        if file is not None:
            item = written(file, listing_pb2.CatalogItem())
            item.national_code = code
        else:
            item = await _on(day, code, area, listing)
        item.start_date, item.end_date = day, until
        if name is not None:
            item.name = name
        if catalog_class is not None:
            item.catalog_class = types_pb2.CatalogClass.ValueType(catalog_class)
        if limited_use is not None:
            item.limited_use = limited_use
        _set_shares(item, self_pay or [])
        _set_limits(item, limit or [])
        request = listing_pb2.ChangeItemsRequest(
            request_id=request_id or new_request_id(),
            area=area,
            seen_version=version,
            items=[item],
            reason=reason,
            operator=who,
        )
        answer: listing_pb2.ChangeItemsResponse = await listing.ChangeItems(request, timeout=CALL_S)
        return answer

    done = asked(who, site, area, ask)
    show(done, publication_line(done.publication), as_json)


async def _on(day: str, code: str, area: str, listing: Listing) -> listing_pb2.CatalogItem:
    """The item as the list of that day has it."""
    request = listing_pb2.SearchItemsRequest(area=area, text=code, day=day, page_size=1)
    found: listing_pb2.SearchItemsResponse = await listing.SearchItems(request, timeout=CALL_S)
    for each in found.items:
        if each.national_code == code:
            return each
    raise LocalNetworkError(f"{code} is not in the list on {day}: give it whole with --file")


def _set_shares(item: listing_pb2.CatalogItem, told: list[str]) -> None:
    for insurance, share in _pairs(told, "--self-pay", types_pb2.InsuranceType.DESCRIPTOR):
        kept = [each for each in item.self_pay if each.insurance != insurance]
        del item.self_pay[:]
        item.self_pay.extend(kept)
        item.self_pay.add(
            insurance=types_pb2.InsuranceType.ValueType(insurance),
            basis_points=_scaled(share, 100, "--self-pay", _MOST_INT32),
        )


def _set_limits(item: listing_pb2.CatalogItem, told: list[str]) -> None:
    for level, price in _pairs(told, "--limit", types_pb2.InstitutionLevel.DESCRIPTOR):
        kept = [each for each in item.limits if each.level != level]
        del item.limits[:]
        item.limits.extend(kept)
        if price:
            item.limits.add(
                level=types_pb2.InstitutionLevel.ValueType(level),
                micro_yuan=_scaled(price, 1_000_000, "--limit"),
            )


def _pairs(told: list[str], option: str, enum: EnumDescriptor) -> list[tuple[int, str]]:
    pairs = []
    for each in told:
        which, colon, what = each.partition(":")
        if not colon:
            raise typer.BadParameter(f"{option} {each}: write NAME:NUMBER.")
        pairs.append((one_of(enum)(which), what))
    return pairs


def _scaled(text: str, scale: int, option: str, most: int = MOST_INT64) -> int:
    try:
        value = Decimal(text) * scale
        if abs(value) <= most and value == int(value):
            return int(value)
    except ArithmeticError:  # no number, or one that is out of all bounds
        pass
    raise typer.BadParameter(f"{option}: {text!r} is no number with so few decimals.")
