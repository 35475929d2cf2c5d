"""`yidi mapping`: what institutions map their items to (目录对照), and its review."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from infra.cli.asking import every_page
from infra.cli.filing_asking import AN_OPERATOR, As, AsJson, SiteCode
from infra.cli.options import MOST_INT64, RequestId, choice, new_request_id, one_of
from infra.cli.registry_asking import SECONDS, Registry, asked, day_of, span, today, told
from infra.cli.terminal import DIM, local_time, out
from infra.local.processes import LocalNetworkError
from infra.runtime.types import chinese
from yidi.catalog.v1 import registry_pb2
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import catalog_desk_pb2

app = typer.Typer(
    help="Items of institutions mapped to national codes (目录对照).",
    no_args_is_help=True,
    add_completion=False,
)
Institution = Annotated[
    str, typer.Option("--institution", help="Its code; of an institution that asks its own.")
]
Ids = Annotated[
    list[int],
    typer.Argument(metavar="ID...", max=MOST_INT64, help="As `yidi mapping list` shows."),
]
_PAGE = _AT_ONCE = 1_000
_COLUMNS = ("item_code", "item_name", "list_type", "national_code", "start_date", "end_date")
_STYLES = {
    registry_pb2.MAPPING_STATE_PENDING: "yellow",
    registry_pb2.MAPPING_STATE_APPROVED: "green",
    registry_pb2.MAPPING_STATE_REFUSED: "red",
}


@app.command("list")
def list_(
    institution: Institution = "",
    state: Annotated[
        int | None, choice(registry_pb2.MappingState.DESCRIPTOR, "--state", "Only in this state.")
    ] = None,
    item: Annotated[str, typer.Option(help="Only of this item of the institution.")] = "",
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """List mappings and where they stand."""
    wanted = registry_pb2.MappingState.ValueType(state or 0)

    async def call(registry: Registry) -> registry_pb2.ListMappingsResponse:
        if registry.caller.institution:
            own = catalog_desk_pb2.ListItemMappingsRequest(
                state=wanted, item_code=item, page_size=_PAGE
            )
            mine = await every_page(registry.door.ListItemMappings, own, SECONDS)
            return registry_pb2.ListMappingsResponse(mappings=mine.mappings)
        request = registry_pb2.ListMappingsRequest(
            institution=institution, state=wanted, item_code=item, page_size=_PAGE
        )
        found: registry_pb2.ListMappingsResponse = await every_page(
            registry.agency.ListMappings, request, SECONDS
        )
        return found

    found = asked(who, site, institution, call)
    if told(found, as_json):
        return
    _show(found.mappings)
    if not found.mappings:
        out().print("没有符合条件的对照 None found.", style="yellow")


@app.command()
def submit(
    file: Annotated[
        Path,
        typer.Argument(
            help=f"CSV with the columns {', '.join(_COLUMNS)}; item_name, list_type and end_date "
            "may be empty or missing."
        ),
    ],
    institution: Institution = "",
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Submit mappings for review (3301), 1,000 at a time; each thousand whole or not at all."""
    mappings = read_mappings(file)
    request_id = request_id or new_request_id()

    async def call(registry: Registry) -> registry_pb2.SubmitMappingsResponse:
        done = registry_pb2.SubmitMappingsResponse()
        for number, first in enumerate(range(0, len(mappings), _AT_ONCE)):
            part = mappings[first : first + _AT_ONCE]
            part_id = f"{request_id}.{number}" if len(mappings) > _AT_ONCE else request_id
            if registry.caller.institution:
                own = catalog_desk_pb2.SubmitItemMappingsRequest(request_id=part_id, mappings=part)
                answer = await registry.door.SubmitItemMappings(own, timeout=SECONDS)
                done.mappings.extend(answer.mappings)
            else:
                ask = registry_pb2.SubmitMappingsRequest(
                    request_id=part_id, institution=institution, mappings=part
                )
                agency = await registry.agency.SubmitMappings(ask, timeout=SECONDS)
                done.mappings.extend(agency.mappings)
        return done

    answer = asked(who, site, institution, call)
    if not told(answer, as_json):
        out().print(f"已提交 {len(answer.mappings)} 条，待审核")
        out().print(f"请求号 request_id {request_id}", style=DIM, soft_wrap=True)


@app.command()
def withdraw(
    items: Annotated[list[str], typer.Argument(metavar="ITEM...", help="The institution's codes.")],
    day: Annotated[
        str | None, typer.Option(metavar="DATE", help="First day without them; today if not said.")
    ] = None,
    institution: Institution = "",
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw the mappings of items from a day on (3302)."""
    first_day = day_of(day) if day else today()
    request_id = request_id or new_request_id()

    async def call(registry: Registry) -> registry_pb2.WithdrawMappingsResponse:
        if registry.caller.institution:
            own = catalog_desk_pb2.WithdrawItemMappingsRequest(
                request_id=request_id, item_codes=items, day=first_day
            )
            answer = await registry.door.WithdrawItemMappings(own, timeout=SECONDS)
            return registry_pb2.WithdrawMappingsResponse(mappings=answer.mappings)
        ask = registry_pb2.WithdrawMappingsRequest(
            request_id=request_id, institution=institution, item_codes=items, day=first_day
        )
        return await registry.agency.WithdrawMappings(ask, timeout=SECONDS)

    answer = asked(who, site, institution, call)
    if not told(answer, as_json):
        _show(answer.mappings)


@app.command()
def approve(
    ids: Ids,
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Approve mappings that wait (审核通过); all or none."""
    _review(ids, True, "", request_id, who, site, as_json)


@app.command()
def refuse(
    ids: Ids,
    reason: Annotated[str, typer.Option(help="Why not; the institution reads it.")],
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Refuse mappings that wait (审核不通过); all or none."""
    _review(ids, False, reason, request_id, who, site, as_json)


def read_mappings(file: Path) -> list[registry_pb2.ItemMapping]:
    """The rows of FILE; raise `LocalNetworkError` naming the line when it cannot be read."""
    list_type = one_of(types_pb2.ListType.DESCRIPTOR)
    mappings: list[registry_pb2.ItemMapping] = []
    line = 1
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened, strict=True, restval="")
            unknown = set(rows.fieldnames or ()) ^ set(_COLUMNS)
            if unknown - {"item_name", "list_type", "end_date"}:
                raise LocalNetworkError(f"{file}: the columns are {', '.join(_COLUMNS)}")
            for row in rows:
                line = rows.line_num
                if None in row:
                    raise ValueError("more cells than columns")
                said = {name: (row.get(name) or "").strip() for name in _COLUMNS}
                number = list_type(said["list_type"]) if said["list_type"] else 0
                mapping = registry_pb2.ItemMapping(
                    item_code=said["item_code"],
                    item_name=said["item_name"],
                    list_type=types_pb2.ListType.ValueType(number),
                    national_code=said["national_code"],
                    start_date=said["start_date"],
                    end_date=said["end_date"],
                )
                mappings.append(mapping)
    except OSError as error:
        raise LocalNetworkError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LocalNetworkError(f"{file} is not UTF-8 text") from error
    except (csv.Error, ValueError, typer.BadParameter) as error:
        raise LocalNetworkError(f"{file}:{line}: {error}") from error
    if not mappings:
        raise LocalNetworkError(f"{file} has no rows")
    return mappings


def _review(
    ids: list[int],
    accepted: bool,
    reason: str,
    request_id: str | None,
    who: str,
    site: str | None,
    as_json: bool,
) -> None:
    ask = registry_pb2.ReviewMappingsRequest(
        request_id=request_id or new_request_id(),
        mapping_ids=ids,
        approve=accepted,
        reason=reason,
    )

    async def call(registry: Registry) -> registry_pb2.ReviewMappingsResponse:
        return await registry.agency.ReviewMappings(ask, timeout=SECONDS)

    answer = asked(who, site, "", call)
    if not told(answer, as_json):
        _show(answer.mappings)


def _show(mappings: Iterable[registry_pb2.MappingRecord]) -> None:
    for one in mappings:
        said = one.mapping
        state = chinese(registry_pb2.MappingState.DESCRIPTOR, one.state)
        line = Text(state, style=_STYLES.get(one.state, DIM))
        line.append(f"  {said.item_code} → {said.national_code}", style="bold")
        line.append(f"  {said.item_name}" if said.item_name else "")
        line.append(f"  {span(said.start_date, said.end_date)}")
        line.append(f"  {one.reason}" if one.reason else "")
        line.append(
            f"  {one.institution}  {local_time(one.state_time, '%Y-%m-%d %H:%M:%S')}"
            f"  编号 {one.mapping_id}",
            style=DIM,
        )
        out().print(line, soft_wrap=True)
