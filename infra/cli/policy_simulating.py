"""`yidi policy simulate`: past settlements computed as if a document were published."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated

import typer
from rich.text import Text

from infra.cli.asking import echo, with_clients
from infra.cli.client import Clients
from infra.cli.explain import FUNDS
from infra.cli.options import As, AsJson, SiteCode
from infra.cli.pairs import CALL_S
from infra.cli.policy_publishing import Desk, PolicyId, Publishing, selector_of, table_of
from infra.cli.terminal import out, yuan
from infra.local.supervisor import OPERATOR
from infra.runtime.clock import SystemClock, business_day
from infra.runtime.errors import Refusal
from yidi.common.v1 import amounts_pb2
from yidi.policy.v1 import publishing_pb2

_PAGE = 256
app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _root() -> None:
    """With a callback one command is a group too."""


@app.command()
def simulate(
    policy: PolicyId,
    from_day: Annotated[
        str | None, typer.Option("--from", help="First business day; default: its first day.")
    ] = None,
    to_day: Annotated[
        str | None, typer.Option("--to", help="Last business day; default: today.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Settlements to compute at most.")
    ] = 10_000,
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Compute past settlements as if the document were published: what would differ, in sum."""
    today = business_day(SystemClock().now_ms()).isoformat()

    async def ask(clients: Clients) -> publishing_pb2.SimulatePolicyResponse:
        stub, found = await Desk(clients, who).find(policy, site)
        request = publishing_pb2.SimulatePolicyRequest(
            policy=selector_of(policy),
            from_day=from_day or found.policy.effective_from,
            to_day=to_day or today,
        )
        return await _simulated(stub, request, limit)

    answer = asyncio.run(with_clients(ask))
    if as_json:
        echo(answer)
    else:
        _print_simulated(answer)


async def _simulated(
    stub: Publishing, request: publishing_pb2.SimulatePolicyRequest, limit: int
) -> publishing_pb2.SimulatePolicyResponse:
    """All pages in one, up to `limit` settlements; `next_page_token` is set when some are left."""
    whole = publishing_pb2.SimulatePolicyResponse()
    funds: Counter[str] = Counter()
    while whole.settlements < limit:
        request.page_size = min(_PAGE, limit - whole.settlements)
        page = await stub.SimulatePolicy(request, timeout=CALL_S)
        whole.differences.extend(page.differences)
        whole.settlements += page.settlements
        whole.affected += page.affected
        whole.refused += page.refused
        whole.not_reproduced += page.not_reproduced
        whole.account_change_fen += page.account_change_fen
        whole.cash_change_fen += page.cash_change_fen
        for fund in page.fund_changes:
            funds[fund.code] += fund.fen
        whole.next_page_token = request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    whole.fund_changes.extend(
        amounts_pb2.FundPayment(code=code, fen=fen) for code, fen in sorted(funds.items()) if fen
    )
    return whole


def _print_simulated(answer: publishing_pb2.SimulatePolicyResponse) -> None:
    console = out()
    if answer.differences:
        columns = ("结算 settlement", "基金 funds", "个人账户 account", "现金 cash")
        table = table_of(*columns, right=columns[1:])
        for each in answer.differences:
            mark = "" if each.reproduced else " ※"
            if each.HasField("error"):
                refusal = Text(Refusal.from_status(each.error).message, style="red")
                table.add_row(each.settlement_id + mark, refusal, "", "")
                continue
            before, after = each.before, each.after.amounts
            changes = (
                (before.fund_total_fen, after.fund_total_fen),
                (before.account_fen, after.account_fen),
                (before.cash_fen, after.cash_fen),
            )
            told = (
                f"{yuan(old)} → {yuan(new)}" if old != new else yuan(old) for old, new in changes
            )
            table.add_row(each.settlement_id + mark, *told)
        console.print(table)
    console.print(
        f"试算 {answer.settlements} 笔已办结算：适用该文件 {answer.affected} 笔，"
        f"结果不同 {len(answer.differences) - answer.refused} 笔，不予结算 {answer.refused} 笔。",
        style="bold",
        soft_wrap=True,
    )
    sums = [(FUNDS.get(fund.code, fund.code), fund.fen) for fund in answer.fund_changes]
    sums += [("个人账户 account", answer.account_change_fen), ("现金 cash", answer.cash_change_fen)]
    for name, fen in sums:
        console.print(f"  {name}  {'+' if fen > 0 else ''}{yuan(fen)} 元")
    if answer.not_reproduced:
        text = f"※ {answer.not_reproduced} 笔按原文件重算与原结果不符，差异不全由该文件引起。"
        console.print(text, style="yellow", soft_wrap=True)
    if answer.next_page_token:
        console.print("还有更多结算未试算：请加大 --limit。", style="yellow")


def _change(before: int, after: int) -> str:
    return yuan(before) if before == after else f"{yuan(before)} → {yuan(after)}"
