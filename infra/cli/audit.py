"""`yidi audit`: cases after the settlement, and how remote bills fare beside local ones."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf import json_format
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli import audit_rules
from infra.cli.asking import every_page, held_by, with_clients
from infra.cli.client import Clients
from infra.cli.everywhere import everywhere
from infra.cli.explain import findings_lines
from infra.cli.options import RequestId, choice, new_request_id
from infra.cli.pairs import CALL_S
from infra.cli.terminal import DIM, local_time, out, yuan
from infra.local.processes import LocalNetworkError
from infra.local.supervisor import OPERATOR
from infra.runtime.clock import SystemClock, business_day
from infra.runtime.errors import Reason
from infra.runtime.money import BASIS_POINTS, divide_fen, percent
from infra.runtime.types import chinese
from yidi.common.v1 import types_pb2
from yidi.settlement.v1 import audit_pb2, audit_pb2_grpc

app = typer.Typer(
    help="Audit after the settlement (审核), and its rules at the door.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(audit_rules.app, name="rules")
SiteCode = Annotated[
    str | None, typer.Option("--site", help="Province to ask; all of them when left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
As = Annotated[str, typer.Option("--as", help="Operator of the care place who audits.")]
CaseId = Annotated[str, typer.Argument(metavar="CASE", help="The case, as the queue shows it.")]
Day = Annotated[str | None, typer.Option(metavar="DAY", help="Business day, ISO.")]
Stub = audit_pb2_grpc.AuditServiceStub
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
        _echo({"cases": [_facts(case, at) for at, case in cases]})
    elif cases:
        _print_queue(cases)
    elif not answers.silent:
        out().print("没有审核事项 No case.", style="green")
    answers.end()


def _print_queue(cases: Iterable[tuple[str, audit_pb2.AuditCase]]) -> None:
    table = _table(
        "地点 site", "审核事项 case", "原因 kind", "路径 route", "总额", "基金", "状态 state"
    )
    table.columns[1].no_wrap = True
    for at, case in cases:
        table.add_row(
            at,
            case.case_id,
            _kind(case),
            chinese(types_pb2.Route.DESCRIPTOR, case.route),
            yuan(case.total_fen),
            yuan(case.fund_total_fen),
            _state(case),
        )
    out().print(table)


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
    table = _table(
        "明细", "编码 code", "名称 name", "金额", "全自费", "超限价", "先行自付", "范围内"
    )
    for line in answer.lines:
        table.add_row(
            line.line_id,
            line.national_code,
            line.name,
            *(
                yuan(fen)
                for fen in (
                    line.amount_fen,
                    line.full_self_pay_fen,
                    line.over_limit_fen,
                    line.first_self_pay_fen,
                    line.in_scope_fen,
                )
            ),
        )
    console.print(table)


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


@dataclass(frozen=True, slots=True)
class Sum:
    """What was deducted of some settlements, fen."""

    settlements: int = 0
    fund_total_fen: int = 0
    deducted_settlements: int = 0
    deducted_fen: int = 0

    @property
    def basis_points(self) -> int:
        """Deducted share of what the funds paid; 0 where they paid nothing."""
        if not self.fund_total_fen:
            return 0
        return divide_fen(BASIS_POINTS * self.deducted_fen, self.fund_total_fen)


@dataclass(frozen=True, slots=True)
class Compared:
    """Remote bills (省内异地 and 跨省) of one care place beside its local ones."""

    local: Sum
    remote: Sum

    @property
    def clearly_lower(self) -> bool:
        """Whether remote bills are deducted of less than half as much as local ones.

        The notice (N24-21) gives no number: this one is ours. Where either side has no settlement
        there is nothing to compare.
        """
        local, remote = self.local, self.remote
        return (
            remote.fund_total_fen > 0
            and 2 * remote.deducted_fen * local.fund_total_fen
            < local.deducted_fen * remote.fund_total_fen
        )


def summed(rates: Iterable[audit_pb2.DeductionRate]) -> Sum:
    """The sum of routes."""
    rows = list(rates)
    return Sum(*(sum(getattr(row, name) for row in rows) for name in Sum.__slots__))


def compared(rates: Sequence[audit_pb2.DeductionRate]) -> Compared:
    """One care place's routes as remote beside local."""
    return Compared(
        local=summed(rate for rate in rates if rate.route == types_pb2.ROUTE_LOCAL),
        remote=summed(rate for rate in rates if rate.route != types_pb2.ROUTE_LOCAL),
    )


@app.command()
def rates(
    start: Day = None, end: Day = None, site: SiteCode = None, as_json: AsJson = False
) -> None:
    """Deduction rates of remote bills beside those of local ones (N24-21); default: 30 days."""
    today = business_day(SystemClock().now_ms())
    request = audit_pb2.GetDeductionRatesRequest(
        start_date=start or (today - timedelta(days=29)).isoformat(),
        end_date=end or today.isoformat(),
    )

    async def ask(clients: Clients, at: str) -> Sequence[audit_pb2.DeductionRate]:
        audit = clients.operator(Stub, at, "settlement")
        return (await audit.GetDeductionRates(request, timeout=CALL_S)).rates

    answers = everywhere(site, ask)
    if as_json:
        _echo(
            {
                "start_date": request.start_date,
                "end_date": request.end_date,
                "sites": {at: _rate_facts(found) for at, found in answers.found.items()},
            }
        )
    elif answers.found:
        _print_rates(answers.found)
    answers.end()


def _print_rates(answers: Mapping[str, Sequence[audit_pb2.DeductionRate]]) -> None:
    console = out()
    table = _table("地点 site", "路径 route", "结算笔数", "基金支付", "扣款笔数", "扣款", "扣款率")
    for at, found in answers.items():
        for rate in found:
            name = chinese(types_pb2.Route.DESCRIPTOR, rate.route)
            table.add_row(at, name, *_cells(summed([rate])))
        table.add_row(at, "异地合计 remote", *_cells(compared(found).remote))
    console.print(table)
    for at, found in answers.items():
        both = compared(found)
        if both.clearly_lower:
            console.print(
                f"{at} 异地扣款率 {percent(both.remote.basis_points)} 明显低于本地"
                f" {percent(both.local.basis_points)}：remote bills fare clearly better",
                style="yellow",
            )


def _rate_facts(found: Sequence[audit_pb2.DeductionRate]) -> dict[str, Any]:
    both = compared(found)
    return {
        "routes": [
            {"route": chinese(types_pb2.Route.DESCRIPTOR, rate.route), **_sum(summed([rate]))}
            for rate in found
        ],
        "local": _sum(both.local),
        "remote": _sum(both.remote),
        "remote_clearly_lower": both.clearly_lower,
    }


def _sum(one: Sum) -> dict[str, Any]:
    return {**asdict(one), "percent": one.basis_points / 100}


def _cells(one: Sum) -> tuple[str, ...]:
    return (
        str(one.settlements),
        yuan(one.fund_total_fen),
        str(one.deducted_settlements),
        yuan(one.deducted_fen),
        percent(one.basis_points),
    )


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
        _echo({**_facts(case, at), "request_id": request_id})
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


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _echo(facts: dict[str, Any]) -> None:
    typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
