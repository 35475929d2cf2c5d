"""`yidi audit`: the cases after a settlement."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf import json_format
from rich.console import Console
from rich.text import Text

from infra.cli import audit_rates, audit_rules
from infra.cli.asking import echo_facts, every_page, held_by, with_clients
from infra.cli.audit_rates import AsJson, SiteCode, Stub
from infra.cli.client import Clients
from infra.cli.everywhere import everywhere
from infra.cli.explain import findings_lines, split_lines
from infra.cli.options import RequestId, choice, new_request_id
from infra.cli.pairs import CALL_S
from infra.cli.terminal import DIM, local_time, out, yuan
from infra.local.processes import LocalNetworkError
from infra.local.supervisor import OPERATOR
from infra.runtime.errors import Reason
from infra.runtime.types import chinese
from yidi.settlement.v1 import audit_pb2

app = typer.Typer(
    help="Audit after the settlement (审核), and its rules at the door.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(audit_rules.app, name="rules")
app.command("rates")(audit_rates.rates)
As = Annotated[str, typer.Option("--as", help="Operator of the care place who audits.")]
CaseId = Annotated[str, typer.Argument(metavar="CASE", help="The case, as the queue shows it.")]
T = TypeVar("T")
_PAGE = 1_000
_YUAN = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,2}))?")


@app.command()
def queue(
    state: Annotated[
        int,
        choice(audit_pb2.AuditCaseState.DESCRIPTOR, "--state", "open, confirmed or deducted."),
    ] = "open",  # type: ignore[assignment]
    kind: Annotated[
        int | None,
        choice(
            audit_pb2.AuditCaseKind.DESCRIPTOR,
            "--kind",
            "Only of this kind: injury_declaration, finding or picked.",
        ),
    ] = None,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """List the cases that wait for an auditor, the oldest settlements first."""

    async def ask(clients: Clients, at: str) -> Sequence[audit_pb2.AuditCase]:
        audit = clients.operator(Stub, at, "settlement")
        request = audit_pb2.ListAuditCasesRequest(
            page_size=_PAGE,
            state=audit_pb2.AuditCaseState.ValueType(state),
            kind=audit_pb2.AuditCaseKind.ValueType(kind or 0),
        )
        answer: audit_pb2.ListAuditCasesResponse = await every_page(
            audit.ListAuditCases, request, CALL_S
        )
        return answer.cases

    answers = everywhere(site, ask)
    cases = [(at, case) for at, found in answers.found.items() for case in found]
    if as_json:
        echo_facts({"cases": [_facts(case, at) for at, case in cases]})
    elif cases:
        for at, case in cases:
            _print_case(case, at, out())
    elif not answers.silent:
        out().print("没有审核事项 No case.", style="green")
    answers.end()


@app.command()
def show(case_id: CaseId, site: SiteCode = None, as_json: AsJson = False) -> None:
    """Show a case with the lines of its bill and what the fee audit found at the door."""

    async def ask(audit: Stub) -> audit_pb2.GetAuditCaseResponse:
        return await audit.GetAuditCase(
            audit_pb2.GetAuditCaseRequest(case_id=case_id), timeout=CALL_S
        )

    at, answer = asyncio.run(_where(site, ask, Reason.ERROR_REASON_AUDIT_CASE_NOT_FOUND))
    if as_json:
        typer.echo(json_format.MessageToJson(answer, ensure_ascii=False))
        return
    console = out()
    _print_case(answer.case, at, console)
    for finding in findings_lines(answer.findings):
        console.print(finding, soft_wrap=True)
    console.print(split_lines(answer.lines))


@app.command()
def pick(
    settlement_id: Annotated[str, typer.Argument(metavar="ID", help="A completed settlement.")],
    request_id: RequestId = None,
    who: As = OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Open a case for settlement ID (人工抽查)."""
    request = audit_pb2.OpenAuditCaseRequest(
        request_id=request_id or new_request_id(), settlement_id=settlement_id
    )

    async def ask(audit: Stub) -> audit_pb2.AuditCase:
        return (await audit.OpenAuditCase(request, timeout=CALL_S)).case

    missing = Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND
    _changed(*asyncio.run(_where(site, ask, missing, who)), request.request_id, as_json)


@app.command()
def decide(
    case_id: CaseId,
    deduct: Annotated[
        str, typer.Option(metavar="YUAN", help="What is deducted; 0 finds nothing wrong.")
    ],
    reason: Annotated[str, typer.Option(help="Why, Chinese; needed to deduct.")] = "",
    request_id: RequestId = None,
    who: As = OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Decide an open case, once: nothing wrong, or a deduction (审核扣款)."""
    request = audit_pb2.DecideAuditCaseRequest(
        request_id=request_id or new_request_id(),
        case_id=case_id,
        deducted_fen=_fen(deduct),
        reason=reason,
    )

    async def ask(audit: Stub) -> audit_pb2.AuditCase:
        return (await audit.DecideAuditCase(request, timeout=CALL_S)).case

    missing = Reason.ERROR_REASON_AUDIT_CASE_NOT_FOUND
    _changed(*asyncio.run(_where(site, ask, missing, who)), request.request_id, as_json)


async def _where(
    site: str | None,
    ask: Callable[[Stub], Awaitable[T]],
    missing: Reason.ValueType,
    who: str = OPERATOR,
) -> tuple[str, T]:
    """What the province says that has it; `missing` is what the others say."""

    async def act(clients: Clients) -> tuple[str, T]:
        return await held_by(
            clients, site, missing, lambda one: ask(clients.operator(Stub, one, "settlement", who))
        )

    return await with_clients(act)


def _changed(at: str, case: audit_pb2.AuditCase, request_id: str, as_json: bool) -> None:
    if as_json:
        echo_facts({**_facts(case, at), "request_id": request_id})
        return
    _print_case(case, at, out())
    out().print(f"请求号 request_id {request_id}", style=DIM, soft_wrap=True)


def _print_case(case: audit_pb2.AuditCase, at: str, console: Console) -> None:
    bill = case.bill
    title = Text(f"{_kind(case)} {case.case_id}  ").append(_state(case), style="bold")
    console.print(title, soft_wrap=True)
    console.print(
        Text(
            f"就医地 {at}  结算 {case.settlement_id}"
            f"  {local_time(case.open_time, '%Y-%m-%d %H:%M')}  机构 {bill.institution}"
            f"  就诊 {bill.visit_id}  单据 {bill.bill_id}",
            style=DIM,
        ),
        soft_wrap=True,
    )
    console.print(f"总额 {yuan(case.total_fen)}  基金支付 {yuan(case.fund_total_fen)}")
    if case.HasField("decide_time"):
        console.print(
            f"扣款 {yuan(case.deducted_fen)}  {case.reason}  {case.decided_by}"
            f"  {local_time(case.decide_time, '%Y-%m-%d %H:%M')}",
            soft_wrap=True,
        )


def _facts(case: audit_pb2.AuditCase, at: str) -> dict[str, Any]:
    facts: dict[str, Any] = json_format.MessageToDict(
        case, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"site": at, **facts}


def _kind(case: audit_pb2.AuditCase) -> str:
    return chinese(audit_pb2.AuditCaseKind.DESCRIPTOR, case.kind)


def _state(case: audit_pb2.AuditCase) -> str:
    state = chinese(audit_pb2.AuditCaseState.DESCRIPTOR, case.state)
    return f"{state}（结算已冲正或退费）" if case.undone else state


def _fen(text: str) -> int:
    match = _YUAN.fullmatch(text)
    if match is None:
        raise LocalNetworkError(f'--deduct "{text}": write yuan, for example 120.50')
    return int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
