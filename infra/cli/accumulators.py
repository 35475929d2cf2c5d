"""`yidi accumulators`: whether every balance is the sum of its deltas; postings from outside."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.console import Console
from rich.text import Text

from infra.cli.client import Clients
from infra.cli.pairs import CALL_S
from infra.cli.terminal import DIM, err, out, show_refusal
from infra.cli.verify import check_insured
from infra.local.processes import LocalNetworkError
from infra.local.state import default_home
from infra.runtime.errors import Refusal
from yidi.settlement.v1 import insured_pb2, insured_pb2_grpc

app = typer.Typer(
    help="Accumulators and personal accounts of the insured places.",
    no_args_is_help=True,
    add_completion=False,
)
SiteCode = Annotated[
    str | None, typer.Option("--site", help="Province to ask; all of them when left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Checked = dict[str, insured_pb2.CheckInsuredInvariantsResponse]


@app.command()
def rebuild(
    check: Annotated[
        bool, typer.Option("--check", help="Sum every delta again and compare; changes nothing.")
    ] = False,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Sum every delta again and compare with what is stored; exit code 1 on any difference."""
    if not check:
        raise LocalNetworkError(
            "nothing rewrites balances by itself: run it with --check, which lists each"
            " difference with the sum that it should be, for people to find the cause and correct"
        )
    checked = asyncio.run(_check(site))
    ok = not any(answer.breaches for answer in checked.values())
    if as_json:
        typer.echo(json.dumps({"ok": ok, "sites": _facts(checked)}, ensure_ascii=False, indent=1))
    else:
        _print(checked, out())
    if not ok:
        raise typer.Exit(1)


async def _check(site: str | None) -> Checked:
    async with Clients.connect(default_home()) as clients:
        sites = clients.chosen(site)
        answers = await asyncio.gather(*(check_insured(clients, one) for one in sites))
    for answer in answers:
        sums = [breach for breach in answer.breaches if breach.invariant == "sum_of_deltas"]
        del answer.breaches[:]
        answer.breaches.extend(sums)
    return dict(zip(sites, answers, strict=True))


def _facts(checked: Checked) -> list[dict[str, object]]:
    return [
        {
            "site": site,
            "accumulators": answer.accumulators,
            "accounts": answer.accounts,
            "differences": [
                {"subject": breach.subject, "text": breach.text} for breach in answer.breaches
            ],
        }
        for site, answer in checked.items()
    ]


def _print(checked: Checked, console: Console) -> None:
    for site, answer in checked.items():
        console.print(
            f"{site}: {answer.accumulators} accumulators, {answer.accounts} accounts compared"
            " with the sums of their deltas"
        )
        for breach in answer.breaches:
            console.print(Text("  ≠ ", style="red").append(f"{breach.subject}  {breach.text}"))
    if any(answer.breaches for answer in checked.values()):
        console.print("累计与各笔合计不一致 Balances differ from their deltas.", style="bold red")
    else:
        console.print("累计与各笔合计一致 Every balance is the sum of its deltas.", style="green")


@app.command()
def post(
    file: Annotated[Path, typer.Option("--file", help="BatchPostExternalRequest as proto JSON.")],
    as_json: AsJson = False,
) -> None:
    """Post opening values and costs settled elsewhere; the same file again changes nothing."""
    request = _read(file)
    results = asyncio.run(_post(request))
    if as_json:
        answer = insured_pb2.BatchPostExternalResponse(results=results)
        typer.echo(json_format.MessageToJson(answer, ensure_ascii=False))
    refused = [result for result in results if result.HasField("error")]
    for result in results:
        if result.HasField("error"):
            err().print(result.id, style=DIM)
            show_refusal(Refusal.from_status(result.error), err())
        elif not as_json:
            out().print(Text("已入账 posted ", style="green").append(result.id, style="default"))
    if refused:
        raise typer.Exit(1)


def _read(file: Path) -> insured_pb2.BatchPostExternalRequest:
    try:
        text = file.read_text(encoding="utf-8")
        return json_format.Parse(text, insured_pb2.BatchPostExternalRequest())
    except OSError as error:
        raise LocalNetworkError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LocalNetworkError(f"{file} is not UTF-8 text") from error
    except json_format.ParseError as error:
        raise LocalNetworkError(
            f"{file} is not a BatchPostExternalRequest in proto JSON: {error}"
        ) from error


async def _post(
    request: insured_pb2.BatchPostExternalRequest,
) -> list[insured_pb2.ExternalResult]:
    """Post each item at the province of its area, in the order of the file."""
    async with Clients.connect(default_home()) as clients:
        batches: dict[str, list[insured_pb2.ExternalItem]] = defaultdict(list)
        for item in request.items:
            site = clients.site_of_area(item.insured_area)
            if site is None:
                raise LocalNetworkError(
                    f"insured area {item.insured_area or '(none)'} is in no province of this"
                    " network; nothing was posted"
                )
            batches[site].append(item)
        results: dict[str, insured_pb2.ExternalResult] = {}
        for site, items in batches.items():
            stub = clients.operator(insured_pb2_grpc.InsuredServiceStub, site, "settlement")
            batch = insured_pb2.BatchPostExternalRequest(items=items)
            answer = await stub.BatchPostExternal(batch, timeout=CALL_S)
            results |= {result.id: result for result in answer.results}
    return [results[item.id] for item in request.items if item.id in results]
