"""`yidi filing review|queue|form`: what only the agency of the insured place does."""

from __future__ import annotations

import asyncio
from html import escape
from pathlib import Path
from string import Template
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.text import Text

from infra.cli.client import Clients
from infra.cli.filing_asking import (
    AN_OPERATOR,
    CALL_S,
    AsJson,
    Caller,
    Desk,
    SiteCode,
    desk_of,
    names_of,
)
from infra.cli.filing_words import Names, filing_line
from infra.cli.options import RequestId, new_request_id
from infra.cli.terminal import DIM, out
from infra.local.files import write_atomic
from infra.local.processes import LocalNetworkError
from infra.local.state import default_home
from yidi.enrollment.v1 import participant_pb2, participant_pb2_grpc
from yidi.filing.v1 import desk_pb2

app = typer.Typer(no_args_is_help=True, add_completion=False)
FilingId = Annotated[str, typer.Argument(metavar="ID", help="The filing.")]
Area = Annotated[str, typer.Option("--area", help="Pooling area of the insurance.")]
As = Annotated[str, typer.Option("--as", help="operator/NAME of the insured site.")]
_PAGE = 1_000
_FORM = Template("""<!doctype html>
<html lang="zh-CN">
<meta charset="utf-8">
<title>$title</title>
<style>
@page { size: A4; margin: 20mm }
body { font: 12pt/1.7 "Noto Serif CJK SC", SimSun, serif; max-width: 170mm; margin: auto }
h1 { font-size: 18pt; text-align: center }
table { border-collapse: collapse; width: 100% }
th, td { border: 1px solid #000; padding: 2mm 3mm; text-align: left; height: 8mm }
th { width: 34%; font-weight: normal }
p { text-indent: 2em }
</style>
<h1>$title</h1>
<table>
$rows
</table>
$text
</html>
""")


@app.command()
def review(
    filing_id: FilingId,
    area: Area,
    version: Annotated[int, typer.Option("--version", help="Its version, as the queue shows it.")],
    accepted: Annotated[bool, typer.Option("--accept/--refuse", help="What is decided.")],
    cause: Annotated[str, typer.Option(help="Why; needed to refuse.")] = "",
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Accept or refuse a filing that waits (审核)."""
    caller, request_id = _operator(who), request_id or new_request_id()

    async def call() -> tuple[desk_pb2.ReviewFilingResponse, Names]:
        async with Clients.connect(default_home()) as clients:
            answer = await desk_of(clients, caller, site, area).ask(
                "ReviewFiling",
                request_id=request_id,
                filing_id=filing_id,
                version=version,
                accepted=accepted,
                cause=cause,
            )
            return answer, names_of(clients)

    answer, names = asyncio.run(call())
    if as_json:
        typer.echo(json_format.MessageToJson(answer, ensure_ascii=False))
        return
    out().print(filing_line(answer.filing, names), soft_wrap=True)
    out().print(f"请求号 request_id {request_id}", style=DIM, soft_wrap=True)


@app.command()
def queue(
    area: Area,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """List the filings that wait for a decision, the first due first."""
    caller = _operator(who)

    async def call() -> tuple[desk_pb2.ListPendingFilingsResponse, Names]:
        async with Clients.connect(default_home()) as clients:
            desk, token = desk_of(clients, caller, site, area), ""
            found = desk_pb2.ListPendingFilingsResponse()
            while True:
                page = await desk.ask(
                    "ListPendingFilings", insured_area=area, page_size=_PAGE, page_token=token
                )
                found.filings.extend(page.filings)
                token = page.next_page_token
                if not token:
                    return found, names_of(clients)

    found, names = asyncio.run(call())
    if as_json:
        typer.echo(json_format.MessageToJson(found, ensure_ascii=False))
        return
    for pending in found.filings:
        late = Text("超期 overdue  " if pending.overdue else "", style="red")
        out().print(late.append_text(filing_line(pending.filing, names)), soft_wrap=True)
    if not found.filings:
        out().print("没有待审核的备案 No filing waits.", style="green")


@app.command()
def form(
    filing_id: FilingId,
    area: Area,
    number: Annotated[
        int, typer.Option("--form", min=1, max=2, help="1 登记备案表, 2 个人承诺书.")
    ] = 1,
    html: Annotated[
        Path | None,
        typer.Option(help="Write an A4 page with name and ID number; enrollment audits that."),
    ] = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Print a form of a filing; name and ID number stand only in the page of --html."""
    caller = _operator(who)

    async def call() -> tuple[desk_pb2.GetFilingFormResponse, dict[str, str]]:
        async with Clients.connect(default_home()) as clients:
            desk = desk_of(clients, caller, site, area)
            found = await desk.ask(
                "GetFilingForm", filing_id=filing_id, insured_area=area, form=number
            )
            return found, {} if html is None else await _known(desk, found, area)

    found, known = asyncio.run(call())
    if html is not None:
        write_form(html, found, known)
    if as_json:
        typer.echo(json_format.MessageToJson(found, ensure_ascii=False))
        return
    console = out()
    console.print(found.title, style="bold")
    for field in found.fields:
        console.print(Text.assemble(f"  {field.label}：", (field.value or "＿＿＿＿", "bold")))
    for paragraph in found.text:
        console.print(Text(f"\n{paragraph}"))
    if html is not None:
        console.print(f"已写入 {html}：其中有姓名和身份证号，请妥善保管。", soft_wrap=True)


async def _known(desk: Desk, found: desk_pb2.GetFilingFormResponse, area: str) -> dict[str, str]:
    """What enrollment fills in."""
    people = desk.clients.operator(
        participant_pb2_grpc.ParticipantServiceStub, desk.site, "enrollment", desk.caller.name
    )
    asked = participant_pb2.FillFormRequest(
        person_id=found.person_id, insured_area=area, purpose=found.title
    )
    filled = await people.FillForm(asked, timeout=CALL_S)
    return {"name": filled.name, "id_number": filled.id_number}


def write_form(file: Path, form: desk_pb2.GetFilingFormResponse, known: dict[str, str]) -> None:
    """Write the form as a page that only its owner may read; raise `LocalNetworkError` when FILE
    cannot be written."""
    rows = "\n".join(
        f"<tr><th>{escape(field.label)}</th>"
        f"<td>{escape(known.get(field.filled_by, field.value))}</td></tr>"
        for field in form.fields
    )
    text = "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in form.text)
    page = _FORM.substitute(title=escape(form.title), rows=rows, text=text)
    try:
        write_atomic(file, page)
    except OSError as error:
        raise LocalNetworkError(f"cannot write {file}: {error.strerror}") from error


def _operator(who: str) -> Caller:
    caller = Caller.read(who)
    if caller.institution:
        raise LocalNetworkError(f"--as {who}: only an operator of the insured site may do this")
    return caller
