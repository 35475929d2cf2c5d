"""`yidi settle` and `yidi quote`: one visit from a file, sent as an institution would."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.terminal import out
from infra.local.processes import LocalNetworkError
from infra.local.state import default_home

if TYPE_CHECKING:
    from yidi.gateway.v1 import gateway_pb2

_CALL_S = 8.0

VisitFile = Annotated[
    Path, typer.Option("--file", help="SettleRequest as proto JSON, see infra/local/samples.")
]
As = Annotated[
    str | None,
    typer.Option("--as", help="institution/CODE; the bill's own institution when left out."),
]
SiteCode = Annotated[
    str | None, typer.Option("--site", help="Site to call; that of the care area when left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as proto JSON.")]


def settle(file: VisitFile, who: As = None, site: SiteCode = None, as_json: AsJson = False) -> None:
    """Settle the visit in FILE (结算); the same file again gives the stored answer."""

    async def call(
        stub: Any, request: gateway_pb2.SettleRequest
    ) -> tuple[Any, gateway_pb2.SettlementResult]:
        answer = await stub.Settle(request, timeout=_CALL_S)
        return answer, answer.result

    _run(file, who, site, as_json, call)


def quote(file: VisitFile, who: As = None, site: SiteCode = None, as_json: AsJson = False) -> None:
    """Quote the visit in FILE (预结算): the amounts as of now, nothing stored."""
    from yidi.gateway.v1 import gateway_pb2

    async def call(
        stub: Any, request: gateway_pb2.SettleRequest
    ) -> tuple[Any, gateway_pb2.SettlementResult]:
        asked = gateway_pb2.QuoteRequest(
            credential=request.credential, bill=request.bill, operator=request.operator
        )
        answer = await stub.Quote(asked, timeout=_CALL_S)
        return answer, answer.result

    _run(file, who, site, as_json, call)


Call = Callable[[Any, Any], Awaitable[tuple[Any, Any]]]


def _run(file: Path, who: str | None, site: str | None, as_json: bool, call: Call) -> None:
    request = read_request(file)
    institution = institution_of(who, request.bill.reference.institution)
    asyncio.run(_send(request, institution, site, as_json, call))


def read_request(file: Path) -> gateway_pb2.SettleRequest:
    """The request in `file`; raise `LocalNetworkError` saying what is wrong with the file."""
    from google.protobuf import json_format

    from yidi.gateway.v1 import gateway_pb2

    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise LocalNetworkError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LocalNetworkError(f"{file} is not UTF-8 text") from error
    try:
        return json_format.Parse(text, gateway_pb2.SettleRequest())
    except json_format.ParseError as error:
        raise LocalNetworkError(f"{file} is not a SettleRequest in proto JSON: {error}") from error


def institution_of(who: str | None, billed: str) -> str:
    """The institution that `--as` names, or `billed` when it is left out."""
    if who is None:
        if not billed:
            raise LocalNetworkError("the bill names no institution: say --as institution/CODE")
        return billed
    match = re.fullmatch(r"institution/([A-Za-z0-9][A-Za-z0-9_-]{0,39})", who)
    if match is None:
        raise LocalNetworkError(f"--as {who}: write institution/CODE")
    return match[1]


async def _send(
    request: gateway_pb2.SettleRequest,
    institution: str,
    site: str | None,
    as_json: bool,
    call: Call,
) -> None:
    from google.protobuf import json_format

    from infra.cli.client import Clients
    from infra.cli.explain import Places, explained
    from yidi.gateway.v1 import gateway_pb2_grpc

    visit = request.bill.visit
    async with Clients.connect(default_home()) as clients:
        clients.chosen(site)
        provinces = clients.provinces
        called = site or clients.site_of_area(visit.care_area)
        if called is None:
            known = ", ".join(f"{code} {name}" for code, name in provinces.items())
            raise LocalNetworkError(
                f"care area {visit.care_area or '(none)'} is in no province of this network;"
                f" it has {known}: say --site CODE"
            )
        stub = clients.institution(gateway_pb2_grpc.InstitutionServiceStub, called, institution)
        answer, result = await call(stub, request)
        if as_json:
            typer.echo(json_format.MessageToJson(answer, ensure_ascii=False))
            return
        insured = clients.site_of_area(visit.insured_area) or ""
        console = out()
        console.print(explained(result, Places(provinces[called], provinces.get(insured, "?"))))
        if settlement_id := getattr(answer, "settlement_id", ""):
            console.print(f"结算号 settlement_id {settlement_id}", style="bright_black")
