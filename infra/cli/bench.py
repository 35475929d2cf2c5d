"""`yidi bench`: settlements a second beside a bare echo; recovery; policies; filing; lists."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def _print(report: Any, as_json: bool) -> None:
    figures = asdict(report)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        typer.echo(f"{name:{width}} {value}")


def _progress(text: str) -> None:
    typer.echo(f"yidi: {text}", err=True)


app = typer.Typer(
    help="Measure as ratios within one run.", no_args_is_help=True, add_completion=False
)


@app.command()
def settle(
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of the run.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Callers at once.")] = 64,
    lines: Annotated[int, typer.Option(min=1, max=2000, help="Fee lines of a bill.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Settlements a second over three sites, beside a bare echo through the same door."""
    from infra.cli.bench_settle import bench_settle

    report = bench_settle(seconds=seconds, concurrency=concurrency, lines=lines)
    _print(report, as_json)


@app.command()
def recovery(
    settlements: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many are left in doubt.")
    ] = 10_000,
    as_json: AsJson = False,
) -> None:
    """How fast settlements in doubt become final once the lost link is back."""
    from infra.cli.bench_recovery import bench_recovery

    report = bench_recovery(settlements=settlements, on_progress=_progress)
    _print(report, as_json)


@app.command()
def policy(
    documents: Annotated[int, typer.Option(min=1, max=5_000, help="How many are loaded.")] = 400,
    seconds: Annotated[float, typer.Option(min=0.01, max=60, help="Of each measurement.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="The median of so many.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Cases computed a second, alone and over gRPC, beside openfisca-core and zen-engine."""
    from infra.cli.bench_policy import bench_policy

    report = bench_policy(
        documents=documents,
        seconds=seconds,
        rounds=rounds,
        on_progress=_progress,
    )
    _print(report, as_json)


@app.command()
def filing(
    people: Annotated[
        int, typer.Option(min=2, max=5_000_000, help="Participants; each has three filings.")
    ] = 1_000_000,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="Of each rate.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Entitlements decided a second, beside a bare echo; participants imported, beside COPY."""
    from infra.cli.bench_filing import bench_filing

    report = bench_filing(
        people=people,
        seconds=seconds,
        on_progress=_progress,
    )
    _print(report, as_json)


@app.command()
def catalog(
    items: Annotated[
        int, typer.Option(min=1_000, max=2_000_000, help="Rows of the list.")
    ] = 250_000,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="Of each rate.")] = 5,
    rounds: Annotated[
        int, typer.Option(min=1, max=100, help="The median of so many, in memory.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Lines split a second, in memory and over gRPC; a list imported, beside COPY."""
    from infra.cli.bench_catalog import bench_catalog

    report = bench_catalog(
        items=items,
        seconds=seconds,
        rounds=rounds,
        on_progress=_progress,
    )
    _print(report, as_json)
