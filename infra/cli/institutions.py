"""`yidi institution`: the institutions of a site (定点医药机构), registered and found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from infra.cli.filing_asking import AN_OPERATOR, As, AsJson, SiteCode, written
from infra.cli.options import RequestId, choice, new_request_id
from infra.cli.registry_asking import SECONDS, Registry, asked, day_of, span, today, told
from infra.cli.terminal import DIM, out
from infra.local.processes import LocalNetworkError
from infra.runtime.types import chinese
from yidi.catalog.v1 import registry_pb2
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import catalog_desk_pb2

app = typer.Typer(
    help="Institutions of a site (定点医药机构).", no_args_is_help=True, add_completion=False
)
_PAGE = 1_000
_Record = registry_pb2.InstitutionRecord


@app.command()
def register(
    file: Annotated[
        Path, typer.Argument(help="`RegisterInstitutionsRequest` as proto JSON: what holds, whole.")
    ],
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Register institutions, or change them from a day on; all or none."""
    ask = written(file, registry_pb2.RegisterInstitutionsRequest(), request_id=request_id)
    ask.request_id = ask.request_id or new_request_id()
    if not ask.institutions:
        raise LocalNetworkError(f"{file} names no institution")

    async def call(registry: Registry) -> registry_pb2.RegisterInstitutionsResponse:
        return await registry.agency.RegisterInstitutions(ask, timeout=SECONDS)

    answer = asked(who, site, ask.institutions[0].area, call)
    if not told(answer, as_json):
        out().print(f"登记 {answer.registered} 条，未变 {answer.unchanged} 条")
        out().print(f"请求号 request_id {ask.request_id}", style=DIM, soft_wrap=True)


@app.command()
def show(
    code: Annotated[str, typer.Argument(help="Its code (医药机构编号).")],
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Show an institution with its history, oldest first."""

    async def call(registry: Registry) -> registry_pb2.GetInstitutionResponse:
        ask = registry_pb2.GetInstitutionRequest(code=code)
        return await registry.agency.GetInstitution(ask, timeout=SECONDS)

    answer = asked(who, site, code, call)
    if told(answer, as_json):
        return
    for one in answer.registrations:
        out().print(Text(f"自 {one.start_date} 起", style=DIM))
        out().print(_whole(one), soft_wrap=True)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="Part of the name or beginning of the code.")] = "",
    area: Annotated[str, typer.Option(help="Pooling area; the whole site when left out.")] = "",
    route: Annotated[
        int | None, choice(types_pb2.Route.DESCRIPTOR, "--route", "Networked for this route.")
    ] = None,
    service: Annotated[
        int | None,
        choice(registry_pb2.InstitutionService.DESCRIPTOR, "--service", "For this service."),
    ] = None,
    disease: Annotated[str, typer.Option(help="Settles this chronic disease, e.g. M03900.")] = "",
    day: Annotated[
        str | None, typer.Option(metavar="DATE", help="Day; today when left out.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also those that may not settle on the day.")
    ] = False,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Find institutions that settle directly on a day."""
    ask = registry_pb2.SearchInstitutionsRequest(
        text=text,
        area=area,
        route=types_pb2.Route.ValueType(route or 0),
        service=registry_pb2.InstitutionService.ValueType(service or 0),
        disease_code=disease,
        day=day_of(day) if day else today(),
        all=every,
        page_size=_PAGE,
    )

    async def call(registry: Registry) -> registry_pb2.SearchInstitutionsResponse:
        found = registry_pb2.SearchInstitutionsResponse()
        while True:
            if registry.caller.institution:
                request = catalog_desk_pb2.FindInstitutionsRequest(search=ask)
                page = await registry.door.FindInstitutions(request, timeout=SECONDS)
                found.institutions.extend(page.institutions)
                ask.page_token = page.next_page_token
            else:
                agency = await registry.agency.SearchInstitutions(ask, timeout=SECONDS)
                found.institutions.extend(agency.institutions)
                ask.page_token = agency.next_page_token
            if not ask.page_token:
                return found

    found = asked(who, site, area, call)
    if told(found, as_json):
        return
    for one in found.institutions:
        out().print(_line(one), soft_wrap=True)
    if not found.institutions:
        out().print("没有找到符合条件的机构 None found.", style="yellow")


def _line(one: _Record) -> Text:
    line = Text(one.name, style="bold").append(f"  {one.code}", style=DIM)
    line.append(f"  {chinese(registry_pb2.InstitutionKind.DESCRIPTOR, one.kind)}")
    line.append(f"  {chinese(types_pb2.InstitutionGrade.DESCRIPTOR, one.grade)}  {one.area}")
    if one.place:
        line.append(f"  {one.place}")
    if one.suspended:
        line.append("  协议已暂停", style="red")
    return line


def _whole(one: _Record) -> Text:
    """The line and below it what the institution is networked for, its levels and agreement."""
    levels = types_pb2.InstitutionLevel.DESCRIPTOR
    services = registry_pb2.InstitutionService.DESCRIPTOR
    facts = {
        chinese(types_pb2.Route.DESCRIPTOR, each.route): "、".join(
            chinese(services, service) for service in each.services
        )
        for each in one.networked
    }
    facts |= {
        "起付线等级": chinese(levels, one.deductible_level),
        "限价等级": chinese(levels, one.price_limit_level),
        "结算等级": chinese(levels, one.settlement_level),
        "协议期": span(one.agreement_start_date, one.agreement_end_date),
        "慢特病": "、".join(
            f"{each.disease_code}（{span(each.start_date, each.end_date)}）"
            for each in one.diseases
        ),
    }
    lines = [_line(one)]
    lines += [Text.assemble((f"  {label}：", DIM), fact) for label, fact in facts.items() if fact]
    return Text("\n").join(lines)
