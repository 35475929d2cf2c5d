"""`yidi demo` and `yidi verify`."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from infra.cli.terminal import err, out
from infra.local.state import default_home

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def demo(as_json: AsJson = False) -> None:
    """Tell the story of several visits, each really settled over all its sites."""
    from infra.cli.demo.playing import tell
    from infra.cli.network import Steps, running_network

    with running_network(default_home(), Steps(err())) as home:
        told = asyncio.run(tell(home, None if as_json else out()))
    if as_json:
        typer.echo(json.dumps(told.facts(), ensure_ascii=False, indent=1))
    for fault in told.faults:
        typer.echo(f"yidi: {fault}", err=True)
    if told.faults or not told.verification.ok:
        raise typer.Exit(1)


def verify(
    days: Annotated[int, typer.Option(min=1, max=62, help="Business days back from today.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Compare the journals of care place, nation and insured place; check balances and claims."""
    from infra.cli.client import Clients
    from infra.cli.journals import show_verification
    from infra.cli.verify import Verification
    from infra.cli.verify import verify as ask

    async def run() -> Verification:
        async with Clients.connect(default_home()) as clients:
            return await ask(clients, days)

    verification = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps(verification.facts(), ensure_ascii=False, indent=1))
    else:
        show_verification(verification, out())
    if not verification.ok:
        raise typer.Exit(1)
