"""`yidi audit rules`: the rules of the fee audit at the door, without any server."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from infra.cli.terminal import out
from infra.local.processes import LocalNetworkError
from services.catalog.audit_rule_keys import KIND_OF
from services.catalog.audit_rules import NATIONAL, RULES, Examined, examine_audit_rules
from services.catalog.domain.audit_rule import Action, AuditRule

app = typer.Typer(
    help="Rules of the fee audit at the door (智能审核), as data.",
    no_args_is_help=True,
    add_completion=False,
)
_Folder = Annotated[
    Path, typer.Argument(metavar="[FOLDER]", help="Rules; else those of the suite.")
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_ACTIONS = {Action.WARN: "提示", Action.REFUSE: "拒绝"}


@app.command()
def check(folder: _Folder = RULES, as_json: _AsJson = False) -> None:
    """Say everything that is wrong with the rules, by file and line; exit code 1 if anything is."""
    examined = _examined(folder)
    if as_json:
        facts = {
            "rules": {area or "national": len(rules) for area, rules in examined.rules.items()},
            "problems": [asdict(one) for one in examined.problems],
        }
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        for one in examined.problems:
            typer.echo(one.told(folder))
        for area, rules in examined.rules.items():
            samples = sum(rule.source.startswith("示例") for rule in rules)
            typer.echo(f"{area or NATIONAL}: {len(rules)} rules, {samples} of them samples")
        typer.echo(f"{len(examined.problems)} errors", err=True)
    if examined.problems:
        raise typer.Exit(1)


@app.command("list")
def list_rules(
    folder: _Folder = RULES,
    area: Annotated[
        str, typer.Option(help="Only what this file says: an area, or `national`.")
    ] = "",
    as_json: _AsJson = False,
) -> None:
    """The rules as they are written: those of an area go before the national ones of one code."""
    examined = _examined(folder)
    if examined.problems:
        raise LocalNetworkError(
            f"the rules have {len(examined.problems)} errors: see `yidi audit rules check`"
        )
    wanted = {
        name: rules
        for name, rules in sorted((of or "national", rules) for of, rules in examined.rules.items())
        if area in ("", name)
    }
    if not wanted:
        raise LocalNetworkError(f"no file of rules is named {area}")
    if as_json:
        facts = {name: [_facts(rule) for rule in rules] for name, rules in wanted.items()}
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    for name, rules in wanted.items():
        table = Table(title=f"{name} {examined.names['' if name == 'national' else name]}")
        for head in ("code", "kind", "action", "name", "days", "source"):
            table.add_column(head, overflow="fold")
        for rule in rules:
            told = _facts(rule)
            days = f"{told['from'] or '…'} – {told['until'] or '…'}"
            table.add_row(
                rule.code,
                told["kind"],
                _ACTIONS[rule.action],
                rule.name,
                "" if days == "… – …" else days,
                rule.source,
            )
        out().print(table)


def _examined(folder: Path) -> Examined:
    if not folder.is_dir():
        raise LocalNetworkError(f"{folder} is no folder")
    return examine_audit_rules(folder)


def _facts(rule: AuditRule) -> dict[str, Any]:
    return {
        "code": rule.code,
        "name": rule.name,
        "kind": KIND_OF[type(rule.condition)],
        "action": rule.action.name.lower(),
        "message": rule.message,
        "source": rule.source,
        "from": "" if rule.first_day == date.min else rule.first_day.isoformat(),
        "until": "" if rule.last_day == date.max else rule.last_day.isoformat(),
    }
