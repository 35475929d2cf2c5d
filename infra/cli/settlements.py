"""`yidi settlement show` and `yidi settlement in-doubt`: what the operator asks of settlements."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.client import Clients
from infra.cli.everywhere import everywhere
from infra.cli.explain import findings_lines
from infra.cli.pairs import CALL_S, Holder, PairDay, journal_at
from infra.cli.standing import Outcome, Standing
from infra.cli.terminal import DIM, local_time, out
from infra.local.network import SITES
from infra.local.state import default_home
from infra.runtime.clock import SystemClock, business_day, id_milliseconds, instant
from infra.runtime.errors import Reason, Refusal
from infra.runtime.journal import HOUR_MS, MAX_ENTRIES
from infra.runtime.types import chinese
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.settlement.v1 import care_pb2, care_pb2_grpc

_COMMIT_MS = 120_000
"""How much later than its id a settlement may be decided: the commit window."""
_NAMES = {site.code: site.name for site in SITES}
_ACTIONS = {
    "open": "就医地登记",
    "cancel requested": "请求撤销",
    "detail uploaded": "住院明细已上传",
    "audit pick": "抽取审核",
    "audit confirmed": "核查无误",
    "audit deducted": "审核扣款",
    **{
        types_pb2.SettlementState.Name(number).removeprefix("SETTLEMENT_STATE_"): chinese(
            types_pb2.SettlementState.DESCRIPTOR, number
        )
        for number in types_pb2.SettlementState.values()
    },
}
_STYLES = {
    Outcome.DONE: "green",
    Outcome.RECORDED: "green",
    Outcome.REJECTED: "red",
    Outcome.ABORTED: "red",
}

app = typer.Typer(
    help="Where settlements stand, for the operator.", no_args_is_help=True, add_completion=False
)
SiteCode = Annotated[
    str | None, typer.Option("--site", help="Province to ask; all of them when left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def show(
    settlement_id: Annotated[str, typer.Argument(metavar="ID", help="The settlement id.")],
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Show every hop of settlement ID, which journals hold it, and what happens next."""
    standing = asyncio.run(_show(settlement_id, site))
    if as_json:
        typer.echo(json.dumps(standing.facts(), ensure_ascii=False, indent=1))
    else:
        _print_standing(standing, out())


async def _show(settlement_id: str, site: str | None) -> Standing:
    async with Clients.connect(default_home()) as clients:
        care_site, shown = await find(clients, settlement_id, site)
        undo = await _undo(clients, care_site, shown.row)
        return Standing(care_site, shown, await _held(clients, care_site, shown.row), undo)


async def _undo(
    clients: Clients, care_site: str, row: care_pb2.JournalRow
) -> care_pb2.JournalRow | None:
    """What undoes the settlement; None also while recovery has named it but not yet begun it."""
    if not row.undone_by:
        return None
    try:
        return (await ask(clients, care_site, row.undone_by)).row
    except Refusal as refusal:
        if refusal.reason != Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND:
            raise
        return None


async def ask(clients: Clients, site: str, settlement_id: str) -> care_pb2.ShowSettlementResponse:
    """What the care place `site` knows of a settlement."""
    care = clients.operator(care_pb2_grpc.CareServiceStub, site, "settlement")
    asked = care_pb2.ShowSettlementRequest(settlement_id=settlement_id)
    return await care.ShowSettlement(asked, timeout=CALL_S)


async def find(
    clients: Clients, settlement_id: str, site: str | None
) -> tuple[str, care_pb2.ShowSettlementResponse]:
    """The care place of a settlement and what it knows; SETTLEMENT_NOT_FOUND when none does.

    A province that does not answer might have it: then its refusal is raised instead.
    """
    not_found = Refusal(Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND)
    for province in clients.chosen(site):
        try:
            return province, await ask(clients, province, settlement_id)
        except Refusal as refusal:
            if refusal.reason != Reason.ERROR_REASON_SETTLEMENT_NOT_FOUND:
                not_found = refusal
    raise not_found


async def _held(
    clients: Clients, care_site: str, row: care_pb2.JournalRow
) -> dict[Holder, bool | None]:
    """Which journals beyond the care place hold the settlement."""
    holders = [
        holder
        for holder in PairDay(business_day(0), care_site, row.insured_site).holders
        if holder is not Holder.CARE
    ]
    found = await asyncio.gather(*(_holds(clients, care_site, row, one) for one in holders))
    return dict(zip(holders, found, strict=True))


async def _holds(
    clients: Clients, care_site: str, row: care_pb2.JournalRow, holder: Holder
) -> bool | None:
    """Whether `holder` has the settlement among the rows of its hour; None: not told."""
    ms = id_milliseconds(row.settlement_id)
    days = dict.fromkeys((business_day(ms), business_day(ms + _COMMIT_MS)))
    complete = True
    for day in days:
        try:
            journal = await journal_at(
                clients,
                PairDay(day, care_site, row.insured_site),
                holder,
                detail=envelope_pb2.JOURNAL_DETAIL_ENTRIES,
                hour=ms // HOUR_MS,
            )
        except (Refusal, KeyError):  # it does not answer, or this network does not have it
            return None
        if any(entry.settlement_id == row.settlement_id for entry in journal.entries):
            return True
        complete &= len(journal.entries) < MAX_ENTRIES
    return False if complete else None


@app.command("in-doubt")
def in_doubt(
    site: SiteCode = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Rows per province.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the settlements whose outcome is not known yet, oldest first."""

    async def ask_open(clients: Clients, at: str) -> care_pb2.ListInDoubtResponse:
        care = clients.operator(care_pb2_grpc.CareServiceStub, at, "settlement")
        return await care.ListInDoubt(care_pb2.ListInDoubtRequest(page_size=limit), timeout=CALL_S)

    answers = everywhere(site, ask_open)
    total = sum(answer.total_count for answer in answers.found.values())
    rows = [
        Standing(at, shown, {})
        for at, answer in answers.found.items()
        for shown in answer.settlements
    ]
    rows.sort(key=lambda standing: standing.row.open_time.ToNanoseconds())
    if as_json:
        facts = {"total": total, "settlements": [_open_facts(row) for row in rows]}
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    elif total or not answers.silent:
        _print_open(rows, total, out())
    answers.end()


def _open_facts(standing: Standing) -> dict[str, Any]:
    facts = standing.facts()
    for name in ("journals", "hops", "findings", "trail", "undone_by"):
        del facts[name]
    return {**facts, "age_s": _age(standing).total_seconds()}


def _age(standing: Standing) -> timedelta:
    return instant(SystemClock()) - standing.row.open_time.ToDatetime(UTC)


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _print_standing(standing: Standing, console: Console) -> None:
    row, bill = standing.row, standing.row.bill
    kind = chinese(types_pb2.ExchangeKind.DESCRIPTOR, row.kind)
    console.print(Text(f"{kind} {row.settlement_id}", style=DIM), soft_wrap=True)
    where = f"机构 {bill.institution}  就诊 {bill.visit_id}  单据 {bill.bill_id}"
    console.print(Text(f"{where}  请求号 {row.request_id}", style=DIM), soft_wrap=True)
    console.print(Text(standing.sentence, style="bold"), soft_wrap=True)
    for finding in findings_lines(standing.shown.findings):
        console.print(finding, soft_wrap=True)
    table = _table("地点 site", "角色 role", "环节 hop", "毫秒 ms", "结果 outcome", "原因 reason")
    for step in standing.steps:
        ms = "-" if step.duration_us is None else f"{step.duration_us / 1000:.1f}"
        table.add_row(
            _site(step.site),
            step.role,
            chinese(types_pb2.Hop.DESCRIPTOR, step.hop),
            ms,
            Text(step.outcome.zh, style=_STYLES.get(step.outcome, "yellow")),
            "" if step.reason is None else f"{step.reason.message}{step.reason.name}",
        )
    console.print(table)
    trail = _table("时间 time", "经过 what", "操作者 who")
    for entry in standing.shown.trail:
        trail.add_row(
            local_time(entry.time, "%m-%d %H:%M:%S.%f")[:-3],
            _ACTIONS.get(entry.action, entry.action),
            Text(entry.actor.removeprefix("spiffe://yidi/site/"), style=DIM),
        )
    console.print(trail)


def _print_open(rows: Sequence[Standing], total: int, console: Console) -> None:
    if not total:
        console.print("没有结果待确认的结算 Nothing is open.", style="green")
        return
    table = _table("结算号 id", "就医地 → 参保地", "已过 age", "询问 asked", "原因 last reason")
    table.columns[0].no_wrap = True
    for standing in rows:
        row, shown = standing.row, standing.shown
        asked = f"{shown.attempts} 次"
        if shown.HasField("next_attempt_time"):
            asked += f"，{local_time(shown.next_attempt_time)}"
        table.add_row(
            row.settlement_id,
            f"{_site(standing.care_site)} → {_site(row.insured_site)}",
            f"{_age(standing).total_seconds():.0f} s",
            asked if row.state == types_pb2.SETTLEMENT_STATE_IN_DOUBT else _state(row),
            "" if standing.reason is None else standing.reason.name,
        )
    console.print(table)
    console.print(f"{total} open; 系统自动向参保地询问，请勿重复收费。", style="yellow")


def _state(row: care_pb2.JournalRow) -> str:
    return chinese(types_pb2.SettlementState.DESCRIPTOR, row.state)


def _site(code: str) -> str:
    return _NAMES.get(code, code)
