"""The `yidi` command."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

# gRPC reads it when it is imported; a serving process never forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from infra.local.processes import LocalNetworkError
from infra.runtime.config import SettingsError, load_settings
from infra.runtime.errors import Refusal

app = typer.Typer(
    help="Yidi (异地): cross-province direct settlement of medical insurance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
SiteFile = Annotated[Path, typer.Option("--site", help="The site's TOML file.")]


@app.command()
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
    run = _loop_runner(settings.event_loop)
    raw = None
    if bench_echo:
        from loadtests.settle import ECHO_PATH, echo

        raw = {ECHO_PATH: echo}
    run(serve_until_signal(settings, builders(settings, chosen), raw_handlers=raw))


@app.command()
def migrate(site: SiteFile) -> None:
    """Create or update the site's database: roles, schemas, tables, partitions."""
    from infra.cli.roles import schemas
    from infra.runtime.clock import SystemClock
    from infra.runtime.migrate import migrate as run_migrations

    settings = load_settings(site)
    asyncio.run(run_migrations(settings, schemas(settings), SystemClock()))
    typer.echo(f"{settings.site.code} {settings.site.name}: the database is up to date")


def _loop_runner(event_loop: str):  # type: ignore[no-untyped-def]
    if event_loop == "uvloop":
        import uvloop

        return uvloop.run
    return asyncio.run


def main() -> None:
    """Run the command; a fault that a person can mend is one sentence, not a traceback."""
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except (SettingsError, LocalNetworkError) as error:
        typer.echo(f"yidi: {error}", err=True)
        sys.exit(2)
    except Refusal as refusal:
        typer.echo(f"yidi: {refusal.message}{refusal.next_step}（{refusal.name}）", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
