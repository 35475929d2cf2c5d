"""The `yidi` command."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

# gRPC reads it when it is imported; a serving process never forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from infra.local.processes import LocalNetworkError


class _Commands(TyperGroup):
    """Loads a command when it is asked for: a serving process would pay for all their imports."""

    _HOMES: ClassVar = {
        "up": "network",
        "down": "network",
        "status": "network",
        "demo": "play",
        "verify": "play",
        "quote": "visits",
        "settle": "visits",
        "reverse": "undo",
        "refund": "undo",
        "settlement": "settlements",
        "accumulators": "accumulators",
        "audit": "audit",
        "catalog": "catalog",
        "detail": "detail",
        "downtime": "downtime",
        "institution": "institutions",
        "mapping": "mappings",
        "policy": "policy",
        "enrollment": "enrollment",
        "filing": "filing",
        "bench": "bench",
        "faults": "faults",
        "serve": "serving",
        "migrate": "serving",
    }

    _GROUPS: ClassVar = {
        "settlement",
        "accumulators",
        "audit",
        "catalog",
        "detail",
        "downtime",
        "institution",
        "mapping",
        "policy",
        "enrollment",
        "filing",
        "bench",
    }

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self._HOMES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        home = self._HOMES.get(cmd_name)
        if home is None:
            return None
        module = import_module(f"infra.cli.{home}")
        if cmd_name in self._GROUPS:
            one = module.app
        else:
            one = typer.Typer(add_completion=False)
            one.command(cmd_name)(getattr(module, cmd_name))
        command = typer.main.get_command(one)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Commands,
    help="Yidi (异地): cross-province direct settlement of medical insurance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Yidi (异地): cross-province direct settlement of medical insurance."""


def main() -> None:
    """Run the command; a fault that a person can mend is one sentence, not a traceback."""
    code: Any = 0
    try:
        for argument in sys.argv[1:]:
            _check_text(argument)
        # Without standalone mode an Exit comes back as its code.
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except typer.TyperException as error:
        if message := error.format_message():  # empty when the help was shown instead
            typer.echo(f"yidi: {message} Try `yidi --help`.", err=True)
        code = 2
    except LocalNetworkError as error:
        typer.echo(f"yidi: {error}", err=True)
        code = 2
    except Exception as error:
        code = _told(error)
        if not code:
            raise
    sys.exit(code if isinstance(code, int) else 0)


def _check_text(argument: str) -> None:
    """Raise `LocalNetworkError` for bytes that are no text: no message could carry them."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise LocalNetworkError("参数不是 UTF-8 文本 an argument is not UTF-8 text") from None


def _told(error: Exception) -> int:
    """The exit code of a fault that the runtime names, now told; 0 for any other.

    A command without a server has not loaded the runtime, and nothing loads it here.
    """
    config = sys.modules.get("infra.runtime.config")
    if config is not None and isinstance(error, config.SettingsError):
        typer.echo(f"yidi: {error}", err=True)
        return 2
    errors = sys.modules.get("infra.runtime.errors")
    if errors is not None and isinstance(error, errors.Refusal):
        from infra.cli.terminal import err, show_refusal

        show_refusal(error, err())
        return 1
    return 0


if __name__ == "__main__":
    main()
