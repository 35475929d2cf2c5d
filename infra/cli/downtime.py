"""`yidi downtime`: announced downtimes (停机公告) in the nation's directory."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.table import Table

from infra.cli.client import Clients
from infra.cli.pairs import CALL_S
from infra.cli.terminal import DIM, local_time, out, read_instant
from infra.local.processes import LocalNetworkError
from infra.local.state import default_home
from infra.runtime.clock import SystemClock, new_id
from infra.runtime.config import NATION
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc

_FORM = "%Y-%m-%d %H:%M"
app = typer.Typer(
    help="Announced downtimes (停机公告) of sites and pooling areas.",
    no_args_is_help=True,
    add_completion=False,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def announce(
    place: Annotated[
        str, typer.Argument(metavar="PLACE", help="A province's site code, or a pooling area.")
    ],
    until: Annotated[str, typer.Option("--until", help='When it ends, "2026-12-01 06:00".')],
    notice: Annotated[str, typer.Option("--notice", help="What the counters are told, Chinese.")],
    start: Annotated[
        str | None, typer.Option("--from", help="When it begins; default: now.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="The same again changes nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Announce that PLACE will be down; times are those of Asia/Shanghai."""
    begins, ends = (
        _now() if start is None else read_instant(start, "--from"),
        read_instant(until, "--until"),
    )
    answer = asyncio.run(_announce(place, begins, ends, notice, request_id))
    if as_json:
        facts = {**_facts(answer.downtime), "revision": answer.revision}
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    down = answer.downtime
    out().print(
        f"已公告：{_place(down)} 自 {local_time(down.start_time, _FORM)} 至"
        f" {local_time(down.end_time, _FORM)} 停机，期间不受理新业务；待确认的结算照常询问。",
        soft_wrap=True,
    )


async def _announce(
    place: str, begins: Timestamp, ends: Timestamp, notice: str, request_id: str | None
) -> relay_pb2.AnnounceDowntimeResponse:
    async with Clients.connect(default_home()) as clients:
        site: str | None = place
        area = ""
        if place not in clients.provinces:
            site, area = clients.site_of_area(place), place
        if site is None:
            raise LocalNetworkError(f"{place} is no province and no pooling area of this network")
        nation = clients.operator(relay_pb2_grpc.RelayServiceStub, NATION, "relay")
        downtime = relay_pb2.Downtime(
            site=site, area=area, start_time=begins, end_time=ends, notice=notice
        )
        asked = relay_pb2.AnnounceDowntimeRequest(
            request_id=request_id or new_id(SystemClock()), downtime=downtime
        )
        return await nation.AnnounceDowntime(asked, timeout=CALL_S)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the downtimes that have not ended."""
    directory = asyncio.run(_directory())
    downtimes = sorted(directory.downtimes, key=lambda down: down.start_time.ToNanoseconds())
    if as_json:
        facts = {"revision": directory.revision, "downtimes": [_facts(one) for one in downtimes]}
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    console = out()
    if not downtimes:
        console.print("没有停机公告 No downtime is announced.", style="green")
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    for name in ("地点 place", "自 from", "至 until", "", "公告 notice"):
        table.add_column(name, overflow="fold", no_wrap=name in ("自 from", "至 until"))
    now_ms = SystemClock().now_ms()
    for down in downtimes:
        running = down.start_time.ToMilliseconds() <= now_ms
        table.add_row(
            _place(down),
            local_time(down.start_time, _FORM),
            local_time(down.end_time, _FORM),
            "停机中 down" if running else "未开始",
            down.notice,
        )
    console.print(table)


async def _directory() -> relay_pb2.GetDirectoryResponse:
    async with Clients.connect(default_home()) as clients:
        nation = clients.operator(relay_pb2_grpc.RelayServiceStub, NATION, "relay")
        return await nation.GetDirectory(relay_pb2.GetDirectoryRequest(), timeout=CALL_S)


def _facts(down: relay_pb2.Downtime) -> dict[str, Any]:
    return {
        "site": down.site,
        "area": down.area or None,
        "start_time": down.start_time.ToJsonString(),
        "end_time": down.end_time.ToJsonString(),
        "notice": down.notice,
    }


def _place(down: relay_pb2.Downtime) -> str:
    return f"{down.site} {down.area}" if down.area else down.site


def _now() -> Timestamp:
    now = Timestamp()
    now.FromMilliseconds(SystemClock().now_ms())
    return now
