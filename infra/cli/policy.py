"""`yidi policy`: check, compare and try policy documents, without any server.

The commands that publish them (`policy_publishing`, `policy_simulating`) load when asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from infra.local.processes import LocalNetworkError

if TYPE_CHECKING:
    from services.policy.domain.document import Document
    from services.policy.reading import Examined


class _Commands(TyperGroup):
    """Spares the commands that need no server the imports of those that do."""

    _HOMES: ClassVar = {
        **dict.fromkeys(("draft", "review", "publish", "retire"), "policy_publishing"),
        "simulate": "policy_simulating",
        **dict.fromkeys(("list", "show", "coverage"), "policy_publishing"),
    }

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self._HOMES]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        home = self._HOMES.get(cmd_name)
        if home is None:
            return super().get_command(ctx, cmd_name)
        group: Any = typer.main.get_command(import_module(f"infra.cli.{home}").app)
        return group.get_command(ctx, cmd_name)


app = typer.Typer(
    cls=_Commands,
    help="Check, compare, try and publish policy documents (docs/policy.md).",
    no_args_is_help=True,
    add_completion=False,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def check(
    where: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="Document, or folder.")],
    as_json: AsJson = False,
) -> None:
    """Say everything that is wrong with the documents: file, line, what to do.

    The exit code is 1 when there is an error; warnings alone leave it 0.
    """
    from services.policy.reading import NotReadable, Problem, examine, read_text

    files = _files(where)
    found: list[tuple[Path, Examined | None, tuple[Problem, ...]]] = []
    for file in files:
        try:
            examined = examine(read_text(file))
        except NotReadable as error:
            problem = Problem("error", error.line, "", error.fault)
            found.append((file, None, (problem,)))
        else:
            found.append((file, examined, examined.problems))
    problems = [(file, each) for file, _, some in found for each in some]
    problems += [(file, each) for file, each in _twice(found)]
    errors = sum(each.severity == "error" for _, each in problems)
    warnings = len(problems) - errors
    if as_json:
        told = [{"file": str(file), **each._asdict()} for file, each in problems]
        facts = {"files": len(files), "errors": errors, "warnings": warnings, "problems": told}
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        for file, each in problems:
            place = f"{file}:{each.line}" if each.line else f"{file}"
            path = f"{each.path}: " if each.path else ""
            typer.echo(f"{place}: {each.severity}: {path}{each.text}")
        names = "document" if len(files) == 1 else "documents"
        typer.echo(f"{len(files)} {names}: {errors} errors, {warnings} warnings", err=True)
    if errors:
        raise typer.Exit(1)


def _files(where: Path) -> list[Path]:
    if not where.exists():
        raise LocalNetworkError(f"{where} does not exist")
    if not where.is_dir():
        return [where]
    files = sorted(each for each in where.rglob("*") if each.suffix in (".yaml", ".yml"))
    if not files:
        raise LocalNetworkError(f"{where} holds no document (*.yaml)")
    return files


def _twice(found: list[Any]) -> Iterator[tuple[Path, Any]]:
    """One version in two files: only one of them could be published."""
    from services.policy.reading import Problem

    seen: dict[tuple[str, str, str], Path] = {}
    for file, examined, _ in found:
        document = None if examined is None else examined.document
        if document is None:
            continue
        key = (document.area, document.written.insurance, document.version)
        if key in seen:
            text = f"{' '.join(key)} stands in {seen[key]} too: give one of them another version"
            yield file, Problem("error", 1, "version", text)
        seen.setdefault(key, file)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="The document before.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The document after.")],
    as_json: AsJson = False,
) -> None:
    """Say in plain Chinese what changed from A to B, and for whom."""
    from services.policy.domain.compiling import dotted
    from services.policy.domain.differing import differences

    found = differences(_document(before), _document(after))
    if as_json:
        told = [{**each._asdict(), "path": dotted(each.path), "text": each.text} for each in found]
        typer.echo(json.dumps({"changes": told}, ensure_ascii=False, indent=1))
        return
    for each in found:
        typer.echo(f"{_MARKS[each.kind]} {each.text}")
    if not found:
        typer.echo("两份文件没有差别。")


_MARKS = {"added": "+", "removed": "-", "changed": "~", "moved": "↕"}


@app.command()
def evaluate(
    policy: Annotated[Path, typer.Option("--policy", help="The document (YAML).")],
    case: Annotated[Path, typer.Option("--case", help="The case (JSON or YAML).")],
    as_json: AsJson = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every step with its clause.")
    ] = False,
) -> None:
    """Compute CASE with POLICY: who pays what, and why.

    The exit code is 2 for a file that is wrong, 1 where the document does not decide the case.
    """
    from services.policy.cases import CaseFaults, read_case_file
    from services.policy.domain.case import CannotCompute
    from services.policy.evaluating import answer
    from services.policy.evaluating import evaluate as compute
    from services.policy.reading import NotReadable

    document = _document(policy)
    try:
        given, benefit = compute(document, read_case_file(case))
    except NotReadable as error:
        line = f":{error.line}" if error.line else ""
        raise LocalNetworkError(f"{case}{line}: MALFORMED {error.fault}") from error
    except CaseFaults as error:
        told = (f"yidi: {case}: {each.name} {each.field} {each.text}" for each in error.faults)
        typer.echo("\n".join(told), err=True)
        raise typer.Exit(2) from error
    except CannotCompute as error:
        typer.echo(f"yidi: {_refusal(error, document)}", err=True)
        raise typer.Exit(1) from error
    facts = answer(document, given, benefit)
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    from infra.cli.policy_waterfall import amounts, steps
    from infra.cli.terminal import out

    console = out()
    if explain:
        console.print(steps(document, given.case, benefit))
    console.print(amounts(document, given.case, benefit))


def _document(file: Path) -> Document:
    from services.policy.domain.canonical import DocumentError
    from services.policy.reading import read_document

    try:
        return read_document(file)
    except DocumentError as error:
        raise LocalNetworkError(str(error)) from error


def _refusal(error: Exception, document: Document) -> str:
    """Why there is no benefit, by the name that the services use."""
    from services.policy.domain import case as cases
    from services.policy.domain.opened import DiseaseNotOpened

    if isinstance(error, cases.NotStated):
        return f"POLICY_NOT_STATED {document.title} states no value for {error.missing}"
    if isinstance(error, cases.Ambiguous):
        return f"POLICY_AMBIGUOUS two rows of {document.title} hold for {error.rows}"
    if isinstance(error, DiseaseNotOpened):
        return (
            f"DISEASE_NOT_OPENED {error.disease} is not opened for cross-province settlement on "
            f"{error.day}: pay in full and claim at home (全额垫付，回参保地手工报销)"
        )
    if isinstance(error, cases.DiseaseRefused):
        return (
            f"DISEASE_NOT_COVERED {document.title} pays nothing for {error.disease}: pay in full "
            "and claim at home (全额垫付，回参保地手工报销)"
        )
    return f"{type(error).__name__} {error}"


@app.command()
def schema() -> None:
    """Print the JSON Schema of a document, for editors (docs/policy.schema.json)."""
    from services.policy.domain.schema import schema_text

    typer.echo(schema_text(), nl=False)
