"""`yidi reverse` and `yidi refund`: undo a settlement, sent as its institution would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from infra.cli.client import Clients
from infra.cli.settlements import find
from infra.cli.terminal import DIM, out, yuan
from infra.cli.visits import institution_of
from infra.local.state import default_home
from infra.runtime.clock import SystemClock, new_id
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import gateway_pb2, gateway_pb2_grpc

_CALL_S = 8.0
SettlementId = Annotated[str, typer.Argument(metavar="SETTLEMENT_ID", help="What is undone.")]
As = Annotated[
    str | None,
    typer.Option("--as", help="institution/CODE; that of the settlement when left out."),
]
SiteCode = Annotated[
    str | None, typer.Option("--site", help="Care site; looked for when left out.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why (退费原因).")]
RequestId = Annotated[
    str | None,
    typer.Option("--request-id", help="The same one again gives the same answer; default: new."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as proto JSON.")]
Answer = gateway_pb2.ReverseResponse | gateway_pb2.RefundResponse
Send = Callable[[Any, dict[str, str]], Awaitable[Answer]]


def reverse(
    settlement_id: SettlementId,
    who: As = None,
    site: SiteCode = None,
    reason: Reason = "",
    request_id: RequestId = None,
    as_json: AsJson = False,
) -> None:
    """Reverse a settlement whose answer was never used (冲正), on its business day."""

    async def send(stub: Any, fields: dict[str, str]) -> Answer:
        answer: gateway_pb2.ReverseResponse = await stub.Reverse(
            gateway_pb2.ReverseRequest(**fields), timeout=_CALL_S
        )
        return answer

    asyncio.run(_undo("冲正", settlement_id, who, site, reason, request_id, as_json, send))


def refund(
    settlement_id: SettlementId,
    who: As = None,
    site: SiteCode = None,
    reason: Reason = "",
    request_id: RequestId = None,
    as_json: AsJson = False,
) -> None:
    """Refund a settlement (退费), at any later time."""

    async def send(stub: Any, fields: dict[str, str]) -> Answer:
        answer: gateway_pb2.RefundResponse = await stub.Refund(
            gateway_pb2.RefundRequest(**fields), timeout=_CALL_S
        )
        return answer

    asyncio.run(_undo("退费", settlement_id, who, site, reason, request_id, as_json, send))


async def _undo(
    kind: str,
    settlement_id: str,
    who: str | None,
    site: str | None,
    reason: str,
    request_id: str | None,
    as_json: bool,
    send: Send,
) -> None:
    async with Clients.connect(default_home()) as clients:
        if site is None or who is None:
            site, shown = await find(clients, settlement_id, site)
            institution = institution_of(who, shown.row.bill.institution)
        else:
            clients.chosen(site)
            institution = institution_of(who, "")
        stub = clients.institution(gateway_pb2_grpc.InstitutionServiceStub, site, institution)
        fields = {
            "request_id": request_id or new_id(SystemClock()),
            "settlement_id": settlement_id,
            "reason": reason,
        }
        answer = await send(stub, fields)
    if as_json:
        typer.echo(json_format.MessageToJson(answer, ensure_ascii=False))
        return
    console = out()
    console.print(sentence(kind, settlement_id, answer), style="bold", soft_wrap=True)
    console.print(f"请求号 request_id {fields['request_id']}", style=DIM, soft_wrap=True)


def sentence(kind: str, settlement_id: str, answer: Answer) -> str:
    """What came of an undo, in plain Chinese; `kind` is what was asked for."""
    if answer.state != types_pb2.SETTLEMENT_STATE_COMPLETED:
        return f"结算 {settlement_id} 没有成立，没有发生任何支付，无需{kind}。"
    amounts = answer.result.amounts
    parts = (
        ("基金", amounts.fund_total_fen),
        ("个人账户", amounts.account_fen),
        ("现金", amounts.cash_fen),
        ("医院负担", amounts.hospital_fen),
    )
    back = "，".join(f"{name} {yuan(-fen)} 元" for name, fen in parts if fen)
    return (
        f"{kind}已完成：结算 {settlement_id} 已撤销，退回{back or ' 0.00 元'}。"
        f"{kind}号 {answer.settlement_id}"
    )
