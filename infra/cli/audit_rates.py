"""`yidi audit rates`: how remote bills fare beside local ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from infra.cli.asking import echo_facts
from infra.cli.client import Clients
from infra.cli.everywhere import everywhere
from infra.cli.pairs import CALL_S
from infra.cli.terminal import DIM, out, yuan
from infra.runtime.clock import SystemClock, business_day
from infra.runtime.money import BASIS_POINTS, divide_fen, percent
from infra.runtime.types import chinese
from yidi.common.v1 import types_pb2
from yidi.settlement.v1 import audit_pb2, audit_pb2_grpc

Stub = audit_pb2_grpc.AuditServiceStub
SiteCode = Annotated[
    str | None, typer.Option("--site", help="Province to ask; all of them when left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Day = Annotated[str | None, typer.Option(metavar="DAY", help="Business day, ISO.")]


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
        echo_facts(
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
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    for column in ("地点 site", "路径 route", "结算笔数", "基金支付", "扣款笔数", "扣款", "扣款率"):
        table.add_column(column, overflow="fold")
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
