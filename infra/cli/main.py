"""The `yidi` command."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

# gRPC reads it when it is imported; a serving process never forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from infra.cli import network, play, serving, visits
from infra.cli.terminal import err, show_refusal
from infra.local.processes import LocalNetworkError
from infra.runtime.config import SettingsError
from infra.runtime.errors import Refusal


class _Commands(TyperGroup):
    """Loads `bench` when it is asked for: every serving process would pay for its imports."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), "bench"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name == "bench":
            from infra.cli import bench

            # A callback keeps `bench settle` a group although it has one command.
            bench.app.callback()(lambda: None)
            group = typer.main.get_group(bench.app)
            group.name = cmd_name
            return group
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=_Commands,
    help="Yidi (异地): cross-province direct settlement of medical insurance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(network.up)
app.command()(network.down)
app.command()(network.status)
app.command()(play.demo)
app.command()(play.verify)
app.command()(visits.quote)
app.command()(visits.settle)
app.command()(serving.serve)
app.command()(serving.migrate)


def main() -> None:
    """Run the command; a fault that a person can mend is one sentence, not a traceback."""
    code: Any = 0
    try:
        # Without standalone mode an Exit comes back as its code.
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except typer.TyperException as error:
        if message := error.format_message():  # empty when the help was shown instead
            typer.echo(f"yidi: {message} Try `yidi --help`.", err=True)
        code = 2
    except (SettingsError, LocalNetworkError) as error:
        typer.echo(f"yidi: {error}", err=True)
        code = 2
    except Refusal as refusal:
        show_refusal(refusal, err())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
