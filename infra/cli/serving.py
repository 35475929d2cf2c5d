"""`yidi serve` and `yidi migrate`: what a site runs in production."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.runtime.config import load_settings

SiteFile = Annotated[Path, typer.Option("--site", help="The site's TOML file.")]


def serve(
    site: SiteFile,
    roles: Annotated[str, typer.Option(help="Roles of this process, separated by commas.")],
    bench_echo: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Serve some roles of one site until SIGTERM."""
    from infra.cli.roles import builders
    from infra.runtime.server import serve_until_signal

    settings = load_settings(site)
    chosen = [role.strip() for role in roles.split(",") if role.strip()]
    raw = None
    if bench_echo:
        from loadtests.settle import ECHO_PATH, echo

        raw = {ECHO_PATH: echo}
    run = _loop_runner(settings.event_loop)
    run(serve_until_signal(settings, builders(settings, chosen), raw_handlers=raw))


def migrate(site: SiteFile) -> None:
    """Create or update the site's database: roles, schemas, tables, partitions."""
    from infra.cli.roles import schemas
    from infra.runtime.clock import SystemClock
    from infra.runtime.migrate import migrate as run_migrations

    settings = load_settings(site)
    asyncio.run(run_migrations(settings, schemas(settings), SystemClock()))
    typer.echo(f"{settings.site.code} {settings.site.name}: the database is up to date")


def _loop_runner(event_loop: str) -> Callable[[Coroutine[Any, Any, None]], None]:
    if event_loop == "uvloop":
        import uvloop

        return uvloop.run
    return asyncio.run
