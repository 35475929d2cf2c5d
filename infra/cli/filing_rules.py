"""`yidi filing rules`: check the filing rules of the areas, without any server (docs/filing.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.local.processes import LocalNetworkError
from services.filing.domain.area_rules import AreaRules, Provenance, Stated
from services.filing.rule_keys import KEYS
from services.filing.written_rules import RULES, examine_area_rules

app = typer.Typer(
    help="Rules of filing as data (docs/filing.md).", no_args_is_help=True, add_completion=False
)


@app.callback()
def _group() -> None:
    """Keep `check` a command of its own."""


@app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Rules; else those of the suite.")
    ] = RULES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Say everything that is wrong with the rules: file, line, key and combination.

    And how much of each area rests on samples, which pay nobody in operation. The exit code is 1
    when there is an error; warnings alone leave it 0.
    """
    if not folder.is_dir():
        raise LocalNetworkError(f"{folder} is no folder")
    examined = examine_area_rules(folder)
    errors = sum(one.severity == "error" for one in examined.problems)
    if as_json:
        facts = {
            "areas": {code: _founded(rules) for code, rules in sorted(examined.rules.items())},
            "errors": errors,
            "problems": [asdict(one) for one in examined.problems],
        }
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        for one in examined.problems:
            typer.echo(one.told(folder))
        for code, rules in sorted(examined.rules.items()):
            told = ", ".join(f"{number} {kind}" for kind, number in _founded(rules).items())
            typer.echo(f"{code} {rules.name}: {told}")
        warnings = len(examined.problems) - errors
        typer.echo(f"{len(examined.rules)} areas: {errors} errors, {warnings} warnings", err=True)
    if errors:
        raise typer.Exit(1)


def _founded(rules: AreaRules) -> dict[str, int]:
    """How many values rest on what."""
    found = [one.provenance for one in _values(rules)]
    return {kind.value: found.count(kind) for kind in Provenance}


def _values(rules: AreaRules) -> Iterator[Stated[Any]]:
    for key in KEYS:
        yield from getattr(rules, key).values()
