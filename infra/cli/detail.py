"""`yidi detail list`: stays whose detail must still reach the nation within three days."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from infra.cli.client import Clients
from infra.cli.everywhere import everywhere
from infra.cli.pairs import CALL_S
from infra.cli.terminal import DIM, local_time, out
from infra.runtime.clock import SystemClock
from yidi.settlement.v1 import audit_pb2, audit_pb2_grpc

app = typer.Typer(
    help="Detail of stays on its way to the nation (规程 第三十九条).",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _root() -> None:
    """Detail of stays on its way to the nation (规程 第三十九条)."""


@app.command("list")
def list_(
    late: Annotated[bool, typer.Option("--late", help="Only those past their time.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Rows per province.")] = 100,
    site: Annotated[
        str | None, typer.Option("--site", help="Province to ask; all of them when left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the stays whose detail is not at the nation yet, the oldest first."""
    request = audit_pb2.ListDetailUploadsRequest(late=late, page_size=limit)

    async def ask(clients: Clients, at: str) -> audit_pb2.ListDetailUploadsResponse:
        settlement = clients.operator(audit_pb2_grpc.AuditServiceStub, at, "settlement")
        return await settlement.ListDetailUploads(request, timeout=CALL_S)

    answers = everywhere(site, ask)
    total = sum(answer.total_count for answer in answers.found.values())
    overdue = sum(answer.late_count for answer in answers.found.values())
    uploads = [(at, up) for at, answer in answers.found.items() for up in answer.uploads]
    if as_json:
        told = [_facts(upload, at) for at, upload in uploads]
        facts = {"total": total, "late": overdue, "uploads": told}
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    elif total:
        _print(uploads)
        out().print(f"{total} 份待上传 waiting，{overdue} 份逾期 late", style="yellow")
    elif not answers.silent:
        out().print("住院明细均已上传 Every detail is uploaded.", style="green")
    answers.end()


def _print(uploads: Iterable[tuple[str, audit_pb2.DetailUpload]]) -> None:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    for name in ("地点 site", "结算号 id", "期限 due", "次数 tried", "原因 cause"):
        table.add_column(name, overflow="fold", no_wrap=name == "结算号 id")
    now_ms = SystemClock().now_ms()
    for at, upload in uploads:
        table.add_row(
            at,
            upload.settlement_id,
            local_time(upload.due_time, "%m-%d %H:%M"),
            str(upload.attempts),
            upload.cause,
            style="red" if upload.due_time.ToMilliseconds() < now_ms else None,
        )
    out().print(table)


def _facts(upload: audit_pb2.DetailUpload, at: str) -> dict[str, Any]:
    return {
        "site": at,
        "settlement_id": upload.settlement_id,
        "complete_time": upload.complete_time.ToJsonString(),
        "due_time": upload.due_time.ToJsonString(),
        "attempts": upload.attempts,
        "cause": upload.cause or None,
    }
