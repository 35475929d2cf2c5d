"""`yidi up`, `yidi down`, `yidi status`: the local network of this checkout."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.terminal import DIM, err, out
from infra.local.processes import LocalNetworkError
from infra.local.state import default_home
from infra.runtime.clock import monotonic_us

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def up(
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the kept data first.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when healthy; `yidi down` ends it.")
    ] = False,
    split: Annotated[
        str, typer.Option(help="Roles with a process of their own: gateway,settlement,relay.")
    ] = "",
    replicas: Annotated[
        list[str] | None, typer.Option(help="Processes of a role: gateway=2. Repeatable.")
    ] = None,
    base_port: Annotated[
        int | None, typer.Option(help="First of the network's 100 ports (YIDI_BASE_PORT).")
    ] = None,
) -> None:
    """Start the nation and three provinces here, with sample data; Ctrl-C ends them."""
    counts = _replicas(replicas or [])
    roles = [role.strip() for role in split.split(",") if role.strip()]
    start(
        default_home(),
        Steps(err()),
        fresh=fresh,
        detach=detach,
        split=roles,
        replicas=counts,
        base_port=base_port,
    )
    if detach:
        show_status(network_status(default_home()), out())


def down() -> None:
    """Stop the local network, or what a killed one left; its data stays."""
    from infra.local.supervisor import down as stop

    home = default_home()
    stopped = stop(home)
    typer.echo(f"stopped {home}" if stopped else f"nothing runs in {home}")


def status(as_json: AsJson = False) -> None:
    """Show the processes of the local network; exit code 1 when it does not run."""
    state = network_status(default_home())
    if as_json:
        typer.echo(json.dumps(state, ensure_ascii=False, indent=1))
    else:
        show_status(state, out())
    if state["status"] != "running":
        raise typer.Exit(1)


class Steps:
    """Prints each step of a start with the seconds since the first one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._since_us = monotonic_us()

    def __call__(self, step: str) -> None:
        seconds = (monotonic_us() - self._since_us) / 1e6
        line = Text(f"{seconds:5.1f} s  ", style=DIM)
        self._console.print(line.append(step, style="default"), soft_wrap=True)


def start(home: Path, on_progress: Steps, **options: Any) -> None:
    """Start the network of `home` with sample data; options as of `supervisor.up`."""
    from infra.cli.starting import finish_start, prepare_whole
    from infra.local import supervisor

    on_progress(f"starting the local network in {home}")
    supervisor.up(
        home, prepare=prepare_whole, on_healthy=finish_start, on_progress=on_progress, **options
    )


@contextlib.contextmanager
def running_network(home: Path, on_progress: Steps) -> Iterator[Path]:
    """The network that runs in `home`, or else one that is started there and stopped again."""
    from infra.local.supervisor import down as stop

    if network_status(home)["status"] == "running":
        yield home
        return
    start(home, on_progress, detach=True)
    try:
        yield home
    finally:
        on_progress("stopping the network (its data stays)")
        stop(home)


def network_status(home: Path) -> dict[str, Any]:
    """The state of the network of `home`; `status` is `running`, `stopped`, `killed`, …"""
    from infra.local.supervisor import status as read

    return {"home": str(home), **read(home)}


def show_status(state: dict[str, Any], console: Console) -> None:
    """The processes as a table."""
    from infra.local.network import SITES

    running = state["status"] == "running"
    headline = Text(state["status"], style="green" if running else "yellow")
    console.print(headline.append(f"  {state['home']}", style=DIM))
    if not running:
        console.print("start it with `yidi up`", style=DIM)
        return
    names = {site.code: site.name for site in SITES}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    for column in ("process", "site", "edge", "internal", "pid", "roles"):
        table.add_column(column, overflow="fold")
    postgres = state["postgres"]
    table.add_row(
        _alive("PostgreSQL", postgres), "", "", f"127.0.0.1:{postgres['port']}",
        str(postgres["pid"]), "",
    )  # fmt: skip
    for process in state["processes"]:
        table.add_row(
            _alive(process["name"], process),
            names.get(process["site"], process["site"]),
            process["edge"] or "",
            process["internal"],
            str(process["pid"]),
            Text(" ".join(process["roles"]), style=DIM),
        )
    console.print(table)


def _alive(name: str, entry: dict[str, Any]) -> Text:
    return Text(name) if entry["alive"] else Text(f"{name} (dead)", style="red")


def _replicas(texts: list[str]) -> dict[str, int]:
    counts = {}
    for text in ",".join(texts).split(","):
        role, equals, count = text.strip().partition("=")
        if not role and not equals:
            continue
        if not count.isdecimal():
            raise LocalNetworkError(f"--replicas {text}: write ROLE=NUMBER, such as gateway=2")
        counts[role] = int(count)
    return counts
